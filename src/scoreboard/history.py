"""History: the ledger told event by event, what is held back, and who did what. Reads only.

In come a user, or a place to go on from; out go rows in the words of the wire. Everything is read from the
database, never from the board.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto
from msgspec import Struct

from scoreboard import amending
from scoreboard.amending import Trial
from scoreboard.auth.key_acts import TEMPORARY
from scoreboard.database import STATEMENTS, Database
from scoreboard.model import Amend, Mark
from scoreboard.texts import text_of_time

END = 2**53 - 1
"""After every number of the ledger; the largest that JSON holds, for it is shown (10^13 envelopes)."""
_LAST_ID = UUID(int=2**128 - 1)


class BoardScore(Struct, frozen=True):
    """What one row did to a user's score on one board."""

    change: int
    score: int
    """The score after it."""


class HistoryRow(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One row of the ledger."""

    event_id: str
    type: str
    reference: str
    outcome: str
    """What was decided by this row: of the event itself, or of the one that it amends."""
    at: str
    boards: dict[str, BoardScore]
    amends: str | None = None
    """The event that this row amends."""
    reason: str | None = None
    retry_at: str | None = None
    principal: str | None = None
    act_id: str | None = None
    """The operator's act behind this row, as the audit has it."""
    why: str | None = None


class History(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A part of a user's history, newest first."""

    user_id: str
    events: list[HistoryRow]
    next: str | None = None
    """The cursor of the next part."""


class Held(Struct, frozen=True, rename="camel"):
    """One event that is held back."""

    event_id: str
    user_id: str
    type: str
    reference: str
    points: int
    boards: list[str]
    principal: str
    at: str


class Act(Struct, frozen=True, rename="camel"):
    """One administrative act."""

    number: int
    act_id: str
    at: str
    who: str
    """``key:ID`` for one that came over HTTP, else the command line's user."""
    key_name: str | None
    what: str
    target: str
    why: str
    events: int | None
    users: int | None


async def of_user(database: Database, user: str, limit: int, cursor: str | None, *, who: bool) -> History:
    """What made a user's scores, newest first. ``who``: also tell who reported or undid each, and why.

    Raises:
        ValueError: the cursor is not one of ours.
    """
    after = (END, _LAST_ID) if cursor is None else _place(cursor)
    async with database.connection() as connection:
        rows = await connection.fetch(
            STATEMENTS["history"], user, after[0], pgproto.UUID(after[1].bytes), limit + 1
        )
        more, rows = len(rows) > limit, rows[:limit]
        scores: dict[str, int] = {}
        if rows:
            newest = await connection.fetch(
                STATEMENTS["history_totals"], user, rows[0]["accept_no"], rows[0]["event_id"]
            )
            scores = {row["board"]: row["score"] for row in newest}
        undone = [row["event_id"] for row in rows if row["amends"] is not None or row["outcome"] == "revoked"]
        acts = {}
        if who and undone:
            found = await connection.fetch(STATEMENTS["history_acts"], undone)
            acts = {row["event_id"]: (str(row["act"]), row["why"]) for row in found}
    events = []
    for row in rows:
        counts = row["outcome"] == "applied" or row["amends"] is not None
        change = row["points"] if counts else 0
        boards = {board: BoardScore(change, scores.get(board, 0)) for board in row["boards"]}
        for board in boards:
            scores[board] = scores.get(board, 0) - change
        act_id, why = acts.get(row["event_id"], (None, None))
        events.append(
            HistoryRow(
                event_id=str(row["event_id"]),
                type=row["type"],
                reference=row["reference"],
                outcome=row["outcome"],
                at=text_of_time(row["at"]),
                boards=boards,
                amends=None if row["amends"] is None else str(row["amends"]),
                reason=row["reason"],
                retry_at=_text(row["retry_at"]),
                principal=row["principal"] if who else None,
                act_id=act_id,
                why=why or None,
            )
        )
    last = rows[-1] if more else None
    return History(user, events, None if last is None else f"{last['accept_no']}.{last['event_id'].hex}")


async def held(database: Database, limit: int, after: int) -> tuple[list[Held], int | None]:
    """What is held back, oldest first, after an ``accept_no``; and where to go on."""
    async with database.connection() as connection:
        rows = await connection.fetch(STATEMENTS["list_held"], after, limit)
    found = [
        Held(
            event_id=str(row["event_id"]),
            user_id=row["user_id"],
            type=row["type"],
            reference=row["reference"],
            points=row["points"],
            boards=row["boards"],
            principal=row["principal"],
            at=text_of_time(row["at"]),
        )
        for row in rows
    ]
    return found, rows[-1]["accept_no"] if len(rows) == limit else None


async def acts(database: Database, limit: int, before: int = END, *, everything: bool = True) -> list[Act]:
    """The newest administrative acts before a number; without ``everything`` none on temporary keys."""
    hidden = None if everything else TEMPORARY
    async with database.connection() as connection:
        rows = await connection.fetch(STATEMENTS["list_audit"], before, limit, hidden)
    return [
        Act(
            number=row["number"],
            act_id=str(row["act"]),
            at=text_of_time(row["at"]),
            who=row["who"],
            key_name=row["key_name"],
            what=row["what"],
            target=row["target"],
            why=row["why"],
            events=row["events"],
            users=row["users"],
        )
        for row in rows
    ]


async def unknown(database: Database, command: Mark | Amend) -> tuple[str, ...]:
    """Of what a command names, as the wire calls it, that of which nothing is known."""
    asked: tuple[str | None, str | None, UUID | None] = (command.user or None, None, None)
    if isinstance(command, Amend):
        event = None if command.event is None else pgproto.UUID(command.event)
        asked = (command.user or None, command.key or None, event)
    async with database.connection() as connection:
        return tuple(row["field"] for row in await connection.fetch(STATEMENTS["unknown"], *asked))


async def tried(database: Database, command: Amend) -> Trial:
    """What a command would do now; nothing is changed."""
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            trial = await amending.tried(connection, command)
        finally:
            await transaction.rollback()
    return msgspec.structs.replace(trial, unknown=await unknown(database, command))


def _place(cursor: str) -> tuple[int, UUID]:
    number, _, event = cursor.partition(".")
    if not number.isascii() or not number.isdigit() or int(number) > END:
        raise ValueError(cursor)
    return int(number), UUID(event)


def _text(at: datetime | None) -> str | None:
    return None if at is None else text_of_time(at)
