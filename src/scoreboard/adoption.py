"""Is this the log that the database has been reading? And if not, how to go on: ``scoreboard adopt``.

In come the database's cursor and the log as it is now; out goes what is wrong in words, and a plan. Adopting
reads the log that is there from its beginning, with numbers that begin after the last one that the database
has applied, so that ``accept_no`` goes on rising. What the database holds already is known by its id and
counts once. So nothing is skipped that a log still holds, whichever log it is: a new one, another one, an
older copy of the same one, or one that has lost its beginning.

It must never be done by itself, or beside a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from msgspec import Struct

from scoreboard.auth.key_acts import operator
from scoreboard.config import Config
from scoreboard.database import STATEMENTS, Database
from scoreboard.database.server import LOCK_CLASS
from scoreboard.errors import EngineError
from scoreboard.queue import Queue, State
from scoreboard.texts import text_of_time

if TYPE_CHECKING:
    from scoreboard.database.server import Connection


class Read(Struct, frozen=True):
    """How far one partition of the log had been read."""

    partition: int
    stream: str
    last: int
    """All messages of the partition up to this number are applied; it may be another partition's message."""
    last_at: datetime
    """When the last message of the partition itself was accepted."""


class Plan(Struct, frozen=True):
    """What adopting will do."""

    lines: Sequence[str]
    """In words."""
    number: int
    """Of the first message that will be read."""
    partitions: int
    forget: bool = False
    """Is all that the log holds applied, and to be dropped?"""


def flaw(read: Sequence[Read], state: State | None) -> str | None:
    """Why a database that has read so far cannot read on in this log; ``None`` if it can."""
    if not read:
        return None
    last, first = max(read, key=lambda one: one.last), min(read, key=lambda one: one.last)
    so_far = f"The database has been reading the log {last.stream}, up to message {last.last}"
    so_far += f" (accepted {text_of_time(max(one.last_at for one in read))})"
    if state is None:
        return f"{so_far}; the queue holds no log."
    if state.identity != last.stream:
        return f"{so_far}; the queue now holds {state.identity}."
    if state.last < last.last:
        return (
            f"{so_far}; the log ends at {state.last}, so it is an older copy of itself."
            " What it accepts now would get numbers that are taken, and would never be read."
        )
    if state.first > first.last + 1:
        return (
            f"The log begins at message {state.first}, but partition {first.partition} has been applied up to"
            f" {first.last} only (its last one accepted {text_of_time(first.last_at)}): what lies between is"
            " gone."
        )
    return None


async def positions(database: Database) -> list[Read]:
    """How far the database has read."""
    async with database.connection() as connection:
        return [Read(*row) for row in await connection.fetch(STATEMENTS["all_positions"])]


async def plan(database: Database, queue: Queue, config: Config) -> Plan | None:
    """What adopting would do now; ``None`` if there is nothing to adopt. Changes nothing.

    Raises:
        EngineError: what to do first.
    """
    read, state = await positions(database), await queue.there()
    found = flaw(read, state)
    wanted = config.queue.partitions
    number = max((one.last for one in read), default=0) + 1
    if found is None:
        if state is None:
            return None
        if state.partitions == wanted:
            return _rest_of_change(read, state)
        return await _repartition(read, queue, state, wanted)
    if state is None:
        return Plan(
            [
                found,
                "Lost: what was accepted after that. Clients that know its actionIds may send it again.",
                f"A new log is made. Its first message gets the number {number}.",
            ],
            number,
            wanted,
        )
    if state.partitions != wanted:
        raise EngineError(f"{found} It was made with queue.partitions = {state.partitions}; set that first.")
    lines = [found, *await _lost(read, queue, state)]
    same = state.identity == read[0].stream and state.last >= number - 1
    number = state.first if same else max(number, state.first)
    if state.last < state.first:
        lines.append(f"The log holds no message. The next one gets the number {number}.")
    else:
        count, last = state.last - state.first + 1, number + state.last - state.first
        lines.append(
            f"The log holds {count} messages, accepted {await _time(queue, state.first)} to"
            f" {await _time(queue, state.last)}. All are read, with the numbers {number} to {last}. What the"
            " database holds already counts once."
        )
    return Plan(lines, number, wanted)


async def _lost(read: Sequence[Read], queue: Queue, state: State) -> list[str]:
    last = min(read, key=lambda one: one.last)
    if state.identity == last.stream and state.first > last.last + 1:
        between = f"{text_of_time(last.last_at)} and {await _time(queue, state.first)}"
        return [f"Lost: up to {state.first - last.last - 1} messages, accepted between {between}."]
    return ["Lost: what was accepted, not applied, and is not in this log."]


async def _time(queue: Queue, number: int) -> str:
    at = await queue.time_of(number)
    return "at an unknown time" if at is None else text_of_time(at)


async def _repartition(read: Sequence[Read], queue: Queue, state: State, wanted: int) -> Plan:
    lines = [f"The log was made with queue.partitions = {state.partitions}; now it shall be {wanted}."]
    applied = {one.partition: one.last for one in read}
    for partition in range(state.partitions):  # also those that nobody has ever read
        if await queue.last_of(partition) > applied.get(partition, 0):
            raise EngineError(
                f"{lines[0]} The log holds messages that are not applied. Let a worker run with"
                f" queue.partitions = {state.partitions} and no api until scoreboard_queue_messages is 0."
            )
    lines.append(
        f"All {state.last - state.first + 1} messages that the log keeps are applied; they are dropped, for"
        " they are in the order of the old partitions. A backup made before this cannot be caught up: make"
        " a new one."
    )
    return Plan(lines, state.last + 1, wanted, forget=True)


def _rest_of_change(read: Sequence[Read], state: State) -> Plan | None:
    """What is left of a change of ``queue.partitions`` that the log has seen and the database has not."""
    there, wanted = {one.partition for one in read}, set(range(state.partitions))
    # A partition that nobody has read begins with the log by itself; not with one that was trimmed.
    stuck = wanted - there and state.first > state.base + 1
    if not read or not (stuck or there - wanted):
        return None
    line = f"A change to queue.partitions = {state.partitions} was cut off; it is finished."
    line += f" Partitions that were never read are read from the log's first message on, {state.first}."
    return Plan([line], state.first, state.partitions)


async def adopt(database: Database, queue: Queue, config: Config, planned: Plan, why: str) -> None:
    """Carry a plan out. If it is cut off, the next plan is for the rest.

    Raises:
        EngineError: a worker is at work on the database.
    """
    if planned.forget:
        async with database.transaction() as connection:
            await _alone(connection, planned)
            # All partitions have applied all of it, and the database says so before the log drops it.
            await connection.execute("UPDATE cursor SET last = greatest(last, $1)", planned.number - 1)
    async with database.transaction() as connection:
        read = await _alone(connection, planned)
        if planned.forget:
            await queue.trim(planned.number - 1)
        # The log first: if what follows fails, the next plan finds this done.
        if await queue.there() is None:
            settings = config.queue
            await queue.ensure(
                partitions=settings.partitions,
                max_bytes=settings.max_bytes,
                replicas=settings.replicas,
                known=None,
            )
        state = await queue.renumber(planned.number, planned.partitions)
        await connection.execute("DELETE FROM cursor")
        applied = {one.partition: one.last for one in read}
        for number in range(planned.partitions):
            last = max(planned.number - 1, applied.get(number, 0))  # who is ahead stays there
            await connection.execute(STATEMENTS["begin_partition"], number, state.identity, last)
        if read:
            await connection.execute("UPDATE cursor SET last_at = $1", max(one.last_at for one in read))
        await connection.execute(STATEMENTS["replant"], planned.partitions)
        await connection.execute(STATEMENTS["unplant_others"], planned.partitions)
        await connection.execute(
            STATEMENTS["insert_audit"],
            *(uuid4(), None, f"os:{operator()}", "adopt", f"log {state.identity}"),
            *(" ".join([why, *planned.lines]).strip(), None, None),
        )


async def _alone(connection: Connection, planned: Plan) -> list[Read]:
    """How far the database has read; until the transaction ends no worker goes on.

    Raises:
        EngineError: one is at work.
    """
    read = [Read(*row) for row in await connection.fetch(STATEMENTS["all_positions"])]
    for number in {one.partition for one in read} | set(range(planned.partitions)):
        if not await connection.fetchval(STATEMENTS["try_partition"], LOCK_CLASS, number):
            raise EngineError("A worker is at work on this database; stop all roles, or `up`, first.")
    return read
