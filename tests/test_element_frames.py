"""The pages ``/embed`` and ``/overlay``, and that a board keeps its place in any frame."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.async_api import expect

from browsing import SCREENSHOTS, Open, Wire, at_rest, low_contrast
from embedding import Foreign, address, deployment, foreign, names, server

__all__ = ["deployment", "foreign", "server"]

# What does not fit, and what must not move


MOST = 2**53 - 1
STALE = {"type": "heartbeat", "board": "main", "epoch": "e1", "seq": 1, "stale": True}


@pytest.mark.parametrize("width", [260, 300, 390, 600, 700])
async def test_an_embed_of_any_width_keeps_its_place_when_something_is_wrong(
    server: httpx.AsyncClient, visit: Open, width: int
) -> None:
    wire = Wire("main")
    wire.real = False
    page = await visit(
        f"{address(server)}/embed/main?heading=All+time",
        wire,
        viewport={"width": width, "height": 500},
        reduced_motion="reduce",
    )
    await wire.connections(1)
    wire.show([("Ann", MOST), ("Bob", -MOST)], seq=1, total=58_213)
    await expect(page.locator("#link")).to_have_text("Live")
    rows, title = page.locator("tbody"), page.locator("h2")
    before = await rows.bounding_box(), await title.bounding_box()
    wire.say(**STALE)
    await expect(page.locator("#link")).to_have_text("Reconnecting to the board")
    assert (await rows.bounding_box(), await title.bounding_box()) == before
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in ("#link", ".score >> nth=0", ".score >> nth=1"):
        box = await page.locator(part).bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width - 12  # the frame's padding
    assert before[1] is not None
    assert before[1]["height"] < 50, "the title is in one line"


async def test_a_long_score_in_a_small_frame_leaves_room_for_the_name(
    server: httpx.AsyncClient, visit: Open
) -> None:
    wire = Wire("main")
    wire.real = False
    page = await visit(f"{address(server)}/embed/main", wire, viewport={"width": 300, "height": 500})
    await wire.connections(1)
    wire.show([("Ann Example", 1_358_017), ("Bob Builder", 1_300_000), ("Charlie Chaplin", 99)], seq=1)
    await expect(names(page)).to_have_count(3)
    for name in await names(page).all():
        assert await name.evaluate("(one) => one.scrollWidth <= one.clientWidth")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
@pytest.mark.parametrize("query", ["valign=top", "valign=bottom", "valign=middle&rows=5"])
async def test_all_rows_of_an_overlay_fit_the_picture(
    server: httpx.AsyncClient, visit: Open, width: int, height: int, query: str
) -> None:
    wire = Wire("main")
    wire.real = False
    page = await visit(
        f"{address(server)}/overlay/main?{query}",
        wire,
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
    )
    await wire.connections(1)
    wire.show([(f"Player {place}", MOST - place) for place in range(10)], seq=1)
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(5 if "rows" in query else 10)
    before = [await row.bounding_box() for row in await rows.all()]
    for box in before:
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
    assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    wire.say(**STALE)
    await expect(page.locator("#link")).to_be_visible()
    assert [await row.bounding_box() for row in await rows.all()] == before


# The pages for frames and pictures


async def test_an_embed_may_be_framed_by_any_page_and_an_overlay_too(server: httpx.AsyncClient) -> None:
    for path in ("/embed/main", "/overlay/main", "/embed/nope"):
        answer = await server.get(path)
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors *" in policy
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
        assert "unsafe" not in policy
        assert "x-frame-options" not in answer.headers
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_an_embed_shows_in_a_frame_of_another_page(foreign: Foreign, server: httpx.AsyncClient) -> None:
    url = f"{address(server)}/embed/main?rows=2&heading=Two+%3Cbest%3E&lang=de&theme=dark"
    page = await foreign(f'<iframe src="{url}" width="400" height="300"></iframe>')
    frame = page.frame_locator("iframe")
    await expect(frame.locator("tbody .name")).to_have_count(2)
    await expect(frame.get_by_role("heading")).to_have_text("Two <best>")
    await expect(frame.locator(".score").last).to_have_text(re.compile(r"^\d\.000$"))


async def test_a_board_that_is_unknown_or_private_has_no_embed(server: httpx.AsyncClient) -> None:
    for path in ("/embed/nope", "/overlay/nope", "/embed/secret", "/overlay/%3Cscript%3Ealert(1)"):
        answer = await server.get(path)
        assert answer.status_code == 404
        assert "There is no board" in answer.text
        assert "<script>alert" not in answer.text
        assert "<live-scoreboard" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "rows=0", "rows=101", "rows=ten", "rows=", "rows", "rows=1&rows=2", "rows=1;theme=dark", "limit=5",
        "theme=pink", "scale=0", "scale=10", "scale=1e1", "scale=nan", "align=up", "valign=left", "lang=x;y",
        "heading=" + "x" * 101, "heading=%FF", "token=ey", "%00=1",
    ],
)  # fmt: skip
async def test_a_query_that_is_not_an_option_is_refused(server: httpx.AsyncClient, query: str) -> None:
    answer = await server.get(f"/overlay/main?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert (await server.get("/embed/main?align=left")).status_code == 400


async def test_an_option_cannot_become_markup(server: httpx.AsyncClient) -> None:
    answer = await server.get("/embed/main", params={"heading": '"><script>alert(1)</script>'})
    assert 'heading="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in answer.text
    assert "<title>All &lt;time&gt;</title>" in answer.text


async def test_an_overlay_is_large_and_see_through_and_where_it_was_asked_to_be(
    server: httpx.AsyncClient, visit: Open
) -> None:
    url = address(server)
    query = "rows=3&align=right&valign=bottom"
    page = await visit(f"{url}/overlay/main?{query}", viewport={"width": 1280, "height": 720})
    await expect(names(page)).to_have_count(3)
    await at_rest(page)
    for element in ("html", "body", "live-scoreboard"):
        ground = await page.locator(element).evaluate("(one) => getComputedStyle(one).backgroundColor")
        assert ground == "rgba(0, 0, 0, 0)"
    box = await page.locator("tbody").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] > 1200
    assert box["y"] + box["height"] > 600
    assert (
        await page.locator(".name").first.evaluate("(one) => parseFloat(getComputedStyle(one).fontSize)") > 30
    )
    await expect(page.locator("#link")).to_be_hidden()  # as long as it is live
    await expect(page.locator("#updated")).to_be_hidden()
    assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    await page.locator("tbody tr").last.evaluate("(row) => row.style.transform = 'translateY(100%)'")
    assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")  # as it sinks away


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_each_of_them_can_be_read_in_dark_and_light(
    server: httpx.AsyncClient, visit: Open, foreign: Foreign, scheme: str
) -> None:
    url = address(server)
    SCREENSHOTS.mkdir(exist_ok=True)
    embed = await visit(
        f"{url}/embed/main?rows=5", viewport={"width": 420, "height": 480}, color_scheme=scheme
    )
    overlay = await visit(
        f"{url}/overlay/main?rows=5&theme={scheme}", viewport={"width": 1280, "height": 720}
    )
    page = await foreign(
        '<meta name="color-scheme" content="dark light"><style>html { background: Canvas }</style>'
        "<h1>A page of somebody else</h1><p>With some words."
        '<live-scoreboard board="main" rows="5" player="cem"></live-scoreboard>',
        color_scheme=scheme,
        viewport={"width": 700, "height": 620},
    )
    for name, one in {"embed": embed, "overlay": overlay, "element": page}.items():
        await expect(names(one)).to_have_count(5)
        await at_rest(one)
        assert await one.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if name != "overlay":  # what is behind an overlay is not ours
            assert await low_contrast(one) == []
        await one.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png", omit_background=True)
