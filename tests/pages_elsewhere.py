"""For the tests of the JavaScript client: pages of another host than its server, and what they are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import playwright
import pytest
from playwright.async_api import Page

from browsing import Open
from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from gate import Gate, gate
from scoreboard.config import Config

WEB = Path(__file__).parent.parent / "src" / "scoreboard" / "web"
NODE = Path(playwright.__file__).parent / "driver" / "node"


# Each test has a board to itself, on which the action of the same name counts.
BOARDS = [f"board-{number}" for number in range(16)]


SECRETS = {transport: f"secret-{transport}" for transport in ("websocket", "events", "polling")}
CONFIG = msgspec.convert(
    {
        "actions": {name: {"points": 1} for name in (*BOARDS, *SECRETS.values())},
        "boards": {name: {"actions": [name]} for name in BOARDS}
        | {name: {"actions": [name], "public": False} for name in SECRETS.values()},
    },
    Config,
)
LOST = "Failed to load resource|WebSocket connection to .* failed"


# What a page does with the client; `news` is all it was told, in order.
WATCH = """
async ({ server, board, tokens, ...options }) => {
  const { watch } = await import(`${server}/web/scoreboard.js`);
  window.news = [];
  window.calls = 0;
  if (tokens) options.token = async () => tokens[Math.min(window.calls++, tokens.length - 1)];
  const note = (kind) => (told) => window.news.push({ kind, ...told });
  const ears = { onFrame: note("frame"), onYou: note("you"), onState: note("state") };
  window.watching = watch(board, { ...options, ...ears });
}
"""


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def server(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as client:
        yield client


@pytest.fixture
async def way(server: httpx.AsyncClient) -> AsyncIterator[Gate]:
    async with gate(str(server.base_url)) as standing:
        yield standing


@pytest.fixture
def board() -> str:
    return BOARDS.pop()


async def elsewhere(visit: Open, server: httpx.AsyncClient, way: Gate, **how: Any) -> Page:
    """A page of another host than the client's, under no policy of ours."""
    url = str(server.base_url).rstrip("/") + "/health/live"
    return await visit(url, server=way.url, lost=LOST, **how)


async def begin(page: Page, way: Gate, board: str, **options: Any) -> None:
    await page.evaluate(WATCH, {"server": way.url, "board": board, **options})


async def told(page: Page, condition: str) -> Any:
    """The first news for which the JavaScript expression (of ``one``) holds, once there is."""
    look = f"() => window.news.find((one) => {condition})"
    found = await page.wait_for_function(look, timeout=SECONDS * 1000)
    return await found.json_value()


async def states(page: Page) -> list[str]:
    found: list[dict[str, Any]] = await page.evaluate("window.news")
    return [one["state"] for one in found if one["kind"] == "state"]


def top_is(*names: str) -> str:
    return (
        f"one.kind === 'frame' && one.top.map((line) => line.name).join() === {json.dumps(','.join(names))}"
    )


def live_by(transport: str) -> str:
    return f"one.state === 'live' && one.transport === '{transport}'"


def node(script: str, *flags: str, **given: str) -> tuple[str, ...]:
    """A program for Node.js, as a module."""
    values = "".join(f"const {name} = {json.dumps(value)};" for name, value in given.items())
    return (str(NODE), *flags, "--input-type=module", "-e", values + script)


async def passing(page: Page, server: httpx.AsyncClient, board: str, seconds: int, scored: int = 0) -> int:
    """Let the page's time pass, while something happens on the board: a silent line would be given up."""
    for _ in range(0, seconds, 15):
        await page.clock.run_for(min(15, seconds) * 1000)
        seconds -= 15
        scored += 1
        await submit(server, "ann", f"{board}:{scored}")
        await told(page, f"one.kind === 'frame' && one.top[0]?.score === {scored}")
    return scored


async def look(page: Page, visibility: str) -> None:
    """Hide the tab, or show it: headless pages are always visible, so the page is told so."""
    await page.evaluate(
        """(visibility) => {
          Object.defineProperty(document, "visibilityState", { value: visibility, configurable: true });
          document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
        }""",
        visibility,
    )
