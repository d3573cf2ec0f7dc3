"""Dead letters: what cannot be applied is set aside, so that nothing behind it waits.

In come entries whose batch failed, inside the applying transaction; out go what could be applied and a dead
letter for each that could not. The batch is halved, each half under a savepoint, down to single entries, in
order: afterwards all is as if those that failed had never been. The cursor moves in the same transaction: a
crash in the middle leaves nothing, and the next worker begins the batch again.

Only what an entry is to blame for is set aside: data that break a rule of the database, an exception where it
is judged. An engine that is away, out of disk or out of memory is waited for.

A letter counts for nothing: totals, limits and cooldowns are as if its event had not come. An operator
settles it by a command through the log (``Settle``): tried again, the event is judged at the command's place
and time, once; dropped, its id is planted as revoked. No letter is ever removed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import msgspec
from asyncpg.pgproto import pgproto
from msgspec import Struct

from scoreboard.book import Applied
from scoreboard.database import STATEMENTS, Database, translated
from scoreboard.envelope import decode_entry, encode_entry
from scoreboard.errors import BadData, ScoreboardError
from scoreboard.group_commit import partition_of
from scoreboard.model import Accepted, Entry, Mark, Outcome, Rename, Result, Settle, Update
from scoreboard.texts import text_of_time

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

logger = logging.getLogger(__name__)

TRY_AGAIN_SECONDS = (0.1, 0.3)  # before a batch that failed is tried again; after the last it is taken apart
TRIES = len(TRY_AGAIN_SECONDS) + 1
REASON_CHARACTERS = 1_000

Apply = Callable[[Sequence[Accepted]], Awaitable[list[Applied]]]
"""Applies entries in order, in the transaction that is open."""


class DeadLetter(Struct, frozen=True):
    """What is set aside: a message of the log that is not what it claims to be, or one entry."""

    accept_no: int
    at: datetime
    reason: str
    body: bytes
    """The message, whole; or the entry as it lay in its envelope."""
    event_id: bytes | None = None
    """Of the event or command; ``None``: a whole message."""
    user: str = ""
    tries: int = 1


class Letter(Struct, frozen=True):
    """A dead letter as operators see it."""

    number: int
    at: str
    reason: str
    body: bytes
    partition: int
    """Where it was set aside, under the number of partitions of that time."""
    event_id: UUID | None
    user: str
    tries: int
    settled: str | None
    """``retried`` or ``dropped``; ``None``: it waits."""

    @property
    def entry(self) -> Entry | None:
        """What was to be applied; ``None`` for a whole message, or what this version cannot read."""
        try:
            return None if self.event_id is None else decode_entry(self.body)
        except msgspec.DecodeError:
            return None

    def goes_to(self, partitions: int) -> int:
        """The partition that settles it: its user's, as of every entry that is one user's."""
        entry = self.entry
        if isinstance(entry, Update | Rename | Mark):
            return partition_of(entry.user, partitions)
        return self.partition if self.partition < partitions else 0

    @property
    def what(self) -> str:
        """What it is, in words."""
        entry = self.entry
        if isinstance(entry, Update):
            return f"{entry.type}:{entry.reference}"
        return f"a message of {len(self.body)} bytes" if entry is None else type(entry).__name__.lower()


def blames(error: Exception) -> bool:
    """Is the entry to blame for this, and not an engine, this machine or our SQL?"""
    return isinstance(error, BadData) or not isinstance(
        error, ScoreboardError | asyncpg.PostgresError | OSError | MemoryError
    )


async def isolate(
    connection: Connection, accepted: Sequence[Accepted], apply: Apply
) -> tuple[list[Applied], list[DeadLetter]]:
    """Apply all that can be applied, in order; the rest as dead letters. To be called in a transaction."""
    if not accepted:
        return [], []
    try:
        with translated():
            async with connection.transaction():  # a savepoint
                return await apply(accepted), []
    except Exception as error:
        if not blames(error):
            raise
        if len(accepted) == 1:
            return _set_aside(accepted[0], error)
    middle = len(accepted) // 2
    parts, dead = await isolate(connection, accepted[:middle], apply)
    more, others = await isolate(connection, accepted[middle:], apply)
    return parts + more, dead + others


def _set_aside(accepted: Accepted, error: Exception) -> tuple[list[Applied], list[DeadLetter]]:
    entry, reason = accepted.entry, _reason(error)
    event_id = _id_of(entry)
    logger.error(
        "an entry cannot be applied and is set aside: %s",
        reason,
        extra={"event": str(UUID(bytes=event_id)), "letter": accepted.accept_no},
    )
    outcomes = [(accepted, Outcome(Result.DEAD, str(UUID(bytes=event_id))))] if accepted.inbox else []
    body, user = encode_entry(entry), _storable(entry.user)
    letter = DeadLetter(accepted.accept_no, accepted.at, reason, body, event_id, user, TRIES)
    return [Applied(outcomes, [], {Result.DEAD.value: 1})], [letter]


async def write(connection: Connection, partition: int, dead: Sequence[DeadLetter]) -> None:
    """Keep what is set aside."""
    columns = (
        (
            *(d.accept_no, d.at, d.reason, d.body, partition),
            *(None if d.event_id is None else pgproto.UUID(d.event_id), d.user, d.tries),
        )
        for d in dead
    )
    await connection.execute(STATEMENTS["insert_dead_letters"], *zip(*columns, strict=True))


async def settle(
    connection: Connection, accepted: Accepted, partition: int, partitions: int, apply: Apply
) -> Applied:
    """Carry out one command about a dead letter. To be called in a transaction."""
    command = accepted.entry
    assert isinstance(command, Settle)  # noqa: S101  the caller's part
    command_id = pgproto.UUID(command.command_id)
    row = await connection.fetchrow(STATEMENTS["letter"], command.letter)
    parts: list[Applied] = []
    outcome = Outcome(Result.REJECTED, str(UUID(bytes=command.command_id)), reason="no_such_letter")
    known = await connection.fetch(STATEMENTS["known_commands"], [command_id])
    letter = None if row is None else _letter(row)
    if not known and letter and letter.settled != "retried" and letter.goes_to(partitions) == partition:
        if command.what == "drop":
            status, reason = await _drop(connection, letter, partition, accepted.accept_no)
        else:
            parts, status, reason = await _retry(connection, accepted, partition, letter, apply)
        outcome = Outcome(status, outcome.event_id, reason=reason)
        target = f"dead letter {letter.number}: {letter.what} of {letter.user or 'nobody'}"
        told = (f"{command.what} dead", letter.user, _storable(target), command.principal, accepted.at)
        await connection.execute(STATEMENTS["insert_settled"], command_id, accepted.accept_no, *told)
        done = int(command.what == "retry" or reason == "dropped")
        await connection.execute(
            STATEMENTS["insert_audit"],
            *(command_id, accepted.at, command.principal, told[0], told[2], command.why, done, done),
        )
    whole = Applied.of(parts)
    counts = whole.counts | {"settled": 1}
    return Applied([(accepted, outcome)] if accepted.inbox else [], whole.rows, counts)


async def _drop(
    connection: Connection, letter: Letter, partition: int, accept_no: int
) -> tuple[Result, str | None]:
    """Give a letter up; if its event came again and was decided, what it now is: undoing is another act."""
    if letter.event_id is not None:
        became = await connection.fetchrow(STATEMENTS["became"], letter.event_id)
        if became is not None and became["state"] != Result.REVOKED:
            await connection.execute(STATEMENTS["settle_letter"], letter.number, "retried")
            return Result(became["state"]), became["reason"]
        await connection.execute(STATEMENTS["plant"], letter.event_id, partition, accept_no)
    await connection.execute(STATEMENTS["settle_letter"], letter.number, "dropped")
    return Result.APPLIED, "dropped"


async def _retry(
    connection: Connection, accepted: Accepted, partition: int, letter: Letter, apply: Apply
) -> tuple[list[Applied], Result, str | None]:
    """Judge a letter's event at the command's place; what became of it."""
    entry = letter.entry
    if entry is None and letter.event_id is None:
        # What the message held has come through the log again, before this command.
        await connection.execute(STATEMENTS["settle_letter"], letter.number, "retried")
        return [], Result.APPLIED, None
    if letter.settled == "dropped":
        await connection.execute(STATEMENTS["uproot"], letter.event_id, partition)
    dead: Sequence[DeadLetter] = ()
    parts: list[Applied] = []
    reason = "it cannot be read by this version"
    if entry is not None:
        again = Accepted(accepted.accept_no, accepted.at, entry, inbox="retry")
        parts, dead = await isolate(connection, [again], apply)
    if dead or not parts:
        await connection.execute(STATEMENTS["still_dead"], letter.number, dead[0].reason if dead else reason)
        return parts, Result.DEAD, dead[0].reason if dead else reason
    await connection.execute(STATEMENTS["settle_letter"], letter.number, "retried")
    became = next((outcome for part in parts for _, outcome in part.outcomes), None)
    return parts, became.status if became else Result.APPLIED, became.reason if became else None


async def count_waiting(connection: Connection) -> int:
    """How many letters wait for an operator."""
    with translated():
        return int(await connection.fetchval(STATEMENTS["count_letters"]))


async def letters(database: Database, limit: int, *, settled: bool = False) -> list[Letter]:
    """The letters that wait for an operator, oldest first. ``settled``: all the others, too."""
    async with database.connection() as connection:
        return [_letter(row) for row in await connection.fetch(STATEMENTS["letters"], limit, settled)]


async def letter(database: Database, number: int) -> Letter | None:
    """One dead letter."""
    async with database.connection() as connection:
        row = await connection.fetchrow(STATEMENTS["letter"], number)
    return None if row is None else _letter(row)


def _letter(row: asyncpg.Record) -> Letter:
    return Letter(
        row["accept_no"],
        text_of_time(row["at"]),
        row["reason"],
        row["body"],
        row["partition"],
        row["event_id"],
        row["user_id"],
        row["tries"],
        row["settled"],
    )


def _id_of(entry: Entry) -> bytes:
    return entry.event_id if isinstance(entry, Update) else entry.command_id


def _reason(error: Exception) -> str:
    told = str(error) if isinstance(error, BadData) else f"{type(error).__name__}: {error}"
    return _storable(told)[:REASON_CHARACTERS]


def _storable(text: str) -> str:
    """Text that no rule of the database refuses, whatever is wrong with the entry."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
