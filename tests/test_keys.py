"""Services' keys: what each may do, when it ends, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest

from deployment import Deployment, bearer, problem, submit, until
from processes import command, settings_of
from scoreboard import sql
from scoreboard.auth.key_acts import (
    TEMPORARY_SECONDS,
    create_key,
    list_keys,
    operator,
    revoke_key,
    rotate_key,
    temporary_key,
)
from scoreboard.auth.keys import Keys
from scoreboard.database import Database, migrate
from scoreboard.history import acts as acts_of
from scoreboard.model import Scope
from services_keys import GAME, RATES, WRITE, client, database, deployment

__all__ = ["client", "database", "deployment"]


async def test_a_key_is_for_its_types_of_action_alone(client: httpx.AsyncClient, database: Database) -> None:
    scopes = [Scope.SCORE_WRITE, Scope.GRANT_CREATE]
    _, key = await create_key(database, "bosses", scopes, actions=["boss-kill", "cheer"])
    headers = bearer(key)

    async def send(action: str) -> httpx.Response:
        return await submit(client, "ann", action, credentials=key)

    assert (await send("cheer:1")).json()["status"] == "applied"
    assert (await send("boss-kill:1")).json()["status"] == "applied"
    assert (await send(GAME.grant())).json()["status"] == "applied"
    for action in ("win:1", "quest:1", GAME.grant(act="quest", jti="two")):
        answer = await send(action)
        assert problem(answer) == (403, "action_not_allowed")
        assert answer.json()["eventId"]
    assert problem(await send("nope:1")) == (422, "unknown_action")
    updates = [{"userId": "ann", "actionId": action} for action in ("win:2", "cheer:2")]
    results = (await client.post("/update-scores", json=updates, headers=headers)).json()["results"]
    assert [one.get("code", one["status"]) for one in results] == ["action_not_allowed", "accepted"]
    made = await client.post("/grants", json={"userId": "ann", "action": "boss-kill"}, headers=headers)
    assert made.status_code == 201
    refused = await client.post("/grants", json={"userId": "ann", "action": "quest"}, headers=headers)
    assert problem(refused) == (403, "action_not_allowed")


@pytest.mark.parametrize("ending", ["revoked", "expired", "rotated"])
async def test_a_key_that_ends_ends_on_all_processes_within_two_seconds(
    deployment: Deployment, client: httpx.AsyncClient, database: Database, ending: str
) -> None:
    async with deployment.serving() as other:
        key_id, key = await create_key(database, "ends", WRITE, seconds=2 if ending == "expired" else None)
        made = time.monotonic()
        for one in (client, other):
            assert (await submit(one, "ann", "win:same", wait=0, credentials=key)).status_code == 202
        began = made + 2 if ending == "expired" else time.monotonic()
        if ending == "revoked":
            assert await revoke_key(database, key_id)
        elif ending == "rotated":
            rotated = await rotate_key(database, key_id, 1)
            assert rotated is not None
            for one in (client, other):
                answer = await submit(one, "ann", "win:same", wait=0, credentials=rotated[1])
                assert answer.status_code == 202
            began += 1

        async def ended() -> bool:
            sent = [submit(one, "ann", "win:same", wait=0, credentials=key) for one in (client, other)]
            return {answer.status_code for answer in await asyncio.gather(*sent)} == {401}

        await until(ended)
        assert time.monotonic() - began < 2


async def test_a_successor_may_do_what_its_key_might_and_there_is_one(database: Database) -> None:
    key_id, _ = await create_key(database, "game", WRITE, actions=["win"], seconds=86_400)
    made = await rotate_key(database, key_id, 3_600)
    assert made is not None
    assert await rotate_key(database, key_id, 3_600) is None
    assert await rotate_key(database, "k_none", 3_600) is None
    lines = {line.id: line for line in await list_keys(database)}
    old, new = lines[key_id], lines[made[0]]
    assert (new.name, new.scopes, new.actions) == (old.name, old.scopes, old.actions)
    assert old.expires is not None
    assert new.expires is not None
    now = datetime.now(UTC)
    assert abs(old.expires - now - timedelta(hours=1)) < timedelta(minutes=1)
    assert abs(new.expires - now - timedelta(days=1)) < timedelta(minutes=1)
    assert (old.replaced_by, old.state, new.state) == (new.id, "active", "active")
    assert await revoke_key(database, key_id)
    assert not await revoke_key(database, key_id)
    assert await rotate_key(database, key_id, 60) is None


async def test_of_a_keys_text_only_its_beginning_is_kept(deployment: Deployment, database: Database) -> None:
    key_id, key = await create_key(database, "secret", WRITE)
    async with deployment.database() as connection:
        row = await connection.fetchrow("SELECT * FROM keys WHERE id = $1", key_id)
    assert row is not None
    assert row["hash"] == hashlib.sha256(key.encode()).digest()
    assert row["prefix"] == key[:9]
    assert key[9:] not in repr(dict(row))


async def test_when_a_key_was_used_is_noted_once_a_minute_whoever_uses_it(
    deployment: Deployment, database: Database
) -> None:
    key_id, key = await create_key(database, "used", WRITE)

    async def used() -> datetime | None:
        return {line.id: line.used for line in await list_keys(database)}[key_id]

    one, other = Keys(database, RATES), Keys(database, RATES)  # as in two processes
    await one._note()
    assert await used() is None
    for keys in (one, other):
        await keys.principal(key)
    await one._note()
    first = await used()
    assert first is not None
    await other._note()
    await one.principal(key)
    await one._note()
    assert await used() == first
    async with deployment.database() as connection:
        await connection.execute("UPDATE keys SET used = now() - interval '2 minutes' WHERE id = $1", key_id)
    third = Keys(database, RATES)
    await third.principal(key)
    await third._note()
    again = await used()
    assert again is not None
    assert again > first


async def test_an_unused_key_is_noted_by_a_running_process(
    client: httpx.AsyncClient, database: Database
) -> None:
    key_id, key = await create_key(database, "running", WRITE)
    await submit(client, "ann", "win:noted", credentials=key)

    async def noted() -> bool:
        return {line.id: line.used for line in await list_keys(database)}[key_id] is not None

    await until(noted)


async def test_a_key_of_a_command_ends_with_it_and_soon_if_it_is_killed(database: Database) -> None:
    async with temporary_key(database, "command line", Scope.SCORE_WRITE):
        (line,) = [one for one in await list_keys(database) if "command line" in one.name]
        assert line in await list_keys(database, everything=False), "while it runs it is seen"
        assert line.expires is not None
        left = line.expires - datetime.now(UTC)
        assert timedelta() < left <= timedelta(seconds=TEMPORARY_SECONDS + 5)
        assert line.state == "active"
    (line,) = [one for one in await list_keys(database) if one.id == line.id]
    assert line.state == "revoked"
    assert line.id not in {one.id for one in await list_keys(database, everything=False)}
    acts = [one.what for one in await acts_of(database, 1_000) if one.target == f"key {line.id}"]
    assert acts == ["key revoke", "key create"]
    shown = [one.target for one in await acts_of(database, 1_000, everything=False)]
    assert f"key {line.id}" not in shown


async def test_every_act_on_a_key_is_in_the_audit(deployment: Deployment, database: Database) -> None:
    key_id, key = await create_key(database, "audited", WRITE, actions=["win"], seconds=60)
    rotated = await rotate_key(database, key_id, 30)
    assert rotated is not None
    await rotate_key(database, key_id, 30)  # refused, so not an act
    await revoke_key(database, key_id)
    async with deployment.database() as connection:
        rows = await connection.fetch(
            "SELECT who, what, why FROM audit WHERE target = $1 ORDER BY number", f"key {key_id}"
        )
        everything = await connection.fetch("SELECT * FROM audit")
    assert {row["who"] for row in rows} == {f"os:{operator()}"}
    assert [(row["what"], row["why"]) for row in rows] == [
        ("key create", "audited; score:write; for win; ends in 60 s"),
        ("key rotate", f"followed by {rotated[0]}, ends in 30 s"),
        ("key revoke", ""),
    ]
    assert key not in repr(everything)


async def test_the_columns_of_keys_are_added_under_a_version_that_does_not_know_them(
    deployment: Deployment,
) -> None:
    async with deployment.database() as connection:
        await connection.execute("CREATE SCHEMA before")
    before = await asyncpg.connect(deployment.database_url, server_settings={"search_path": "before"})
    try:
        (_, first), *_ = sql.migrations()
        await before.execute(first)
        await before.execute("CREATE TABLE migrations (number integer PRIMARY KEY, at timestamptz NOT NULL)")
        await before.execute("INSERT INTO migrations VALUES (1, now())")

        async def old_version(number: int) -> None:
            statement = "INSERT INTO keys (id, hash, name, scopes) VALUES ($1, $2, $3, $4)"
            await before.execute(statement, f"k_{number}", bytes([number] * 32), "old", ["score:write"])
            found = await before.fetch("SELECT hash, id, scopes FROM keys WHERE revoked IS NULL")
            assert len(found) == number
            await before.fetch("SELECT id, name, scopes, created, revoked FROM keys ORDER BY created, id")

        await old_version(1)
        await migrate(before)
        await old_version(2)
        rows = await before.fetch("SELECT expires, actions, used FROM keys")
        assert {tuple(row) for row in rows} == {(None, None, None)}
    finally:
        await before.close()


async def test_keys_from_the_command_line(deployment: Deployment, tmp_path: Path) -> None:
    settings = settings_of(deployment)
    (tmp_path / "scoreboard.toml").write_text("[actions.win]\npoints = 10\n")

    async def key(*argv: str) -> tuple[int, str, str]:
        return await command("key", *argv, cwd=tmp_path, settings=settings)

    options = ("--scope", "score:write", "--action", "win", "--action", "loss", "--expires-in", "30d")
    status, text, told = await key("create", "--name", "cli", "--reason", "for cli", *options)
    assert status == 0
    assert "there is no action loss" in told
    key_id = told.split("made ")[1].split()[0]
    assert len(text.strip()) == 46

    status, listed, _ = await key("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(key_id)]
    for word in (f"{text[:9]}…", "never", "active until", "score:write", "loss,win", "cli"):
        assert word in line, word
    assert text.strip() not in listed

    status, new, told = await key("rotate", key_id, "--grace", "10m", "--reason", "every half year")
    assert (status, len(new.strip())) == (0, 46)
    assert f"{key_id} ends in 10m" in told
    status, listed, _ = await key("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(key_id)]
    assert ", now k_" in line
    assert (await key("rotate", key_id))[0] == 1

    assert (await key("revoke", key_id, "--reason", "it leaked"))[0] == 0
    assert (await key("revoke", key_id))[0] == 1
    status, listed, _ = await key("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(key_id)]
    assert "revoked" in line
    assert (await key("create", "--name", "x", "--scope", "score:write", "--action", "A b"))[0] == 2
    assert (await key("create", "--name", "x", "--scope", "everything"))[0] == 2
    assert (await key("create", "--name", "temporary: x", "--scope", "admin"))[0] == 2
    status, _, told = await key("create", "--name", "a\nb", "--scope", "admin")
    assert status == 2
    assert "nor line ends" in told
    async with deployment.database() as connection:
        whys = await connection.fetch(
            "SELECT why FROM audit WHERE target = $1 ORDER BY number", f"key {key_id}"
        )
        assert [row["why"].rpartition("; ")[2] for row in whys] == ["for cli", "every half year", "it leaked"]
        await connection.execute("UPDATE keys SET name = E'x\\n\\x1b[2Jk_0' WHERE id = $1", key_id)
    _, listed, _ = await key("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(key_id)]
    assert line.endswith(r"x\n\x1b[2Jk_0")
