"""The element ``<live-scoreboard>`` on pages of other hosts."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.async_api import expect

from browsing import Open, Wire, moving
from deployment import Deployment, submit
from embedding import Foreign, address, deployment, foreign, names, server
from foreign import host
from gate import gate
from scoreboard.live import hubs
from watching import until

__all__ = ["deployment", "foreign", "server"]

# The strictest policy under which a foreign page can show the element at all.
STRICT = (
    "default-src 'none'; script-src {server}; connect-src {server} {live}; style-src 'none'; base-uri 'none';"
    " form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


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
