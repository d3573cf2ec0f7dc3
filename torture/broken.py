"""The product with one guarantee broken on purpose: ``python broken.py GUARANTEE SUBCOMMAND …``.

In: which guarantee, and what would be given to ``scoreboard``. Out: that command, the real one but for the
function or two that are replaced here; under ``up``, in every process that it starts. The auditor must tell.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from scoreboard import ledger, roles, supervisor
from scoreboard.app import __main__ as app
from scoreboard.board import Batch, Board, Ranks
from scoreboard.board.form import USERS, WIDTH, entry
from scoreboard.book import Applied, Book
from scoreboard.cli import main
from scoreboard.database import STATEMENTS, translated
from scoreboard.errors import BoardUnavailable, Fenced
from scoreboard.group_commit import GroupCommit
from scoreboard.model import Accepted, Entry, Row, Update
from scoreboard.refresh import Committed, Refresher
from scoreboard.roles import Child, Options


def cursor() -> None:
    """The cursor moves in a transaction of its own, before the one that applies."""
    apply = ledger.apply

    async def moved_first(connection: Any, batch: ledger.Batch, terms: ledger.Terms) -> Applied:
        move = batch.partition, batch.stream, batch.last, batch.last_at, batch.previous
        with translated():
            if await connection.execute(STATEMENTS["move_cursor"], *move) != "UPDATE 1":
                raise Fenced
        return await apply(connection, replace(batch, previous=batch.last), terms)

    _replace(ledger, apply=moved_first)


def increments() -> None:
    """The boards are told how many points came, one batch after the other, and add them to what they have."""
    count, applied = Book._count, Book.applied
    write, following = Board.apply, Refresher._next
    gained: dict[Book, defaultdict[tuple[str, str], int]] = {}

    def counting(book: Book, accepted: Accepted, entry: Update) -> None:
        count(book, accepted, entry)
        for board in entry.boards:
            gained.setdefault(book, defaultdict(int))[board, entry.user] += entry.points

    def gains(book: Book) -> Applied:
        told, plus = applied(book), gained.pop(book, defaultdict(int))
        rows = [replace(row, score=plus[row.board, row.user]) for row in told.rows]
        return replace(told, rows=rows)

    async def one(refresher: Refresher, state: Any) -> list[Committed]:
        batches = await following(refresher, state)
        for batch in batches[1:]:
            state.arrived.put_nowait(batch)
        return batches[:1]

    async def add(board: Board, batches: Sequence[Batch]) -> list[Ranks | BoardUnavailable]:
        try:
            sums = [replace(batch, rows=[await _sum(board, row) for row in batch.rows]) for batch in batches]
        except BoardUnavailable as error:
            return [error] * len(batches)
        return await write(board, sums)

    _replace(Book, _count=counting, applied=gains)
    _replace(Board, apply=add)
    _replace(Refresher, _next=one)


async def _sum(board: Board, row: Row) -> Row:
    """What the board has of the user and what came, in a version that the board takes whatever it has."""
    meta = board._specs[row.board].meta
    found = await board._server.whole(meta)
    users = meta.removesuffix("meta") + found.get("generation", b"").decode() + USERS
    value = (await board._server.fields([users], row.user))[0]
    had = entry(row.user, value)
    return replace(
        row,
        score=(row.score or 0) + (had.score if had else 0),
        changed=max(row.changed, int(value[:WIDTH]) + 1 if value else 0),
    )


def early() -> None:
    """An update is answered before it is synced in the log."""
    accept = GroupCommit.accept

    def at_once(commit: GroupCommit, entry: Entry, **options: Any) -> asyncio.Future[None]:
        synced = accept(commit, entry, **options)
        synced.add_done_callback(lambda future: future.cancelled() or future.exception())
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.set_result(None)
        return answer

    _replace(GroupCommit, accept=at_once)


def _replace(owner: Any, **functions: Callable[..., Any]) -> None:
    for name, function in functions.items():
        setattr(owner, name, function)


GUARANTEES: dict[str, Callable[[], None]] = {"cursor": cursor, "increments": increments, "early": early}


def _children(guarantee: str, options: Options, fd: int, url: str) -> list[Child]:
    """The children of ``up``, broken as well."""
    ours = (sys.executable, __file__, guarantee, "app")
    return [
        replace(child, argv=(*ours, *child.argv[3:]))  # in place of: python -m scoreboard.app
        for child in roles.children(options, fd, url)
    ]


if __name__ == "__main__":
    guarantee, subcommand, *arguments = sys.argv[1:]
    GUARANTEES[guarantee]()
    if subcommand == "app":
        sys.argv[1:] = arguments
        app.main()
    else:
        _replace(supervisor, up=partial(supervisor.up, children=partial(_children, guarantee)))
        main([subcommand, *arguments])
