"""How long a start takes: ``bench/starting.py CHECKOUT [CHECKOUT …]``, each with a ``.venv`` of its own.

By turns ``scoreboard up`` is started on a data folder that is there already, makes a key, and is stopped.
Prints each checkout's medians: seconds from the start to ``ready``, and processor seconds of all processes
from the start to the end.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path

import system


def started(checkout: Path, home: Path) -> tuple[float, float]:
    """One start: seconds until it was ready, and processor seconds of all that has been and ended."""
    home.mkdir(exist_ok=True)
    system.COMMAND = str(checkout / ".venv/bin/scoreboard")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with system.running(home) as one:
        took = one.ready_seconds
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=10, help="default 10, after one that makes the data")
    options = parser.parse_args()
    found: dict[Path, list[tuple[float, float]]] = {checkout: [] for checkout in options.checkouts}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(1 + options.rounds):
            for number, checkout in sorted(enumerate(options.checkouts), reverse=turn % 2 == 1):
                one = started(checkout, Path(name) / str(number))
                if turn:
                    found[checkout].append(one)
    for checkout, starts in found.items():
        took, spent = (statistics.median(column) for column in zip(*starts, strict=True))
        print(f"{checkout}: ready after {took:.2f} s, {spent:.2f} s of processor time from start to end")


if __name__ == "__main__":
    main()
