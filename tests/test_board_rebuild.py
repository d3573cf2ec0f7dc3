"""Rebuilding a board: what is half built is not shown, one builds at a time, nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from plain_board import (
    NAME,
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
from scoreboard.board import Board, BoardBehind, writing
from scoreboard.errors import BoardUnavailable
from scoreboard.model import Row

ROWS = [row(f"u{n}", n % 100, n + 1) for n in range(2_500)]


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


async def test_a_rebuild_that_loses_a_chunk_is_not_shown(valkey: Valkey) -> None:
    async with board_on(valkey) as board:
        await told(board, row("a", 1, 1))

        async def rows() -> AsyncIterator[Sequence[Row]]:
            yield ROWS[:1]
            async with valkey.client() as client:  # it came back as if that had not been
                await client.hset(board._specs[NAME].meta, "loaded", "0")
            yield ROWS[1:2]

        with pytest.raises(BoardBehind):
            await board.rebuild(NAME, upto={}, rows=rows())
        assert await shown(board) == [("a", 1)]


@pytest.mark.parametrize("written", [False, True], ids=["lost", "written"])
async def test_a_rebuild_goes_on_when_one_answer_does_not_come(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    async with board_on(valkey) as board:
        run, steps = board._server.run, itertools.count()

        async def cut(script: Any, calls: Any) -> list[Any]:
            if next(steps) != 3:  # begin, two loads, and this one
                return await run(script, calls)
            if written:
                await run(script, calls)
            raise BoardUnavailable

        monkeypatch.setattr(board._server, "run", cut)
        assert await board.rebuild(NAME, upto={}, rows=chunks(ROWS[:1_000], ROWS[1_000:])) == len(ROWS)
        monkeypatch.undo()
        assert (
            await board.compare(NAME, chunks(sorted(ROWS, key=lambda r: (-(r.score or 0), r.reached)))) == []
        )


async def test_a_rebuild_keeps_its_lease_while_the_database_sorts(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LEASE_MILLISECONDS", 200)
    monkeypatch.setattr(writing, "RENEW_SECONDS", 0.02)
    async with board_on(valkey) as board, valkey.client() as client:

        async def rows() -> AsyncIterator[Sequence[Row]]:
            lease = await client.hget(board._specs[NAME].meta, "lease")
            await until(lambda: past(int(lease)))
            yield ROWS[:3]

        async def past(lease: int) -> bool:
            seconds, microseconds = await client.time()
            return bool(seconds * 1_000 + microseconds // 1_000 > lease)

        assert await board.rebuild(NAME, upto={}, rows=rows()) == 3


async def building(server: Valkey, board: Board) -> str:
    async with server.client() as client:
        value = await client.hget(board._specs[NAME].meta, "building")
        return str(value.decode())


async def test_one_rebuild_at_a_time_and_none_leaves_anything(valkey: Valkey) -> None:
    async with board_on(valkey, rank="dense") as board:
        await told(board, row("a", 1, 1))
        began, go_on = asyncio.Event(), asyncio.Event()

        async def rows() -> AsyncIterator[Sequence[Row]]:
            yield [row("a", 1, 1), row("b", 2, 2)]
            began.set()
            await go_on.wait()

        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(board.rebuild(NAME, upto={}, rows=rows()))
            await began.wait()
            assert await board.rebuild(NAME, upto={}, rows=chunks([row("x", 9, 9)])) is None
            half_built = await keys(valkey, board)
            async with valkey.client() as client:
                # Should its builder die now, these would not outlive it for ever.
                name = await building(valkey, board)
                assert all([await client.pttl(key) > 0 for key in half_built if name in key])
            first.cancel()
        assert len(half_built) == 7  # meta and two generations
        assert len(await keys(valkey, board)) == 4
        assert await board.rebuild(NAME, upto={}, rows=chunks([row("a", 1, 1), row("b", 2, 2)])) == 2
        assert await shown(board) == [("b", 2), ("a", 1)]
        left = await keys(valkey, board)
        assert len(left) == 4
        async with valkey.client() as client:
            assert [await client.pttl(key) for key in left] == [-1] * 4


async def test_a_builder_that_fell_asleep_is_replaced_and_stands_back(valkey: Valkey) -> None:
    async with board_on(valkey) as board:

        async def rows() -> AsyncIterator[Sequence[Row]]:
            yield [row("old", 1, 1)]
            async with valkey.client() as client:
                await client.hset(board._specs[NAME].meta, "lease", "0")
            await told(board, row("a", 1, 2))  # whoever comes first ends it
            assert len(await keys(valkey, board)) == 3  # meta, and the one generation that is shown
            assert await board.rebuild(NAME, upto={}, rows=chunks([row("a", 1, 2)])) == 1
            yield [row("old", 1, 1)]

        with pytest.raises(BoardBehind):
            await board.rebuild(NAME, upto={}, rows=rows())
        assert await shown(board) == [("a", 1)]
        assert len(await keys(valkey, board)) == 3
