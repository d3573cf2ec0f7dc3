"""How things are is told whatever is wrong, and asking costs the engines little however many ask."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import nats
import pytest

from deployment import Deployment, submit, until
from scoreboard import engine_states
from scoreboard.board import Board
from scoreboard.database import Database


async def told(client: httpx.AsyncClient) -> tuple[int, str]:
    """The status of ``/health/ready``, and which engines are not well."""
    answer = await client.get("/health/ready")
    engines = answer.json().get("engines", {"all": answer.text})
    return answer.status_code, " ".join(f"{name} {state}" for name, state in engines.items() if state != "ok")


async def test_boards_are_watched_though_the_log_is_gone_or_the_database_in_disorder(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_states, "LOOK_SECONDS", 0.05)
    async with deployment.serving() as client:
        async with deployment.working():
            assert (await submit(client, "ann", "point:1")).json()["status"] == "applied"
        async with deployment.database() as connection:
            await connection.execute("ALTER TABLE cursor RENAME COLUMN last TO latest")
            await until(lambda: is_told(client, (200, "database failing")))  # accepting goes on without it
            await connection.execute("ALTER TABLE cursor RENAME COLUMN latest TO last")
            await until(lambda: is_told(client, (200, "")))
        intruder = await nats.connect(deployment.environment.queue)
        await intruder.jetstream().delete_stream(deployment.name)
        await intruder.close()
        await until(lambda: is_told(client, (503, "queue failing")))
        assert (await client.get("/boards/main")).json()["top"][0]["userId"] == "ann"
        assert 'scoreboard_engine_up{engine="queue"} 0.0' in (await client.get("/metrics")).text


async def is_told(client: httpx.AsyncClient, expected: tuple[int, str]) -> bool:
    return await told(client) == expected


async def test_many_who_ask_at_once_ask_the_engines_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, positions = 0, asyncio.Event(), Database.positions

    async def slow(database: Database) -> Any:
        nonlocal asked
        asked += 1
        await answer.wait()
        return await positions(database)

    monkeypatch.setattr(Database, "positions", slow)
    board = Board(deployment.environment.board, deployment.config)
    async with Database.open(deployment.database_url) as database:
        engines = engine_states.EngineStates(deployment.config, database, board, None, ())
        probes = [asyncio.create_task(engines.states()) for _ in range(20)]

        async def begun() -> bool:
            return asked > 0

        await until(begun)
        answer.set()
        assert await asyncio.gather(*probes) == [{"database": "ok", "board": "ok"}] * 20
    await board.close()
    assert asked == 1
