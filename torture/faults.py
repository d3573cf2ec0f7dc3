"""What can go wrong. Each fault is a function that returns when the fault has ended; healing is not its work.

In: the deployment, and chance. A fault may raise ``Skipped`` with the reason why this machine cannot have it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from scoreboard.errors import ScoreboardError
from torture import clock
from torture.load import Load
from torture.proxy import Line
from torture.system import DISK_BYTES, ENGINES, System, fill, resize

LINE_SECONDS = (1.0, 4.0)  # how long a network is slow, silent or cut
TAKEOVER_SECONDS = 12.0  # until another worker has taken over; PostgreSQL ends a silent session after 4 s
POLL_SECONDS = 0.1
FULL_SECONDS = 3.0
BEHIND_SECONDS = (0.5, 2.0)  # how much a Redis loses
RESTART_SECONDS = 10.0
LOG_FILES = 32  # more than PostgreSQL keeps in reserve (min_wal_size, 16 MiB each)
LINES: tuple[Line, ...] = ("slow", "silent", "cut")
JUMPS_SECONDS = (-3600, 3600)
JUMPED_SECONDS = 2.0  # how long a clock is wrong


class Skipped(ScoreboardError):
    """This machine cannot have this fault."""


class Torture:
    """What a fault is given."""

    def __init__(self, system: System, load: Load, chance: random.Random) -> None:
        self.system, self.load, self.chance = system, load, chance

    async def some_time(self, between: tuple[float, float]) -> None:
        """Let it be so for a while."""
        await asyncio.sleep(self.chance.uniform(*between))


Fault = Callable[[Torture], Awaitable[None]]


async def kill_role(torture: Torture, role: str) -> None:
    """``kill -9`` of one of the two processes of a role."""
    torture.chance.choice(torture.system.processes(role)).kill()


async def kill_engine(torture: Torture, name: str) -> None:
    """``kill -9`` of an engine."""
    torture.system.engine(name).kill()


async def zombie(torture: Torture) -> None:
    """The worker that applies is stopped until the other has taken over, and goes on as if nothing were."""
    workers = torture.system.processes("worker")
    torture.chance.shuffle(workers)
    for worker in workers:
        worker.suspend()
        try:
            if await _applies(torture):
                continue  # it was the one that stands by
            async with asyncio.timeout(TAKEOVER_SECONDS):
                while not await _applies(torture):
                    await asyncio.sleep(POLL_SECONDS)
            return
        finally:
            worker.resume()


async def _applies(torture: Torture) -> bool:
    """Does anybody apply?"""
    return await torture.load.probe(torture.system.url) is not None


async def flush(torture: Torture) -> None:
    """``FLUSHALL``."""
    async with _board(torture) as server:
        await server.flushall()


async def go_back(torture: Torture) -> None:
    """The board's server ends, and comes back with what it had some seconds ago."""
    saved = torture.system.data / "valkey" / "dump.rdb"
    async with _board(torture) as server:
        await server.save()
    await torture.some_time(BEHIND_SECONDS)
    torture.system.engine("valkey").kill()
    async with asyncio.timeout(RESTART_SECONDS):
        while not await _answers(torture):
            await asyncio.sleep(POLL_SECONDS)
    saved.unlink()  # it has been read; the next start begins with nothing


async def bad_line(torture: Torture, engine: str, line: Line) -> None:
    """The second machine's network to an engine is slow, silent or cut for a while. Its worker applies."""
    proxy = torture.system.network[engine]
    if line == "slow":
        proxy.set(line)  # it takes over on a slow line
    for worker in torture.system.children("scoreboard worker"):
        worker.kill()  # the second machine's has been standing by
    try:
        if line != "slow":
            async with asyncio.timeout(TAKEOVER_SECONDS):
                while not await _applies(torture):
                    await asyncio.sleep(POLL_SECONDS)
        proxy.set(line)
        await torture.some_time(LINE_SECONDS)
    finally:
        proxy.set("open")


async def full_disk(torture: Torture, engine: str) -> None:
    """Nothing is left on the engine's file system for a while."""
    if not torture.system.disks:
        raise Skipped("this system does not allow mounting a small file system")
    disk = torture.system.data / engine
    fill(disk)
    try:
        if engine == "postgresql":
            await _want_room(torture)
        await asyncio.sleep(FULL_SECONDS)
    finally:
        resize(disk, DISK_BYTES)


async def full_memory(torture: Torture) -> None:
    """The board's server may take no more memory for a while: it keeps nothing on disk that could be full."""
    async with _board(torture) as server:
        await server.config_set("maxmemory", 1)
        try:
            await asyncio.sleep(FULL_SECONDS)
        finally:
            await server.config_set("maxmemory", 0)


async def jump(torture: Torture, who: str) -> None:
    """The clock of one process is an hour ahead or behind for a while, then right again."""
    system, chance = torture.system, torture.chance
    process = system.engine(who) if who in ENGINES else chance.choice(system.processes(who))
    try:
        with clock.shifted([process, *process.children(recursive=True)], chance.choice(JUMPS_SECONDS)):
            await asyncio.sleep(JUMPED_SECONDS)
    except clock.Unsupported as error:
        raise Skipped(str(error)) from error


async def _want_room(torture: Torture) -> None:
    """Have PostgreSQL begin new files of its log until it finds no room for one."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await asyncpg.connect(torture.system.urls.database)
        try:
            for _ in range(LOG_FILES):
                await connection.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, '', '')")
        finally:
            connection.terminate()


@asynccontextmanager
async def _board(torture: Torture) -> AsyncIterator[Redis]:
    async with Redis.from_url(torture.system.urls.board) as server:
        yield server


async def _answers(torture: Torture) -> bool:
    with suppress(RedisError, OSError):
        async with _board(torture) as server:
            return bool(await server.ping())
    return False


FAULTS: dict[str, Fault] = {
    **{f"kill -9 {role}": partial(kill_role, role=role) for role in ("api", "live", "worker")},
    **{f"kill -9 {name}": partial(kill_engine, name=name) for name in ENGINES},
    "worker paused, wakes up late": zombie,
    "FLUSHALL": flush,
    "board some seconds back": go_back,
    **{
        f"{line} line to {engine}": partial(bad_line, engine=engine, line=line)
        for line in LINES
        for engine in ENGINES
    },
    "full disk nats": partial(full_disk, engine="nats"),
    "full disk postgresql": partial(full_disk, engine="postgresql"),
    "full memory valkey": full_memory,
    **{f"clock jumps, {who}": partial(jump, who=who) for who in ("api", "worker", *ENGINES)},
}
