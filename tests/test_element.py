"""The element ``<live-scoreboard>`` on pages of other hosts, and the pages ``/embed`` and ``/overlay``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
from playwright.async_api import Locator, Page, expect

from browsing import SCREENSHOTS, Open, Wire, at_rest, low_contrast, moving
from conftest import Deploy
from deployment import Deployment, submit
from foreign import host
from gate import gate
from scoreboard.config import Config
from scoreboard.live import hubs
from watching import until

CONFIG = msgspec.convert(
    {
        "actions": {"point": {"points": 1}, "goal": {"points": 1000}},
        "boards": {
            "main": {"title": "All <time>", "actions": ["goal"]},
            "race": {"actions": ["point"]},
            "secret": {"title": "Secret", "public": False},
        },
    },
    Config,
)
PLAYERS = {"ann": 4, "bob": 3, "cem": 3, "dua": 2, "eve": 1, "fay": 1}
# The strictest policy under which a foreign page can show the element at all.
STRICT = (
    "default-src 'none'; script-src {server}; connect-src {server} {live}; style-src 'none'; base-uri 'none';"
    " form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
Foreign = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def server(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as client:
        for user, goals in PLAYERS.items():
            for number in range(goals):
                await submit(client, user, f"goal:{number}")
        yield client


def address(server: httpx.AsyncClient) -> str:
    return str(server.base_url).rstrip("/")


@pytest.fixture
async def foreign(server: httpx.AsyncClient, visit: Open) -> AsyncIterator[Foreign]:
    """Open a page of another host with this body, and the one script tag that is needed."""
    url = address(server)
    async with AsyncExitStack() as stack:

        async def open_page(body: str, policy: str = "", **how: Any) -> Page:
            script = f'<script type="module" src="{url}/web/live-scoreboard.js"></script>'
            html = f"<!doctype html><html lang=en><title>Foreign</title><body>{script}{body}"
            allowed = policy.format(server=url, live=url.replace("http", "ws"))
            return await visit(await stack.enter_async_context(host(html, allowed)), server=url, **how)

        yield open_page


def names(page: Page, board: str = "live-scoreboard") -> Locator:
    return page.locator(f"{board} tbody tr:not(.leaving) .name")


# The element on a page of another host


async def test_one_tag_shows_a_live_board_anywhere(foreign: Foreign, server: httpx.AsyncClient) -> None:
    page = await foreign('<live-scoreboard board="main" rows="3"></live-scoreboard>', STRICT)
    await expect(names(page)).to_have_text(["ann", "bob", "cem"])
    await expect(page.get_by_role("heading", level=2)).to_have_text("All <time>")
    table = page.get_by_role("table", name="All <time>")
    await expect(table.get_by_role("rowheader")).to_have_count(3)
    await expect(page.locator("#players")).to_have_text("6 players")
    await expect(page.locator("#link")).to_have_text("Live")
    slab = await page.locator("tbody tr").last.evaluate("(row) => getComputedStyle(row).backgroundColor")
    assert slab == "rgb(255, 255, 255)", "the style is there, without a word in the policy about styles"
    await submit(server, "dua", "goal:last")
    await submit(server, "dua", "goal:very-last")
    await expect(names(page)).to_have_text(["ann", "dua", "bob"])
    assert await page.evaluate("window.animations") > 0
    await expect(page.locator("[aria-live=polite]")).to_have_text(re.compile("leads with"))


async def test_attributes_and_properties_say_what_is_shown(foreign: Foreign) -> None:
    options = 'rows="2" heading="" player="ann" lang="de" scale="2"'
    page = await foreign(f'<live-scoreboard board="main" {options}></live-scoreboard>')
    board = page.locator("live-scoreboard")
    await expect(names(page)).to_have_count(2)
    await expect(page.get_by_role("heading")).to_have_count(0)
    await expect(page.locator("tr.mine .name")).to_have_text("ann")
    await expect(page.locator("tr.mine .score")).to_have_text("4.000")
    assert await page.locator("#players").evaluate("(one) => getComputedStyle(one).fontSize") == "32px"

    await board.evaluate("(one) => one.setAttribute('rows', '4')")
    await board.evaluate("(one) => one.setAttribute('heading', 'Top <4>')")
    await expect(names(page)).to_have_count(4)
    await expect(page.get_by_role("heading")).to_have_text("Top <4>")
    await board.evaluate("(one) => { one.board = 'nope'; one.removeAttribute('heading'); }")
    await expect(page.get_by_role("heading", name="There is no such board")).to_be_visible()
    await expect(page.locator("#link")).to_have_text("Stopped")
    await expect(names(page)).to_have_count(0)
    await board.evaluate("(one) => { one.board = 'race'; }")
    await expect(page.get_by_role("heading", name="No scores yet")).to_be_visible()
    await expect(page.get_by_role("heading", name="There is no such board")).to_be_hidden()
    await expect(page.get_by_role("heading", level=2)).to_have_text("race")
    await expect(page.locator("#link")).to_have_text("Live")


async def test_without_a_board_the_first_one_is_shown(foreign: Foreign) -> None:
    page = await foreign("<live-scoreboard></live-scoreboard>")
    await expect(page.get_by_role("heading", level=2)).to_have_text("All <time>")
    await expect(names(page)).to_have_count(6)


async def test_a_page_gives_colours_and_parts_of_its_own(foreign: Foreign) -> None:
    style = """<style>
      * { color: red; font: 30px/3 serif; text-transform: uppercase; letter-spacing: 1em; }
      body { text-align: center; }
      live-scoreboard { --slab: rgb(1, 2, 3); font-size: 10px; }
      live-scoreboard::part(name) { color: rgb(4, 5, 6); }
      live-scoreboard::part(row first) { background: rgb(7, 8, 9); }
      live-scoreboard::part(updated) { display: none; }
    </style>"""
    page = await foreign(f'{style}<live-scoreboard board="main"></live-scoreboard>')
    await expect(names(page)).to_have_count(6)

    async def computed(selector: str, name: str) -> str:
        found: str = await page.locator(selector).evaluate(f"(one) => getComputedStyle(one).{name}")
        return found

    assert await computed("tbody tr >> nth=1", "backgroundColor") == "rgb(1, 2, 3)"
    assert await computed("tbody tr >> nth=0", "backgroundColor") == "rgb(7, 8, 9)"
    assert await computed("tbody .name >> nth=2", "color") == "rgb(4, 5, 6)"
    assert await computed("#updated", "display") == "block"
    await expect(page.locator("#updated")).to_be_hidden()
    for name, value in {"textTransform": "none", "letterSpacing": "normal", "textAlign": "left"}.items():
        assert await computed("tbody .name >> nth=2", name) == value
    assert await computed("tbody .name >> nth=2", "fontSize") == "13px"


async def test_the_theme_is_the_pages_unless_the_element_says_otherwise(foreign: Foreign) -> None:
    boards = "".join(f'<live-scoreboard board="main" {theme}></live-scoreboard>' for theme in (
        "id=page", "id=auto theme=auto", "id=light theme=light", "id=dark theme=dark"
    ))  # fmt: skip
    page = await foreign(boards, color_scheme="dark")
    light, dark = "rgb(15, 22, 32)", "rgb(240, 244, 249)"
    for board, ink in {"page": light, "auto": dark, "light": light, "dark": dark}.items():
        colour = await page.locator(f"#{board} .whole").evaluate("(one) => getComputedStyle(one).color")
        assert colour == ink, board


async def test_nothing_moves_on_a_page_whose_reader_wants_it_still(
    foreign: Foreign, server: httpx.AsyncClient
) -> None:
    page = await foreign('<live-scoreboard board="main" rows="3"></live-scoreboard>', reduced_motion="reduce")
    await expect(names(page)).to_have_count(3)
    for number in range(6):
        await submit(server, "eve", f"goal:still-{number}")
    await expect(names(page).first).to_have_text("eve")
    assert await page.evaluate("window.animations") == 0
    assert await moving(page) == 0


async def test_a_token_opens_a_private_board_and_shows_the_own_line(
    server: httpx.AsyncClient, visit: Open, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address(server)
    page = await visit(f"{url}/health/live", lost="Failed to load resource")
    await page.evaluate(
        """(token) => {
          document.body.replaceChildren(document.createElement("live-scoreboard"));
          const board = document.querySelector("live-scoreboard");
          board.setAttribute("board", "secret");
          board.token = token; // before the element's class is known
          const script = document.createElement("script");
          Object.assign(script, { type: "module", src: "/web/live-scoreboard.js" });
          document.head.append(script);
        }""",
        deployment.token("ann"),
    )
    await expect(page.get_by_role("heading", level=2)).to_have_text("Secret")
    await expect(names(page).first).to_be_visible()
    await expect(page.locator("#you")).to_have_text(re.compile(r"^You: rank \d+ · [\d,]+ points · .+"))
    board = page.locator("live-scoreboard")
    assert "ey" not in await board.evaluate("(one) => one.outerHTML")
    await expect(page.locator("tr.mine .name")).to_have_text("ann")  # the token says so
    with monkeypatch.context() as hasty:
        # Without it the board is asked for once more, which waits for who it is.
        hasty.setattr(hubs, "AUTH_SECONDS", 0.2)
        await board.evaluate("(one) => { one.token = 'nonsense'; }")
        await expect(page.get_by_text("A valid token is needed")).to_be_visible(timeout=15_000)
        await expect(page.get_by_role("heading", name="This board is private")).to_be_visible()
    await expect(page.locator("tr.mine")).to_have_count(0)
    await board.evaluate("(one, token) => { one.token = () => token; }", deployment.token("nobody"))
    await expect(page.locator("#you")).to_have_text("You have no score yet")
    await expect(page.locator("#link")).to_have_text("Live")


async def test_an_element_that_leaves_the_page_lets_go(foreign: Foreign) -> None:
    page = await foreign('<live-scoreboard board="main"></live-scoreboard>')
    await expect(page.locator("#link")).to_have_text("Live")
    states = await page.evaluate(
        """() => new Promise((done) => {
          const board = document.querySelector("live-scoreboard");
          const states = [];
          board.addEventListener("state", ({ detail }) => {
            states.push(detail.state);
            if (detail.state === "closed") document.body.append(board);
            if (detail.state === "live") done(states);
          });
          board.remove();
        })"""
    )
    assert states == ["closed", "connecting", "live"]
    await expect(names(page)).to_have_count(6)


async def test_elements_that_show_the_same_share_a_connection_and_let_go_of_it(
    server: httpx.AsyncClient, visit: Open, deployment: Deployment
) -> None:
    async with gate(address(server)) as way, host("") as url:
        page = await visit(url, server=way.url)
        await page.evaluate(
            """async (server) => {
              await import(`${server}/web/live-scoreboard.js`);
              window.add = (id) => {
                const board = Object.assign(document.createElement("live-scoreboard"), { id, board: "main" });
                board.addEventListener("state", ({ detail }) => { board.title += detail.state + " "; });
                document.body.append(window[id] = board);
              };
              window.add("one"); window.add("two");
            }""",
            way.url,
        )
        for one in ("#one", "#two"):
            await expect(page.locator(f"{one} #link")).to_have_text("Live")
        await page.evaluate("add('late')")
        await expect(names(page, "#late")).to_have_text(await names(page, "#one").all_text_contents())
        assert len(way.seen("/main/live")) == 1
        await page.evaluate("one.remove(); late.remove()")
        assert await page.evaluate("two.title") == "connecting live "
        await submit(server, "fay", "goal:shared")
        await expect(page.locator("#two tr").filter(has_text="fay").locator(".score")).to_have_text("2,000")

        await page.evaluate("add('mine')")
        await expect(page.locator("#mine #link")).to_have_text("Live")
        await page.evaluate("(token) => { mine.token = token; }", deployment.token("bob"))  # goes apart
        await expect(page.locator("#mine #you")).to_contain_text("You: rank")
        await expect(page.locator("#two #you")).to_be_hidden()
        assert len(way.seen("/main/live")) == 2
        await page.evaluate("mine.token = null")  # alone: without a gap
        await page.wait_for_function("mine.title === 'live connecting live live '")
        await page.evaluate("mine.remove(); two.remove()")
        assert await page.evaluate("window.mine.title") == "live connecting live live closed "
        await until(lambda: way.open("/main/live") == 0)


async def test_a_board_whose_server_is_away_says_so_and_stays(server: httpx.AsyncClient, visit: Open) -> None:
    wire = Wire("main")
    wire.real = False
    page = await visit(f"{str(server.base_url).rstrip('/')}/embed/main", wire)
    await wire.connections(1)
    wire.show([("Ann", 10)], seq=1)
    await expect(page.locator("#link")).to_have_text("Live")
    wire.say(type="heartbeat", board="main", epoch="e1", seq=1, stale=True)
    await expect(page.locator("#link")).to_have_text("Reconnecting to the board")
    await expect(names(page)).to_have_text(["Ann"])
    await expect(page.locator("#updated")).to_contain_text("Last update")
    wire.say(type="heartbeat", board="main", epoch="e1", seq=1)
    await expect(page.locator("#link")).to_have_text("Live")


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
