"""Rules: may one more action of this type count for this user, and when could another? Pure.

In come an action's rules, what has counted so far (``Count``) and a time of acceptance; out goes a refusal,
or nothing. A rule never looks at a clock of ours and never at anything but counted events: those applied or
quarantined, and not revoked. So the same log gives the same verdicts at every replay.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from scoreboard.config import Action

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_COOLDOWN = re.compile(r"([1-9]\d{0,5})([smhd])")
_LIMIT = re.compile(r"([1-9]\d{0,8})/(minute|hour|day|week)")


class Refusal(Struct, frozen=True):
    """Why an event does not count."""

    reason: str
    retry_at: datetime | None = None
    """When a new action of the type can succeed; ``None``: never, or nobody knows."""


class Count:
    """What has counted of one type for one user, as far as its rules ask. A digest of the ledger."""

    __slots__ = ("in_hour", "in_window", "last_at", "touched")

    def __init__(self, last_at: datetime | None = None, in_window: int = 0, in_hour: int = 0) -> None:
        self.last_at = last_at
        """Time of acceptance of the last counted event."""
        self.in_window = in_window
        """Counted events in the window of ``last_at``."""
        self.in_hour = in_hour
        """Points applied in the clock hour of ``last_at``."""
        self.touched = False


class Rules(Struct, frozen=True):
    """The rules of one type of action."""

    zone: ZoneInfo
    once: bool = False
    cooldown: timedelta | None = None
    limit: int | None = None
    window: str = "hour"
    """The calendar window that the limit is for: minute, hour, day or week (from Monday, ISO 8601)."""
    points_per_hour: int | None = None
    """Applied points of a clock hour beyond which an event is held back."""

    @property
    def text(self) -> str:
        """What a ``Count`` under these rules depends on: another text, and it has to be counted anew."""
        return f"{self.window} {self.zone.key}"

    def refusal(self, count: Count, at: datetime) -> Refusal | None:
        """Why one more event, accepted ``at``, does not count: the first rule that says no."""
        last = count.last_at
        if last is None:
            return None
        if self.once:
            return Refusal("once")
        refusals = []
        if self.cooldown is not None and at < last + self.cooldown:
            refusals.append(Refusal("cooldown", last + self.cooldown))
        if self.limit is not None and count.in_window >= self.limit:
            start, end = window_of(self.window, last, self.zone)
            if start <= at < end:
                refusals.append(Refusal("limit", end))
        if not refusals:
            return None
        return Refusal(refusals[0].reason, max(r.retry_at for r in refusals if r.retry_at is not None))

    def implausible(self, count: Count, at: datetime, points: int) -> bool:
        """Would these points be more than anybody can earn in an hour?"""
        if self.points_per_hour is None:
            return False
        return self._in_hour(count, at) + points > self.points_per_hour

    def add(self, count: Count, at: datetime, applied: int) -> None:
        """One more event counts. ``applied``: its points, 0 if it is quarantined."""
        hour = self._in_hour(count, at)
        window = 0
        if count.last_at is not None:
            start, end = window_of(self.window, count.last_at, self.zone)
            window = count.in_window if start <= at < end else 0
        count.last_at, count.in_window, count.in_hour = at, window + 1, hour + applied
        count.touched = True

    def _in_hour(self, count: Count, at: datetime) -> int:
        if count.last_at is None:
            return 0
        start, end = window_of("hour", count.last_at, self.zone)
        return count.in_hour if start <= at < end else 0


def rules_of(actions: dict[str, Action], timezone: str) -> dict[str, Rules]:
    """The rules of those types that have any.

    Raises:
        ValueError: a rule cannot be read; says which.
    """
    zone = ZoneInfo(timezone)
    found = {}
    for name, action in actions.items():
        quarantine = action.quarantine
        if not (action.once or action.cooldown or action.limit or quarantine):
            continue
        count, window = _limit(name, action.limit)
        if quarantine is not None and action.points <= 0:
            raise ValueError(f"action {name}: quarantine is for points above 0")
        found[name] = Rules(
            zone=zone,
            once=action.once,
            cooldown=_cooldown(name, action.cooldown),
            limit=count,
            window=window,
            points_per_hour=None if quarantine is None else quarantine.points_per_hour,
        )
    return found


def window_of(window: str, at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The calendar window around a time: its beginning, and the beginning of the next, in UTC.

    A day is from midnight to midnight in ``zone``, so it has 23 or 25 hours when clocks change; an hour that
    the clocks show twice is two windows.
    """
    if window == "minute":
        start = at.astimezone(UTC).replace(second=0, microsecond=0)
        return start, start + timedelta(minutes=1)
    local = at.astimezone(zone)
    if window == "hour":
        # What the minute hand shows has passed of it, also where clocks change by half an hour.
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start = at.astimezone(UTC) - past
        return start, start + timedelta(hours=1)
    first = local.date() - timedelta(days=local.weekday() if window == "week" else 0)
    after = first + timedelta(days=7 if window == "week" else 1)
    midnights = (datetime.combine(day, time.min, zone).astimezone(UTC) for day in (first, after))
    start, end = midnights
    return start, end


def _cooldown(name: str, text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = _COOLDOWN.fullmatch(text)
    if found is None:
        raise ValueError(f'action {name}: cooldown = "{text}" must be like "30s", "15m", "1h" or "7d"')
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _limit(name: str, text: str | None) -> tuple[int | None, str]:
    if text is None:
        return None, "hour"
    found = _LIMIT.fullmatch(text)
    if found is None:
        msg = f'action {name}: limit = "{text}" must be like "20/day"; there are minute, hour, day and week'
        raise ValueError(msg)
    return int(found[1]), found[2]
