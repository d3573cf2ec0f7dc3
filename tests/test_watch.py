"""The JavaScript client (``scoreboard.js``), in a page of another host and in Node.js, on the real system.

A gate stands before the server, and blocks what proxies block.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import playwright
import pytest
from playwright.async_api import Page

from browsing import Open, Wire
from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from gate import Gate, gate
from scoreboard.config import Config
from scoreboard.live import hubs
from watching import frame, serving, until

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


async def test_a_page_elsewhere_is_told_each_newer_board_and_the_own_line(
    visit: Open, server: httpx.AsyncClient, way: Gate, deployment: Deployment, board: str
) -> None:
    await submit(server, "ann", f"{board}:1")
    page = await elsewhere(visit, server, way)
    await begin(page, way, board, token=deployment.token("bob"))
    await told(page, live_by("websocket"))
    await told(page, top_is("ann"))
    assert (await told(page, "one.kind === 'you'"))["rank"] is None
    await submit(server, "bob", f"{board}:1")
    await told(page, top_is("ann", "bob"))
    you = await told(page, "one.kind === 'you' && one.rank === 2")
    assert (you["score"], you["toNext"]) == (1, 1)
    assert [line["userId"] for line in you["above"]] == ["ann"]
    await page.evaluate("watching.close(); watching.close();")
    assert await states(page) == ["connecting", "live", "closed"]


async def test_where_websockets_are_blocked_events_come(
    visit: Open, server: httpx.AsyncClient, way: Gate, deployment: Deployment, board: str
) -> None:
    way.blocked = ["Upgrade: websocket"]
    await submit(server, "ann", f"{board}:1")
    page = await elsewhere(visit, server, way)
    await begin(page, way, board, token=deployment.token("bob"))
    await told(page, live_by("events"))
    await submit(server, "bob", f"{board}:1")
    newest = await told(page, top_is("ann", "bob"))
    assert (await told(page, "one.kind === 'you' && one.rank === 2"))["score"] == 1

    way.cut()
    await told(page, "one.state === 'waiting' && one.tries === 3")
    await way.until(f"/events?epoch={newest['epoch']}&seq={newest['seq']} ")
    await submit(server, "ann", f"{board}:2")
    await told(page, "one.kind === 'frame' && one.top[0]?.score === 2")
    assert f"/boards/{board} HTTP" not in "".join(way.requests)


async def test_where_streams_are_blocked_too_it_asks_again_and_again(
    visit: Open, server: httpx.AsyncClient, way: Gate, deployment: Deployment, board: str
) -> None:
    way.blocked = ["Upgrade: websocket", "/events"]
    await submit(server, "ann", f"{board}:1")
    page = await elsewhere(visit, server, way)
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    await begin(page, way, board, token=deployment.token("bob"))
    await told(page, live_by("polling"))
    await told(page, top_is("ann"))
    assert (await told(page, "one.kind === 'you'"))["rank"] is None
    await submit(server, "bob", f"{board}:1")
    await told(page, top_is("ann", "bob"))
    assert (await told(page, "one.kind === 'you' && one.rank === 2"))["above"][0]["name"] == "ann"
    await until(lambda: 304 in statuses)


async def test_who_asks_again_and_again_knows_when_the_board_is_old(visit: Open) -> None:
    async with serving() as live, gate(f"http://127.0.0.1:{live.address[1]}") as way:
        live.hub.publish(frame(1))
        page = await visit(f"{way.url}/health/live", clock=True, lost=LOST)
        await begin(page, way, "main", transports=["polling"])
        await told(page, live_by("polling"))
        live.hub.contact(there=False)
        await page.clock.run_for(3_000)
        await told(page, "one.state === 'stale'")
        live.hub.contact(there=True)
        await page.clock.run_for(3_000)
        await page.wait_for_function("window.news.at(-1).state === 'live'")
        assert await states(page) == ["connecting", "live", "stale", "live"]


async def test_many_boards_in_a_page_leave_connections_for_the_rest_of_it(
    visit: Open, server: httpx.AsyncClient, way: Gate
) -> None:
    way.blocked = ["Upgrade: websocket"]
    page = await elsewhere(visit, server, way)
    await page.evaluate(
        """async ([server, boards]) => {
          const { watch } = await import(`${server}/web/scoreboard.js`);
          window.by = {};
          window.watching = boards.map((board) => watch(board, {
            server, onState: ({ state, transport }) => { window.by[board] = `${state} ${transport}`; },
          }));
        }""",
        [way.url, BOARDS[:8]],
    )
    await page.wait_for_function("Object.values(window.by).every((one) => one.startsWith('live '))")
    ways = sorted((await page.evaluate("window.by")).values())
    assert ways == ["live events"] * 3 + ["live polling"] * 5
    await page.evaluate("watching.forEach((one) => one.close())")
    await until(lambda: way.open("/events") == 0)
    await begin(page, way, BOARDS[0])
    await told(page, live_by("events"))  # those that have ended count no more


async def test_a_better_way_is_tried_again_and_taken_without_a_gap(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    way.blocked = ["Upgrade: websocket"]
    page = await elsewhere(visit, server, way, clock=True)
    await begin(page, way, board)
    await page.clock.run_for(2_000)
    await told(page, live_by("events"))
    before = await states(page)
    tries = len(way.seen("Upgrade: websocket"))
    scored = await passing(page, server, board, 31)
    await way.until("Upgrade: websocket", tries + 1)  # still blocked
    way.blocked = []
    scored = await passing(page, server, board, 61, scored)
    await told(page, live_by("websocket"))
    await passing(page, server, board, 61, scored)
    assert await states(page) == [*before, "live"]  # once by events, once by the better way, nothing between
    assert len(way.seen("Upgrade: websocket")) == tries + 2
    await until(lambda: way.open("/events") == 0)


async def test_a_tab_that_is_hidden_lets_go_and_a_shown_one_is_up_to_date_at_once(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    page = await elsewhere(visit, server, way, clock=True)
    await begin(page, way, board)
    await told(page, live_by("websocket"))
    await look(page, "hidden")
    scored = await passing(page, server, board, 59)
    assert await states(page) == ["connecting", "live"]
    await page.clock.run_for(2_000)
    assert await states(page) == ["connecting", "live", "resting"]
    await submit(server, "bob", f"{board}:1")
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.clock.run_for(120_000)
    assert len(way.seen("/live")) == 1
    await look(page, "visible")
    await told(page, top_is("ann", "bob"))
    assert await states(page) == ["connecting", "live", "resting", "connecting", "live"]

    await look(page, "hidden")
    await page.clock.run_for(10_000)
    await look(page, "visible")
    await passing(page, server, board, 60, scored)
    assert (await states(page))[-1] == "live"
    assert len(way.seen("/live")) == 2


@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
async def test_a_private_board_takes_a_token_which_is_in_no_address(
    visit: Open,
    server: httpx.AsyncClient,
    way: Gate,
    deployment: Deployment,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = SECRETS[transport]
    await submit(server, "ann", f"{board}:1")
    page = await visit(f"{way.url}/health/live", lost=LOST)
    with monkeypatch.context() as hasty:
        hasty.setattr(hubs, "AUTH_SECONDS", 0.2)  # it will not say who it is
        await begin(page, way, board, transports=[transport])
        stopped = await told(page, "one.state === 'stopped'")
    assert stopped["code"] == 4401

    # The first is refused because it has run out; then the function is asked for another.
    tokens = [deployment.token("ann", lifetime=-60), deployment.token("ann")]
    await begin(page, way, board, transports=[transport], tokens=tokens)
    assert (await told(page, "one.state === 'waiting'"))["code"] == 4004
    await told(page, top_is("ann"))
    await told(page, "one.kind === 'you' && one.rank === 1")
    assert await page.evaluate("window.calls") == 2
    addresses = [request.partition("\r\n")[0] for request in way.requests]
    assert all(token not in address for token in tokens for address in addresses)


async def test_a_token_given_later_brings_the_own_line_without_a_gap(
    visit: Open, server: httpx.AsyncClient, way: Gate, deployment: Deployment, board: str
) -> None:
    page = await elsewhere(visit, server, way)
    await begin(page, way, board)
    await told(page, live_by("websocket"))
    await page.evaluate("(token) => { watching.token = token; }", deployment.token("ann"))
    await told(page, "one.kind === 'you'")
    assert set(await states(page)) == {"connecting", "live"}
    before = len(await page.evaluate("window.news"))
    await page.evaluate("watching.token = 'nonsense'")
    assert (await told(page, "one.state === 'waiting'"))["code"] == 4401
    await page.wait_for_function("window.news.at(-1).state === 'live'")  # a public board goes on without
    await submit(server, "ann", f"{board}:1")
    await told(page, top_is("ann"))
    fresh = (await page.evaluate("window.news"))[before:]
    assert not [one for one in fresh if one["kind"] == "you" or one.get("state") == "stopped"]
    await page.evaluate("(token) => { watching.token = token; }", deployment.token("bob"))
    await page.wait_for_function("window.news.at(-1).kind === 'you'")


@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
async def test_a_public_board_is_shown_whatever_the_token_is_worth(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str, transport: str
) -> None:
    await submit(server, "ann", f"{board}:1")
    page = await elsewhere(visit, server, way)
    await begin(page, way, board, transports=[transport], token="nonsense")
    await told(page, top_is("ann"))
    if transport != "polling":  # a plain read of a public board asks nobody who it is
        assert (await told(page, "one.state === 'waiting'"))["code"] == 4401
    last = "window.news.findLast(({ kind }) => kind === 'state')"
    await page.wait_for_function(f"{last}.state === 'live' && {last}.transport === '{transport}'")


async def test_a_token_that_was_given_as_text_and_has_run_out_is_not_shown_twice(
    visit: Open, server: httpx.AsyncClient, way: Gate, deployment: Deployment, board: str
) -> None:
    page = await elsewhere(visit, server, way)
    await begin(page, way, board, token=deployment.token("ann", lifetime=-60))
    assert (await told(page, "one.state === 'waiting'"))["code"] == 4004
    await page.wait_for_function("window.news.at(-1).state === 'live'")
    await submit(server, "ann", f"{board}:1")
    await told(page, top_is("ann"))
    assert len(way.seen("/live")) == 2


async def test_a_busy_server_is_left_alone_for_as_long_as_it_says(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    page = await elsewhere(visit, server, way)
    head = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nConnection: close\r\nAccess-Control-Allow-Origin: *\r\n"
    head += "Access-Control-Expose-Headers: Retry-After\r\n\r\n"
    await page.evaluate("(url) => import(url)", f"{way.url}/web/scoreboard.js")
    way.answers = [head.encode()]
    await begin(page, way, board, transports=["events"])
    waiting = await told(page, "one.state === 'waiting'")
    left = waiting["retryAt"] - await page.evaluate("Date.now()")
    assert 1_000 < left <= 2_000
    await told(page, live_by("events"))


async def test_a_server_is_not_taken_at_its_word_when_it_asks_for_an_hour(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    page = await elsewhere(visit, server, way)
    await begin(page, way, board)
    await told(page, live_by("websocket"))
    bye = b'{"type":"bye","code":4001,"retryAfter":3600000}'
    way.inject(bytes([0x81, len(bye)]) + bye)
    way.cut()
    waiting = await told(page, "one.state === 'waiting'")
    assert 50_000 < waiting["retryAt"] - await page.evaluate("Date.now()") <= 60_000


async def test_a_way_on_which_nothing_comes_is_given_up_after_ten_seconds(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    wire = Wire()
    wire.real = False
    url = str(server.base_url).rstrip("/") + "/health/live"
    page = await visit(url, wire, server=way.url, clock=True)
    await begin(page, way, board)
    await wire.connections(1)
    await page.clock.run_for(8_000)
    assert await states(page) == ["connecting"]
    await page.clock.run_for(3_000)
    assert (await told(page, "one.state === 'waiting'"))["reason"] == "silence"


async def test_clients_do_not_ask_in_step(
    visit: Open, server: httpx.AsyncClient, way: Gate, board: str
) -> None:
    page = await elsewhere(visit, server, way)
    await page.evaluate(
        """() => {
          const timeout = setTimeout;
          window.pauses = [];
          window.setTimeout = (call, ms, ...more) => {
            if (ms < 1_000 || ms > 3_000) return timeout(call, ms, ...more);
            window.pauses.push(ms);
            Math.random = () => window.pauses.length % 2;
            return timeout(call, 1, ...more);
          };
        }"""
    )
    await submit(server, "ann", f"{board}:1")
    await begin(page, way, board, transports=["polling"])
    await page.wait_for_function("window.pauses.length > 5")
    assert set((await page.evaluate("window.pauses"))[1:]) == {1_500, 2_500}


def node(script: str, *flags: str, **given: str) -> tuple[str, ...]:
    """A program for Node.js, as a module."""
    values = "".join(f"const {name} = {json.dumps(value)};" for name, value in given.items())
    return (str(NODE), *flags, "--input-type=module", "-e", values + script)


@pytest.mark.parametrize(
    ("flags", "transport"), [([], "websocket"), (["--no-experimental-websocket"], "events")]
)
async def test_node_watches_too(
    server: httpx.AsyncClient, deployment: Deployment, board: str, flags: list[str], transport: str
) -> None:
    await submit(server, "ann", f"{board}:1")
    script = """
      const { watch } = await import(module);
      let transport;
      const watching = watch(board, {
        server, token,
        onState: (state) => { transport = state.transport; },
        onYou: ({ rank }) => { console.log(transport, rank); watching.close(); },
      });
    """
    given = {"module": (WEB / "scoreboard.js").as_uri(), "server": str(server.base_url)}
    given |= {"board": board, "token": deployment.token("ann")}
    process = await asyncio.create_subprocess_exec(
        *node(script, *flags, **given), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert out.decode() == f"{transport} 1\n", err.decode()
    assert process.returncode == 0


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
