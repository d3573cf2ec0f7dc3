"""``scoreboard score`` and ``scoreboard replay``: actions through the HTTP API, as any backend sends them.

In come actions, out go requests in their order, each sent again with the same ids until it is answered for
good; sending a file twice therefore changes nothing.
"""

from __future__ import annotations

import asyncio
import csv
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from scoreboard.auth.key_acts import temporary_key
from scoreboard.client import MANY, Client, Receipt, Refused
from scoreboard.database import Database
from scoreboard.errors import ScoreboardError
from scoreboard.model import Scope
from scoreboard.progress import bar
from scoreboard.supervisor import Options, running

WAIT_SECONDS = 10
TICK_SECONDS = 0.05  # with --speed, what falls due within this goes together: one frame


class Action(Struct, frozen=True):
    """One line of a file."""

    at: float
    user: str
    action: str


async def score(options: Options, user: str, action: str, count: int) -> list[str]:
    """Report an action ``count`` times; what to tell about it."""
    ids = [action] if ":" in action else [f"{action}:{secrets.token_hex(8)}" for _ in range(count)]
    async with service(options) as client:
        receipts = await _send(client, [Action(0, user, one) for one in ids])
    done = Counter(map(_label, receipts))
    lines = [f"{user}: " + ", ".join(f"{number} {label}" for label, number in done.items())]
    for name, change in receipts[-1].boards.items():
        rank = "rank not known yet" if change.rank is None else f"rank {change.rank}"
        lines.append(f"  {name}: {change.score} points, {rank}")
    return lines


async def replay(options: Options, file: Path, url: str | None, key: str | None, speed: float | None) -> str:
    """Send a file's actions in order; a summary."""
    actions = _read(file)
    done: Counter[str] = Counter()
    async with service(options, url, key) as client:
        began = time.monotonic()
        with bar(f"replay {file.name}", len(actions)) as advance:
            async for part in _due(actions, speed):
                done.update(map(_label, await _send(client, part)))
                advance(len(part))
        took = time.monotonic() - began
    told = ", ".join(f"{number} {label}" for label, number in done.items()) or "nothing to send"
    return f"{file.name}: {told} in {took:.1f} s ({len(actions) / took:,.0f}/s)"


def _read(file: Path) -> list[Action]:
    try:
        return _read_lines(file)
    except (UnicodeError, csv.Error) as error:
        raise ScoreboardError(f"{file} is not a CSV file in UTF-8: {error}") from error


def _read_lines(file: Path) -> list[Action]:
    actions = []
    with file.open(newline="", encoding="utf-8-sig") as lines:  # Excel begins its files with a mark
        table = csv.DictReader(lines)
        missing = {"at", "userId", "actionId"} - set(table.fieldnames or ())
        if missing:
            raise ScoreboardError(
                f"{file}: no column {', '.join(sorted(missing))}; needed are at,userId,actionId"
            )
        for row in table:
            try:
                if row["userId"] is None or row["actionId"] is None:
                    raise ScoreboardError(f"{file}, line {table.line_num}: a value is missing")
                actions.append(Action(_time(row["at"]), row["userId"], row["actionId"]))
            except (ValueError, TypeError) as error:
                msg = f"{file}, line {table.line_num}: {row['at']!r} is neither seconds nor an ISO 8601 time"
                raise ScoreboardError(msg) from error
    return actions


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


async def _due(actions: Sequence[Action], speed: float | None) -> AsyncIterator[Sequence[Action]]:
    """The actions in parts, in order: as many as fit, or with ``speed`` what is due."""
    if speed is None or not actions:
        for begin in range(0, len(actions), MANY):
            yield actions[begin : begin + MANY]
        return
    began, first = time.monotonic(), actions[0].at
    begin = 0
    while begin < len(actions):
        now = first + (time.monotonic() - began) * speed
        end = begin
        while end < len(actions) and end - begin < MANY and actions[end].at <= now:
            end += 1
        if end > begin:
            yield actions[begin:end]
            begin = end
        else:
            await asyncio.sleep(TICK_SECONDS)


async def _send(client: Client, part: Sequence[Action]) -> list[Receipt]:
    """What became of each action, in order. Raises the first refusal."""
    receipts = []
    for result in await client.submit_many([(one.user, one.action) for one in part], wait=WAIT_SECONDS):
        if isinstance(result, Refused):
            raise result
        receipts.append(result)
    return receipts


def _label(receipt: Receipt) -> str:
    return "counted before" if receipt.duplicate else receipt.reason or receipt.status


@asynccontextmanager
async def service(
    options: Options, url: str | None = None, key: str | None = None, *, scope: Scope = Scope.SCORE_WRITE
) -> AsyncIterator[Client]:
    """A client with a service's key.

    Without ``url``: for the deployment that runs on the data folder, or is run meanwhile.
    """
    if url is not None:
        async with Client(url, key) as client:
            yield client
        return
    async with (
        running(options) as system,
        Database.open(system.urls.database) as database,
        nullcontext(key) if key is not None else temporary_key(database, "command line", scope) as own,
        service(options, system.url, own) as client,
    ):
        yield client
