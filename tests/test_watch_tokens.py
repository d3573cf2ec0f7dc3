"""The JavaScript client with a token: private boards, the own line, and a token that is worth nothing."""

from __future__ import annotations

import httpx
import pytest

from browsing import Open
from deployment import Deployment, submit
from gate import Gate
from pages_elsewhere import (
    LOST,
    SECRETS,
    begin,
    board,
    deployment,
    elsewhere,
    live_by,
    server,
    states,
    told,
    top_is,
    way,
)
from scoreboard.live import hubs

__all__ = ["board", "deployment", "server", "way"]


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
