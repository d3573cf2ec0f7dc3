"""How the Python client watches: on a real live server, and on servers that fail as ours should not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from scoreboard.client import Client, Refused, State
from scoreboard.client import watching as client
from scoreboard.client.asking import backoff
from scoreboard.live import hub, hubs
from watching import PATIENCE, Serving, frame, serving, token, until

STALE = '{"type":"heartbeat","board":"main","epoch":"e1","seq":2,"stale":true}'


@asynccontextmanager
async def served(*visits: Callable[[ServerConnection], Awaitable[Any]]) -> AsyncIterator[str]:
    """Somebody else's server, which meets each connection as it is told to, the last ones alike; its URL."""
    left = list(visits)

    async def meet(socket: ServerConnection) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(socket)

    async with serve(meet, "127.0.0.1", 0, compression=None) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def silent(socket: ServerConnection) -> None:
    """Says nothing, until the client leaves."""
    await socket.wait_closed()


def address(live: Serving) -> str:
    return f"http://{live.address[0]}:{live.address[1]}"


def text(seq: int) -> str:
    return msgspec.json.encode(frame(seq)).decode()


async def test_a_slow_consumer_finds_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    states: list[State] = []
    async with serving() as live, Client(address(live)) as watcher:
        live.hub.publish(frame(1))
        async with aclosing(watcher.watch("main", states.append)) as frames, asyncio.timeout(PATIENCE):
            assert (await anext(frames)).seq == 1
            for seq in range(2, 302):  # what no consumer asks for
                live.hub.publish(frame(seq, rows=20))
                await until(lambda: live.hub._merging is None)
            live.hub.contact(there=False)
            await until(lambda: states[-1] == "stale")  # told meanwhile
            assert (await anext(frames)).seq == 301
            live.hub.publish(frame(302))
            assert (await anext(frames)).seq == 302
    assert states == ["connecting", "live", "stale", "live"]


async def test_what_waits_in_the_socket_is_read_before_the_consumer_is_woken() -> None:
    async def burst(socket: ServerConnection) -> None:
        for seq in range(1, 101):
            socket.protocol.send_text(text(seq).encode())
        socket.send_data()  # all in one go
        await silent(socket)

    seen: list[int] = []
    async with (
        asyncio.timeout(PATIENCE),
        served(burst) as url,
        Client(url) as watcher,
        aclosing(watcher.watch("main")) as frames,
    ):
        async for one in frames:
            seen.append(one.seq)
            if one.seq == 100:
                break
    assert len(seen) < 10  # as many as there were parcels on the wire, not frames


async def test_an_older_frame_is_not_taken() -> None:
    taken, passed = asyncio.Event(), asyncio.Event()

    async def confused(socket: ServerConnection) -> None:
        await socket.send(text(2))
        await taken.wait()
        for message in (text(1), text(2), STALE):
            await socket.send(message)
        await passed.wait()
        await socket.send(text(3))
        await silent(socket)

    states: list[State] = []
    async with (
        asyncio.timeout(PATIENCE),
        served(confused) as url,
        Client(url) as watcher,
        aclosing(watcher.watch("main", states.append)) as frames,
    ):
        assert (await anext(frames)).seq == 2
        taken.set()
        await until(lambda: "stale" in states)
        following = asyncio.ensure_future(anext(frames))
        passed.set()
        assert (await following).seq == 3


async def test_a_server_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.1)

    async def speaking(socket: ServerConnection) -> None:
        await socket.send(text(1))
        await silent(socket)

    states: list[State] = []
    async with (
        asyncio.timeout(PATIENCE),
        served(silent, speaking) as url,
        Client(url) as watcher,
        aclosing(watcher.watch("main", states.append)) as frames,
    ):
        assert (await anext(frames)).seq == 1
    assert states == ["connecting", "waiting", "connecting", "live"]


async def test_each_failure_makes_the_next_pause_longer_and_all_are_left_to_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, float, float]] = []

    def at_once(*how: Any) -> float:
        asked.append(how)
        return 0

    async def leaving(socket: ServerConnection) -> None:
        await socket.close(4002)

    async def speaking(socket: ServerConnection) -> None:
        await socket.send(text(1))
        await silent(socket)

    monkeypatch.setattr(client, "backoff", at_once)
    async with (
        asyncio.timeout(PATIENCE),
        served(leaving, leaving, leaving, speaking) as url,
        Client(url) as watcher,
        aclosing(watcher.watch("main")) as frames,
    ):
        assert (await anext(frames)).seq == 1
    assert asked == [(tries, 0.5, 20.0) for tries in range(3)]
    drawn = sorted(backoff(3, 0.5, 20.0) for _ in range(200))
    assert 0 <= drawn[0] < 0.5 < 3.5 < drawn[-1] <= 4
    assert max(backoff(99, 0.5, 20.0) for _ in range(200)) <= 20


async def test_a_public_board_goes_on_without_a_token_that_is_not_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "AUTH_SECONDS", 0.1)
    async with serving(private=("secret",)) as live:
        live.hub.publish(frame(1))
        async with Client(address(live), "nonsense") as watcher, asyncio.timeout(PATIENCE):
            states: list[State] = []
            async with aclosing(watcher.watch("main", states.append)) as frames:
                assert (await anext(frames)).seq == 1
                await until(lambda: states == ["connecting", "live", "waiting", "connecting", "live"])
                live.hub.publish(frame(2))
                assert (await anext(frames)).seq == 2
            for refused_one in (watcher.watch("secret"), watcher.watch_you("main")):
                with pytest.raises(Refused) as refused:
                    await anext(refused_one)
                assert (refused.value.code, refused.value.retryable) == ("invalid_token", False)
        async with Client(address(live), token("ann", -60)) as watcher, asyncio.timeout(PATIENCE):
            assert (await anext(watcher.watch("main"))).seq == 2
            with pytest.raises(Refused) as refused:
                await anext(watcher.watch_you("main"))
            assert refused.value.code == "token_expired"


async def test_what_the_ear_raises_reaches_the_consumer() -> None:
    def deaf(state: State) -> None:
        raise LookupError(state)

    async with served(silent) as url, Client(url) as watcher, asyncio.timeout(PATIENCE):
        with pytest.raises(LookupError, match="connecting"):
            await anext(watcher.watch("main", deaf))
