"""The connection of the page at ``/``: how its loss is shown, and how it comes back.

Where a test needs it to fail in a certain way it stands between the page and the server (``Wire``).
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import expect

from browsing import Open, Wire
from the_page import BOARD, EMPTY, System, link, row, rows, score, system, users

__all__ = ["system"]


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
