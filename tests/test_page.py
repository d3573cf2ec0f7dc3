"""The page at ``/`` in headless Chromium, on the real system: what it shows, to everybody.

Where a test needs frames that no small system produces, it stands between the page and the server (``Wire``);
everything else is real.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from browsing import SCREENSHOTS, Open, Wire, at_rest, low_contrast, moving
from the_page import BOARD, EMPTY, System, link, order, rename, row, rows, score, system, users

__all__ = ["system"]

STEP = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


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
