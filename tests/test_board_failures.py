"""The board when things go wrong: what is lost shows, nothing is half done, nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from plain_board import (
    NAME,
    SECONDS,
    Plain,
    Valkey,
    board_on,
    chunks,
    keys,
    row,
    running,
    shown,
    told,
    until,
)
from scoreboard.board import Batch, Board, BoardBehind, watching
from scoreboard.errors import BoardUnavailable
from scoreboard.model import Row

ROWS = [row(f"u{n}", n % 100, n + 1) for n in range(2_500)]


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


async def outcome(board: Board, *rows: Row, expect: int | None = None, upto: int = 0) -> Any:
    (answer,) = await board.apply([Batch(NAME, rows, 0, expect, upto)])
    return answer


async def rolled_back(server: Valkey, board: Board, happen: Callable[[], Awaitable[None]]) -> None:
    """What happens is forgotten by the server: it comes back with what it had before."""
    async with server.client() as client:
        kept = {key: await client.dump(key) for key in await keys(server, board)}
        await happen()
        await client.delete(*await keys(server, board))
        for key, value in kept.items():
            await client.restore(key, 0, value)


async def test_a_batch_that_does_not_come_next_changes_nothing(valkey: Valkey) -> None:
    async with board_on(valkey) as board:
        assert await outcome(board, row("a", 1, 1), expect=0, upto=2**62) == {}
        before = await board.frame(NAME)
        for expect in (0, 2**62 - 1, 2**62 + 1):  # a double could not tell the last two from 2^62
            answer = await outcome(board, row("b", 2, 2), expect=expect, upto=2**62 + 2)
            assert isinstance(answer, BoardBehind)
        assert await board.position(NAME) == {0: 2**62}
        assert await board.frame(NAME) == before
        # What came already and comes once more does not set it back.
        assert await outcome(board, row("a", 1, 1), upto=5) == {}
        assert await board.position(NAME) == {0: 2**62}


async def test_lost_seconds_show_and_catching_up_gives_a_new_epoch(valkey: Valkey) -> None:
    async with board_on(valkey) as board:
        await told(board, row("a", 1, 1), upto=1)
        old = await board.frame(NAME)

        async def more() -> None:
            assert await outcome(board, row("b", 2, 2), expect=1, upto=2) == {}

        await rolled_back(valkey, board, more)
        assert isinstance(await outcome(board, row("c", 3, 3), expect=2, upto=3), BoardBehind)
        assert await board.position(NAME) == {0: 1}
        await board.catch_up(NAME, [row("b", 2, 2), row("c", 3, 3)], partition=0, upto=3)
        assert await shown(board) == [("c", 3), ("b", 2), ("a", 1)]
        new = await board.frame(NAME)
        assert old is not None
        assert new is not None
        assert (new.epoch != old.epoch, new.seq) == (True, 1)
        await board.catch_up(NAME, [], partition=0, upto=3)  # nothing to tell is a new epoch, too
        last = await board.frame(NAME)
        assert last is not None
        assert (last.top, last.epoch == new.epoch) == (new.top, False)


@pytest.mark.parametrize("lost", [None, 1, 2])
async def test_catching_up_that_loses_a_chunk_promises_nothing(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, lost: int | None
) -> None:
    async with board_on(valkey) as board:
        calls = 0
        run = board._server.run

        async def run_and_forget(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != lost:
                return await run(*arguments)
            answers: list[Any] = []

            async def happen() -> None:
                answers.extend(await run(*arguments))

            await rolled_back(valkey, board, happen)
            return answers

        with monkeypatch.context() as patched:
            patched.setattr(board._server, "run", run_and_forget)
            if lost is None:
                await board.catch_up(NAME, ROWS, partition=0, upto=2_500)
            else:
                with pytest.raises(BoardBehind):
                    await board.catch_up(NAME, ROWS, partition=0, upto=2_500)
                assert await board.position(NAME) == {0: 0}
        await board.catch_up(NAME, ROWS, partition=0, upto=2_500)
        assert await board.position(NAME) == {0: 2_500}
        plain = Plain("desc", "ordinal")
        plain.apply(ROWS)
        assert await shown(board) == [(line.user_id, line.score) for line in plain.lines()[:1_000]]


async def test_everything_can_be_lost_at_any_moment(tmp_path: Path) -> None:
    async with running(tmp_path) as server, board_on(server) as board:

        async def flush() -> None:
            async with server.client() as client:
                await client.flushall()

        async def rows() -> AsyncIterator[Sequence[Row]]:
            yield [row("a", 1, 1)]
            await flush()
            yield [row("b", 2, 2)]

        with pytest.raises(BoardBehind):
            await board.rebuild(NAME, upto={0: 2}, rows=rows())
        assert await keys(server, board) == set()
        await board.rebuild(NAME, upto={0: 2}, rows=chunks([row("a", 1, 1)]))
        await flush()
        assert isinstance(await outcome(board, row("b", 2, 2), expect=2, upto=3), BoardBehind)
        assert isinstance(await outcome(board, row("b", 2, 2), upto=3), BoardBehind)
        with pytest.raises(BoardBehind):
            await board.catch_up(NAME, ROWS, partition=0, upto=3)
        assert await board.position(NAME) is None
        assert await board.frame(NAME) is None
        assert await keys(server, board) == set()
        await board.rebuild(NAME, upto={0: 2}, rows=chunks([row("a", 1, 1)]))
        assert await board.position(NAME) == {0: 2}
        assert await shown(board) == [("a", 1)]


async def test_a_server_that_is_away_or_hangs_is_reported_soon(tmp_path: Path) -> None:
    async with running(tmp_path) as server, board_on(server) as board:
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert isinstance(await outcome(board, row("a", 1, 1)), BoardUnavailable)
        with pytest.raises(BoardUnavailable):
            await board.page(NAME, limit=1)
        assert time.monotonic() - began < SECONDS
        server.signal(signal.SIGCONT)
        await told(board, row("a", 1, 1))
        await server.kill()
        assert isinstance(await outcome(board, row("a", 1, 1)), BoardUnavailable)
        with pytest.raises(BoardUnavailable):
            await board.rebuild(NAME, upto={}, rows=chunks())
        await server.start()
        assert await board.position(NAME) is None
        assert await board.rebuild(NAME, upto={}, rows=chunks([row("a", 1, 1)])) == 1


async def test_a_server_that_forgot_its_scripts_is_told_again(tmp_path: Path) -> None:
    async with running(tmp_path) as server, board_on(server) as board, server.client() as client:
        await client.script_flush()
        answers = await board.apply(
            [Batch(NAME, [row("a", 1, 1)], 0, 0, 1), Batch(NAME, [row("b", 2, 2)], 0, 1, 2)]
        )
        assert answers == [{}, {}]
        await client.script_flush()
        assert await shown(board) == [("b", 2), ("a", 1)]


async def test_without_memory_nothing_is_half_written_and_all_is_read(tmp_path: Path) -> None:
    async with running(tmp_path) as server, board_on(server) as board, server.client() as client:
        await told(board, row("a", 1, 1), upto=1)
        await client.config_set("maxmemory", "1")
        # Moving takes the old member out before it puts the new one in: it must not stop between.
        assert isinstance(await outcome(board, row("a", 2, 2), upto=2), BoardUnavailable)
        assert await shown(board) == [("a", 1)]
        assert await board.position(NAME) == {0: 1}
        await client.config_set("maxmemory", "0")
        await told(board, row("a", 2, 2), upto=2)
        assert await shown(board) == [("a", 2)]


async def test_all_keys_of_a_board_lie_in_one_slot_of_a_cluster(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        bus = str(free.getsockname()[1])
    options = ("--cluster-enabled", "yes", "--cluster-port", bus, "--bind", "127.0.0.1")
    async with running(tmp_path, *options) as server, server.client() as client:
        await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)

        async def formed() -> bool:
            info = await client.execute_command("CLUSTER INFO")
            return bool(info["cluster_state"] == "ok")

        await until(formed)
        async with board_on(server, rank="dense") as board:
            await told(board, row("a", 1, 1), row("b", 2, 2), upto=1, wanted=["a"])
            await board.rebuild(NAME, upto={}, rows=chunks([row("a", 1, 1), row("b", 2, 2)]))
            await board.catch_up(NAME, [row("b", 0, 3)], partition=0, upto=2)
            assert await shown(board) == [("a", 1), ("b", 0)]
            (standing,) = await board.standings([(NAME, "b")])
            assert standing is not None
            assert standing.around() is not None


async def test_a_cancellation_is_never_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "CHECK_SECONDS", 0)  # who listens asks all the time whether it is heard
    async with running(tmp_path) as server, board_on(server) as board:

        async def ask() -> None:
            while True:
                await board.changes([NAME])

        async def listen() -> None:
            async with aclosing(board.touched([NAME])) as touched:
                await anext(touched)

        for role in (ask, listen):
            for turns in range(100):  # the moment that matters is one turn of the loop long
                task = asyncio.create_task(role())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=SECONDS)
                assert done, (role, turns)
