"""How fast the processors are while something is measured: a small loop, always the same, over and over.

On a shared machine whatever else runs on a core's other thread takes half of it, without being seen: the same
work then takes 1.6 times the processor time, for seconds or for hours. So each figure says how much longer
this loop took meanwhile than the fastest hundredth of all its runs. It is a sign, not a measure: a core that
has to wake up for the loop runs it slower by a fifth than one that is awake. As a program it prints one
sample a line.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from machine import HERE, ended, start

EVERY_SECONDS = 0.02  # two loops of some 50 µs: half a percent of one processor
BEST = 0.01  # what this share of all samples stays below is the best


class Speed:
    """The samples so far."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._took: list[float] = []

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Samples come in while the block runs."""
        with ended(start(None, sys.executable, HERE / "speed.py")) as process:
            out = process.stdout
            assert out is not None

            def read() -> None:
                for line in out:
                    moment, took = line.split()
                    self._took.append(float(took) / 1e3)
                    self._moments.append(float(moment))

            reader = Thread(target=read)
            reader.start()
            try:
                yield
            finally:
                process.kill()
                reader.join()

    @property
    def best(self) -> float:
        """Microseconds that the loop took at its best; not a number if it never ran."""
        return sorted(self._took)[int(len(self._took) * BEST)] if self._took else math.nan

    def slowness(self, began: float, end: float) -> float:
        """How many times its best the loop took between two moments; not a number if it never ran then."""
        within = self._took[bisect_left(self._moments, began) : bisect_left(self._moments, end)]
        return sum(within) / len(within) / self.best if within else math.nan


def _loop() -> int:
    total = 0
    for number in range(1_000):
        total += number * number
    return total


def main() -> None:
    """Sample for ever, on one processor after the other."""
    for core in itertools.cycle(os.sched_getaffinity(0)):
        time.sleep(EVERY_SECONDS)
        os.sched_setaffinity(0, {core})
        _loop()  # its code and data are near again
        began = time.thread_time_ns()
        _loop()
        print(time.monotonic(), time.thread_time_ns() - began, flush=True)


if __name__ == "__main__":
    main()
