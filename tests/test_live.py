"""Live: everybody sees the newest frame soon and in order; who may come in, and how all of them leave."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from by_hand import Raw
from scoreboard import sockets
from scoreboard.live import hub, hubs
from scoreboard.live.wire import WEBSOCKET
from scoreboard.model import Frame
from watching import PATIENCE, Serving, frame, live, received, serving, until

__all__ = ["live"]


async def test_the_first_frame_is_the_whole_board_in_the_documented_shape(live: Serving) -> None:
    live.hub.publish(frame(1042, rows=1))
    async with connect(live.url(), proxy=None) as client:
        assert await client.recv() == (
            '{"type":"board","board":"main","epoch":"e1","seq":1042,"at":"2026-11-23T20:15:00.123Z",'
            '"total":58213,"top":[{"rank":1,"userId":"u1","name":"Name 1 ' + "n" * 50 + '","score":1042}]}'
        )
    assert live.hub.json == msgspec.json.encode(frame(1042, rows=1))


async def test_a_client_that_comes_before_the_first_frame_gets_it_when_it_comes(live: Serving) -> None:
    async with connect(live.url(), proxy=None) as client:
        live.hub.publish(frame(1))
        assert (await received(client))["seq"] == 1


async def test_older_and_repeated_frames_are_passed_over_and_a_new_epoch_is_taken(live: Serving) -> None:
    live.hub.publish(frame(5))
    async with connect(live.url(), proxy=None) as client:
        live.hub.publish(frame(5, top=1))
        live.hub.publish(frame(4))
        live.hub.publish(frame(6))
        live.hub.publish(frame(5, top=2))
        live.hub.publish(frame(2, epoch="e2"))
        assert (await received(client))["seq"] == 5
        assert (await received(client))["seq"] == 6
        got = await received(client)
        assert (got["epoch"], got["seq"]) == ("e2", 2)


async def test_a_burst_becomes_its_first_and_its_last_frame(live: Serving) -> None:
    live.hub.publish(frame(1))
    async with connect(live.url(), proxy=None) as client:
        assert (await received(client))["seq"] == 1
        began = asyncio.get_running_loop().time()
        for seq in range(2, 200):
            live.hub.publish(frame(seq))
        assert (await received(client))["seq"] == 2
        assert (await received(client))["seq"] == 199
        assert asyncio.get_running_loop().time() - began >= hub.MERGE_SECONDS


async def test_a_frame_that_shows_the_same_top_is_not_sent(live: Serving) -> None:
    live.hub.publish(frame(1, top=7))
    async with connect(live.url(), proxy=None) as client:
        assert (await received(client))["seq"] == 1
        live.hub.publish(frame(2, top=7))
        assert live.hub.latest is not None
        assert live.hub.latest.frame.seq == 1
        live.hub.publish(frame(3, top=8))
        assert (await received(client))["seq"] == 3
        live.hub.publish(frame(4, top=9))  # there and back while merging
        live.hub.publish(frame(5, top=8))
        await until(lambda: live.hub._merging is None)
        live.hub.publish(frame(6, top=10))
        assert (await received(client))["seq"] == 6


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("?epoch=e1&seq=3", "heartbeat"),
        ("?epoch=e1&seq=2", "board"),
        ("?epoch=e2&seq=3", "board"),
        ("?epoch=%FF&seq=nonsense&seq=", "board"),
        ("?seq=3", "board"),
    ],
)
async def test_who_comes_back_with_the_current_frame_gets_a_heartbeat(
    live: Serving, query: str, kind: str
) -> None:
    live.hub.publish(frame(3))
    async with connect(live.url("/boards/main/live" + query), proxy=None) as client:
        got = await received(client)
        assert got["type"] == kind
        if kind == "heartbeat":
            assert got == {"type": "heartbeat", "board": "main", "epoch": "e1", "seq": 3}
        live.hub.publish(frame(4))
        assert (await received(client))["seq"] == 4


async def test_silence_is_broken_by_heartbeats(live: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_SECONDS", 0.05)
    live.hub.publish(frame(3))
    async with connect(live.url(), proxy=None) as client:
        assert (await received(client))["type"] == "board"
        for _ in range(3):
            assert await received(client) == {"type": "heartbeat", "board": "main", "epoch": "e1", "seq": 3}


async def test_a_hub_that_nobody_watches_runs_no_timer_and_stays_current(live: Serving) -> None:
    async with connect(live.url(), proxy=None) as client:
        live.hub.publish(frame(1))
        assert (await received(client))["seq"] == 1
        live.hub.publish(frame(2))
        assert live.hub._merging is not None
        assert live.hub._heart is not None
    await until(lambda: live.hubs.connections == 0)
    assert all(handle is None for handle in (live.hub._merging, live.hub._heart, live.hub._round))
    for seq in range(2, 5):
        live.hub.publish(frame(seq))
        assert live.hub.json == msgspec.json.encode(frame(seq))
    assert live.hub._merging is None


async def test_boards_are_apart() -> None:
    async with serving(boards=("main", "eu")) as live:
        eu = live.hubs.get("eu")
        assert eu is not None

        async def frames() -> AsyncIterator[Frame]:
            for board in ("main", "no-such-board", "eu"):
                yield frame(1, board=board)

        await live.hubs.follow(frames())
        async with connect(live.url("/boards/%65u/live"), proxy=None) as client:
            assert (await received(client))["board"] == "eu"
            assert (len(eu), len(live.hub)) == (1, 0)


async def test_draining_says_when_to_come_back_and_lets_nobody_in(live: Serving) -> None:
    live.hub.publish(frame(1))
    async with connect(live.url(), proxy=None) as client, await Raw.connect(live) as late:
        assert (await received(client))["seq"] == 1
        draining = asyncio.create_task(live.hubs.drain(PATIENCE))
        bye = await received(client)
        assert (bye["type"], bye["code"]) == ("bye", 4001)
        assert 500 <= bye["retryAfter"] <= 5_000
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4001
        await draining
        assert live.hubs.connections == 0
        assert (await late.ask())[0] == 503


async def test_draining_does_not_wait_for_who_will_not_leave(live: Serving) -> None:
    live.hub.publish(frame(1))
    async with await Raw.watch(live) as client:
        await live.hubs.drain(0.02)
        assert await client.closed() == (4001, "draining")
        await until(lambda: live.hubs.connections == 0)


async def test_who_does_not_answer_a_close_is_cut_off(live: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    async with await Raw.watch(live) as client:
        await client.send(1, b"{}")
        assert await client.closed() == (4400, "bad message")
        await until(lambda: live.hubs.connections == 0)
        assert live.hubs._tick is None


async def test_the_end_of_uvicorn_is_a_drain() -> None:
    async with serving() as live:
        live.hub.publish(frame(1))
        client = await connect(live.url(), proxy=None)
        assert (await received(client))["seq"] == 1
        live.server.should_exit = True
        assert (await received(client))["type"] == "bye"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4001


async def test_past_the_limit_of_connections_the_handshake_is_answered_503() -> None:
    async with serving(connections=1) as live:
        async with await Raw.watch(live), await Raw.connect(live) as refused:
            status, headers = await refused.ask()
            assert status == 503
            assert 1 <= int(headers["retry-after"]) <= 5
            assert headers["content-type"] == "application/problem+json"
            problem = msgspec.json.decode(await refused.rest())
            assert (problem["code"], problem["retryable"]) == ("unavailable", True)
            assert live.hubs.connections == 1
        await until(lambda: live.hubs.connections == 0)
        async with await Raw.watch(live):
            assert live.hubs.connections == 1


async def test_past_the_rate_of_handshakes_the_handshake_is_answered_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(handshakes="2/s") as live:
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        assert [live.hubs.admit(WEBSOCKET) for _ in range(3)] == [True, True, False]
        now += 0.5
        assert [live.hubs.admit(WEBSOCKET) for _ in range(2)] == [True, False]
        monkeypatch.undo()
        live.hubs._tokens = -1_000_000.0
        async with await Raw.connect(live) as refused:
            status, headers = await refused.ask()
            assert status == 503
            assert 1 <= int(headers["retry-after"]) <= 5


def test_accepted_sockets_inherit_the_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sockets.tune(server)
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * sockets.SEND_BUFFER_BYTES
            for name, value in (
                ("TCP_NODELAY", 1),
                ("TCP_NOTSENT_LOWAT", sockets.UNSENT_BYTES),
                ("TCP_USER_TIMEOUT", sockets.DEAD_MILLISECONDS),
            ):
                if option := getattr(socket, name, None):
                    assert accepted.getsockopt(socket.IPPROTO_TCP, option) == value
    with socket.socket(socket.AF_UNIX) as local:
        sockets.tune(local)


def test_the_soft_limit_of_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) - 1, hard))
        sockets.raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
