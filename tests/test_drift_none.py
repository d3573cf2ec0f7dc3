"""What is on its way is no drift, nor what has changed since it was seen; and what is compared how often."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment, submit, until
from drifting import USERS, broken, restless, told
from scoreboard import config, drift, metrics
from scoreboard.board import Board
from scoreboard.database import Database
from scoreboard.model import Scope

__all__ = ["restless"]


async def test_a_commit_that_the_board_has_not_been_told_is_no_drift(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, apply = asyncio.Event(), Board.apply

    async def held(board: Board, batches: Any) -> Any:
        await may.wait()
        return await apply(board, batches)

    may.set()
    async with broken(deploy) as it, it.deployment.database() as connection:
        monkeypatch.setattr(Board, "apply", held)
        monkeypatch.setattr(drift, "STEP_SECONDS", 0.05)
        may.clear()
        before = told()
        updates = [{"userId": f"u{n}", "actionId": "point:late"} for n in range(USERS + 10)]
        await it.client.post("/update-scores", json=updates)

        async def committed() -> bool:
            late = "SELECT count(*) FROM events WHERE reference = 'late'"
            return bool(await connection.fetchval(late) == len(updates))

        await until(committed)
        swept = metrics.DRIFT_SWEEPS._value.get()

        async def swept_twice() -> bool:
            return bool(metrics.DRIFT_SWEEPS._value.get() >= swept + 3)

        await until(swept_twice)
        may.set()
        await it.mended()
        assert told() == before


async def test_updates_on_their_way_are_no_drift(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(drift, "ROWS", 7)  # many steps
    actions = {"point": config.Action(points=1), "little": config.Action(points=0)}
    boards = {"main": config.Board(), "dense": config.Board(rank="dense", order="asc")}
    deployment = await deploy(config.Config(actions=actions, boards=boards, queue=config.Queue(partitions=2)))
    admin = {"authorization": f"Bearer {await deployment.make_key(Scope.ADMIN)}"}
    async with deployment.running() as client:
        before, swept = told(), metrics.DRIFT_SWEEPS._value.get()
        numbers = itertools.count()

        async def load(part: int) -> None:
            for n in numbers:
                if n >= 180 and metrics.DRIFT_SWEEPS._value.get() - swept > 10:
                    return
                updates = [
                    {"userId": f"u{(n * 13 + m) % 50}", "actionId": f"point:{n}.{m}"} for m in range(20)
                ]
                await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
                user = f"u{n % 50}"
                await client.put(f"/users/{user}", json={"name": f"Name {n % 3}"})
                if part == 0:
                    act, body = [
                        ("hide", {"userId": user}), ("show", {"userId": user}), ("revoke", {"userId": user}),
                        ("restore", {"userId": user}),
                    ][n % 4]  # fmt: skip
                    assert (await client.post(f"/admin/{act}", json=body, headers=admin)).status_code in (
                        200,
                        202,
                    )

        async with asyncio.timeout(3 * SECONDS):  # long enough for many sweeps, however slow they are
            await asyncio.gather(*map(load, range(3)))
        assert told() == before


async def test_what_has_changed_since_it_was_seen_is_left_alone(deploy: Deploy) -> None:
    async with broken(deploy) as it, Database.open(it.deployment.database_url) as database:
        it.board.database = await database.identity()
        seen, _, member = await it.entry("u5")
        generation = await it.redis.hget(it.meta, "generation")
        assert (await submit(it.client, "u5", "point:more")).json()["status"] == "applied"
        now, _, member_now = await it.entry("u5")
        assert not await it.board.repair("main", b"another", [("u5", now, member_now)], [])
        assert await it.board.repair("main", generation, [("u5", seen, member_now), ("u5", seen, member)], [])
        assert (await it.entry("u5"))[0] == now
        assert await it.redis.zscore((await it.keys())[0], member_now) is not None


async def test_between_two_sweeps_of_a_board_only_its_top_is_compared(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(drift, "SWEEP_SECONDS", 3600.0)
    monkeypatch.setattr(drift, "TOP_ROWS", 3)
    ours: list[drift.Checker] = []
    steps: list[int] = []
    make, pairs = drift.Checker.__init__, drift.Checker._pairs

    def made(self: drift.Checker, *args: Any) -> None:
        make(self, *args)
        ours.append(self)

    async def compared(self: drift.Checker, *args: Any) -> list[drift.Pair]:
        found = await pairs(self, *args)
        if self in ours:  # another deployment's may be running
            steps.append(len(found))
        return found

    monkeypatch.setattr(drift.Checker, "__init__", made)
    monkeypatch.setattr(drift.Checker, "_pairs", compared)

    async def several() -> bool:
        return len(steps) >= 20

    async with deployment.running() as client:
        for user in range(USERS):
            assert (await submit(client, f"u{user}", "point:1", wait=5)).status_code == 200
        steps.clear()
        await until(several)
        assert steps[1:] == [3] * (len(steps) - 1)  # the first may have been under way
        monkeypatch.setattr(drift, "SWEEP_SECONDS", 0.0)
        steps.clear()
        await until(several)
        assert USERS in steps
