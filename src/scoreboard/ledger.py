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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
from msgspec import Struct

from scoreboard import amending, bookkeeping, counting, dead_letters
from scoreboard.adoption import Read, flaw
from scoreboard.book import Applied, Memory
from scoreboard.database import STATEMENTS, translated
from scoreboard.database.server import LOCK_CLASS
from scoreboard.dead_letters import DeadLetter
from scoreboard.errors import BadData, Fenced, LogMismatch
from scoreboard.model import Accepted, Amend, Settle
from scoreboard.queue import State
from scoreboard.rules import Rules

if TYPE_CHECKING:
    from scoreboard.database.server import Connection


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
        book = await bookkeeping.read(connection, partition, part, terms, memory)
        for one in part:
            book.judge(one)
        await bookkeeping.write(connection, book, terms)
        parts.append(book.applied())
        memory.keep(book)
    return parts


ALONE = (Amend, Settle)


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
