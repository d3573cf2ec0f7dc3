"""No role accepts or applies on engines that may lose what they said is on disk, unless it was told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from deployment import Deployment, bearer, free_port, is_live, submit, until
from foreign import SYNCING, TELLING, nats_configured, nats_server
from processes import run, settings_of, started
from scoreboard.database import Database
from scoreboard.durability import gate
from scoreboard.engine_states import ASK_SECONDS
from scoreboard.errors import ConfigurationError
from scoreboard.queue import Queue, server

ROOT = Path(__file__).parent.parent
# One whose permissions end at our own subjects: to ask gets no answer at all.
CLOSED = {
    "authorization": {
        "users": [{"user": "a", "password": "a", "permissions": {"publish": ["$JS.>", "_INBOX.>", "t*.>"]}}]
    }
}


async def flaws(deployment: Deployment, url: str = "") -> str:
    """What the gate says of the deployment's engines, or of another NATS; nothing if it opens."""
    async with (
        Queue.open(url or deployment.environment.queue, deployment.name, "test") as queue,
        Database.open(deployment.database_url) as database,
    ):
        try:
            await gate(deployment.config, queue, database)
        except ConfigurationError as error:
            relaxed = msgspec.structs.replace(deployment.config, durability="relaxed")
            await gate(relaxed, queue, database)
            return str(error)
    return ""


@pytest.mark.parametrize("settings", [TELLING, {}, CLOSED])
async def test_a_queue_that_does_not_tell_how_it_is_passes_for_well_before_a_probe_gives_up(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with (
        nats_server(tmp_path, SYNCING, settings) as (url, _),
        Queue.open(url, "t", "test") as queue,
        asyncio.timeout(ASK_SECONDS),
    ):
        assert await queue.flaw() is None


@pytest.mark.parametrize(
    ("jetstream", "settings", "flaw"),
    [
        (SYNCING, TELLING, ""),
        ({}, TELLING, "NATS answers before it has synced"),
        ({"sync_interval": "1s"}, TELLING, "NATS answers before it has synced"),
        (SYNCING, {}, "NATS does not tell whether it syncs"),
        (SYNCING, CLOSED, "NATS does not tell whether it syncs"),
    ],
)
async def test_a_queue_is_believed_to_sync_only_if_it_says_so(
    deployment: Deployment,
    tmp_path: Path,
    jetstream: dict[str, Any],
    settings: dict[str, Any],
    flaw: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if settings is CLOSED:
        monkeypatch.setattr(server, "ANSWER_SECONDS", 0.3)  # there will be none
    async with nats_server(tmp_path, jetstream, settings) as (url, _):
        said = await flaws(deployment, url)
    assert flaw in said
    assert bool(said) == bool(flaw)


async def test_the_configuration_of_the_composition_lets_us_ask_and_the_document_shows_the_same(
    deployment: Deployment, tmp_path: Path
) -> None:
    text, port = (ROOT / "deploy/compose/nats.conf").read_text(), free_port()
    asking = text[text.index("system_account:") : text.index("jetstream {")].strip()
    document = (ROOT / "docs/operations.md").read_text()
    assert asking.replace("$ENGINE_PASSWORD", "…") in document
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace("127.0.0.1:8222", "127.0.0.1:-1")
    text = text.replace("/data", str(tmp_path / "data")).replace("$ENGINE_PASSWORD", "pw")
    async with nats_configured(tmp_path, text, port):
        assert await flaws(deployment, f"nats://scoreboard:pw@127.0.0.1:{port}") == ""


@asynccontextmanager
async def setting(deployment: Deployment, name: str) -> AsyncIterator[None]:
    """A PostgreSQL that has this setting turned off for everybody."""
    async with deployment.database() as connection:

        async def turn(how: str, value: str) -> None:
            await connection.execute(f"ALTER SYSTEM {how}")
            await connection.execute("SELECT pg_reload_conf()")

            async def turned() -> bool:
                return bool(await connection.fetchval(f"SHOW {name}") == value)

            await until(turned)

        await turn(f"SET {name} = off", "off")
        try:
            yield
        finally:
            await turn(f"RESET {name}", "on")


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
async def test_a_database_that_does_not_sync_is_refused(deployment: Deployment, name: str) -> None:
    assert await flaws(deployment) == ""
    async with setting(deployment, name):
        assert f"PostgreSQL has {name} = off." in await flaws(deployment)


async def test_our_sessions_wait_for_the_disk_whatever_the_servers_default(deployment: Deployment) -> None:
    async with setting(deployment, "synchronous_commit"):
        assert await flaws(deployment) == ""
        async with Database.open(deployment.database_url) as database:
            assert (await database.durability())["synchronous_commit"] == "on"


async def test_roles_refuse_to_start_unless_told_and_then_say_so(
    deployment: Deployment, tmp_path: Path
) -> None:
    port = str(free_port())
    async with nats_server(tmp_path, {}, TELLING) as (url, _):
        settings = settings_of(deployment) | {"SCOREBOARD_QUEUE_URL": url}
        for role in ("api", "worker"):
            status, _, err = await run(role, "--port", port, cwd=tmp_path, settings=settings)
            assert status == 78
            assert "NATS answers before it has synced" in err
            assert "SCOREBOARD_DURABILITY=relaxed" in err
        settings["SCOREBOARD_DURABILITY"] = "relaxed"
        async with (
            started("api", "--port", port, cwd=tmp_path, settings=settings),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer(deployment.key)) as client,
        ):
            await until(lambda: is_live(client))
            one = {"userId": "ann", "actionId": "point:1"}
            answers = [
                await submit(client, "ann", "point:1", wait=0),
                await submit(client, "ann", "fly:1", wait=0),
                await client.post("/update-scores", json=[one]),
                await client.put("/users/ann", json={"name": "Ann"}),
                no_frame_yet := await client.get("/health/ready"),
            ]
            assert [answer.status_code for answer in answers] == [202, 422, 200, 202, 503]
            assert {answer.headers.get("scoreboard-durability") for answer in answers} == {"relaxed"}
            assert no_frame_yet.json()["durability"] == "relaxed"
    assert '"level":"warning","from":"scoreboard.durability"' in (tmp_path / "api.log").read_text()


async def test_with_full_durability_no_answer_says_otherwise(deployment: Deployment) -> None:
    async with deployment.serving() as client:
        answer = await submit(client, "ann", "point:1", wait=0)
        assert answer.status_code == 202
        assert "scoreboard-durability" not in answer.headers
        assert (await client.get("/health/ready")).json()["durability"] == "full"
