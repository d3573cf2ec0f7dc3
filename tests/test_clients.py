"""What the documents say of clients is so, and the examples run as they stand."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from playwright.async_api import Page, expect

from browsing import Open
from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from documents import ROOT, SERVED, blocks, first_cells, section, text_of
from foreign import host
from pages_elsewhere import node
from processes import started
from scoreboard.api.embeds import Embed, Overlay
from scoreboard.client import Client, Receipt
from scoreboard.config import Config

CONFIG = msgspec.convert({"actions": {"point": {"points": 1}, "match-win": {"points": 10}}}, Config)
WEB = ROOT / "src" / "scoreboard" / "web"
GUIDE = "docs/clients.md"


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def server(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as client:
        for number in range(3):
            await submit(client, "cem", f"match-win:{number}")
        yield client


def here(text: str, server: httpx.AsyncClient) -> str:
    """An example, for a server that is not where the documents suppose."""
    url = str(server.base_url).rstrip("/")
    return text.replace(SERVED, url)


def tables(heading: str) -> list[list[str]]:
    """The first cells of each table below a heading of the guide."""
    parts = re.split(r"\n\n+", section(text_of(GUIDE), heading))
    return [first_cells(part) for part in parts if part.startswith("| ")]


# What there is, and what the guide says there is.


def test_the_elements_attributes_and_events_are_documented() -> None:
    attributes, events, _ = tables("## An element for any page")
    code = (WEB / "live-scoreboard.js").read_text()
    observed = re.search(r"observedAttributes = \[(.*)\]", code)
    assert observed
    themes = re.findall(r':host\(\[theme="(\w+)"\]\)', (WEB / "style.js").read_text())
    assert set(attributes) == {*re.findall(r'"(\w+)"', observed[1]), "theme", "lang"}
    assert set(themes) == {"auto", "light", "dark"}
    assert set(events) == set(re.findall(r'#tell\("(\w+)"', code))


def test_the_elements_properties_parts_and_slots_are_documented() -> None:
    *_, properties = tables("## An element for any page")
    host_rule = re.search(r":host \{(.*?)\n\}", (WEB / "style.js").read_text(), re.DOTALL)
    assert host_rule
    assert set(properties) == set(re.findall(r"^  (--[a-z0-9-]+):", host_rule[1], re.MULTILINE))

    text = section(text_of(GUIDE), "## An element for any page")
    parts = re.search(r"^Parts: (.*?)\.\n(?=Slots)", text, re.DOTALL | re.MULTILINE)
    slots = re.search(r"^Slots: (.*?)\.\n", text, re.DOTALL | re.MULTILINE)
    assert parts
    assert slots
    code = "".join((WEB / f"{name}.js").read_text() for name in ("live-scoreboard", "row", "status"))
    named = [word for found in re.findall(r'\bpart: "([\w ]+)"', code) for word in found.split()]
    toggled = re.findall(r'part\.toggle\("(\w+)"', code)
    looks = re.findall(r'\["(\w+)", [`"]', (WEB / "status.js").read_text())
    assert set(re.findall(r"`(\w+)`", parts[1])) == {*named, *toggled, *looks}
    assert set(re.findall(r"`(\w+)`", slots[1])) == set(re.findall(r'"slot", \{ name: "(\w+)"', code))


def test_the_options_of_embeds_and_overlays_are_documented() -> None:
    (embed,) = tables("## A frame in another page")
    (overlay,) = tables("## An overlay for streams and screens")
    assert set(embed) == set(Embed.__struct_fields__)
    assert set(embed + overlay) == set(Overlay.__struct_fields__)


def test_the_options_and_states_of_the_javascript_client_are_documented() -> None:
    options, states = tables("## JavaScript")
    types = (WEB / "scoreboard.d.ts").read_text()
    declared = re.search(r"interface Options \{(.*?)\n\}", types, re.DOTALL)
    named = re.search(r"type StateName = (.*);", types)
    assert declared
    assert named
    assert set(options) == set(re.findall(r"^  (\w+)\?:", declared[1], re.MULTILINE))
    assert set(states) == set(re.findall(r'"(\w+)"', named[1]))


def test_the_methods_of_the_python_client_are_documented() -> None:
    methods, _ = tables("## Python")
    assert {method.partition("(")[0] for method in methods} == {
        name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")
    }
    for method in methods:
        name, _, parameters = method.rstrip(")").partition("(")
        known = inspect.signature(getattr(Client, name)).parameters
        for parameter in parameters.split(", "):
            word, _, default = parameter.partition("=")
            assert default in ("", repr(known[word].default))
            assert bool(default) == (known[word].default is not inspect.Parameter.empty)
    row = re.search(r"^\| `submit\(.*$", text_of(GUIDE), re.MULTILINE)
    assert row
    assert set(Receipt.__struct_fields__) <= set(re.findall(r"`(\w+)`", row[0]))


# The examples


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md", GUIDE, "examples/embed.html"])
async def test_the_element_as_it_is_shown_works(
    server: httpx.AsyncClient, visit: Open, document: str
) -> None:
    html = text_of(document) if document.endswith(".html") else blocks(document, "html")[0]
    async with host(here(html, server)) as url:
        page = await visit(url, server=str(server.base_url))
        await expect(page.locator("live-scoreboard tbody .name").first).to_have_text("cem")
        await expect(page.locator("#link")).to_have_text("Live")


async def test_the_frame_as_it_is_shown_works(server: httpx.AsyncClient, visit: Open) -> None:
    async with host(here(blocks(GUIDE, "html")[1], server)) as url:
        page = await visit(url, server=str(server.base_url))
        await expect(page.frame_locator("iframe").locator("tbody .name")).to_have_text("cem")


async def test_the_overlay_as_it_is_shown_works(server: httpx.AsyncClient, visit: Open) -> None:
    (address,) = blocks(GUIDE, "text")
    page = await visit(here(address, server).strip())
    await expect(page.locator("tbody .name")).to_have_text("cem")


async def test_the_looks_and_the_token_as_they_are_shown_work(
    server: httpx.AsyncClient, deployment: Deployment, visit: Open
) -> None:
    (style,) = blocks(GUIDE, "css")
    html = blocks(GUIDE, "html")[0] + f"<style>{style}</style>"
    async with host(here(html, server), token=deployment.token("cem")) as url:
        page = await visit(url, server=str(server.base_url))
        said = listening(page)
        await page.add_script_tag(content=blocks(GUIDE, "js")[0], type="module")
        assert await said.get() == "1 null"
        await expect(page.locator("#you")).to_have_text("You: rank 1 · 30 points · at the top")
        ground = await page.locator("tbody tr").evaluate("(one) => getComputedStyle(one).backgroundColor")
        assert ground == "rgb(255, 215, 0)"


async def test_the_javascript_client_as_it_is_shown_works(server: httpx.AsyncClient, visit: Open) -> None:
    async with host("") as url:
        page = await visit(url, server=str(server.base_url))
        said = listening(page)
        await page.add_script_tag(content=here(blocks(GUIDE, "js")[1], server), type="module")
        assert [await said.get() for _ in range(3)] == ["connecting", "live", "1. cem 30"]


async def test_fifteen_lines_are_a_client(server: httpx.AsyncClient, visit: Open) -> None:
    code = text_of("examples/watch.mjs")
    assert len(code.splitlines()) <= 15
    address = f"{server.base_url}/boards/main/live".replace("http", "ws", 1)
    async with host("") as url:
        page = await visit(url, server=str(server.base_url))
        said = listening(page)
        script = f"{code}\nwatch('{address}', (rows) => console.log(rows.map((row) => row.name).join()));"
        await page.add_script_tag(content=script, type="module")
        assert await said.get() == "cem"


async def test_they_take_newer_boards_alone_and_come_back_when_they_are_told() -> None:
    script = (
        text_of("examples/watch.mjs")
        + """
      const told = [], sockets = [];
      globalThis.WebSocket = class { constructor() { sockets.push(this); } };
      globalThis.setTimeout = (call, ms, ...more) => { told.push(ms); call(...more); };
      watch("ws://somewhere", (rows) => told.push(rows));
      const say = (message) => sockets.at(-1).onmessage({ data: JSON.stringify(message) });
      const board = (epoch, seq) => say({ type: "board", epoch, seq, top: epoch + seq });
      board("a", 2); board("a", 1); board("a", 2); say({ type: "heartbeat" }); board("b", 1);
      say({ type: "bye", code: 4001, retryAfter: 1234 });
      sockets.at(-1).onclose({ code: 4001 });
      board("b", 1); board("b", 2);
      sockets.at(-1).onclose({ code: 4404 });
      console.log(JSON.stringify(told));
    """
    )
    process = await asyncio.create_subprocess_exec(*node(script), stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert msgspec.json.decode(out) == ["a2", "b1", 1234, "b2"]


def listening(page: Page) -> asyncio.Queue[str]:
    """What the page says on its console from now on."""
    said: asyncio.Queue[str] = asyncio.Queue()
    page.on("console", lambda message: said.put_nowait(message.text))
    return said


async def test_the_python_client_as_it_is_shown_works(
    server: httpx.AsyncClient, deployment: Deployment
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()

    def note(*words: Any) -> None:
        said.put_nowait(" ".join(map(str, words)))

    (code,) = blocks(GUIDE, "python")
    names: dict[str, Any] = {"Client": Client, "print": note, "key": deployment.key}
    exec("async def run():\n" + textwrap.indent(here(code, server), "    "), names)  # noqa: S102  our own words
    running = asyncio.create_task(names["run"]())
    async with asyncio.timeout(SECONDS):
        assert await said.get() == "applied 2"
        assert await said.get() == "cem 30"
    running.cancel()
    await asyncio.wait([running])


async def test_the_example_plays(deployment: Deployment, server: httpx.AsyncClient, tmp_path: Path) -> None:
    code = text_of("examples/play.py")
    assert blocks("README.md", "python") == [code.partition("\n\n")[2]]
    program = (sys.executable, str(ROOT / "examples" / "play.py"), str(server.base_url), deployment.key)
    async with started(cwd=tmp_path, program=program) as playing:
        assert playing.process.stdout is not None
        for expected in (r"applied \d+", r"1\. cem 30  2\. ann \d+.*"):
            line = await asyncio.wait_for(playing.process.stdout.readline(), SECONDS)
            assert re.fullmatch(expected, line.decode().rstrip("\n"))
