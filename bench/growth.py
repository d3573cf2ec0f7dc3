"""Reads, and how costs grow: a deployment filled to a size, started, asked, and sent updates of all users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
from costs import Line
from filling import fill
from limits import read, serving_nothing
from matplotlib.figure import Figure
from msgspec import Struct
from redis.asyncio import Redis
from sending import Load, send
from system import CONFIG, System, ends_of, running
from updates import applied, many

USERS = (1_000, 10_000, 100_000, 1_000_000)
EVENTS = (10_000, 100_000, 1_000_000)
OF_USERS = 10_000  # whose ledger grows
LARGE = 10_000_000
WARMED_A_SECOND = 100_000  # users whose pages some 25,000 updates write to: eighty have a place on each
READS_AT = (10_000, 1_000_000, LARGE)  # users: what reads cost is measured, too


class Size(Struct, frozen=True):
    """One deployment of this size."""

    users: int
    events: int
    ready_seconds: float
    """From the start until the board was built anew and everything served."""
    cost: Mapping[str, float]
    """Microseconds an update, by process."""
    rank_ms: tuple[float, float]
    """p50 and p99 of ``GET /boards/main/users/{userId}`` on one connection."""
    rank_server_us: float
    """Of it, the script's own time in Valkey."""
    verified: str
    span: tuple[float, float]
    """When the updates were measured (``time.monotonic``)."""
    slowed: float = 1.0
    """How much slower than at its best the machine was then: see speed.py."""

    @property
    def total(self) -> float:
        """Of all processes."""
        return sum(self.cost.values())


async def size(home: Path, users: int, events: int, seconds: int, *, reads: bool) -> tuple[Size, list[Line]]:
    """Fill, start, ask, send, verify; with ``reads`` also what these cost."""
    await fill(home, CONFIG, users, events)
    with running(home) as system:
        async with ends_of(system) as ends:
            await ends.arrived()
            events = await ends.events()
            lines = await _reads(system, users, seconds) if reads else []
            rank, server = await _rank(system, users, seconds)
            # PostgreSQL's first write to a page after a start logs all of it; here it is not to be measured.
            await send(system.url, many(system, max(seconds, users // WARMED_A_SECOND), users))
            senders = (("any", system.key),)
            load = Load(what="update", seconds=seconds, senders=senders, users=users)
            line = await applied("", system, ends, load)
        verified = system.verify()
    found = Size(users, events, system.ready_seconds, line.cost, rank, server, verified, line.span)
    return found, lines


async def _reads(system: System, users: int, seconds: int) -> list[Line]:
    """What answers cost, beside empty ones."""
    async with httpx.AsyncClient() as client:
        tag = (await client.get(f"{system.url}/boards/main")).headers["etag"]
    page, on = Load(what="page", seconds=seconds), f"{users:,} users"
    known = msgspec.structs.replace(page, headers=(("If-None-Match", tag),))
    rank = msgspec.structs.replace(page, what="line", users=users)
    empty = f"an empty ASGI answer, beside {on}"
    async with serving_nothing() as url:
        return [
            await read(empty, url, page),
            await read(f"`GET /boards/main`, {on}", system.url, page, empty),
            await read(f"the same with `If-None-Match`: 304, {on}", system.url, known, empty),
            await read(f"`GET /boards/main/users/{{userId}}`, {on}", system.url, rank, empty),
        ]


async def _rank(system: System, users: int, seconds: int) -> tuple[tuple[float, float], float]:
    """A user's rank when nothing else happens: milliseconds to the answer, microseconds in Valkey."""
    redis = Redis.from_url(system.urls.board)

    async def spent() -> tuple[int, int]:
        stats = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return stats["calls"], stats["usec"]

    calls, usec = await spent()
    sent = await send(system.url, Load(what="line", seconds=seconds, users=users, connections=1))
    calls_after, usec_after = await spent()
    await redis.aclose()
    return (sent.p50, sent.p99), (usec_after - usec) / (calls_after - calls)


def draw(file: Path, by_users: Sequence[Size], by_events: Sequence[Size]) -> None:
    """Cost of an update and time of a rank against size."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    users, events = [one.users for one in by_users], [one.events for one in by_events]
    ledger = f"events of {OF_USERS:,} users"
    left.plot(users, [one.total for one in by_users], "o-", label="users")
    left.plot(events, [one.total for one in by_events], "s--", label=ledger)
    left.set(title="processor time of one update, all processes", ylabel="µs")
    right.plot(users, [one.rank_ms[0] * 1e3 for one in by_users], "o-", label="users: HTTP, p50")
    right.plot(users, [one.rank_server_us for one in by_users], "^-", label="users: in Valkey, mean")
    right.plot(events, [one.rank_ms[0] * 1e3 for one in by_events], "s--", label=f"{ledger}: HTTP, p50")
    right.set(title="time of one user's rank", ylabel="µs")
    left.set(ylim=(0, None))
    right.set(yscale="log")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="size")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110)
