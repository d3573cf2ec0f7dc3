"""Reads, keys and board rows, through a small pool.

In come questions of people and of other stages; out go values of the model. Nothing here is meant to take
long, but for what reads all of a table, in steps. It must never write to the ledger, or change a total.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from scoreboard.database.migrating import migrate
from scoreboard.database.server import ANSWER_SECONDS, CONNECT_SECONDS, SESSION, STATEMENTS, translated
from scoreboard.model import Row

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

POOL_SIZE = 4  # connections a process for reads that people wait for; the worker has one of its own
WHOLE_SECONDS = 600.0  # for what reads all of a table: ten million rows are put in order first
CHUNK_ROWS = 1_000  # rows a step when a board is read whole: bounds memory, and how long Redis is kept busy
SORT_MEMORY = "64MB"  # of the database's server, for putting a board or the ledger in order


class Event:
    """One row of the ledger as ``GET /events/{eventId}`` shows it."""

    __slots__ = ("at", "boards", "event_id", "outcome", "points", "reason", "retry_at", "user")

    def __init__(self, row: asyncpg.Record) -> None:
        self.event_id, self.user, self.outcome, self.reason, self.points, self.boards, self.at = row[:7]
        self.retry_at = row["retry_at"]


class Database:
    """Reads, keys and board rows, through a small pool. Open it with ``Database.open(url)``."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._identity: str | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Database]:
        """A database for as long as the block runs. It need not be reachable yet."""
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=POOL_SIZE,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=SESSION,
        )
        # With min_size=0 nothing is connected here: a role starts, and accepts, with the database away.
        async with pool:
            yield cls(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, for reads that are stages of their own (``history.py``)."""
        with translated():
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                yield connection

    async def identity(self) -> str:
        """Which database this is: a UUID in text, the same for ever."""
        if self._identity is None:
            async with self.connection() as connection:
                self._identity = await connection.fetchval(STATEMENTS["identity"])
        assert self._identity is not None  # noqa: S101  the migration put the row there
        return self._identity

    async def migrate(self) -> None:
        """Bring the schema up to this version."""
        async with self.connection() as connection:
            await migrate(connection)

    async def durability(self) -> dict[str, str]:
        """The settings that decide whether a commit survives the power, as our sessions see them."""
        async with self.connection() as connection:
            return dict(await connection.fetch(STATEMENTS["durability"]))  # type: ignore[arg-type]

    async def positions(self) -> dict[int, int]:
        """How far each partition of the log has been applied: stream sequences."""
        async with self.connection() as connection:
            return dict(await connection.fetch(STATEMENTS["positions"]))  # type: ignore[arg-type]

    async def event(self, event_id: UUID) -> Event | None:
        """One event of the ledger, or ``None``."""
        async with self.connection() as connection:
            row = await connection.fetchrow(STATEMENTS["event"], event_id)
        return None if row is None else Event(row)

    async def known(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Of pairs of board and user: the name to be shown, if a name is known, or a score on the board."""
        wanted = [pair for pair in pairs if "\0" not in pair[1]]
        boards, users = [board for board, _ in wanted], [user for _, user in wanted]
        async with self.connection() as connection:
            rows = await connection.fetch(STATEMENTS["known"], boards, users)
        return {(row["board"], row["user_id"]): row["name"] or row["user_id"] for row in rows}

    async def changed_rows(self, board: str, after: int) -> list[Row]:
        """The current rows of a board whose users the log touched after ``after`` (an ``accept_no``)."""
        async with self.connection() as connection:
            return _rows(board, await connection.fetch(STATEMENTS["changed_rows"], board, after, timeout=60))

    async def all_rows(self, board: str, *, ordered: str | None = None) -> AsyncIterator[list[Row]]:
        """All rows of a board from one snapshot, in chunks. ``ordered``: ``"desc"`` or ``"asc"``, best first.

        The snapshot is taken at the first step of the iteration, not at the call: a rebuild relies on it.
        """
        query = STATEMENTS["all_rows"]
        if ordered is not None:
            direction = {"desc": "DESC", "asc": "ASC"}[ordered]
            query += f" ORDER BY s.score {direction}, s.reached, s.user_id"
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read"):
            await connection.execute(f"SET LOCAL work_mem = '{SORT_MEMORY}'")
            cursor = await connection.cursor(query, board, timeout=WHOLE_SECONDS)
            while chunk := await cursor.fetch(CHUNK_ROWS, timeout=WHOLE_SECONDS):
                yield _rows(board, chunk)

    async def rows_after(self, board: str, user: str, limit: int) -> list[Row]:
        """Current rows of a board, in order of users, after one of them."""
        async with self.connection() as connection:
            return _rows(board, await connection.fetch(STATEMENTS["rows_after"], board, user, limit))

    async def rows_of(self, board: str, users: Iterable[str]) -> dict[str, Row]:
        """Current rows of a board, by user; of those who have one."""
        wanted = [user for user in users if "\0" not in user]
        async with self.connection() as connection:
            rows = _rows(board, await connection.fetch(STATEMENTS["rows_of"], board, wanted))
        return {row.user: row for row in rows}

    async def count_rows(self, board: str) -> int:
        """How many rows a board has."""
        async with self.connection() as connection:
            return int(await connection.fetchval(STATEMENTS["count_rows"], board))

    async def keys(self, hashes: Iterable[bytes]) -> dict[bytes, asyncpg.Record]:
        """Which of these keys open something: SHA-256, and (hash, id, scopes, actions, seconds left)."""
        async with self.connection() as connection:
            rows = await connection.fetch(STATEMENTS["key_by_hash"], list(hashes), timeout=CONNECT_SECONDS)
        return {row["hash"]: row for row in rows}

    async def standing_keys(self, ids: Iterable[str]) -> set[str]:
        """Which of these keys have not been revoked; they may have expired or been replaced."""
        async with self.connection() as connection:
            rows = await connection.fetch(STATEMENTS["standing_keys"], list(ids), timeout=CONNECT_SECONDS)
        return {row["id"] for row in rows}

    async def use_keys(self, ids: Iterable[str]) -> None:
        """Note that these keys have been used."""
        async with self.connection() as connection:
            await connection.execute(STATEMENTS["use_keys"], list(ids), timeout=CONNECT_SECONDS)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction, for what an operator does."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def unsummed(self) -> list[asyncpg.Record]:
        """Totals that are not what the ledger says (at most 100)."""
        async with self.connection() as connection:
            return await connection.fetch(STATEMENTS["unsummed"], timeout=WHOLE_SECONDS)

    async def ledger_size(self) -> tuple[int, int, int]:
        """How many events, users and points the ledger holds."""
        async with self.connection() as connection:
            row = await connection.fetchrow(STATEMENTS["ledger_size"], timeout=WHOLE_SECONDS)
        assert row is not None  # noqa: S101  an aggregate always answers one row
        return row["events"], row["users"], row["points"]


def _rows(board: str, records: Iterable[asyncpg.Record]) -> list[Row]:
    return [
        Row(
            board=board,
            user=record["user_id"],
            score=None if record["hidden"] else record["score"],
            reached=record["reached"],
            changed=record["changed"],
            name=record["name"],
        )
        for record in records
    ]


def hash_of_key(key: str) -> bytes:
    """What is kept of a service's key. It is 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(key.encode()).digest()
