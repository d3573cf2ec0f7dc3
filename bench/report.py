"""The figures of a run, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from costs import SERVERS, Line
from growth import Size
from msgspec import Struct
from updates import Latency

COLUMNS = ("up", "api+live", "worker", "postgres", "nats-server", "valkey-server")


class Report(Struct, kw_only=True):
    """All that a run found."""

    machine: str
    command: str
    failure: str = ""
    """Why its figures do not count."""
    lines: list[Line] = []
    latency: Latency | None = None
    ready_seconds: dict[str, float] = {}
    memory: Mapping[str, float] = {}
    """MiB, by process."""
    by_users: list[Size] = []
    by_events: list[Size] = []
    verified: list[str] = []
    loop_us: float = 0.0
    """What the loop of speed.py took at its best."""


def markdown(report: Report) -> str:
    """The report to be read."""
    return "\n".join(_parts(report)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    yield f"{report.machine}, `{report.command}`:\n"
    if report.failure:
        yield f"**This run has failed: its figures do not count.** {report.failure}\n"
    heads = ("", "a second", "µs each", "by", "slowed", *COLUMNS, "others", "p50 ms", "p99 ms")
    yield from _table(heads, [_cells(line, report.lines) for line in report.lines])
    yield (
        "\nSlowed: how many times longer a small loop took meanwhile, always the same one, than the fastest"
        f" hundredth of its runs, which took {report.loop_us:.1f} µs. A sign of how far the processors were"
        " from their best; all costs are as measured."
    )
    yield from (f"\n{line.what}: {line.note}." for line in report.lines if line.note)
    if report.latency:
        yield from _latency(report.latency)
    if report.ready_seconds:
        told = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in report.ready_seconds.items())
        yield f"\nUntil it served: {told}."
    if report.memory:
        told = ", ".join(f"{role} {mib:.0f}" for role, mib in report.memory.items() if role in SERVERS)
        yield f"\nMemory after that, MiB: {told}."
    if report.by_users:
        yield ""
        yield from _growth(report)
        first, last = report.by_users[min(1, len(report.by_users) - 1)], report.by_users[-1]
        yield (
            f"\nAn update costs {last.total / first.total:.2f} times as much with {last.users:,} users"
            f" as with {first.users:,}."
        )
    yield "\n`scoreboard verify`:\n"
    yield from (f"* {one}" for one in report.verified)


def _cells(line: Line, lines: Sequence[Line]) -> list[str]:
    others = sum(cost for role, cost in line.cost.items() if role not in COLUMNS)
    peer = next((one for one in lines if one.what == line.beside), None)
    return [
        line.what,
        f"{line.rate:,.0f}",
        f"{line.total:.1f}",
        f"{line.total / peer.total:.2f} x {_short(peer.what)}" if peer else "",
        f"{line.slowed:.2f}",
        *(_number(line.cost.get(role, 0.0)) for role in COLUMNS),
        _number(others),
        *("" if ms is None else f"{ms:.1f}" for ms in (line.p50, line.p99)),
    ]


def _short(what: str) -> str:
    return re.split(r"[:,]", what)[0]


def _number(cost: float) -> str:
    return f"{cost:.1f}" if cost else ""


def _latency(latency: Latency) -> Iterator[str]:
    yield (
        f"\nWhile others sent {latency.rate:,.0f} updates a second, in ms (202: of all these; the rest: of"
        f" {latency.probes} probes):\n"
    )
    rows = {
        "to 202": latency.accepted,
        "to applied (`Prefer: wait`)": latency.applied,
        "to the frame": latency.frame,
    }
    yield from _table(
        ("from a request", "p50", "p99"),
        [[what, *(f"{ms:.1f}" for ms in pair)] for what, pair in rows.items()],
    )


def _growth(report: Report) -> Iterator[str]:
    heads = (
        "users", "events", "µs an update", "slowed", *COLUMNS, "rank p50 ms", "p99 ms", "rank in Valkey µs",
        "until it served, s",
    )  # fmt: skip
    rows = []
    for one in (*report.by_users, *report.by_events):
        parts = [f"{one.cost.get(role, 0.0):.1f}" for role in COLUMNS]
        rank = [f"{one.rank_ms[0]:.2f}", f"{one.rank_ms[1]:.2f}", f"{one.rank_server_us:.0f}"]
        rows.append(
            [
                f"{one.users:,}",
                f"{one.events:,}",
                f"{one.total:.1f}",
                f"{one.slowed:.2f}",
                *parts,
                *rank,
                f"{one.ready_seconds:.1f}",
            ]
        )
    yield from _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
