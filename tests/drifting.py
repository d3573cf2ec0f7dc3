"""For the tests of drift: a board that a hand reaches into, and what is reported of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from conftest import Deploy
from deployment import Deployment, until
from scoreboard import config, drift, metrics
from scoreboard.board import Board, form
from scoreboard.database import Database

USERS = 40
KINDS = ("missing", "extra", "score", "reached", "name", "entry", "frame", "unreadable")
MENDED_SECONDS = 5.0  # a small board is compared whole each second, for there is no rest between sweeps here


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep follows the other."""
    monkeypatch.setattr(drift, "SWEEP_SECONDS", 0.0)


def told() -> dict[str, float]:
    """What has been reported so far."""
    return {kind: metrics.DRIFT.labels(kind)._value.get() for kind in KINDS}


class Broken:
    """A deployment with something on its board, and a hand in the board's server."""

    def __init__(self, deployment: Deployment, client: httpx.AsyncClient, redis: Any, board: Board) -> None:
        self.deployment, self.client, self.redis, self.board = deployment, client, redis, board
        self.meta = f"{deployment.name}:{{main:all}}:meta"

    async def keys(self) -> tuple[str, str, str]:
        """Ranking, users, steps."""
        generation = (await self.redis.hget(self.meta, "generation")).decode()
        base = self.meta.removesuffix("meta") + generation
        return f"{base}:rank", f"{base}:users", f"{base}:steps"

    async def entry(self, user: str) -> tuple[bytes, form.Entry, str]:
        """A user's value, what it says, and its member."""
        value = await self.redis.hget((await self.keys())[1], user)
        found = form.entry(user, value)
        assert found is not None
        return value, found, form.member_of(found.reached, user)

    async def mended(self) -> None:
        """Wait until board and database are the same, in the bounded time."""
        async with Database.open(self.deployment.database_url) as database:

            async def same() -> bool:
                order = self.deployment.config.boards["main"].order
                return not await self.board.compare("main", database.all_rows("main", ordered=order))

            async with asyncio.timeout(MENDED_SECONDS):
                await until(same)


@asynccontextmanager
async def broken(deploy: Deploy, **settings: Any) -> AsyncIterator[Broken]:
    boards = {"main": config.Board(**settings)}
    deployment = await deploy(config.Config(boards=boards, actions={"point": config.Action(points=1)}))
    board = Board(deployment.environment.board, deployment.config)
    redis = Redis.from_url(deployment.environment.board)
    async with deployment.running() as client:
        updates = [
            {"userId": f"u{n}", "actionId": f"point:{m}"} for n in range(USERS) for m in range(n % 7 + 1)
        ]
        results = await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
        assert {one["status"] for one in results.json()["results"]} == {"applied"}
        yield Broken(deployment, client, redis, board)
    await board.close()
    await redis.aclose()


async def surplus_user(it: Broken) -> None:
    rank, users, _ = await it.keys()
    await it.redis.hset(users, "ghost", form.version(5) + form.version(5) + "1000\x1fGhost")
    await it.redis.zadd(rank, {form.member_of(5, "ghost"): -1000})
