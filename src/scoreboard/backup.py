"""``scoreboard backup`` and ``restore``: the database into one file, and back into an empty database.

In comes a database or a file, out goes the other. A backup is one snapshot, taken while everything runs; its
log cursor belongs to it. Restoring is one transaction: all of a whole file, or nothing. After it the worker
reads the log on from the backup's cursor, as after any pause, so what the log still holds is not lost.

A restored database is another one than the lost one: it gets an identity of its own, so that boards which are
ahead of it are rebuilt, with a new epoch. What is in it that no log knows (keys, acts on keys) is as it was.

It must never write over rows that are there, hold a table in memory, or put a secret into a file: there is
none in the database but the hashes of keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg

from scoreboard import __version__, sql
from scoreboard.adoption import Read
from scoreboard.archive import Header, Reader, Table, Writer
from scoreboard.auth.key_acts import operator
from scoreboard.database import STATEMENTS, Database, migrate, translated
from scoreboard.database.migrating import MIGRATION_LOCK
from scoreboard.database.server import LOCK_CLASS
from scoreboard.errors import BadBackup, BadData, EngineError
from scoreboard.files import appearing
from scoreboard.progress import bar
from scoreboard.texts import text_of_time

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

COPY_SECONDS = 86_400.0  # a table takes as long as it is large
NOT_KEPT = {"identity"}  # a restored database has its own
NEWEST = sql.migrations()[-1][0]


async def backup(database: Database, file: Path) -> Header:
    """Write all of a database to a file that is not there yet; it appears when it is whole.

    Raises:
        EngineError: the file cannot be written, or is there.
    """
    try:
        with appearing(file, replace=False) as raw:
            async with (
                database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                header = await _header(connection)
                writer = Writer(raw)
                writer.header(header)
                with bar(f"backup {file.name}", sum(table.rows for table in header.tables)) as advance:

                    async def take(data: bytes) -> None:
                        writer.rows(data)
                        advance(data.count(b"\n"))

                    for table in header.tables:
                        await connection.copy_from_table(
                            table.name, output=take, columns=table.columns, timeout=COPY_SECONDS
                        )
                        writer.end_table()
                writer.seal()
    except OSError as error:
        raise EngineError(f"{file} cannot be written: {error}") from error
    return header


async def _header(connection: Connection) -> Header:
    await _plain_text(connection)
    found = await _tables(connection)
    if not found:
        raise EngineError("There is nothing to back up: no Scoreboard has ever used this database.")
    schema = await connection.fetchval("SELECT max(number) FROM migrations")
    if schema > NEWEST:
        raise EngineError(
            f"The schema of the database is number {schema}; this version knows up to {NEWEST}."
        )
    tables = [
        Table(name, columns, await _count(connection, name))
        for name, columns, _ in found
        if name not in NOT_KEPT
    ]
    return Header(
        schema=schema,
        version=__version__,
        made=datetime.now(UTC),
        database=await connection.fetchval(STATEMENTS["identity"]),
        log=[Read(*row) for row in await connection.fetch(STATEMENTS["all_positions"])],
        tables=tables,
    )


async def _count(connection: Connection, table: str) -> int:
    count: int = await connection.fetchval(f'SELECT count(*) FROM "{table}"', timeout=COPY_SECONDS)  # noqa: S608
    return count


async def _plain_text(connection: Connection) -> None:
    """Whatever the server's settings are: COPY writes and reads times and bytes in one form."""
    await connection.execute("SET LOCAL datestyle = 'ISO'; SET LOCAL bytea_output = 'hex'")


async def _tables(connection: Connection) -> Sequence[tuple[str, Sequence[str], str | None]]:
    """Our tables that are there, in order of making: name, columns, and the column that numbers itself."""
    found = {row["name"]: row for row in await connection.fetch(STATEMENTS["tables"], sql.tables())}
    return [(name, found[name]["columns"], found[name]["numbered"]) for name in sql.tables() if name in found]


def read_header(file: Path) -> Header:
    """What a backup says of itself.

    Raises:
        BadBackup: it is none, or of a newer version.
    """
    with file.open("rb") as raw:
        header = Reader(raw).header()
    if header.schema > NEWEST:
        raise BadBackup(
            f"The backup was made by version {header.version}, with schema {header.schema}; this version"
            f" ({__version__}) knows up to {NEWEST}. Restore it with that version or a newer one."
        )
    return header


async def restore(database: Database, file: Path) -> Header:
    """Read a whole backup into an empty database, in one transaction.

    Raises:
        BadBackup: the file is damaged or newer; nothing was changed.
        EngineError: the database is not empty, or somebody is at work on it; nothing was changed.
    """
    header = read_header(file)
    async with database.transaction() as connection:
        await _begin(connection, header)
        with (
            file.open("rb") as raw,
            bar(f"restore {file.name}", sum(t.rows for t in header.tables)) as advance,
        ):
            reader = Reader(raw)
            reader.header()
            for table in header.tables:
                await _restore_table(connection, table, reader.rows(table), advance)
            reader.end()
        for name, _, column in await _tables(connection):
            if column is not None:
                await connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), max({column})) FROM {name}"  # noqa: S608
                )
            await connection.execute(f'ANALYZE "{name}"', timeout=COPY_SECONDS)  # it is large from now on
        await migrate(connection)
        await connection.execute(
            STATEMENTS["insert_audit"],
            *(uuid4(), None, f"os:{operator()}", "restore backup", f"database {header.database}"),
            *(f"as of {text_of_time(header.made)}", None, None),
        )
    return header


async def _begin(connection: Connection, header: Header) -> None:
    """An empty schema as old as the backup's, which only this session sees."""
    partitions = {read.partition for read in header.log} | {0}
    for number in partitions:
        if not await connection.fetchval(STATEMENTS["try_partition"], LOCK_CLASS, number):
            raise EngineError(
                "A worker is at work on this database; stop all roles, or `scoreboard up`, first."
            )
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", LOCK_CLASS, MIGRATION_LOCK)
    tables = [name for name, _, _ in await _tables(connection)]
    rows = {name: await _count(connection, name) for name in tables if name not in NOT_KEPT}
    if holds := [f"{count} rows in {name}" for name, count in rows.items() if count]:
        msg = f"The database is not empty: {', '.join(holds)}. A backup is restored into an empty one only."
        raise EngineError(msg)
    # What a role that was started has made. It holds nothing, and may be newer than the backup.
    for statement in sql.undone(tables):
        await connection.execute(statement)
    await migrate(connection, upto=header.schema)
    await _plain_text(connection)


async def _restore_table(
    connection: Connection, table: Table, rows: Iterable[bytes], advance: Callable[[int], None]
) -> None:
    if table.name not in sql.tables() or table.name in NOT_KEPT:
        raise BadBackup(f"The backup holds a table {table.name}, which there is none of here.")

    damage: BadBackup | None = None

    async def source() -> AsyncIterator[bytes]:
        nonlocal damage
        try:
            for chunk in rows:
                yield chunk
                advance(chunk.count(b"\n"))
        except BadBackup as error:
            damage = error  # told below: raised here, the driver would cancel through another connection

    try:
        with translated():
            done = await connection.copy_to_table(
                table.name, source=source(), columns=table.columns, timeout=COPY_SECONDS
            )
    except (BadData, asyncpg.PostgresError) as error:
        raise damage or BadBackup(f"The table {table.name} of the backup does not fit: {error}") from error
    if damage is not None:
        raise damage
    if done != f"COPY {table.rows}":
        raise BadBackup(f"The table {table.name} of the backup has {table.rows} rows; {done} were taken.")
