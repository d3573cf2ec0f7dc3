"""The JavaScript client (``scoreboard.js``), in a page of another host and in Node.js, on the real system.

A gate stands before the server, and blocks what proxies block.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from browsing import Open, Wire
from deployment import SECONDS, Deployment, submit
from gate import Gate, gate
from pages_elsewhere import (
    BOARDS,
    LOST,
    WEB,
    begin,
    board,
    deployment,
    elsewhere,
    live_by,
    look,
    node,
    passing,
    server,
    states,
    told,
    top_is,
    way,
)
from watching import frame, serving, until

__all__ = ["board", "deployment", "server", "way"]

# The waits between two tries are spread by chance: from here on, none.
AT_ONCE = "Math.random = () => 0"


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
    await page.evaluate(AT_ONCE)
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
    await page.evaluate(AT_ONCE)
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
