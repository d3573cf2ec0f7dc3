"""The applying transaction: a batch of the log becomes ledger rows, totals and a moved cursor, or nothing.

In comes a batch in order of acceptance; out go the outcomes and the rows that boards must be told.

Why each event counts exactly once:

1. The cursor moves from the batch's predecessor to its last message in the same transaction as everything
   the batch does. If another worker was there first the ``UPDATE`` finds no row: ``Fenced``, and nothing of
   this batch happened. So each message is applied by one committed transaction.
2. An event's id follows from who did what (model.py), is looked up before it is judged, and is the ledger's
   primary key. So a message that says again what another one said has no second effect.
3. Totals are written as absolute values, read and written under the cursor's row lock. All events of a user
   are in one partition, so nobody else changes them meanwhile.

Judging (book.py) is plain Python over state that was read in this transaction, event by event, in order:
the same log and the same configuration give the same ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from asyncpg.pgproto import pgproto
from msgspec import Struct

from scoreboard.book import Applied, Book, Judged, Place, User
from scoreboard.database import LOCK_CLASS, STATEMENTS, translated
from scoreboard.errors import Fenced, LogMismatch
from scoreboard.model import Accepted, Rename, Result, Update

if TYPE_CHECKING:
    from scoreboard.database import Connection


class DeadLetter(Struct, frozen=True):
    """A message of the log that is not what it claims to be."""

    accept_no: int
    at: datetime
    reason: str
    body: bytes


class Batch(Struct, frozen=True):
    """What is applied at once: the messages after ``previous`` up to and with ``last``."""

    partition: int
    stream: str
    previous: int
    last: int
    last_at: datetime
    accepted: Sequence[Accepted]
    dead: Sequence[DeadLetter] = ()


class Position(Struct, frozen=True):
    """How far a partition of the log has been applied."""

    stream: str
    last: int
    last_at: datetime


async def lock(connection: Connection, partition: int) -> None:
    """Wait until this session is the one that applies ``partition``."""
    with translated():
        # No time limit: standing by is what a second worker is for.
        await connection.execute(STATEMENTS["lock_partition"], LOCK_CLASS, partition, timeout=1e9)


async def position(connection: Connection, partition: int, stream: str, first: int) -> Position:
    """How far ``partition`` has been applied; at the very first time, the log's beginning.

    Args:
        connection: the applying session.
        partition: which one.
        stream: the identity of the log that is there now.
        first: the first sequence that the log still holds.

    Raises:
        LogMismatch: the database has been reading another log, or messages it has not read are gone.
    """
    with translated():
        row = await connection.fetchrow(STATEMENTS["position"], partition)
        if row is None:
            await connection.execute(STATEMENTS["begin_partition"], partition, stream, 0)
            row = await connection.fetchrow(STATEMENTS["position"], partition)
    assert row is not None  # noqa: S101  it was put there just now
    found = Position(row["stream"], row["last"], row["last_at"])
    if found.stream != stream:
        msg = f"The database has been reading the log {found.stream}; the queue now holds {stream}."
        raise LogMismatch(msg)
    if first > found.last + 1:
        msg = f"The log begins at {first}, but only {found.last} has been applied: what lies between is gone."
        raise LogMismatch(msg)
    return found


async def apply(connection: Connection, batch: Batch, boards: Sequence[str]) -> Applied:
    """Apply one batch in one transaction.

    Raises:
        Fenced: another worker has moved the cursor; nothing happened.
        DatabaseUnavailable: whether it happened is not known; read the cursor again.
    """
    with translated():
        async with connection.transaction():
            moved = await connection.execute(
                STATEMENTS["move_cursor"],
                *(batch.partition, batch.stream, batch.last, batch.last_at, batch.previous),
            )
            if moved != "UPDATE 1":
                raise Fenced
            book = await _read(connection, batch, boards)
            for accepted in batch.accepted:
                book.judge(accepted)
            await _write(connection, batch, book)
    return book.applied()


async def _read(connection: Connection, batch: Batch, boards: Sequence[str]) -> Book:
    """The state that the batch touches. The cursor's row is locked: for these users nobody else writes."""
    book = Book()
    updates = [a.entry for a in batch.accepted if isinstance(a.entry, Update)]
    commands = [a.entry for a in batch.accepted if isinstance(a.entry, Rename)]
    if updates:
        ids = [pgproto.UUID(entry.event_id) for entry in updates]
        for event_id, outcome, reason, points, names in await connection.fetch(
            STATEMENTS["known_events"], ids
        ):
            book.known[event_id.bytes] = Judged(Result(outcome), reason, points, names)
    if commands:
        ids = [pgproto.UUID(entry.command_id) for entry in commands]
        for (command_id,) in await connection.fetch(STATEMENTS["known_commands"], ids):
            book.commands.add(command_id.bytes)
    book.users = {a.entry.user: User() for a in batch.accepted}
    for row in await connection.fetch(STATEMENTS["users"], list(book.users)):
        user = book.users[row["user_id"]]
        user.name, user.hidden, user.banned, user.changed = row[1], row[2], row[3], row[4]
    wanted = {(board, entry.user) for entry in updates for board in entry.boards}
    # A new name shows on every board, also on those that the batch's points do not touch.
    named = {e.user for e in updates if e.name is not None and e.name != book.users[e.user].name}
    named.update(entry.user for entry in commands)
    wanted.update((board, user) for board in boards for user in named)
    if wanted:
        ordered = sorted(wanted)
        names, users = [board for board, _ in ordered], [user for _, user in ordered]
        for board, user_id, score, reached, changed in await connection.fetch(
            STATEMENTS["scores"], names, users
        ):
            book.places[board, user_id] = Place(score, reached, changed, exists=True)
    return book


async def _write(connection: Connection, batch: Batch, book: Book) -> None:
    if book.events:
        columns = (
            (
                *(pgproto.UUID(entry.event_id), accepted.accept_no, entry.user, entry.type, entry.reference),
                *(entry.points, " ".join(entry.boards), entry.principal, accepted.at),
                *(judged.result.value, judged.reason),
            )
            for accepted, entry, judged in book.events
        )
        await connection.execute(STATEMENTS["insert_events"], *zip(*columns, strict=True))
    places = sorted((key, place) for key, place in book.places.items() if place.touched)
    if places:
        await connection.execute(
            STATEMENTS["upsert_scores"],
            *([key[0] for key, _ in places], [key[1] for key, _ in places]),
            *([p.score for _, p in places], [p.reached for _, p in places], [p.changed for _, p in places]),
        )
    named = sorted((user, known) for user, known in book.users.items() if known.renamed)
    if named:
        await connection.execute(
            STATEMENTS["upsert_names"],
            *([user for user, _ in named], [u.name for _, u in named], [u.changed for _, u in named]),
        )
    if book.new_commands:
        commands = (
            (pgproto.UUID(c.command_id), a.accept_no, "rename", c.user, c.name, c.principal, a.at)
            for a, c in book.new_commands
        )
        await connection.execute(STATEMENTS["insert_commands"], *zip(*commands, strict=True))
    if batch.dead:
        dead = ((d.accept_no, d.at, d.reason, d.body) for d in batch.dead)
        await connection.execute(STATEMENTS["insert_dead_letters"], *zip(*dead, strict=True))
