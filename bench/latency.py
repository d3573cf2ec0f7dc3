"""From ``POST /update-score`` to the frame on every screen: through all of it, on this machine.

``make bench-latency`` starts ``scoreboard up`` in a folder of its own, connects watching clients (clients.c),
sends updates at a rate, and prints a table. Ten times a second the one who leads scores a point more: that
moment is written down, and each client says when it first saw a score that holds the point. So a frame that
took two points together counts for both, and a client that was skipped counts until it had the next.

The rest of the updates goes to a thousand other users at random, so that the top changes about as often as on
a busy board. All share the machine, the clients and the sender, too: the last column says how busy it was.
The last row is measured beside clients that nobody wants (abusers.py).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import mmap
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil
import uvloop
from fanout import Clients
from machine import HERE, ended, machine, start
from sending import CONNECTIONS, Poster
from system import LEAD, running

WATCHING = (1_000, 5_000)
RATES = (0, 100, 1_000, 2_000)  # updates a second beside the probes; 0 is idle
ABUSED_RATES = (100, 1_000)
SECONDS = 10.0
PROBES = 10  # a second
OTHERS = 1_000  # users
MOMENTS = 1 << 20
ACCEPTED = 202


class Load:
    """What is sent during one row."""

    def __init__(self, posters: list[Poster], moments: mmap.mmap) -> None:
        self._probe, *self._idle = posters
        self._moments = moments
        self._unique = itertools.count(time.time_ns())
        self.accepted = 0

    @classmethod
    async def open(cls, port: int, key: str, moments: mmap.mmap) -> Self:
        """With connections of its own: the server ends those that say nothing for long."""
        return cls([await Poster.open(port, key) for _ in range(CONNECTIONS)], moments)

    async def lead(self) -> int:
        """Give the one who is watched for the lead; the score."""
        assert await self._probe.post("probe", f"lead:{next(self._unique)}") == ACCEPTED
        return LEAD

    async def run(self, score: int, rate: int) -> int:
        """Send for a row's time; the leader's score after it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._others(rate, tasks))
            end = time.monotonic() + SECONDS
            while (began := time.monotonic()) < end:
                score += 1
                struct.pack_into("Q", self._moments, score * 8, time.monotonic_ns())
                assert await self._probe.post("probe", f"step:{next(self._unique)}") == ACCEPTED
                await asyncio.sleep(max(0.0, began + 1 / PROBES - time.monotonic()))
        return score

    async def _others(self, rate: int, tasks: asyncio.TaskGroup) -> None:
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < SECONDS:
            for _ in range(int(passed * rate) - sent):
                sent += 1
                if self._idle:  # else the server is too slow for this rate, as the table will show
                    tasks.create_task(self._one(self._idle.pop()))
            await asyncio.sleep(0.002)

    async def _one(self, poster: Poster) -> None:
        user = f"user-{random.randrange(OTHERS)}"  # noqa: S311 - which one is no secret
        status = await poster.post(user, f"step:{next(self._unique)}")
        self.accepted += status == ACCEPTED
        self._idle.append(poster)


def percentile(latencies: Mapping[str, int], part: float) -> float:
    """Milliseconds, from a histogram of microseconds."""
    rest = part * sum(latencies.values())
    for microseconds, count in sorted((int(us), n) for us, n in latencies.items()):
        rest -= count
        if rest <= 0:
            return microseconds / 1e3
    return float("nan")


async def measure(
    port: int,
    key: str,
    folder: Path,
    watching: int,
    rates: Sequence[int],
    score: int,
    *,
    abused: bool = False,
) -> int:
    """The rows of one number of watching clients; the leader's score after them, which was ``score``."""
    file = folder / "moments"
    file.write_bytes(bytes(MOMENTS * 8))
    with ExitStack() as stack:
        moments = stack.enter_context(mmap.mmap(stack.enter_context(file.open("r+b")).fileno(), MOMENTS * 8))
        command = (folder / "clients", str(port), "/boards/main/live", str(watching), file)
        clients = Clients(stack.enter_context(ended(start(None, *command))))
        if abused:
            abusers = start(None, sys.executable, "abusers.py", str(port))
            stack.enter_context(ended(abusers))
            assert abusers.stdout is not None
            assert abusers.stdout.readline() == "there\n"
        score = score or await (await Load.open(port, key, moments)).lead()
        for rate in rates:
            await asyncio.sleep(1)
            load = await Load.open(port, key, moments)
            clients.told()
            psutil.cpu_percent()
            reached = await load.run(score, rate)
            busy = psutil.cpu_percent()
            await asyncio.sleep(1)
            seen = clients.told()
            expected, score = (reached - score) * watching, reached
            who = f"{watching:,} beside abusers" if abused else f"{watching:,}"
            print(row(who, rate, load.accepted, seen, expected, busy), flush=True)
    return score


def row(watching: str, rate: int, accepted: int, seen: Mapping[str, Any], expected: int, busy: float) -> str:
    """A row of the table."""
    latencies = seen["latencies"]
    values = [percentile(latencies, 0.5), percentile(latencies, 0.99), seen["worst"] / 1e3]
    parts = [
        watching,
        f"{rate:,}",
        f"{accepted / SECONDS:,.0f}",
        *(f"{value:.1f}" for value in values),
    ]
    return f"| {' | '.join(parts)} | {sum(latencies.values()) / expected:.0%} | {busy:.0f}% |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, action="append", help="default: 1,000 and 5,000")
    parser.add_argument(
        "--rate", type=int, action="append", help="updates a second; default: 0, 100, 1,000, 2,000"
    )
    options = parser.parse_args()
    print(machine())
    print("| clients | updates/s wanted | accepted | p50 ms | p99 ms | worst ms | seen | processors busy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(("cc", "-O2", "-o", folder / "clients", HERE / "clients.c"), check=True)
        with running(folder) as system:

            async def run() -> None:
                score = 0
                place = (system.port, system.key, folder)
                for watching in options.clients or WATCHING:
                    score = await measure(*place, watching, options.rate or RATES, score)
                await measure(*place, WATCHING[0], ABUSED_RATES, score, abused=True)

            uvloop.run(run())


if __name__ == "__main__":
    main()
