"""One line of the table: how often a second, and what it costs of the processors, process by process."""

from __future__ import annotations

import time
from collections.abc import Mapping

from machine import used
from msgspec import Struct

SERVERS = ("api+live", "worker", "postgres", "nats-server", "valkey-server", "up", "plain", "empty")
"""Whose time counts: all but those who send."""


class Line(Struct, frozen=True, kw_only=True):
    """What was measured of one thing."""

    what: str
    rate: float
    """A second."""
    cost: Mapping[str, float]
    """Microseconds of the processors each, by process."""
    p50: float | None = None
    """Milliseconds from a request to its answer."""
    p99: float | None = None
    beside: str = ""
    """What it is compared with: that line's name."""
    note: str = ""
    span: tuple[float, float]
    """When it was measured (``time.monotonic``)."""
    slowed: float = 1.0
    """How much slower than at its best the machine was then: see speed.py."""

    @property
    def total(self) -> float:
        """Of all processes."""
        return sum(self.cost.values())


class Meter:
    """Time and processor time from here on, until ``stop``."""

    def __init__(self) -> None:
        self._before, self._began = used(), time.monotonic()

    def stop(self) -> None:
        """Read both."""
        self.span, self._after = (self._began, time.monotonic()), used()

    def each(self, count: int) -> tuple[float, dict[str, float]]:
        """How many of so many a second, and the microseconds of each, by process."""
        spent = {r: (self._after.get(r, 0.0) - self._before.get(r, 0.0)) * 1e6 / count for r in SERVERS}
        began, end = self.span
        return count / (end - began), {role: cost for role, cost in spent.items() if cost > 0}
