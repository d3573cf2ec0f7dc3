"""A log of a test's own, and entries for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from deployment import SECONDS, Deployment
from scoreboard.model import Update
from scoreboard.queue import Logged, Queue

SECRET = "a secret of this test, long enough for it"


@asynccontextmanager
async def opened(deployment: Deployment, max_bytes: int = 1 << 26) -> AsyncIterator[Queue]:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=1, max_bytes=max_bytes, replicas=1, known=None)
        yield queue


async def read(queue: Queue, after: int, count: int) -> list[Logged]:
    found: list[Logged] = []
    async with asyncio.timeout(SECONDS), aclosing(queue.read(0, after)) as batches:
        async for batch in batches:
            found += batch
            if len(found) >= count:
                break
    return found


def update(number: int = 0, size: int = 1) -> Update:
    return Update(number.to_bytes(16), f"user{number}", "win", "x" * size, 1, ("main",), "key:k")
