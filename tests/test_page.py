"""The page at ``/`` in headless Chromium, on the real system.

Where a test needs the connection to fail in a certain way, or frames that no small system produces, it stands
between the page and the server (``Wire``); everything else is real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from playwright.async_api import Locator, Page, Request, Route, expect

from browsing import Open, Wire, at_rest, low_contrast, moving
from deployment import Deployment
from scoreboard.config import Config
from scoreboard.engines import Urls

BOARD = "page"
EMPTY = "empty"
GOAL = "goal"
CONFIG = msgspec.convert(
    {
        "actions": {GOAL: {"points": 10}, "never": {"points": 1}},
        "boards": {
            BOARD: {"title": 'The "page\'s" <own> board', "top": 100, "actions": [GOAL]},
            EMPTY: {"actions": ["never"]},
        },
    },
    Config,
)
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
STEP = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
numbers = itertools.count(1)


class System(NamedTuple):
    """The running system, as these tests use it."""

    url: str
    """Without a slash at the end."""
    key: str
    """A service's key with ``score:write``."""


@pytest.fixture(scope="module")
async def system(engine_urls: Urls) -> AsyncIterator[System]:
    """All roles on the real engines, with boards that only these tests score on."""
    deployment = Deployment(engine_urls, CONFIG, f"page_{os.getpid()}")
    await deployment.prepare()
    try:
        async with deployment.running() as client:
            yield System(str(client.base_url).rstrip("/"), deployment.key)
    finally:
        await deployment.close()


@pytest.fixture(scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of ``scoreboard up --demo``."""
    data = tmp_path_factory.mktemp("demo")
    program = Path(sys.executable).with_name("scoreboard")
    process = await asyncio.create_subprocess_exec(
        program, "up", "--demo", "--host", "127.0.0.1", "--port", "0", "--data", data,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                if line.startswith(b"ready"):
                    break
            else:
                pytest.fail("scoreboard up --demo ended before it was ready")
        url = re.search(r"http://\S+", line.decode())
        assert url is not None
        yield url[0].rstrip("/")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


def users(*names: str) -> list[str]:
    """User ids that no other test uses, one for each word."""
    return [f"page-{next(numbers)}-{name}" for name in names]


async def score(system: System, user: str, goals: int = 1) -> None:
    """Score so many goals, and return when they are on the board."""
    async with httpx.AsyncClient(base_url=system.url, timeout=30) as client:
        for _ in range(goals):
            answer = await client.post(
                "/update-score",
                headers={"Authorization": f"Bearer {system.key}", "Prefer": "wait=10"},
                json={"userId": user, "actionId": f"{GOAL}:{next(numbers)}-{user}"},
            )
            assert answer.json()["status"] == "applied", answer.text


async def rename(system: System, user: str, name: str) -> None:
    async with httpx.AsyncClient(base_url=system.url, timeout=30) as client:
        headers = {"Authorization": f"Bearer {system.key}"}
        answer = await client.put(f"/users/{user}", headers=headers, json={"name": name})
        assert answer.is_success, answer.text


def rows(page: Page) -> Locator:
    return page.locator("#rows > tr:not(.leaving)")


def row(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.locator(".name").get_by_text(name, exact=True))


async def order(page: Page, *names: str) -> list[str]:
    """Those of the names that are on the board, in the board's order."""
    return [name for name in await rows(page).locator(".name").all_text_contents() if name in names]


def own(page: Page) -> Locator:
    return page.locator("#you")


def link(page: Page) -> Locator:
    return page.locator("#link")


# What is shown


async def test_the_board_is_there_at_once_and_says_what_it_is(system: System, visit: Open) -> None:
    [ann] = users("ann")
    await score(system, ann, 2)
    page = await visit(f"{system.url}/?board={BOARD}")
    await expect(row(page, ann).locator(".score")).to_have_text("20")
    await expect(link(page)).to_have_text("Live")
    board = (await httpx_json(f"{system.url}/boards"))["boards"]
    title = next(one["title"] for one in board if one["board"] == BOARD)
    await expect(page).to_have_title(title)
    await expect(page.get_by_role("heading", level=1)).to_have_text(title)
    total = (await httpx_json(f"{system.url}/boards/{BOARD}"))["total"]
    await expect(page.locator("#players")).to_have_text(f"{total} player{'s' * (total != 1)}")
    await expect(page.locator("#updated")).to_have_text(re.compile(r"^Updated .*\d+:\d\d:\d\d"))
    await expect(page.locator(".board")).to_have_attribute("aria-busy", "false")


async def test_a_score_moves_a_row_to_its_new_place(system: System, visit: Open) -> None:
    rival, mover = users("rival", "mover")
    await score(system, rival, 2)
    await score(system, mover, 1)
    page = await visit(f"{system.url}/?board={BOARD}")
    await expect(row(page, mover).locator(".score")).to_have_text("10")
    await at_rest(page)
    assert await order(page, rival, mover) == [rival, mover]
    before = await row(page, mover).bounding_box()

    await score(system, mover, 2)
    await expect(row(page, mover).locator(".score")).to_have_text("30")
    await expect(row(page, mover).locator(".mark")).to_contain_text("up")
    await expect(row(page, rival).locator(".mark")).to_contain_text("down")
    assert await order(page, rival, mover) == [mover, rival]
    assert await page.evaluate("window.animations") > 0
    await at_rest(page)
    after = await row(page, mover).bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] < before["y"]
    await expect(row(page, rival).locator(".score")).to_have_text("20")


async def test_names_are_text_and_nothing_but_text(system: System, visit: Open) -> None:
    names = [
        "<img src=x onerror=alert(1)>",
        '"><script>alert(2)</script>',
        "javascript:alert(3)",
        "محمد بن عبد الله",
        "שלום (1) עולם",
        "🏆🎉 Þórunn & Søren 🎉🏆",
        "W" * 64,
        "{{7*7}}${7*7}%00&lt;b&gt;",
    ]
    ids = users(*(f"name{place}" for place in range(len(names))))
    for user, name in zip(ids, names, strict=True):
        await score(system, user)
        await rename(system, user, name)
    page = await visit(f"{system.url}/?board={BOARD}")
    for name in names:
        await expect(row(page, name)).to_have_count(1)
        await expect(row(page, name).locator(".name")).to_have_attribute("title", name)
    assert await page.locator("#rows img, #rows script").count() == 0
    wide = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wide, "a long name must not widen the page"
    await rename(system, ids[0], "<b>renamed</b>")
    await expect(row(page, "<b>renamed</b>")).to_have_count(1)


async def test_an_empty_board_says_how_to_send_a_first_score(system: System, visit: Open) -> None:
    page = await visit(f"{system.url}/?board={EMPTY}")
    await expect(page.get_by_role("heading", name="No scores yet")).to_be_visible()
    await expect(page.get_by_text(f"curl {system.url}/update-score")).to_be_visible()
    await expect(page.get_by_role("table")).to_have_count(0)
    await expect(page.locator("#players")).to_have_text("0 players")


async def test_scores_of_any_size_are_exact_and_many_rows_fit(system: System, visit: Open) -> None:
    wire = Wire()
    wire.real = False
    page = await visit(f"{system.url}/?board={BOARD}", wire, viewport={"width": 360, "height": 740})
    await wire.connections(1)
    most = 2**53 - 1
    wire.show([("Rich", most), ("Zero", 0), ("Poor", -most)], seq=1, total=58213)
    await expect(row(page, "Rich").locator(".score")).to_have_text("9,007,199,254,740,991")
    await expect(row(page, "Zero").locator(".score")).to_have_text("0")
    await expect(row(page, "Poor").locator(".score")).to_have_text("-9,007,199,254,740,991")
    await expect(page.locator("#players")).to_have_text("58,213 players")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # From one end of the range to the other: counts, and ends on the number.
    wire.show([("Poor", most), ("Zero", 0), ("Rich", -most)], seq=2)
    await expect(row(page, "Poor").locator(".score")).to_have_text("9,007,199,254,740,991")
    await expect(row(page, "Rich").locator(".score")).to_have_text("-9,007,199,254,740,991")
    wire.show([(f"Player {place}", 1000 - place) for place in range(100)], seq=3)
    await expect(rows(page)).to_have_count(100)
    await expect(rows(page).last.locator(".number")).to_have_text("100")


async def test_a_storm_of_frames_ends_on_the_last_one(system: System, visit: Open) -> None:
    wire = Wire()
    wire.real = False
    page = await visit(f"{system.url}/?board={BOARD}", wire)
    await wire.connections(1)
    names = [f"Player {place}" for place in range(14)]
    scores = dict.fromkeys(names, 0)
    top: list[tuple[str, int]] = []
    for seq in range(1, 121):
        scores[names[seq * 5 % 14]] += seq % 7 * 10
        top = sorted(scores.items(), key=lambda item: -item[1])[:10]
        wire.show(top, seq)
        if seq % 10 == 0:
            await page.evaluate(STEP)
    await expect(rows(page).locator(".score")).to_have_text([f"{score:,}" for _, score in top])
    await expect(rows(page).locator(".name")).to_have_text([name for name, _ in top])
    await at_rest(page)
    await expect(page.locator("#rows > tr")).to_have_count(10)
    boxes = [await one.bounding_box() for one in await rows(page).all()]
    tops = [box["y"] for box in boxes if box]
    assert tops == sorted(tops)


# The connection


async def test_a_lost_connection_is_shown_and_comes_back_with_the_newest_board(
    system: System, visit: Open
) -> None:
    [ann] = users("lost")
    await score(system, ann)
    wire = Wire()
    page = await visit(f"{system.url}/?board={BOARD}", wire)
    await expect(link(page)).to_have_text("Live")
    await expect(row(page, ann).locator(".score")).to_have_text("10")

    wire.closes_with = 4002
    await wire.cut(4002)
    await expect(link(page)).to_have_text(re.compile("Reconnecting|Offline"))
    await expect(page.locator("#updated")).to_contain_text("Last update")
    await score(system, ann, 3)
    await expect(row(page, ann).locator(".score")).to_have_text("10")

    wire.closes_with = None
    await page.evaluate("dispatchEvent(new Event('online'))")
    await expect(link(page)).to_have_text("Live", timeout=30_000)
    await expect(row(page, ann).locator(".score")).to_have_text("40")
    await expect(page.locator("#updated")).to_contain_text("Updated")


async def test_reconnecting_resumes_from_the_board_it_has(system: System, visit: Open) -> None:
    wire = Wire()
    wire.real = False
    page = await visit(f"{system.url}/?board={BOARD}", wire)
    await wire.connections(1)
    assert urlsplit(wire.urls[0]).query == ""
    wire.show([("Ann", 10)], seq=7, epoch="k3")
    await expect(row(page, "Ann")).to_be_visible()
    await wire.cut(1001)
    await wire.connections(2)
    assert parse_qs(urlsplit(wire.urls[1]).query) == {"epoch": ["k3"], "seq": ["7"]}
    await expect(link(page)).not_to_have_text("Live")
    wire.say(type="heartbeat", board=BOARD, epoch="k3", seq=7)
    await expect(link(page)).to_have_text("Live")
    # Older or the same is not taken; another epoch is, whatever its seq.
    await page.evaluate(
        """() => {
          window.came = [];
          const board = document.querySelector("live-scoreboard");
          const name = (row) => row.querySelector(".name").textContent;
          new MutationObserver((records) => {
            for (const { addedNodes } of records) window.came.push(...[...addedNodes].map(name));
          }).observe(board.shadowRoot.getElementById("rows"), { childList: true });
        }"""
    )
    wire.show([("Ann", 5), ("Old", 1)], seq=6, epoch="k3")
    wire.show([("Ann", 6), ("Same", 1)], seq=7, epoch="k3")
    wire.show([("Ann", 11), ("Bob", 1)], seq=8, epoch="k3")
    await expect(rows(page).locator(".score")).to_have_text(["11", "1"])
    wire.show([("Cem", 3)], seq=1, epoch="k4")
    await expect(rows(page).locator(".name")).to_have_text(["Cem"])
    assert {"Old", "Same"}.isdisjoint(await page.evaluate("window.came"))


@pytest.mark.parametrize(
    "event",
    [
        "window.dispatchEvent(new Event('online'))",
        "document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))",
    ],
)
async def test_a_long_wait_ends_when_the_network_or_the_reader_is_back(
    system: System, visit: Open, event: str
) -> None:
    wire = Wire()
    page = await visit(f"{system.url}/?board={EMPTY}", wire, clock=True)
    await expect(link(page)).to_have_text("Live")
    await page.evaluate("Math.random = () => 0.999")
    wire.closes_with = 4002
    await wire.cut(4002)
    await expect(link(page)).to_contain_text("Reconnecting in")
    async with asyncio.timeout(30):
        while not re.fullmatch(r"Offline, trying again in (20|19) s", await link(page).inner_text()):
            await page.clock.run_for(1_000)
    attempts = len(wire.urls)
    assert attempts > 4
    wire.closes_with = None
    await page.evaluate(event)
    await expect(link(page)).to_have_text("Live")
    assert len(wire.urls) == attempts + 1


async def test_a_silent_connection_is_given_up(system: System, visit: Open) -> None:
    wire = Wire()
    page = await visit(f"{system.url}/?board={EMPTY}", wire, clock=True)
    await expect(link(page)).to_have_text("Live")
    wire.deaf = True
    await page.clock.run_for(29_000)
    await expect(link(page)).to_have_text("Live")
    assert len(wire.urls) == 1
    wire.deaf = False
    await page.clock.run_for(2_000)
    await wire.connections(2)
    await expect(link(page)).to_have_text("Live")


async def test_a_server_that_says_when_to_come_back_is_obeyed(system: System, visit: Open) -> None:
    wire = Wire()
    page = await visit(f"{system.url}/?board={EMPTY}", wire, clock=True)
    await expect(link(page)).to_have_text("Live")
    wire.say(type="bye", code=4001, retryAfter=40_000)
    await wire.cut(4001)
    await expect(link(page)).to_have_text(re.compile(r"Reconnecting in (40|39) s"))
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.clock.run_for(35_000)
    await expect(link(page)).to_have_text(re.compile(r"Reconnecting in [1-5] s"))
    assert len(wire.urls) == 1
    await page.clock.run_for(6_000)
    await wire.connections(2)
    await expect(link(page)).to_have_text("Live")


async def test_a_refusal_for_good_is_explained_and_not_repeated(system: System, visit: Open) -> None:
    wire = Wire()
    wire.closes_with = 4403
    page = await visit(f"{system.url}/?board={BOARD}", wire, clock=True)
    await expect(link(page)).to_have_text("Stopped")
    await expect(page.get_by_text("Watching this board is not allowed from here.").first).to_be_visible()
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.clock.run_for(120_000)
    assert len(wire.urls) == 1


async def test_back_off_is_random_and_never_over_20_seconds(system: System, visit: Open) -> None:
    wire = Wire()
    page = await visit(f"{system.url}/?board={EMPTY}", wire)
    await expect(link(page)).to_have_text("Live")
    delays = await page.evaluate(
        """async () => {
          const { backoff } = await import("/web/scoreboard.js");
          return [0, 1, 3, 6, 40].map((tries) => Array.from({ length: 400 }, () => backoff(tries)));
        }"""
    )
    for most, found in zip((500, 1_000, 4_000, 20_000, 20_000), delays, strict=True):
        assert 0 <= min(found) < most * 0.1
        assert most * 0.9 < max(found) <= most


async def test_the_client_module_works_alone_and_ends_when_told(system: System, visit: Open) -> None:
    [ann] = users("alone")
    await score(system, ann)
    wire = Wire()
    page = await visit(f"{system.url}/?board={EMPTY}", wire)
    await expect(link(page)).to_have_text("Live")
    seen = await page.evaluate(
        """async (board) => {
          const { watch } = await import("/web/scoreboard.js");
          const states = [];
          return new Promise((done) => {
            const watching = watch(board, {
              onState: ({ state }) => states.push(state),
              onFrame: (frame) => {
                watching.close();
                watching.close();
                done({ states, type: frame.type, rows: frame.top.length });
              },
            });
          });
        }""",
        BOARD,
    )
    assert seen["states"] == ["connecting", "live", "closed"]
    assert seen["type"] == "board"
    assert seen["rows"] > 0


async def test_a_board_that_does_not_exist_is_said_to_be_missing(system: System, visit: Open) -> None:
    page = await visit(f"{system.url}/?board=no-such-board")
    await expect(page.get_by_role("heading", name="There is no such board")).to_be_visible()
    boards = page.get_by_role("navigation", name="Boards").get_by_role("link")
    assert await boards.count() >= 2
    await boards.first.click()
    await expect(link(page)).to_have_text("Live")


# For everybody


async def test_the_board_has_names_and_roles(system: System, visit: Open) -> None:
    [ann] = users("roles")
    await score(system, ann)
    page = await visit(f"{system.url}/?board={BOARD}")
    await expect(link(page)).to_have_text("Live")
    title = await page.get_by_role("heading", level=1).text_content()
    assert title
    table = page.get_by_role("table", name=title)
    await expect(table.get_by_role("columnheader")).to_have_text(["Rank", "Player", "Score"])
    await expect(table.get_by_role("rowheader", name=ann)).to_be_visible()
    line = table.get_by_role("row").filter(has=page.get_by_role("rowheader", name=ann))
    await expect(line.get_by_role("cell")).to_have_count(2)
    await expect(page.get_by_role("main")).to_have_count(1)
    await expect(page.get_by_role("link", name=title)).to_have_attribute("aria-current", "page")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await expect(page.locator("#announcer")).to_have_text(re.compile(r"leads with \d+; \d+ players?\."))


async def test_news_is_told_calmly(system: System, visit: Open) -> None:
    wire = Wire()
    wire.real = False
    page = await visit(f"{system.url}/?board={BOARD}", wire, clock=True)
    await page.evaluate(
        """() => {
          window.told = [];
          const region = document.querySelector("live-scoreboard").shadowRoot.getElementById("announcer");
          const tell = () => window.told.push(region.textContent.replace(/[\\u2066-\\u2069]/g, ""));
          new MutationObserver(tell).observe(region, { childList: true });
        }"""
    )
    await wire.connections(1)
    wire.show([("Ann", 100), ("Bob", 90), ("Cem", 80)], seq=1)
    await page.wait_for_function("window.told.length === 1")
    for seq in range(2, 40):
        wire.show([("Ann", 100 * seq), ("Cem", 90 * seq), ("Bob", 80)], seq)
    await expect(row(page, "Ann").locator(".score")).to_have_text("3,900")
    assert await page.evaluate("window.told") == ["Ann leads with 100; 3 players."]
    await page.clock.run_for(10_000)
    assert await page.evaluate("window.told.at(-1)") == "Ann leads with 3,900; Cem rose to 2nd."
    wire.show([("Ann", 5_000), ("Cem", 4_000), ("Bob", 80)], seq=40)
    await page.clock.run_for(12_000)
    assert await page.evaluate("window.told.length") == 2, "nobody moved: nothing to tell"


async def test_the_keyboard_reaches_everything(system: System, visit: Open) -> None:
    page = await visit(f"{system.url}/?board={BOARD}")
    await expect(link(page)).to_have_text("Live")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the board")).to_be_focused()
    boards = page.get_by_role("navigation", name="Boards").get_by_role("link")
    for place in range(await boards.count()):
        await page.keyboard.press("Tab")
        await expect(boards.nth(place)).to_be_focused()
        outline = await boards.nth(place).evaluate("one => getComputedStyle(one).outlineStyle")
        assert outline == "solid"
        whole = await boards.nth(place).evaluate(
            """(one) => {
              const { outlineWidth, outlineOffset } = getComputedStyle(one);
              const [ring, around] = [one, one.closest("ul")].map((each) => each.getBoundingClientRect());
              const room = Math.min(ring.top - around.top, around.bottom - ring.bottom);
              return room >= parseFloat(outlineWidth) + parseFloat(outlineOffset);
            }"""
        )
        assert whole, "what scrolls cuts nothing off the ring"
    await page.get_by_role("link", name="Skip to the board").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#board")).to_be_focused()


async def test_nothing_moves_for_those_who_want_it_still(system: System, visit: Open) -> None:
    rival, mover = users("still-rival", "still-mover")
    await score(system, rival, 2)
    await score(system, mover, 1)
    page = await visit(f"{system.url}/?board={BOARD}", reduced_motion="reduce")
    await expect(row(page, mover).locator(".score")).to_have_text("10")
    await score(system, mover, 2)
    await expect(row(page, mover).locator(".score")).to_have_text("30")
    await expect(row(page, mover).locator(".mark")).to_contain_text("up")
    assert await order(page, rival, mover) == [mover, rival]
    assert await page.evaluate("window.animations") == 0
    assert await moving(page) == 0


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1280, 800), (360, 740), (1920, 1080)])
async def test_it_fits_the_screen_in_dark_and_light(
    system: System, visit: Open, scheme: str, size: tuple[int, int]
) -> None:
    [ann] = users("screen")
    await score(system, ann)
    width, height = size
    viewport = {"width": width, "height": height}
    page = await visit(f"{system.url}/?board={BOARD}", viewport=viewport, color_scheme=scheme)
    await expect(row(page, ann)).to_be_attached()
    await at_rest(page)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await low_contrast(page) == []
    SCREENSHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"page-{scheme}-{width}.png")


# What is sent with it


async def test_the_page_is_served_under_a_strict_policy(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.url) as client:
        for path in ("/", "/web/page.js", "/web/page.css", "/web/icon.svg"):
            answer = await client.get(path)
            assert answer.status_code == 200
            policy = dict(part.strip().partition(" ")[::2] for part in policy_of(answer).split(";") if part)
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["base-uri"] == policy["form-action"] == "'none'"
            assert "unsafe" not in policy_of(answer)
            assert answer.headers["x-content-type-options"] == "nosniff"


def policy_of(answer: httpx.Response) -> str:
    return str(answer.headers["content-security-policy"])


async def httpx_json(url: str) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).json()


# The demo


async def test_a_visitor_takes_part_with_the_keyboard(demo: str, visit: Open) -> None:
    page = await visit(demo)
    await page.bring_to_front()  # a page behind another has no focus to give
    name = page.get_by_label("Your name on the board")
    await expect(name).to_be_visible()  # what is hidden takes no focus, and nobody says so
    await name.focus()
    await page.keyboard.type("Zoë <the> Visitor")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Join")).to_be_focused()
    await page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Score!")
    await expect(button).to_be_focused()
    await expect(page.locator("#player")).to_have_text("Zoë <the> Visitor")
    await expect(own(page)).to_have_text("You have no score yet")
    await page.keyboard.press("Enter")
    await expect(page.locator("#outcome")).to_have_text(re.compile(r"^Counted: 10 points(, rank \d+)?\.$"))
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 10 points · .+"))
    await page.keyboard.press("Space")
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 20 points · .+"))
    assert await page.evaluate("localStorage.length") == 0
    assert await page.evaluate("sessionStorage.length") == 1

    await page.reload()
    await expect(page.locator("#player")).to_have_text("Zoë <the> Visitor")
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 20 points"))
    await page.get_by_role("button", name="Leave").click()
    await expect(name).to_be_focused()
    await expect(own(page)).to_be_hidden()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_the_token_never_is_in_an_address(demo: str, visit: Open) -> None:
    page = await visit(demo)
    sent: list[Request] = []

    def note(request: Request) -> None:
        sent.append(request)

    page.on("request", note)
    await join(page, "Yves")
    await page.get_by_role("button", name="Score!").click()
    await expect(own(page)).to_contain_text("10 points")
    bearer = [await one.header_value("authorization") for one in sent if "update-score" in one.url]
    assert len(bearer) == 1
    assert bearer[0] is not None
    token = bearer[0].removeprefix("Bearer ")
    assert len(token) > 20
    assert all(token not in one.url for one in sent)


async def test_a_try_that_failed_is_sent_again_and_counts_once(demo: str, visit: Open) -> None:
    page = await visit(demo, lost="ERR_CONNECTION_RESET")
    tries: list[str] = []

    async def lose_the_answer(route: Route) -> None:
        tries.append(json.loads(route.request.post_data or "")["actionId"])
        if len(tries) == 1:
            await route.fetch()  # counted, but the answer is lost on its way
            await route.abort("connectionreset")
        else:
            await route.continue_()

    await join(page, "Again")
    await page.route("**/update-score", lose_the_answer)
    await page.get_by_role("button", name="Score!").click()
    await expect(page.locator("#outcome")).to_contain_text("Counted: 10 points", timeout=15_000)
    await expect(own(page)).to_contain_text("· 10 points")
    assert len(tries) == 2
    assert tries[0] == tries[1]


async def join(page: Page, name: str) -> None:
    await page.get_by_label("Your name on the board").fill(name)
    await page.get_by_role("button", name="Join").click()
    await expect(page.get_by_role("button", name="Score!")).to_be_visible()
