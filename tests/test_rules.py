"""Rules of actions: cooldown, limit, once and plausibility, by calendar windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from scoreboard.config import Action, Quarantine
from scoreboard.rules import Count, Refusal, Rules, rules_of, window_of

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)  # a Thursday
BERLIN = ZoneInfo("Europe/Berlin")


def rules(timezone: str = "UTC", **settings: object) -> Rules:
    return rules_of({"win": Action(points=10, **settings)}, timezone)["win"]  # type: ignore[arg-type]


def counted(rule: Rules, *times: datetime, applied: int = 10) -> Count:
    count = Count()
    for at in times:
        rule.add(count, at, applied)
    return count


def test_an_action_without_rules_has_none() -> None:
    assert rules_of({"win": Action(points=10)}, "UTC") == {}


def test_once_refuses_all_after_the_first_for_ever() -> None:
    rule = rules(once=True)
    assert rule.refusal(Count(), NOON) is None
    assert rule.refusal(counted(rule, NOON), NOON + timedelta(days=9999)) == Refusal("once")


def test_a_cooldown_ends_at_its_very_end() -> None:
    rule = rules(cooldown="30s")
    count = counted(rule, NOON)
    end = NOON + timedelta(seconds=30)
    assert rule.refusal(count, end - timedelta(microseconds=1)) == Refusal("cooldown", end)
    assert rule.refusal(count, end) is None


def test_a_limit_is_for_its_window_and_the_next_begins_at_nought() -> None:
    rule = rules(limit="2/day")
    count = counted(rule, NOON, NOON + timedelta(hours=1))
    midnight = datetime(2026, 11, 27, tzinfo=UTC)
    assert rule.refusal(count, midnight - timedelta(microseconds=1)) == Refusal("limit", midnight)
    assert rule.refusal(count, midnight) is None
    rule.add(count, midnight, 10)
    assert count.in_window == 1


def test_when_two_rules_refuse_the_first_is_the_reason_and_the_later_is_the_time() -> None:
    rule = rules(cooldown="30s", limit="1/day")
    refusal = rule.refusal(counted(rule, NOON), NOON + timedelta(seconds=1))
    assert refusal == Refusal("cooldown", datetime(2026, 11, 27, tzinfo=UTC))


def test_what_is_held_back_counts_for_limits_and_not_for_plausibility() -> None:
    rule = rules(limit="3/hour", quarantine=Quarantine(points_per_hour=20))
    count = counted(rule, NOON, NOON)
    assert rule.implausible(count, NOON, 10)
    rule.add(count, NOON, 0)
    assert (count.in_window, count.in_hour) == (3, 20)
    refusal = rule.refusal(count, NOON)
    assert refusal is not None
    assert refusal.reason == "limit"
    assert not rule.implausible(count, NOON + timedelta(hours=1), 10)


@pytest.mark.parametrize(
    ("window", "zone", "at", "start", "end"),
    [
        ("minute", "UTC", "12:34:56.7", "2026-11-26T12:34:00+00:00", "2026-11-26T12:35:00+00:00"),
        ("hour", "UTC", "12:34:56.7", "2026-11-26T12:00:00+00:00", "2026-11-26T13:00:00+00:00"),
        ("hour", "Asia/Kolkata", "12:34:56", "2026-11-26T12:30:00+00:00", "2026-11-26T13:30:00+00:00"),
        ("day", "UTC", "00:00:00", "2026-11-26T00:00:00+00:00", "2026-11-27T00:00:00+00:00"),
        ("day", "Europe/Berlin", "23:30:00", "2026-11-26T23:00:00+00:00", "2026-11-27T23:00:00+00:00"),
        ("week", "UTC", "12:00:00", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00"),
        ("week", "Pacific/Auckland", "12:00:00", "2026-11-22T11:00:00+00:00", "2026-11-29T11:00:00+00:00"),
    ],
)
def test_a_window_is_the_calendars(window: str, zone: str, at: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(f"2026-11-26T{at}").replace(tzinfo=UTC)
    assert [w.isoformat() for w in window_of(window, moment, ZoneInfo(zone))] == [start, end]


def test_a_day_in_which_clocks_change_is_as_long_as_it_is() -> None:
    spring = window_of("day", datetime(2026, 3, 29, 12, tzinfo=UTC), BERLIN)
    autumn = window_of("day", datetime(2026, 10, 25, 12, tzinfo=UTC), BERLIN)
    assert [end - start for start, end in (spring, autumn)] == [timedelta(hours=23), timedelta(hours=25)]
    # 02:30 is shown twice: two hours of their own.
    twice = [window_of("hour", datetime(2026, 10, 25, h, 30, tzinfo=UTC), BERLIN) for h in (0, 1)]
    assert twice[0][1] == twice[1][0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"cooldown": "30"}, "cooldown"),
        ({"cooldown": "0s"}, "cooldown"),
        ({"cooldown": "1w"}, "cooldown"),
        ({"limit": "20"}, "limit"),
        ({"limit": "0/day"}, "limit"),
        ({"limit": "20/month"}, "limit"),
    ],
)
def test_a_rule_that_cannot_be_read_is_told(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=f"action win: {told}"):
        rules(**settings)


def test_quarantine_is_for_points_that_can_be_too_many() -> None:
    quarantine = Quarantine(points_per_hour=5)
    with pytest.raises(ValueError, match="quarantine is for points above 0"):
        rules_of({"fine": Action(points=-1, quarantine=quarantine)}, "UTC")


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 0, tzinfo=UTC)),  # by half an hour
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        ("Pacific/Chatham", datetime(2026, 4, 4, 14, 0, tzinfo=UTC)),  # at a quarter to
        ("Europe/Berlin", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
    ],
)
def test_every_time_is_in_its_own_window_also_when_clocks_change(zone: str, change: datetime) -> None:
    for minutes in range(-180, 180):
        at = change + timedelta(minutes=minutes)
        for window in ("minute", "hour", "day", "week"):
            start, end = window_of(window, at, ZoneInfo(zone))
            assert start <= at < end, (window, at)
