"""After a commit: what the boards are told, in pieces if it is much, and that none of it is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from conftest import Deploy
from deployment import Deployment, until
from scoreboard import refresh
from scoreboard.board import Batch, Board, Ranks, writing
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.errors import BoardUnavailable
from scoreboard.refresh import Committed, Refresher

FEW = 100
MANY = 5 * FEW


class Told:
    """What boards are told: board and number of rows, and what they answer, unless an answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[tuple[str, int]] = []
        self.failed: list[BoardUnavailable] = []
        self.caught_up: list[str] = []
        self.loses: Callable[[], bool] = lambda: False
        """Does the answer to what was told just now not come?"""
        self.meanwhile: Callable[[], Any] | None = None
        """Awaited before that."""
        apply, catch_up = Board.apply, Board.catch_up

        async def applied(board: Board, batches: Sequence[Batch]) -> list[Ranks | BoardUnavailable]:
            told = [(one.board, len(one.rows)) for one in batches if one.rows]
            self.rows += told
            if told and self.loses():
                if self.meanwhile is not None:
                    await self.meanwhile()
                answers: list[Ranks | BoardUnavailable] = [BoardUnavailable("no answer") for _ in batches]
            else:
                answers = await apply(board, batches)
            self.failed += [answer for answer in answers if isinstance(answer, BoardUnavailable)]
            return answers

        async def caught_up(board: Board, name: str, rows: Any, **where: int) -> None:
            self.caught_up.append(name)
            await catch_up(board, name, rows, **where)

        monkeypatch.setattr(writing, "PIECE_ROWS", FEW)
        monkeypatch.setattr(Board, "apply", applied)
        monkeypatch.setattr(Board, "catch_up", caught_up)


async def report(client: httpx.AsyncClient, word: str, types: Sequence[str]) -> list[dict[str, Any]]:
    """An action of a user each, in one request; the outcomes."""
    updates = [{"userId": f"{word}{n:03}", "actionId": f"{kind}:{word}{n}"} for n, kind in enumerate(types)]
    answer = await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
    results: list[dict[str, Any]] = answer.json()["results"]
    assert [one["status"] for one in results] == ["applied"] * len(types)
    return results


async def users_of(client: httpx.AsyncClient, board: str, count: int) -> list[str]:
    """The users of a board, best first, once there are so many."""
    page: dict[str, Any] = {}

    async def all_are_shown() -> bool:
        nonlocal page
        page = (await client.get(f"/boards/{board}?limit=1000")).json()
        return bool(page["total"] == count)

    await until(all_are_shown)
    return [line["userId"] for line in page["top"]]


def ranks(results: Sequence[dict[str, Any]]) -> list[int | None]:
    return [one["boards"]["main"]["rank"] for one in results]


async def test_what_many_did_at_once_comes_in_pieces(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment.running() as client:
        told = Told(monkeypatch)
        results = await report(client, "u", ["point"] * MANY)
        # All have one point: who came first stands first.
        assert await users_of(client, "main", MANY) == [f"u{n:03}" for n in range(MANY)]
    assert told.rows == [("main", FEW)] * 5
    assert ranks(results) == list(range(1, MANY + 1))
    assert told.caught_up == []


async def test_boards_of_different_sizes_each_get_all_of_theirs(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = {"any": Action(points=1), "rare": Action(points=1)}
    boards = {"few": BoardSettings(actions=("rare",)), "main": BoardSettings()}
    deployment: Deployment = await deploy(Config(actions=actions, boards=boards))
    async with deployment.running() as client:
        told = Told(monkeypatch)
        await report(client, "u", ["rare" if n % 3 == 0 else "any" for n in range(3 * FEW)])
        assert len(await users_of(client, "main", 3 * FEW)) == 3 * FEW
        assert await users_of(client, "few", FEW) == [f"u{n:03}" for n in range(0, 3 * FEW, 3)]
    assert sorted(told.rows) == [("few", FEW), *[("main", FEW)] * 3]
    assert told.caught_up == []


async def test_a_piece_without_an_answer_is_caught_up_with_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when more, of several pieces, is committed before that: the board has read it then."""
    async with deployment.running() as client:
        told = Told(monkeypatch)

        async def more_is_committed() -> None:
            await deployment.ledger_holds(2 * MANY)

        told.loses = lambda: len(told.rows) == 2
        told.meanwhile = more_is_committed
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(report(client, "a", ["point"] * MANY))
            await deployment.ledger_holds(MANY)
            second = tasks.create_task(report(client, "b", ["point"] * MANY))
        shown = await users_of(client, "main", 2 * MANY)
    assert shown == [f"{word}{n:03}" for word in "ab" for n in range(MANY)]
    assert told.caught_up == ["main"]
    assert [str(error) for error in told.failed] == ["no answer"]
    assert ranks(first.result()) == [*range(1, FEW + 1), *[None] * 4 * FEW]
    assert ranks(second.result()) == list(range(MANY + 1, 2 * MANY + 1))


async def test_what_is_committed_as_the_pause_ends_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the pause and a commit are both due when the loop goes on: the commit's rows come first."""
    monkeypatch.setattr(refresh, "ADVANCE_SECONDS", 0.02)
    state = refresh._Partition()
    state.missed, state.told, state.upto = False, {"main": 5}, 5
    new = Committed(1_023, None, (), ())

    def commit() -> None:
        state.upto = new.upto
        state.arrived.put_nowait(new)

    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(Refresher._next(Refresher.__new__(Refresher), state))
    await asyncio.sleep(0)
    loop.call_at(due := loop.time() + 0.021, commit)
    while loop.time() < due + 0.01:
        pass  # as while another partition's batch is judged
    assert await waiting == [new]
    assert state.arrived.empty()
