"""``make bench``: what an update and a read cost, from request to ledger, board and frame, beside others.

Everything is measured in one run, on one machine, with full durability and all checks on: compare the rows. A
cost is the processor time of all processes, the loader's not, divided by what was done. Each deployment ends
with ``scoreboard verify``. Writes a report (Markdown and JSON) and a drawing of the growth into ``--out``.

The figures of record: ``bench/flow.py --seconds 60``. ``--large`` adds 10 million users, and events: some
20 GB of disk and an hour.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop
from costs import Line
from growth import EVENTS, LARGE, OF_USERS, READS_AT, USERS, Size, draw, size
from limits import PLAIN, limits
from machine import HERE, machine, memory
from msgspec import structs
from report import Report, markdown
from speed import Speed
from system import ends_of, running
from updates import applied, latency, many, single

One = TypeVar("One", Line, Size)
PARTS = ("flow", "limits", "growth")
SECONDS = 5  # of each part of the flow
SHORT_SECONDS = 2  # of each other thing
PACE = 26_000  # updates a second that a log must not grow under
BY_500, PACED = "an update, 500 a request", f"some {PACE:,} a second asked for"
WARM_SECONDS = 2  # tokens are remembered, statements prepared, tables no longer empty


async def flow(report: Report, home: Path, seconds: int, processes: int) -> None:
    """Updates through a deployment of its own, and how long they take under half of the most."""
    with running(home, processes) as system:
        report.ready_seconds["at the first start"] = system.ready_seconds
        async with ends_of(system) as ends:
            await applied("", system, ends, single(system, WARM_SECONDS))
            line = await applied("a single update", system, ends, single(system, seconds), PLAIN)
            report.lines.append(line)
            report.lines.append(await applied(BY_500, system, ends, many(system, seconds), PLAIN))
            paced = many(system, seconds, rate=PACE)
            report.lines.append(await applied(f"the same, {PACED}", system, ends, paced))
            report.latency = await latency(system, line.rate / 2, seconds)
            await ends.arrived()
            report.memory = memory()
        report.verified.append(system.verify())
    with running(home, processes) as system:
        report.ready_seconds["at the second"] = system.ready_seconds
    with running(home / "parted", processes, partitions=2) as system:
        async with ends_of(system) as ends:
            await applied("", system, ends, many(system, WARM_SECONDS))
            for what, rate in ((f"{BY_500}, two partitions", 0.0), (f"the same, {PACED}", PACE)):
                report.lines.append(await applied(what, system, ends, many(system, seconds, rate=rate)))
        report.verified.append(system.verify())


async def growth(
    report: Report, home: Path, seconds: int, of: Sequence[int], *, large: bool, out: Path
) -> None:
    """The same at growing sizes, or with ``of`` so many users only."""
    more = (LARGE,) if large else ()
    for users in of or (*USERS, *more):
        found, lines = await size(home / "users", users, users, seconds, reads=users in READS_AT)
        report.by_users.append(found)
        report.lines += lines
        report.verified.append(found.verified)
        say(f"growth: {users:,} users, {found.total:.1f} µs an update")
    for events in () if of else (*EVENTS, *more):
        found, _ = await size(home / "events", OF_USERS, events, seconds, reads=False)
        report.by_events.append(found)
        report.verified.append(found.verified)
        say(f"growth: {events:,} events, {found.total:.1f} µs an update")
    if not of:
        draw(out / "growth.png", report.by_users, report.by_events)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def slowed(those: Sequence[One], speed: Speed) -> list[One]:
    """The same, with what the machine was like meanwhile."""
    return [structs.replace(one, slowed=speed.slowness(*one.span)) for one in those]


async def run(options: argparse.Namespace, home: Path) -> None:
    """Measure, write, print."""
    out: Path = options.out
    report = Report(machine=machine(), command=shlex.join(["bench/flow.py", *sys.argv[1:]]))
    say(report.machine)
    parts = options.only or PARTS
    for part in PARTS:
        (home / part / "users").mkdir(parents=True)
        (home / part / "events").mkdir()
        (home / part / "parted").mkdir()
    speed = Speed()
    try:
        with speed.sampled():
            if "flow" in parts:
                await flow(report, home / "flow", options.seconds, options.processes)
                say("flow: done")
            if "limits" in parts:
                async for line in limits(home / "limits", SHORT_SECONDS):
                    report.lines.append(line)
                    say(f"{line.what}: {line.total:.1f} µs")
            if "growth" in parts:
                await growth(
                    report, home / "growth", options.each, options.users or (), large=options.large, out=out
                )
    except BaseException as error:
        report.failure = repr(error)
        raise
    finally:
        report.loop_us = speed.best
        report.lines = slowed(report.lines, speed)
        report.by_users = slowed(report.by_users, speed)
        report.by_events = slowed(report.by_events, speed)
        (out / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        (out / "bench.md").write_text(markdown(report))
    print(markdown(report))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"of each load; default {SECONDS}")
    parser.add_argument("--processes", type=int, default=1, help="that serve, for the flow; default 1")
    parser.add_argument("--large", action="store_true", help="also 10 million users, and events")
    parser.add_argument(
        "--users", type=int, action="append", help="of the growth this size alone; may be repeated"
    )
    parser.add_argument(
        "--each", type=int, default=SHORT_SECONDS, help=f"seconds of its loads; default {SHORT_SECONDS}"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="a part alone")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the report goes")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SCOREBOARD_")]:
        del os.environ[name]  # a developer's settings are not the bench's
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        uvloop.run(run(options, Path(name)))


if __name__ == "__main__":
    main()
