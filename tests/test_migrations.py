"""Schema migrations: forward only, one at a time, and an older version goes on beside a newer one."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from deployment import Deployment, free_port, submit
from processes import assert_one_error, run, settings_of
from scoreboard import sql
from scoreboard.database import Database, migrate, migrating
from scoreboard.errors import DatabaseUnavailable, SchemaTooNew

NEWER = 9_000
FIRST_CAREFUL = 5
"""Before this one nothing had been released."""


async def make_newer(deployment: Deployment, *, oldest: int) -> None:
    """What a newer version would do: it adds, and says which versions it leaves behind."""
    async with deployment.database() as connection:
        await connection.execute(
            """ALTER TABLE events ADD COLUMN mood text;
            ALTER TABLE users ADD COLUMN colour text NOT NULL DEFAULT 'red';
            CREATE TABLE moods (mood text PRIMARY KEY)"""
        )
        await connection.execute("INSERT INTO migrations VALUES ($1, now())", NEWER)
        await connection.execute("UPDATE identity SET oldest = $1", oldest)


async def test_this_version_goes_on_with_a_newer_schema_and_says_so(
    deploy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deployment: Deployment = await deploy()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "scoreboard.database"):
        async with deployment.running() as client:
            assert (await submit(client, "ann", "point:1")).json()["status"] == "applied"
            await make_newer(deployment, oldest=sql.migrations()[-1][0])  # while it runs
            assert (await submit(client, "ann", "point:2")).json()["status"] == "applied"
            assert (await client.put("/users/ann", json={"name": "Ann"})).status_code == 202
        assert not caplog.messages
        async with deployment.running() as client:
            assert (await submit(client, "ann", "point:3")).json()["boards"]["main"]["score"] == 3
    assert f"The schema of the database is number {NEWER}, of a newer version" in caplog.messages[0]


async def test_a_version_that_a_schema_has_left_behind_says_so_and_does_nothing(
    deploy: Any, tmp_path: Path
) -> None:
    deployment: Deployment = await deploy()
    await make_newer(deployment, oldest=NEWER)
    async with deployment.database() as connection:
        with pytest.raises(SchemaTooNew, match="too old to work with it"):
            await migrate(connection)
    port = str(free_port())
    for command, expected in (
        (["worker", "--port", port], 78),
        (["api", "--port", port], 78),
        (["key", "list"], 1),
    ):
        status, _, err = await run(*command, cwd=tmp_path, settings=settings_of(deployment))
        assert (status, "install the newer version here, too" in err) == (expected, True), command
        assert_one_error(err)
    status, _, err = await run("backup", "file", cwd=tmp_path, settings=settings_of(deployment))
    assert (status, f"number {NEWER}; this version knows up to" in err) == (1, True)


async def test_many_that_start_at_once_migrate_once(deploy: Any) -> None:
    deployment: Deployment = await deploy()
    await deployment.lose_database()
    async with (
        Database.open(deployment.database_url) as first,
        Database.open(deployment.database_url) as second,
    ):
        await asyncio.gather(*(one.migrate() for one in (first, second, first, second)))
    async with deployment.database() as connection:
        done = await connection.fetch("SELECT number FROM migrations ORDER BY number")
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row[0] for row in done] == [number for number, _ in sql.migrations()]
    assert {row[0] for row in tables} == {*sql.tables(), "migrations"}, "a backup knows all of them"


async def test_a_migration_does_not_hold_up_everybody_behind_a_long_reader(
    deploy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_MILLISECONDS", 200)
    deployment: Deployment = await deploy()
    monkeypatch.setattr(
        sql, "migrations", lambda: [(1, ""), (NEWER, "ALTER TABLE events ADD COLUMN mood text")]
    )
    async with deployment.database() as reader, deployment.database() as connection:
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM events")
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                await migrate(connection)
        await migrate(connection)


def test_from_now_on_migrations_only_add_or_say_whom_they_leave_behind() -> None:
    """A new version starts beside the old one: what the old one reads and writes must stay as it is."""
    takes = re.compile(
        r"\b(DROP|RENAME|TRUNCATE|ALTER\s+COLUMN|SET\s+NOT\s+NULL|ADD\s+CONSTRAINT|CREATE\s+UNIQUE)\b"
        r"|ADD\s+COLUMN[^,;]*\bNOT\s+NULL(?![^,;]*\bDEFAULT\b)|\bCONCURRENTLY\b",
        re.IGNORECASE,
    )
    for number, statements in sql.migrations():
        text = re.sub(r"--.*", "", statements)
        if number >= FIRST_CAREFUL and (found := takes.search(text)):
            raises = re.search(r"UPDATE\s+identity\s+SET\s+oldest\s*=\s*(\d+)", text, re.IGNORECASE)
            assert raises, f"migration {number} has {found[0]!r}: it must raise identity.oldest"
            assert int(raises[1]) < number, "the version before knows how to live with it"
