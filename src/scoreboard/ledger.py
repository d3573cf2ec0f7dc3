"""The applying transaction: a batch of the log becomes ledger rows, totals and a moved cursor, or nothing.

In comes a batch in order of acceptance; out go the outcomes and the rows that boards must be told.

Why each event counts exactly once:

1. The cursor moves from the batch's predecessor to its last message in the same transaction as everything
   the batch does. If another worker was there first the ``UPDATE`` finds no row: ``Fenced``, and nothing of
   this batch happened. So each message is applied by one committed transaction.
2. An event's id follows from who did what (event_ids.py) and is the ledger's primary key. While no event
   comes twice, it is that key alone which says so: a batch with an event that was there before is rolled
   back, and applied with each event looked up before it is judged, and so are the batches after it. So a
   message that says again what another one said has no second effect.
3. Totals are written as absolute values, read and written under the cursor's row lock. All events of a user
   are in one partition, so nobody else changes them meanwhile.

Judging (book.py) is plain Python over state that was read in this transaction, event by event, in order:
the same log and the same configuration give the same ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pgproto import pgproto
from msgspec import Struct

from scoreboard import amending, copying, counting, dead_letters
from scoreboard.adoption import Read, flaw
from scoreboard.book import Applied, Book, Judged, Memory, Place, User
from scoreboard.database import LOCK_CLASS, STATEMENTS, translated
from scoreboard.dead_letters import DeadLetter
from scoreboard.errors import BadData, Fenced, LogMismatch
from scoreboard.model import Accepted, Amend, Mark, Rename, Result, Settle, Update
from scoreboard.queue import State
from scoreboard.rules import Rules

if TYPE_CHECKING:
    from scoreboard.database import Connection


class Batch(Struct, frozen=True):
    """What is applied at once: the messages after ``previous`` up to and with ``last``; there may be none."""

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
    """All messages of the partition up to this number are applied; it may be another partition's message."""
    last_at: datetime
    """When the last message of the partition itself was accepted."""


async def lock(connection: Connection, partition: int) -> None:
    """Wait until this session is the one that applies ``partition``."""
    with translated():
        # No time limit: standing by is what a second worker is for.
        await connection.execute(STATEMENTS["lock_partition"], LOCK_CLASS, partition, timeout=1e9)


async def begin(connection: Connection, terms: Terms) -> None:
    """This session applies from now on, under these terms; what others left behind must fit them."""
    with translated():
        await counting.begin(connection, terms.rules)


async def position(connection: Connection, partition: int, state: State) -> Position:
    """How far ``partition`` has been applied; at the very first time, the log's beginning.

    Args:
        connection: the applying session.
        partition: which one.
        state: the log as it is now.

    Raises:
        LogMismatch: the database has been reading another log, or messages it has not read are gone, or the
            log is older than what has been read of it.
    """
    with translated():
        row = await connection.fetchrow(STATEMENTS["position"], partition)
        if row is None:
            await connection.execute(STATEMENTS["begin_partition"], partition, state.identity, state.base)
            row = await connection.fetchrow(STATEMENTS["position"], partition)
    assert row is not None  # noqa: S101  it was put there just now
    found = Position(row["stream"], row["last"], row["last_at"])
    if wrong := flaw([Read(partition, found.stream, found.last, found.last_at)], state):
        raise LogMismatch(wrong)
    return found


class Terms(Struct, frozen=True):
    """Under what a batch is judged: from the configuration, the same at every replay."""

    boards: Sequence[str]
    rules: Mapping[str, Rules]
    partitions: int = 1


async def apply(
    connection: Connection,
    batch: Batch,
    terms: Terms,
    memory: Memory | None = None,
    *,
    isolating: bool = False,
) -> Applied:
    """Apply one batch in one transaction.

    Args:
        connection: the applying session.
        batch: what comes after the cursor.
        terms: under what it is judged.
        memory: what this session knows from before, of this partition alone.
        isolating: set aside what cannot be applied; else it fails with the whole batch, with any exception.

    Raises:
        Fenced: another worker has moved the cursor; nothing happened.
        DatabaseUnavailable: whether it happened is not known; read the cursor again.
    """

    memory = memory or Memory()
    if isolating or memory.looks_up:
        return await _apply_once(connection, batch, terms, memory, isolating=isolating)
    try:
        return await _apply_once(connection, batch, terms, memory)
    except BadData as error:
        if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
            raise
        memory.look_up()  # an event was taken for new and is not
        return await _apply_once(connection, batch, terms, memory)


async def _apply_once(
    connection: Connection, batch: Batch, terms: Terms, memory: Memory, *, isolating: bool = False
) -> Applied:
    with translated(), _forgotten_unless_committed(memory):
        async with connection.transaction():
            moved = await connection.execute(
                STATEMENTS["move_cursor"],
                *(batch.partition, batch.stream, batch.last, batch.last_at, batch.previous),
            )
            if moved != "UPDATE 1":
                raise Fenced
            if batch.dead:
                await dead_letters.write(connection, batch.partition, batch.dead)
            if isolating:
                memory.forget()
                parts = await _isolate(connection, batch.partition, batch.accepted, terms)
            else:
                parts = await _apply_parts(connection, batch.partition, batch.accepted, terms, memory)
    return parts[0] if len(parts) == 1 else Applied.of(parts)


@contextmanager
def _forgotten_unless_committed(memory: Memory) -> Iterator[None]:
    try:
        yield
    except BaseException:
        memory.forget()
        raise


async def _isolate(
    connection: Connection, partition: int, accepted: Sequence[Accepted], terms: Terms
) -> list[Applied]:
    """Apply entries in order, and set aside those that cannot be: what settles a letter finds it."""
    each = partial(_apply_alone, connection, partition, terms)
    applied: list[Applied] = []
    for part in _parts(accepted):
        entries = [part] if isinstance(part, Accepted) else part
        done, dead = await dead_letters.isolate(connection, entries, each)
        applied += done
        if dead:
            await dead_letters.write(connection, partition, dead)
    return applied


async def _apply_alone(
    connection: Connection, partition: int, terms: Terms, accepted: Sequence[Accepted]
) -> list[Applied]:
    """Apply entries that may be rolled back by themselves: what they wrote is not remembered."""
    return await _apply_parts(connection, partition, accepted, terms, Memory())


async def _apply_parts(
    connection: Connection, partition: int, accepted: Sequence[Accepted], terms: Terms, memory: Memory
) -> list[Applied]:
    """Apply entries in order, in the transaction that is open."""
    parts: list[Applied] = []
    for part in _parts(accepted):
        if isinstance(part, Accepted):
            memory.forget()
            if isinstance(part.entry, Settle):
                each = partial(_apply_alone, connection, partition, terms)
                parts.append(await dead_letters.settle(connection, part, partition, terms.partitions, each))
            else:
                parts.append(await amending.apply(connection, part, partition, terms.partitions))
            continue
        book = await _read(connection, partition, part, terms, memory)
        for one in part:
            book.judge(one)
        await _write(connection, book, terms)
        parts.append(book.applied())
        memory.keep(book)
    return parts


ALONE = (Amend, Settle)
USERS_OWN = (Rename, Mark)


def _parts(accepted: Sequence[Accepted]) -> Iterator[Sequence[Accepted] | Accepted]:
    """What can be judged together, in order. Amendments and what settles a dead letter stand alone: they see
    all before them applied.
    """
    begin = 0
    for place, one in enumerate(accepted):
        if isinstance(one.entry, ALONE):
            if begin < place:
                yield accepted[begin:place]
            yield one
            begin = place + 1
    if begin < len(accepted):
        yield accepted[begin:]


async def _read(
    connection: Connection, partition: int, part: Sequence[Accepted], terms: Terms, memory: Memory
) -> Book:
    """The state that entries touch. The cursor's row is locked: for these users nobody else writes."""
    book = Book(terms.boards, terms.rules, memory)
    updates = [a.entry for a in part if isinstance(a.entry, Update)]
    commands = [a.entry for a in part if isinstance(a.entry, USERS_OWN)]
    if updates and memory.planted is None:
        memory.planted = await connection.fetchval(STATEMENTS["any_planted"], partition)
    if updates and (memory.looks_up or memory.planted):
        ids = [pgproto.UUID(entry.event_id) for entry in updates]
        if memory.planted:
            for (event_id,) in await connection.fetch(STATEMENTS["planted"], ids, partition):
                book.planted.add(event_id.bytes)
        if memory.looks_up:
            for event_id, state, reason, points, names, retry_at in await connection.fetch(
                STATEMENTS["known_events"], ids
            ):
                book.known[event_id.bytes] = Judged(Result(state), reason, points, names, retry_at)
            memory.looked_up(found=bool(book.known))
    if updates:
        book.counts = await counting.read(connection, updates, terms.rules)
    if commands:
        ids = [pgproto.UUID(entry.command_id) for entry in commands]
        for (command_id,) in await connection.fetch(STATEMENTS["known_commands"], ids):
            book.commands.add(command_id.bytes)
    if unknown := {a.entry.user for a in part if a.entry.user not in memory.users}:
        memory.users.update((user, User()) for user in unknown)
        for row in await connection.fetch(STATEMENTS["users"], list(unknown)):
            user = memory.users[row["user_id"]]
            user.name, user.hidden, user.banned, user.changed = row[1], row[2], row[3], row[4]
    missing = {
        (board, entry.user)
        for entry in updates
        for board in entry.boards
        if entry.user not in memory.places[board]
    }
    # A new name or mark shows on every board, also on those that the points do not touch.
    named = {e.user for e in updates if e.name is not None and e.name != memory.users[e.user].name}
    named.update(entry.user for entry in commands)
    missing.update(
        (board, user) for board in terms.boards for user in named if user not in memory.places[board]
    )
    if missing:
        ordered = sorted(missing)
        names, users = [board for board, _ in ordered], [user for _, user in ordered]
        for board, user_id, score, reached, changed, standing in await connection.fetch(
            STATEMENTS["scores"], names, users
        ):
            memory.places[board][user_id] = Place(score, reached, changed, standing=standing)
    return book


_BOARD_AND_USER = itemgetter(0, 1)


async def _write(connection: Connection, book: Book, terms: Terms) -> None:
    if book.events:
        rows: Any = memoryview(copying.rows(book.events))  # the driver takes bytes for a path
        await connection.copy_to_table("events", columns=copying.COLUMNS, source=rows, format="binary")
    if book.touched:
        touched = sorted(book.touched, key=_BOARD_AND_USER)
        boards, users, places = zip(*touched, strict=True)
        await connection.execute(
            STATEMENTS["upsert_scores"],
            *("\n".join(boards), "\n".join(users)),  # neither holds a control character
            *(_list(p.score for p in places), _list(p.reached for p in places)),
            _list(p.changed for p in places),
        )
    if book.marked:
        marked = sorted(book.marked.items())
        await connection.execute(
            STATEMENTS["upsert_users"],
            *([user for user, _ in marked], [u.name for _, u in marked], [u.hidden for _, u in marked]),
            *([u.banned for _, u in marked], [u.changed for _, u in marked]),
        )
    await counting.write(connection, book.counts, terms.rules)
    if book.new_commands:
        commands = (
            (pgproto.UUID(c.command_id), a.accept_no, *_told(c), c.principal, a.at)
            for a, c in book.new_commands
        )
        await connection.execute(STATEMENTS["insert_commands"], *zip(*commands, strict=True))
        for accepted, command in book.new_commands:
            if isinstance(command, Mark) or command.audited:
                await amending.audit(connection, accepted, command, target=command.user, events=None, users=1)


def _list(numbers: Iterable[int]) -> str:
    """An array as PostgreSQL reads it. The driver would ask each of its elements whether it is a list."""
    return f"{{{','.join(map(str, numbers))}}}"


def _told(command: Rename | Mark) -> tuple[str, str, str]:
    """A command's kind, user and detail."""
    if isinstance(command, Rename):
        return "rename", command.user, command.name
    return command.kind, command.user, command.why
