"""Two versions beside each other: both are up, and get bursts of the same load by turns.

``bench/turns.py single /one/checkout /another``: each is a checkout with a ``.venv`` of its own; ``many``:
updates by 500. On a machine whose speed changes from minute to minute neighbours compare. Prints the medians
of each and, of what each burst cost by the first one's of the same round, median and quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import system
import uvloop
from costs import Line
from sending import Load
from updates import applied, many, single

LOADS: dict[str, Callable[[system.System, int], Load]] = {"single": single, "many": many}
WARM_SECONDS = 3


async def run(options: argparse.Namespace, home: Path) -> list[list[Line]]:
    """The bursts of each checkout."""
    load = LOADS[options.load]
    async with AsyncExitStack() as stack:
        both: list[tuple[system.System, system.Ends, list[Line]]] = []
        for number, checkout in enumerate(options.checkouts):
            (home / str(number)).mkdir()
            system.COMMAND = str(checkout / ".venv/bin/scoreboard")
            one = stack.enter_context(system.running(home / str(number)))
            both.append((one, await stack.enter_async_context(system.ends_of(one)), []))
        for one, ends, _ in both:
            await applied("", one, ends, load(one, WARM_SECONDS))
        for turn in range(options.rounds):
            for one, ends, lines in both if turn % 2 == 0 else reversed(both):
                lines.append(await applied("", one, ends, load(one, options.seconds)))
        for one, _, _ in both:
            print(one.verify())
        return [lines for _, _, lines in both]


def told(checkout: Path, lines: list[Line], first: list[Line]) -> str:
    """A checkout's medians, and its cost by the first one's."""
    by = [line.total / other.total for line, other in zip(lines, first, strict=True)]
    low, middle, high = statistics.quantiles(by, n=4)
    rate = statistics.median(line.rate for line in lines)
    total = statistics.median(line.total for line in lines)
    roles = sorted({role for line in lines for role in line.cost})
    costs = (f"{role} {statistics.median(e.cost.get(role, 0.0) for e in lines):.1f}" for role in roles)
    return (
        f"{checkout}: {rate:,.0f} a second, {total:.1f} µs each ({', '.join(costs)}),"
        f" by the first {middle:.2f} ({low:.2f} to {high:.2f})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("checkouts", type=Path, nargs="+", help="the first is what others are compared with")
    parser.add_argument("--rounds", type=int, default=9, help="default 9")
    parser.add_argument("--seconds", type=int, default=2, help="of each burst; default 2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = uvloop.run(run(options, Path(name)))
    for checkout, lines in zip(options.checkouts, found, strict=True):
        print(told(checkout, lines, found[0]))


if __name__ == "__main__":
    main()
