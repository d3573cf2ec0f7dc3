"""A backup holds everything; restoring loses nothing that the log still holds, or is refused whole."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from deployment import Deployment, bearer, frame, submit, until, watching
from processes import run, settings_of
from scoreboard import archive, backup, sql
from scoreboard.archive import Header
from scoreboard.config import Action, Config, Quarantine
from scoreboard.database import Database, connect, migrate
from scoreboard.errors import BadBackup, BadData, EngineError
from scoreboard.files import appearing
from scoreboard.model import Scope
from test_worker import accept, audit

CONFIG = Config(
    actions={
        "point": Action(points=1, cooldown="1s"),
        "much": Action(points=100, quarantine=Quarantine(points_per_hour=50)),
    }
)
Deploy = Callable[..., asyncio.Future[Deployment]]


async def read_all(deployment: Deployment) -> dict[str, list[tuple[Any, ...]]]:
    """All that a backup must hold, by table."""
    async with deployment.database() as connection:
        return {
            name: sorted(map(tuple, await connection.fetch(f'SELECT * FROM "{name}"')), key=repr)  # noqa: S608
            for name in sql.tables()
            if name != "identity"
        }


@asynccontextmanager
async def loading(client: httpx.AsyncClient, accepted: list[str]) -> AsyncIterator[None]:
    """Updates without a pause, for as long as the block runs; the ids of those that were accepted."""
    ending = asyncio.Event()

    async def load() -> None:
        while not ending.is_set():
            accepted.extend(await accept(client, len(accepted), 20))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load())
        before = len(accepted)

        async def flowing() -> bool:
            return len(accepted) > before + 100

        await until(flowing)
        yield
        await until(flowing)
        ending.set()


async def test_a_backup_from_the_middle_of_load_loses_nothing_that_the_log_still_holds(
    deployment: Deployment, tmp_path: Path
) -> None:
    file = tmp_path / "morning"
    settings = settings_of(deployment)
    accepted: list[str] = []
    async with deployment.running() as client:
        async with loading(client, accepted):
            status, told, _ = await run("backup", str(file), cwd=tmp_path, settings=settings)
            assert status == 0
            assert told.startswith(f"{file}: ")
            at_backup = len(accepted)
        accepted += await accept(client, len(accepted), 200)
        await audit(deployment, accepted)
        async with watching(client) as screen:
            lost_epoch = (await frame(screen))["epoch"]
    held = sum(table.rows for table in backup.read_header(file).tables if table.name == "events")
    assert 0 < held <= at_backup < len(accepted) - 200, "it is from the middle"

    await deployment.lose_database()
    status, told, err = await run("restore", str(file), cwd=tmp_path, settings=settings)
    assert status == 0, err
    assert "the worker will apply them" in told
    async with deployment.running() as client:
        await audit(deployment, accepted)  # in the ledger once, ledger = totals = board
        async with watching(client) as screen:
            assert (await frame(screen))["epoch"] != lost_epoch
        status, told, _ = await run("verify", cwd=tmp_path, settings=settings)
        assert (status, f"{len(accepted)} events" in told) == (0, True)
        accepted += await accept(client, len(accepted), 50)
        await audit(deployment, accepted)


async def test_a_restored_database_is_the_same_but_for_its_identity(deploy: Deploy, tmp_path: Path) -> None:
    deployment = await deploy(CONFIG)
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client:
        for user, action in (
            ("ann", "point:1"),
            ("ann", "point:2"),
            ("bob", "much:1"),
            ("back\\slash", "point:3"),
        ):
            assert (await submit(client, user, action)).status_code == 200
        for act, body in (
            ("revoke", {"userId": "ann"}),
            ("ban", {"userId": "bob", "reason": "one \\. two \\N"}),
            ("revoke", {"eventId": "00000000-0000-8000-8000-000000000000"}),
        ):
            assert (await client.post(f"/admin/{act}", json=body, headers=admin)).status_code == 200
        name = {"name": "Änn \\N 🏆"}
        assert (await client.put("/users/ann", json=name, headers={"prefer": "wait=10"})).status_code < 300
        await until(lambda: _named(deployment))
    async with deployment.database() as connection:
        await connection.execute(
            "INSERT INTO dead_letters (accept_no, at, reason, body) VALUES (1, now(), '', $1)",
            bytes(range(256)),
        )
        # Whatever the server is set to, the file is the same.
        await connection.execute(f"ALTER DATABASE \"{deployment.name}\" SET datestyle = 'SQL, DMY'")
        await connection.execute(f"ALTER DATABASE \"{deployment.name}\" SET bytea_output = 'escape'")
    before = await read_all(deployment)
    assert all(before.values()), "there is something in each table"
    async with Database.open(deployment.database_url) as database:
        identity = await database.identity()
        await backup.backup(database, tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    text = gzip.decompress((tmp_path / "file").read_bytes())
    assert deployment.key.encode() not in text
    assert (deployment.environment.secret or "").encode() not in text

    await deployment.lose_database()
    async with Database.open(deployment.database_url) as database:
        await backup.restore(database, tmp_path / "file")
        assert await database.identity() != identity
    after = await read_all(deployment)
    assert len(after["audit"]) == len(before["audit"]) + 1
    restored = [row for row in after["audit"] if row not in before["audit"]]
    assert restored[0][4:6] == ("restore backup", f"database {identity}")
    assert max(row[0] for row in after["audit"]) == restored[0][0], "its number follows the others'"
    assert after | {"audit": []} == before | {"audit": []}


async def _named(deployment: Deployment) -> bool:
    async with deployment.database() as connection:
        return await connection.fetchval("SELECT name FROM users WHERE user_id = 'ann'") is not None


@pytest.fixture(scope="module")
async def source(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, bytes]:
    """A deployment, and a backup of it."""
    deployment = await deploy()
    async with deployment.database() as connection:
        await connection.execute(
            """INSERT INTO events
            SELECT gen_random_uuid(), n, 'u' || n % 50, 'point', n, 1, '{main}', 'key:k', now(), 'applied'
            FROM generate_series(1, 3000) n"""
        )
    file = tmp_path_factory.mktemp("backup") / "file"
    async with Database.open(deployment.database_url) as database:
        await backup.backup(database, file)
    return deployment, file.read_bytes()


def rewritten(content: bytes, change: Callable[[list[bytes]], object]) -> bytes:
    """A file whose gzip is whole, and whose lines are not what was written."""
    lines = gzip.decompress(content).splitlines(keepends=True)
    change(lines)
    return gzip.compress(b"".join(lines))


def header_with(**members: object) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        lines[0] = msgspec.json.encode(msgspec.json.decode(lines[0]) | members) + b"\n"

    return change


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "cut off"),
    "not a backup": (lambda _: b"at,userId,actionId\n", "no backup"),
    "something else": (lambda _: gzip.compress(b'{"form":1}\n'), "not a whole backup"),
    "cut in the middle": (lambda content: content[: len(content) // 2], "cut off"),
    "cut at the end": (lambda content: content[:-1], "cut off"),
    "a flipped bit": (
        lambda content: content[:9_000] + bytes([content[9_000] ^ 4]) + content[9_001:],
        "damaged",
    ),
    "a changed number": (
        lambda c: rewritten(c, lambda lines: _change(lines, b"key:k", b"key:q")),
        "its seal",
    ),
    "a row less": (lambda c: rewritten(c, lambda lines: lines.pop(100)), "were taken"),
    "a row more": (lambda c: rewritten(c, lambda lines: lines.insert(100, lines[100])), "does not end"),
    "not a number": (
        lambda c: rewritten(c, lambda lines: _change(lines, b"\tpoint\t", b"\t")),
        "does not fit",
    ),
    "no seal": (lambda c: rewritten(c, lambda lines: lines.pop()), "cut off"),
    "more after the seal": (lambda c: rewritten(c, lambda lines: lines.append(b"more\n")), "its seal"),
    "a newer form": (lambda c: rewritten(c, header_with(form=2)), "newer version"),
    "a newer schema": (lambda c: rewritten(c, header_with(schema=9999)), "newer one"),
    "a table of its own": (lambda c: rewritten(c, _other_table), "none of here"),
}


def _change(lines: list[bytes], old: bytes, new: bytes) -> None:
    place = next(n for n, line in enumerate(lines) if n and old in line)
    lines[place] = lines[place].replace(old, new)


def _other_table(lines: list[bytes]) -> None:
    header = msgspec.json.decode(lines[0])
    header["tables"][0]["name"] = "pg_authid"
    lines[0] = msgspec.json.encode(header) + b"\n"


@pytest.mark.parametrize("case", BAD)
async def test_a_file_that_is_not_whole_changes_nothing(
    source: tuple[Deployment, bytes], empty: Deployment, tmp_path: Path, case: str
) -> None:
    change, words = BAD[case]
    (tmp_path / "file").write_bytes(change(source[1]))
    async with Database.open(empty.database_url) as database:
        with pytest.raises(BadBackup, match=words):
            await backup.restore(database, tmp_path / "file")
    async with empty.database() as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


@pytest.fixture(scope="module")
async def empty(deploy: Deploy) -> Deployment:
    """A database without anything."""
    deployment = await deploy()
    await deployment.lose_database()
    return deployment


async def test_only_an_empty_database_takes_a_backup(
    deploy: Deploy, source: tuple[Deployment, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(source[1])
    deployment = await deploy()  # it has a key
    before = await read_all(deployment)
    async with Database.open(deployment.database_url) as database:
        with pytest.raises(EngineError, match=r"not empty: 1 rows in keys, 1 rows in audit"):
            await backup.restore(database, file)
        assert await read_all(deployment) == before
        await deployment.lose_database()
        await database.migrate()  # as a role does that was started too early
        worker = await connect(deployment.database_url)
        await worker.execute("SELECT pg_advisory_lock($1, 0)", 0x5C0E)
        with pytest.raises(EngineError, match="worker is at work"):
            await backup.restore(database, file)
        await worker.close()
        await backup.restore(database, file)
    assert len((await read_all(deployment))["events"]) == 3000


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    failing = appearing(file)
    half = failing.__enter__()
    half.write(b"half")
    assert not file.exists()
    assert not failing.__exit__(OSError, OSError(), None)
    assert not list(tmp_path.iterdir())


async def test_a_file_that_is_there_is_not_overwritten(
    source: tuple[Deployment, bytes], tmp_path: Path
) -> None:
    deployment, _ = source
    (tmp_path / "there").write_text("mine")
    async with Database.open(deployment.database_url) as database:
        with pytest.raises(EngineError, match="there already"):
            await backup.backup(database, tmp_path / "there")
        with pytest.raises(EngineError, match="cannot be written"):
            await backup.backup(database, tmp_path / "nowhere" / "file")
    assert (tmp_path / "there").read_text() == "mine"


async def test_a_backup_of_an_older_schema_is_brought_up_to_this_one(deploy: Deploy, tmp_path: Path) -> None:
    deployment = await deploy()
    await deployment.lose_database()
    async with deployment.database() as connection:
        await migrate(connection, upto=1)
        await connection.execute(
            """INSERT INTO events
            VALUES (gen_random_uuid(), 1024, 'ann', 'point', '1', 7, '{main}', 'key:k', now(), 'applied');
            INSERT INTO scores VALUES ('main', 'all', 'ann', 7, 1024, 1024);
            INSERT INTO cursor VALUES (0, 'log', 1, now())"""
        )
    async with Database.open(deployment.database_url) as database:
        header: Header = await backup.backup(database, tmp_path / "old")
        assert header.schema == 1, "a backup leaves the schema as it is"
        await deployment.lose_database()
        await backup.restore(database, tmp_path / "old")
        assert await database.unsummed() == []
        assert await database.ledger_size() == (1, 1, 7)
    async with deployment.database() as connection:
        done = await connection.fetch("SELECT number FROM migrations ORDER BY number")
        assert [row[0] for row in done] == [number for number, _ in sql.migrations()]


async def test_a_restore_that_cannot_bring_the_schema_up_says_why(
    source: tuple[Deployment, bytes], empty: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(source[1])
    known = sql.migrations()
    monkeypatch.setattr(sql, "migrations", lambda: [*known, (9999, "SELECT 1 / 0")])
    async with Database.open(empty.database_url) as database:
        with pytest.raises(BadData, match="division by zero"):
            await backup.restore(database, tmp_path / "file")
    async with empty.database() as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        # The same where nothing comes between the failure and the end of the transaction.
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("CREATE TABLE migrations (another text)")
        with pytest.raises(asyncpg.UndefinedColumnError):
            await migrate(connection)
        await transaction.rollback()


async def test_the_form_is_as_it_is_documented(source: tuple[Deployment, bytes]) -> None:
    lines = gzip.decompress(source[1]).splitlines(keepends=True)
    header = msgspec.json.decode(lines[0])
    assert (header["scoreboard"], header["form"]) == ("backup", 1)
    place = 1
    for table in header["tables"]:
        rows = lines[place : place + table["rows"]]
        assert all(row.count(b"\t") == len(table["columns"]) - 1 for row in rows)
        assert lines[place + table["rows"]] == b"\\.\n"
        place += table["rows"] + 1
    assert place == len(lines) - 1
    assert msgspec.json.decode(lines[-1]) == {"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}
    assert archive.FORM == 1
