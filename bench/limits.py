"""What ours is measured against, in the same run: a service written by hand, and the engines by themselves.

All on private engines like ours, with full durability.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import nats
from costs import Line, Meter
from machine import HERE, ended, free_port, start, until_open
from nats.js.api import StreamConfig
from redis.asyncio import Redis
from sending import Load, Sent, send
from updates import USERS, WATCHING
from websockets.asyncio.client import connect

from scoreboard.auth.tokens import LOCAL_AUDIENCE
from scoreboard.config import Environment
from scoreboard.engines import Urls, engines

ROWS = 500  # of an insert, and updates of a pipeline: as many as an envelope holds
MESSAGE_BYTES = 4_000  # of a publish: some 30 updates
PLAIN = "by hand: a single update"

Burst = Callable[[], Awaitable[int]]
"""Does some of it; how many."""


async def limits(home: Path, seconds: int) -> AsyncIterator[Line]:
    """The lines, one after the other."""
    async with engines(home / "data", Environment()) as urls:
        yield await by_hand(urls, seconds)
        yield await _bursts("a bare synced publish of 4 kB", seconds, _publish(urls))
        yield await _bursts("a bare insert, 500 rows by unnest", seconds, _insert(urls))
        yield await _bursts("a bare ZADD, 500 in a pipeline", seconds, _zadd(urls))


async def by_hand(urls: Urls, seconds: int) -> Line:
    """The service of plain/service.py, under the same load as ours."""
    import jwt

    secret = os.urandom(32).hex()
    claims = {"aud": LOCAL_AUDIENCE, "exp": int(time.time()) + 3_600}
    users = [f"user-{number}" for number in range(USERS)]
    senders = tuple((user, jwt.encode({"sub": user, **claims}, secret)) for user in users)
    outer = {"DATABASE_URL": urls.database, "REDIS_URL": urls.board, "SECRET": secret}
    port = free_port()
    command = (
        "-m",
        "uvicorn",
        "service:app",
        "--app-dir",
        "plain",
        "--no-access-log",
        "--log-level",
        "warning",
    )
    with ended(start(None, sys.executable, *command, "--port", str(port), **outer)):
        await asyncio.to_thread(until_open, port)
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(_watch(port)) for _ in range(WATCHING)]
            load = Load(what="update", seconds=seconds, senders=senders)
            sent, meter = await _sent(f"http://127.0.0.1:{port}", load)
            for one in watching:
                one.cancel()
    return _line(PLAIN, sent, meter)


async def _watch(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/live", compression=None) as socket:
        async for _ in socket:
            pass


@asynccontextmanager
async def serving_nothing() -> AsyncIterator[str]:
    """The URL of a server whose answers are empty."""
    with ended(start(None, sys.executable, HERE / "empty.py")) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


async def read(what: str, url: str, load: Load, beside: str = "") -> Line:
    """What answers to this load cost."""
    sent, meter = await _sent(url, load)
    return _line(what, sent, meter, beside)


async def _sent(url: str, load: Load) -> tuple[Sent, Meter]:
    meter = Meter()
    sent = await send(url, load)
    meter.stop()
    assert not sent.refused, sent
    return sent, meter


def _line(what: str, sent: Sent, meter: Meter, beside: str = "") -> Line:
    _, cost = meter.each(sent.requests)
    rate = sent.requests / sent.seconds
    return Line(what=what, rate=rate, cost=cost, p50=sent.p50, p99=sent.p99, beside=beside, span=meter.span)


async def _bursts(what: str, seconds: int, opened: AbstractAsyncContextManager[Burst]) -> Line:
    """One burst after the other."""
    async with opened as burst:
        await burst()  # connects, prepares
        count, meter, end = 0, Meter(), time.monotonic() + seconds
        while time.monotonic() < end:
            count += await burst()
        meter.stop()
    rate, cost = meter.each(count)
    return Line(what=what, rate=rate, cost=cost, span=meter.span)


@asynccontextmanager
async def _publish(urls: Urls) -> AsyncIterator[Burst]:
    client = await nats.connect(urls.queue)
    jetstream, body = client.jetstream(), os.urandom(MESSAGE_BYTES)
    await jetstream.add_stream(StreamConfig(name="bare", subjects=["bare"]))

    async def burst() -> int:
        await jetstream.publish("bare", body)
        return 1

    yield burst
    await client.close()


@asynccontextmanager
async def _insert(urls: Urls) -> AsyncIterator[Burst]:
    connection = await asyncpg.connect(urls.database)
    await connection.execute(
        "CREATE TABLE bare (id uuid PRIMARY KEY, user_id text, points bigint, at timestamptz DEFAULT now())"
    )
    insert = await connection.prepare(
        "INSERT INTO bare (id, user_id, points) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])"
    )

    async def burst() -> int:
        ids = [uuid.uuid4() for _ in range(ROWS)]
        await insert.fetch(ids, [f"user-{n}" for n in range(ROWS)], [1] * ROWS)
        return ROWS

    yield burst
    await connection.close()


@asynccontextmanager
async def _zadd(urls: Urls) -> AsyncIterator[Burst]:
    redis = Redis.from_url(urls.board)

    async def burst() -> int:
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(ROWS):
                pipeline.zadd("bare", {f"user-{random.randrange(USERS)}": random.random()})  # noqa: S311
            await pipeline.execute()
        return ROWS

    yield burst
    await redis.aclose()
