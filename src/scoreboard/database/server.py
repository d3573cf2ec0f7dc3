"""The connection to PostgreSQL: sessions as ours have to be, bounded in time.

In comes a URL, out goes a session. What it says is committed must be on disk. Driver exceptions end here, as
``DatabaseUnavailable``, ``BadData`` or ``ConfigurationError``; a fault of ours stays what it is.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from scoreboard import sql
from scoreboard.errors import BadData, ConfigurationError, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

STATEMENTS = sql.statements()
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0  # a read that takes longer is given up; nothing here is meant to
# An applying session that says nothing for this long is ended by the server: a stopped worker loses its lock
# to a living one, and the cursor fences what it may still try.
SILENCE_MILLISECONDS = 4_000
# Of every session of ours: nothing that it says is done may be lost with the power.
SESSION = {"application_name": "scoreboard", "jit": "off", "synchronous_commit": "on", "timezone": "UTC"}
LOCK_CLASS = 0x5C0E  # our advisory locks among others' in the same database


@contextmanager
def translated() -> Iterator[None]:
    """Driver exceptions as ours: what may heal is ``DatabaseUnavailable``, what the data are to blame for is
    ``BadData``; a fault of ours stays.
    """
    try:
        yield
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise ConfigurationError(f"SCOREBOARD_DATABASE_URL: {error}") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise DatabaseUnavailable(f"The database does not answer: {error!r}") from error
    except asyncpg.PostgresError as error:
        # Classes of SQLSTATE that pass: connection, transaction rollback, resources, operator intervention,
        # system error (PostgreSQL's documentation, appendix A); and a database that has no tables yet.
        if (error.sqlstate or "")[:2] in (
            "08",
            "25",
            "40",
            "53",
            "55",
            "57",
            "58",
            "XX",
            "28",
            "3D",
        ) or isinstance(error, asyncpg.UndefinedTableError):
            raise DatabaseUnavailable(f"The database does not answer: {error}") from error
        # Data exception, integrity constraint violation, program limit (too long for an index).
        if (error.sqlstate or "")[:2] in ("22", "23", "54"):
            raise BadData(str(error)) from error
        raise


async def connect(url: str, *, applying: bool = False) -> asyncpg.Connection[asyncpg.Record]:
    """One connection. An ``applying`` one is the worker's: its silence ends its lock.

    Raises:
        DatabaseUnavailable: it cannot be reached or refuses us.
    """
    settings = SESSION
    if applying:
        settings = SESSION | {
            "application_name": "scoreboard worker",
            "idle_session_timeout": str(SILENCE_MILLISECONDS),
            "idle_in_transaction_session_timeout": str(SILENCE_MILLISECONDS),
            # Each of its statements finds its rows by an index. A plan made while a table was small and kept
            # would read all of it, batch after batch, until statistics are gathered.
            "enable_seqscan": "off",
        }
    with translated():
        return await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, command_timeout=ANSWER_SECONDS, server_settings=settings
        )


async def closed(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Close a connection; at once if the server no longer listens."""
    try:
        async with asyncio.timeout(1):
            await connection.close()
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
        connection.terminate()
