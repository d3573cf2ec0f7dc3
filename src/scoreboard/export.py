"""``scoreboard export``: the ledger or a board, row by row, for other programs.

In comes the database, out go lines of CSV or NDJSON, from one snapshot, a thousand rows in memory at most. In
CSV a text that a spreadsheet would take for a formula gets an apostrophe before it; NDJSON holds each text as
it is. It must never change anything, or leave a row of the ledger out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from scoreboard.config import Board
from scoreboard.database import STATEMENTS, Database
from scoreboard.database.reading import CHUNK_ROWS, SORT_MEMORY, WHOLE_SECONDS
from scoreboard.texts import text_of_time

LEDGER = (
    *("acceptNo", "eventId", "at", "userId", "type", "reference", "points", "boards", "principal"),
    *("outcome", "reason", "retryAt", "amends"),
)
BOARD = ("rank", "userId", "name", "score")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")  # noqa: RUF001  wide forms are taken, too
"""How a text begins that a spreadsheet does not take for text (the apostrophe, so that it can be undone)."""


async def ledger(database: Database) -> AsyncIterator[Sequence[Any]]:
    """Every row of the ledger, oldest first."""
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(f"SET LOCAL work_mem = '{SORT_MEMORY}'")
        rows = connection.cursor(STATEMENTS["all_events"], prefetch=CHUNK_ROWS, timeout=WHOLE_SECONDS)
        async for row in rows:
            yield tuple(row)


async def board(database: Database, name: str, settings: Board) -> AsyncIterator[Sequence[Any]]:
    """Every visible row of a board, best first, with its displayed ranks."""
    place = rank = 0
    before: int | None = None
    async for rows in database.all_rows(name, ordered=settings.order):
        for row in rows:
            if row.score is None:
                continue
            place += 1
            if settings.rank == "ordinal" or row.score != before:
                rank = rank + 1 if settings.rank == "dense" else place
            before = row.score
            yield (rank, row.user, row.name, row.score)


async def write(
    columns: Sequence[str], rows: AsyncIterator[Sequence[Any]], form: str, out: Callable[[bytes], object]
) -> int:
    """Write rows as ``csv`` or ``ndjson``; how many."""
    count = 0
    lines = _Lines(columns, form)
    out(lines.head())
    async for row in rows:
        out(lines.line(row))
        count += 1
    return count


class _Lines:
    def __init__(self, columns: Sequence[str], form: str) -> None:
        self._columns, self._csv = columns, form == "csv"
        self._text = io.StringIO()
        self._writer = csv.writer(self._text)

    def head(self) -> bytes:
        return self._cells(self._columns) if self._csv else b""

    def line(self, row: Sequence[Any]) -> bytes:
        if self._csv:
            return self._cells([_cell(value) for value in row])
        return msgspec.json.encode(dict(zip(self._columns, map(_plain, row), strict=True))) + b"\n"

    def _cells(self, cells: Sequence[Any]) -> bytes:
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow(cells)
        return self._text.getvalue().encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return text_of_time(value)
    return str(value) if isinstance(value, UUID) else value


def _cell(value: Any) -> Any:
    value = " ".join(value) if isinstance(value, list) else _plain(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
