"""Users' places: many are read together, and nobody is kept waiting by another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from held_readings import Gate
from scoreboard.api import places
from scoreboard.api.places import Places
from scoreboard.board import Board
from scoreboard.board.form import FIELD
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.database import Database
from scoreboard.errors import BoardDamaged, BoardUnavailable, DatabaseUnavailable, Problem, Unavailable
from scoreboard.model import Around
from straight_way import shared

__all__ = ["shared"]


@asynccontextmanager
async def reading(deployment: Deployment) -> AsyncIterator[Places]:
    """Places of a deployment's boards, being read."""
    board = Board(deployment.environment.board, deployment.config)
    async with Database.open(deployment.database_url) as database, asyncio.TaskGroup() as tasks:
        made = Places(board, database, deployment.config.boards)
        running = tasks.create_task(made.run())
        try:
            yield made
        finally:
            running.cancel()
            await board.close()


async def ends(tasks: Sequence[asyncio.Task[Around]]) -> list[Any]:
    """What becomes of them: an error's type or code, or the user."""
    async with asyncio.timeout(SECONDS):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        one.code if isinstance(one, Problem) else type(one) if isinstance(one, BaseException) else one.user_id
        for one in found
    ]


async def test_who_asks_while_others_are_read_shares_the_next_reading(
    shared: tuple[Deployment, httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        names = ["nobody", "ann", "nobody", "ann", "else"]
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in names]
        await asyncio.sleep(0)  # they have asked
        tasks[-2].cancel()  # the others do not mind
        gate.open.set()
        assert await ends(tasks) == [
            *("ann", "unknown_user", "ann", "unknown_user", asyncio.CancelledError, "unknown_user")
        ]
    assert gate.rounds == [[("main", "ann")], [("main", "nobody"), ("main", "ann"), ("main", "else")]]
    assert not caplog.records


async def test_a_reading_has_so_many_users_at_most(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "TOGETHER", 2)
    gate = Gate(monkeypatch, Board, "standings")
    gate.open.set()
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", name)) for name in ("ann", "b", "c", "d", "e")]
        assert await ends(tasks) == ["ann", *["unknown_user"] * 4]
    assert [len(one) for one in gate.rounds] == [2, 2, 1]


async def test_when_a_reading_fails_all_who_wait_are_told_and_the_next_ones_are_read(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAITING", 3)
    gate = Gate(monkeypatch, Board, "standings")
    gate.fault = BoardUnavailable("away")
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in ("ann", "bob")]
        await asyncio.sleep(0)  # they have asked
        gate.open.set()
        assert await ends(tasks) == [BoardUnavailable] * 3
        assert len(gate.rounds) == 1
        with pytest.raises(BoardUnavailable):  # there is room again
            await read.around("main", "ann")
        gate.fault = None
        assert (await read.around("main", "ann")).score == 11


async def test_no_more_wait_than_there_is_room_for(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAITING", 3)
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in ("ann", "ann")]
        await asyncio.sleep(0)  # they have asked
        with pytest.raises(Problem, match="Too many ask"):
            await read.around("main", "ann")
        gate.open.set()
        assert await ends(tasks) == ["ann"] * 3
        assert (await read.around("main", "ann")).user_id == "ann"  # there is room again


async def test_a_board_waits_neither_for_another_nor_for_the_database(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, Database, "known")
    async with reading(shared[0]) as read:
        unknown = asyncio.create_task(read.around("main", "nobody"))
        await gate.until_held()
        with monkeypatch.context() as patch:
            patch.setattr(places, "WAITING", 1)
            with pytest.raises(Problem, match="Too many ask") as full:
                await read.around("main", "somebody")
            assert full.value.retry_after == 1
        async with asyncio.timeout(SECONDS):
            assert (await read.around("main", "ann")).rank == 1
        held = Gate(monkeypatch, Board, "standings")
        kept = asyncio.create_task(read.around("main", "ann"))
        await held.until_held()
        other = asyncio.create_task(read.around("closed", "ann"))
        await held.until_held(2)
        held.open.set()
        assert await ends([kept, other]) == ["ann", "ann"]
        assert held.rounds == [[("main", "ann")], [("closed", "ann")]]
        gate.fault = DatabaseUnavailable("away")
        gate.open.set()
        assert await ends([unknown]) == [DatabaseUnavailable]


@pytest.mark.parametrize("rank", ["ordinal", "competition", "dense"])
async def test_a_line_that_cannot_be_read_keeps_nobody_elses_back(deploy: Deploy, rank: Any) -> None:
    config = Config(actions={"win": Action(points=10)}, boards={"main": BoardSettings(rank=rank)})
    deployment = await deploy(config)
    async with deployment.running() as client:
        for user in ("a", "b", "c", "d"):
            await submit(client, user, "win:1")
    redis: Any = Redis.from_url(deployment.environment.board)
    meta = f"{deployment.name}:{{main:all}}:meta"
    users = meta.removesuffix("meta") + (await redis.hget(meta, "generation")).decode() + ":users"
    value = await redis.hget(users, "a")
    await redis.hset(users, "a", value.replace(b"10" + FIELD.encode(), b"1o" + FIELD.encode()))
    await redis.aclose()
    async with reading(deployment) as read:
        tasks = [asyncio.create_task(read.around("main", user)) for user in ("a", "b", "c", "d")]
        assert await ends(tasks) == [BoardDamaged, BoardDamaged, BoardDamaged, "d"]  # neighbours show it, too


async def test_a_reading_that_does_not_end_is_left_behind(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "READ_SECONDS", 0.01)
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        with pytest.raises(Unavailable, match="does not end"):
            await read.around("main", "ann")
        gate.open.set()
        monkeypatch.setattr(places, "READ_SECONDS", SECONDS)
        assert (await read.around("main", "ann")).user_id == "ann"


async def test_a_reading_that_is_cancelled_by_its_driver_has_failed(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    async with reading(shared[0]) as read:
        with monkeypatch.context() as patch:
            patch.setattr(Board, "standings", cancelled)
            with pytest.raises(Unavailable):
                await read.around("main", "ann")
        assert (await read.around("main", "ann")).user_id == "ann"


async def test_many_are_told_a_few_at_a_time(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SAID", 2)
    gate = Gate(monkeypatch, Board, "standings")
    turns: list[int] = []
    async with reading(shared[0]) as read:
        read.ask("main", "ann", lambda _: None)
        await gate.until_held()
        told: list[object] = []
        for _ in range(6):
            read.ask("main", "ann", told.append)
        gate.open.set()
        async with asyncio.timeout(SECONDS):
            while len(told) < 6:
                turns.append(len(told))
                await asyncio.sleep(0)
    assert {2, 4} <= set(turns)


async def test_one_who_cannot_be_told_keeps_nobody_else_from_it(
    shared: tuple[Deployment, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("broken")

    async with reading(shared[0]) as read:
        read.ask("main", "ann", broken)
        assert (await read.around("main", "ann")).user_id == "ann"
    assert "could not be told" in caplog.text
