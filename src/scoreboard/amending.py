"""Amending: commands about earlier events (revoke, restore, release, reject), as further rows of the ledger.

In comes one ``Amend``, inside the applying transaction; out go its outcome and the rows that boards must be
told. Afterwards totals, ``reached`` and what the rules count are what they would be had the events never been
(or had always been): all are made anew from the standing events. Nothing that was written is changed.

What would leave the range of scores is left as it is, with all of that user's: a total that cannot be stored
must not hold up the log.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto
from msgspec import Struct

from scoreboard.book import Applied
from scoreboard.database import STATEMENTS
from scoreboard.group_commit import partition_of
from scoreboard.model import (
    GIVER_ENDS,
    LOCAL_ISSUER,
    Accepted,
    Amend,
    Mark,
    Outcome,
    Rename,
    Result,
    Row,
    Verdict,
)
from scoreboard.texts import text_of_time

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

DIFFERENCES = 1_000  # lines of a dry run; the totals tell the rest
AMEND_SECONDS = 300.0  # a statement over the whole ledger; the log waits meanwhile

# The reference of an event that stands for a grant is the grant's issuer, a space, and the grant's id, which
# holds no space. That of our own begins with the key that had it made.
OF_KEY = f"(principal = 'key:' || $0 OR starts_with(reference, '{LOCAL_ISSUER} ' || $0 || '{GIVER_ENDS}'))"
OF_GRANT_ISSUER = "starts_with(reference, $0 || ' ') AND strpos(substr(reference, length($0) + 2), ' ') = 0"


class Difference(Struct, frozen=True, rename="camel"):
    """What an amendment would do to one total."""

    board: str
    user_id: str
    score: int
    score_after: int
    events: int


class Trial(Struct, frozen=True, rename="camel"):
    """What an amendment would do, if nothing else happened before it."""

    events: int
    users: int
    differences: list[Difference]
    unknown: tuple[str, ...] = ()
    """Of what was named, that of which nothing is known."""


async def apply(connection: Connection, accepted: Accepted, partition: int, partitions: int) -> Applied:
    """Carry out one command, for the users of one partition. To be called in a transaction."""
    entry = accepted.entry
    assert isinstance(entry, Amend)  # noqa: S101  the caller's part
    command_id = pgproto.UUID(entry.command_id)
    answer = Outcome(Result.APPLIED, str(UUID(bytes=entry.command_id)), events=0, users=0)
    if await connection.fetch(STATEMENTS["known_commands"], [command_id]):
        return Applied([(accepted, answer)] if accepted.inbox else [], [], {})
    await _gather(connection, entry, before=accepted.accept_no)
    if partitions > 1:
        users = [row[0] for row in await connection.fetch(STATEMENTS["amended_users"])]
        ours = [user for user in users if partition_of(user, partitions) == partition]
        await connection.execute(STATEMENTS["keep_users"], ours)
    await connection.execute(STATEMENTS["keep_in_range"])
    events, users_count = await _size(connection)
    rows = await _write(connection, accepted, entry) if events else []
    await connection.execute("DROP TABLE amending")
    # An event of which nothing else is said is meant whatever it is, also while it is still to come.
    alone = Amend(entry.command_id, entry.act, entry.verdict, entry.principal, entry.why, entry.event)
    tally = {f"{entry.verdict}": events} if events else {}
    if entry.event is not None and entry == alone:
        event = pgproto.UUID(entry.event)
        if entry.verdict is Verdict.REVOKE:
            await connection.execute(STATEMENTS["plant"], event, partition, accepted.accept_no)
        elif entry.verdict is Verdict.RESTORE:
            uprooted = await connection.execute(STATEMENTS["uproot"], event, partition)
            if uprooted != "DELETE 0" and await connection.fetchval(STATEMENTS["reopen_letter"], event):
                tally["settled"] = 1  # one more letter waits
    told = (entry.verdict.value, entry.user, target_of(entry), entry.principal, accepted.at)
    await connection.execute(
        STATEMENTS["insert_commands"], *([one] for one in (command_id, accepted.accept_no, *told))
    )
    await audit(connection, accepted, entry, target=target_of(entry), events=events, users=users_count)
    answer = msgspec.structs.replace(answer, events=events, users=users_count)
    return Applied([(accepted, answer)] if accepted.inbox else [], rows, tally)


async def tried(connection: Connection, entry: Amend) -> Trial:
    """What a command would do now. To be called in a transaction that is rolled back; locks nothing."""
    await _gather(connection, entry, before=None)
    await connection.execute(STATEMENTS["keep_in_range"])
    events, users = await _size(connection)
    rows = await connection.fetch(STATEMENTS["differences"], DIFFERENCES)
    return Trial(events, users, [Difference(*row) for row in rows])


async def audit(
    connection: Connection,
    accepted: Accepted,
    command: Amend | Mark | Rename,
    *,
    target: str,
    events: int | None,
    users: int | None,
) -> None:
    """Write down an act that came through the log."""
    if isinstance(command, Amend):
        act, what, why = command.act, command.verdict.value, command.why
    elif isinstance(command, Mark):
        act, what, why = command.command_id, command.kind, command.why
    else:
        act, what, why = command.command_id, "rename", f"to {command.name}"
    await connection.execute(
        STATEMENTS["insert_audit"],
        *(pgproto.UUID(act), accepted.at, command.principal, what, target, why, events, users),
    )


def target_of(entry: Amend) -> str:
    """What a command is about, in words."""
    parts = []
    if entry.event is not None:
        parts.append(f"event {UUID(bytes=entry.event)}")
    if entry.user:
        parts.append(f"user {entry.user}")
    if entry.key:
        parts.append(f"key {entry.key}")
    if entry.grant_issuer:
        parts.append(f"grants of {entry.grant_issuer}")
    if entry.since is not None:
        parts.append(f"from {text_of_time(entry.since)}")
    if entry.until is not None:
        parts.append(f"before {text_of_time(entry.until)}")
    return ", ".join(parts)


async def _gather(connection: Connection, entry: Amend, before: int | None) -> None:
    """Fill the table ``amending`` with what the command is about."""
    wanted: list[tuple[str, int | str | datetime | pgproto.UUID]] = []
    if before is not None:
        wanted.append(("accept_no < $0", before))
    if entry.event is not None:
        wanted.append(("event_id = $0", pgproto.UUID(entry.event)))
    if entry.user:
        wanted.append(("user_id = $0", entry.user))
    if entry.key:
        wanted.append((OF_KEY, entry.key))
    if entry.grant_issuer:
        wanted.append((OF_GRANT_ISSUER, entry.grant_issuer))
    if entry.since is not None:
        wanted.append(("at >= $0", entry.since))
    if entry.until is not None:
        wanted.append(("at < $0", entry.until))
    # Only the conditions that are given: each then finds its index.
    conditions = "".join(
        f" AND {condition.replace('$0', f'${n}::text' if isinstance(value, str) else f'${n}')}"
        for n, (condition, value) in enumerate(wanted, 1)
    )
    if entry.verdict is Verdict.RESTORE and entry.event is None:
        # What was revoked before it came was never judged: not by a ban, nor by the rules of its type.
        conditions += " AND before IS NOT NULL"
    await connection.execute(STATEMENTS["make_amending"])
    await connection.execute(
        STATEMENTS[entry.verdict.value] + conditions, *(value for _, value in wanted), timeout=AMEND_SECONDS
    )


async def _size(connection: Connection) -> tuple[int, int]:
    row = await connection.fetchrow(STATEMENTS["amended"])
    assert row is not None  # noqa: S101  an aggregate always answers one row
    return row["events"], row["users"]


async def _write(connection: Connection, accepted: Accepted, entry: Amend) -> list[Row]:
    """The amendments, and the totals as the ledger now has them."""
    await connection.execute(
        STATEMENTS["insert_amendments"],
        *(pgproto.UUID(entry.command_id), accepted.accept_no, entry.principal, accepted.at),
        timeout=AMEND_SECONDS,
    )
    await connection.execute(STATEMENTS["sum_amended"], accepted.accept_no, timeout=AMEND_SECONDS)
    await connection.execute(STATEMENTS["forget_counts"])
    return [Row(*row) for row in await connection.fetch(STATEMENTS["amended_rows"])]
