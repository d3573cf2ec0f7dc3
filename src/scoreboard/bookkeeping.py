"""The book of a batch, fetched from the database and written back to it, in the transaction that is open.

In come entries that are judged together; out goes a ``Book`` that knows all that they touch. In comes that
book once they have been judged; out go the rows that it has changed. It must never judge, nor read or write
anything before the cursor's row is locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from asyncpg.pgproto import pgproto

from scoreboard import amending, copying, counting
from scoreboard.book import Book, Judged, Memory, Place, User
from scoreboard.database import STATEMENTS
from scoreboard.model import Accepted, Mark, Rename, Result, Update

if TYPE_CHECKING:
    from scoreboard.database.server import Connection
    from scoreboard.ledger import Terms

USERS_OWN = (Rename, Mark)
_BOARD_AND_USER = itemgetter(0, 1)


async def read(
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


async def write(connection: Connection, book: Book, terms: Terms) -> None:
    """What judging has changed: events, places, users, counts, commands."""
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
