"""Updates: from requests to ledger, board and frames; single ones of users, and many at once of a service.

A cost is that of all processes until all is applied, divided by the rows that the ledger has grown by.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from costs import Line, Meter
from msgspec import Struct
from sending import MANY, Load, Poster, percentile, send
from system import LEAD, Ends, System
from websockets.asyncio.client import connect

USERS = 5_000  # each with a token
SERVICE_CONNECTIONS = 4  # of a backend that sends many at once
WATCHING = 10  # clients on the board, so that frames are made and sent
PROBES = 50  # a second
APPLIED = 200


class Latency(Struct, frozen=True):
    """From a request to what followed, in milliseconds, while others sent ``rate`` updates a second."""

    rate: float
    accepted: tuple[float, float]
    """p50 and p99; as all here."""
    applied: tuple[float, float]
    """To an answer with ``Prefer: wait``."""
    frame: tuple[float, float]
    """Until a client has read the frame that holds the point."""
    probes: int


async def applied(what: str, system: System, ends: Ends, load: Load, beside: str = "") -> Line:
    """Send, wait until all has arrived, and say what it cost."""
    await ends.arrived()
    before, meter = await ends.events(), Meter()
    async with watched(system), asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send(system.url, load))
        depths = [await system.depth()]
        for part in (0.5, 0.45):
            await asyncio.sleep(load.seconds * part)
            depths.append(await system.depth())
        sent = await sending
        await ends.arrived()
        meter.stop()
    rate, cost = meter.each(await ends.events() - before)
    note = f"{sent.refused} refused; " if sent.refused else ""
    note += "log: " + ", ".join(map(str, depths)) + " messages waited at the beginning, middle and end"
    return Line(
        what=what,
        rate=rate,
        cost=cost,
        p50=sent.p50,
        p99=sent.p99,
        beside=beside,
        note=note,
        span=meter.span,
    )


def single(system: System, seconds: int, rate: float = 0.0) -> Load:
    """Users who each report an action of their own."""
    users = [f"user-{number}" for number in range(USERS)]
    senders = tuple((user, system.token(user)) for user in users)
    return Load(what="update", seconds=seconds, senders=senders, rate=rate)


def many(system: System, seconds: int, users: int = USERS, rate: float = 0.0) -> Load:
    """A service that reports 500 at a time; ``rate`` updates a second, or as many as can be."""
    senders = (("any", system.key),)
    return Load(
        what="updates",
        seconds=seconds,
        senders=senders,
        users=users,
        connections=SERVICE_CONNECTIONS,
        rate=rate / MANY,
    )


async def latency(system: System, rate: float, seconds: int) -> Latency:
    """How long it takes while so many updates a second come in from others."""
    moments: dict[int, float] = {}
    applied: list[float] = []
    frames: list[float] = []

    def saw(frame: bytes | str) -> None:
        found = msgspec.json.decode(frame)
        score = found["top"][0]["score"] if found.get("top") else 0
        seen, now = [one for one in moments if one <= score], time.monotonic()
        frames.extend((now - moments.pop(one)) * 1e3 for one in seen)

    async with (
        connect(f"{system.url.replace('http', 'ws', 1)}/boards/main/live", compression=None) as socket,
        asyncio.TaskGroup() as tasks,
    ):
        watcher = tasks.create_task(_watch(socket.__aiter__(), saw))
        poster = await Poster.open(system.port, system.key)
        assert await poster.post("probe", f"lead:{time.time_ns()}", "wait=10") == APPLIED
        sending = tasks.create_task(send(system.url, single(system, seconds, rate)))
        end = time.monotonic() + seconds
        for point in itertools.count(LEAD + 1):
            if (began := time.monotonic()) > end:
                break
            moments[point] = began
            assert await poster.post("probe", f"step:{time.time_ns()}", "wait=10") == APPLIED
            applied.append((time.monotonic() - began) * 1e3)
            await asyncio.sleep(max(0.0, began + 1 / PROBES - time.monotonic()))
        sent = await sending
        async with asyncio.timeout(5):
            while moments:  # noqa: ASYNC110 - the watcher sets no event
                await asyncio.sleep(0.01)
        watcher.cancel()
    return Latency(
        sent.requests / sent.seconds, (sent.p50, sent.p99), _spread(applied), _spread(frames), len(applied)
    )


def _spread(values: list[float]) -> tuple[float, float]:
    return percentile(values, 0.5), percentile(values, 0.99)


async def _watch(frames: AsyncIterator[bytes | str], saw: Callable[[bytes | str], None]) -> None:
    async for frame in frames:
        saw(frame)


@asynccontextmanager
async def watched(system: System) -> AsyncIterator[None]:
    """Some clients watch the board while the block runs."""
    url = f"{system.url.replace('http', 'ws', 1)}/boards/main/live"

    async def watch() -> None:
        async with connect(url, compression=None) as socket:
            async for _ in socket:
                pass

    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(watch()) for _ in range(WATCHING)]
        yield
        for one in watching:
            one.cancel()
