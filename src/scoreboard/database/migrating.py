"""Migrating: the schema is brought up to this version, and that of a newer one is accepted or refused.

In comes a session, out goes a schema that this version can work with. Numbered SQL (``sql/``), forward only.
It must never make others wait long behind a table that is in use.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scoreboard import sql
from scoreboard.database.server import LOCK_CLASS, translated
from scoreboard.errors import SchemaTooNew

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

logger = logging.getLogger(__name__)

MIGRATION_LOCK = -1
MIGRATION_SECONDS = 3_600.0  # an index on a large ledger takes its time; others wait for it
LOCK_MILLISECONDS = 3_000  # a migration that does not get its table is tried again, and nobody waits longer


async def migrate(connection: Connection, *, upto: int | None = None) -> None:
    """Bring the schema up to this version: numbered SQL, forward only, one at a time however many ask.

    A schema that a newer version has made is left as it is. What it added does not disturb; if it took
    something away that this version needs, it says so itself (``identity.oldest``).

    Args:
        connection: a session; if it is in a transaction, all happens in that.
        upto: the last migration to run; ``None``: all.

    Raises:
        SchemaTooNew: this version is too old for the schema.
        DatabaseUnavailable: it does not answer, or somebody keeps a table locked; to be tried again.
    """
    ours = sql.migrations()
    # A transaction gives its lock back itself; once it has failed it takes no statement, not even that.
    within = connection.is_in_transaction()
    lock = "pg_advisory_xact_lock" if within else "pg_advisory_lock"
    with translated():
        await connection.execute(
            f"SELECT {lock}($1, $2)", LOCK_CLASS, MIGRATION_LOCK, timeout=MIGRATION_SECONDS
        )
        try:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, at timestamptz NOT NULL)"
            )
            done = {row[0] for row in await connection.fetch("SELECT number FROM migrations")}
            await _accept_newer(connection, max(done, default=0), ours[-1][0])
            for number, statements in ours:
                if number not in done and (upto is None or number <= upto):
                    async with connection.transaction():
                        # Whoever waits for a table's lock makes all others wait behind.
                        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
                        await connection.execute(statements, timeout=MIGRATION_SECONDS)
                        await connection.execute("INSERT INTO migrations VALUES ($1, now())", number)
                    logger.info("database migrated", extra={"migration": number})
        finally:
            if not within:
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", LOCK_CLASS, MIGRATION_LOCK)


async def _accept_newer(connection: Connection, newest: int, ours: int) -> None:
    if newest <= ours:
        return
    oldest = await connection.fetchval("SELECT oldest FROM identity")
    told = f"The schema of the database is number {newest}, of a newer version; this one knows up to {ours}."
    if oldest > ours:
        raise SchemaTooNew(f"{told} It is too old to work with it: install the newer version here, too.")
    logger.warning("%s It goes on, for what was added does not disturb it.", told)
