"""When the board cannot be followed, every screen keeps its last frame and knows that it is old."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from by_hand import Raw, Stream
from plain_board import NAME, Valkey, board_on, chunks, configuration, row, running, told
from scoreboard.board import Board, watching
from scoreboard.live import hub
from watching import Serving, frame, serving, until

HEARTBEAT = {"type": "heartbeat", "board": "main", "epoch": "e1", "seq": 1}
STALE = HEARTBEAT | {"stale": True}


@pytest.fixture
async def live() -> AsyncIterator[Serving]:
    async with serving() as server:
        yield server


async def test_who_watches_is_told_and_who_joins_gets_the_last_frame_with_it(live: Serving) -> None:
    live.hub.publish(frame(1))
    async with await Raw.watch(live) as socket, await Stream.ask(live.address) as stream:
        assert [(await one())["type"] for one in (socket.message, stream.message)] == ["board", "board"]
        live.hub.contact(there=False)
        assert await socket.message() == await stream.message() == STALE
        live.hub.contact(there=False)  # said again and again
        async with (
            await Raw.watch(live) as late,
            await Raw.watch(live, "/boards/main/live?epoch=e1&seq=1") as back,
            await Stream.ask(live.address) as behind,
        ):
            assert (await late.message())["type"] == "board"
            assert await late.message() == STALE
            assert await back.message() == STALE
            assert (await behind.message())["type"] == "board"
            assert await behind.message() == STALE
            live.hub.contact(there=True)
            for said in (socket.message, stream.message, late.message, back.message, behind.message):
                assert await said() == HEARTBEAT
        live.hub.contact(there=True)
        live.hub.contact(there=False)
        assert await socket.message() == STALE
        live.hub.publish(frame(2))
        assert (await socket.message())["type"] == "board"
        await until(lambda: live.hub._merging is None)
        live.hub.publish(frame(3))  # a frame is word enough
        assert (await socket.message())["type"] == "board"
        live.hub.contact(there=True)
        live.hub.contact(there=False)
        assert await socket.message() == STALE | {"seq": 3}


async def test_before_the_first_frame_a_screen_knows_that_it_waits(live: Serving) -> None:
    async with await Raw.watch(live) as socket:
        live.hub.contact(there=False)
        assert await socket.message() == STALE | {"epoch": "", "seq": 0}
        async with await Raw.watch(live) as late:
            assert await late.message() == STALE | {"epoch": "", "seq": 0}
            live.hub.publish(frame(1))
            assert [(await one.message())["seq"] for one in (socket, late)] == [1, 1]


async def test_heartbeats_say_it_while_it_lasts(live: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_SECONDS", 0.05)
    live.hub.publish(frame(1))
    async with await Raw.watch(live) as socket:
        await socket.message()
        live.hub.contact(there=False)
        assert [await socket.message() for _ in range(3)] == [STALE] * 3


async def test_a_client_that_could_not_take_it_knows_it_when_it_can(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    live.hub.publish(frame(1))
    async with await Raw.watch(live, receive_buffer=4_096) as slow:
        (stalled,) = live.connections()
        seq = 1
        while not stalled.paused:
            seq += 1
            live.hub.publish(frame(seq, rows=100))
            await until(lambda: live.hub._merging is None)
        live.hub.contact(there=False)
        while "stale" not in (last := await slow.message()):
            assert last["type"] == "board"
        assert last == STALE | {"seq": seq}


async def test_a_plain_answer_says_it_too(live: Serving) -> None:
    async def asked(**headers: str) -> tuple[int, str | None]:
        answer = await client.get("/boards/main", headers=headers)
        assert "Scoreboard-Stale" in answer.headers["access-control-expose-headers"]
        return answer.status_code, answer.headers.get("scoreboard-stale")

    live.hub.publish(frame(1))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.address[1]}") as client:
        known = {"if-none-match": '"e1-1"'}
        assert (await asked(), await asked(**known)) == ((200, None), (304, None))
        live.hub.contact(there=False)
        assert (await asked(), await asked(**known)) == ((200, "1"), (304, "1"))
        live.hub.contact(there=True)
        assert (await asked(), await asked(**known)) == ((200, None), (304, None))


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@asynccontextmanager
async def following(board: Board) -> AsyncIterator[Serving]:
    """A server process that follows one board."""
    async with serving(boards=(NAME,)) as live, aclosing(board.frames([NAME], live.hubs.contact)) as frames:  # type: ignore[type-var]
        task = asyncio.create_task(live.hubs.follow(frames))
        try:
            yield live
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_screens_outlive_the_server_and_heal_within_a_second_of_its_return(
    tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoreboard.board.server.ANSWER_SECONDS", 0.3)
    async with running(tmp_path) as server, board_on(server) as board, following(board) as live:
        await told(board, row("a", 1, 1))
        async with await Raw.watch(live, f"/boards/{NAME}/live") as client:
            while (await client.message())["total"] != 1:
                pass
            server.signal(how)
            lost = await client.message()
            assert (lost["type"], lost["stale"]) == ("heartbeat", True)
            if how == signal.SIGSTOP:
                server.signal(signal.SIGCONT)
                async with asyncio.timeout(1.0 + watching.AGAIN_SECONDS[1]):
                    assert await client.message() == {name: lost[name] for name in lost if name != "stale"}
            else:
                await server.kill()
                await server.start()
                await board.rebuild(NAME, upto={0: 0}, rows=chunks([row("a", 7, 7)]))
                async with asyncio.timeout(1.0 + watching.AGAIN_SECONDS[1]):
                    while (healed := await client.message())["type"] != "board":
                        pass
                assert healed["top"][0]["score"] == 7


async def test_a_board_that_was_emptied_is_stale_until_it_is_rebuilt(valkey: Valkey) -> None:
    board = Board(valkey.url, configuration(), "database")
    told_of: list[bool] = []
    try:
        await board.rebuild(NAME, upto={0: 0}, rows=chunks([row("a", 1, 1)]))
        async with aclosing(board.frames([NAME], lambda _, there: told_of.append(there))) as frames:  # type: ignore[type-var]
            await anext(frames)
            following = asyncio.ensure_future(anext(frames))
            await until(lambda: told_of[-1:] == [True])
            async with valkey.client() as redis:
                await redis.delete(board._specs[NAME].meta)
            await until(lambda: told_of[-1] is False)
            await board.rebuild(NAME, upto={0: 0}, rows=chunks([row("a", 2, 2)]))
            assert (await following).top[0].score == 2
    finally:
        await board.close()
