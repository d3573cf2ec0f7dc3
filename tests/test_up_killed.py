"""``scoreboard up`` when processes are killed: all come back or none is left, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from deployment import SECONDS, frame_with, until, watching
from processes import Program, run, started

ROLES = ("scoreboard api+live", "scoreboard worker", "postgres", "nats-server", "valkey-server")


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[tuple[Program, Path]]:
    """Everything, in a folder of its own, with no limits of rates."""
    (tmp_path / "scoreboard.toml").write_text("[rate_limits]\nenabled = false\n")
    async with started("up", "--port", "0", cwd=tmp_path) as program:
        await program.ready()
        yield program, tmp_path


async def test_every_process_has_its_name_and_may_be_killed_at_any_moment(
    up: tuple[Program, Path],
) -> None:
    """``kill -9`` of each process under load: it comes back, and no 202 is lost or counted twice."""
    program, folder = up
    key = (await run("key", "create", "--name", "load", "--scope", "score:write", cwd=folder))[1].strip()
    accepted: set[str] = set()
    sent = 0
    stop = asyncio.Event()

    async def load(lane: int, client: httpx.AsyncClient) -> None:
        nonlocal sent
        number = 0
        while not stop.is_set():
            number += 1
            body = {"userId": f"lane{lane}", "actionId": f"point:{lane}-{number}"}
            while True:
                try:
                    answer = await client.post("/update-score", json=body)
                except httpx.TransportError:
                    await asyncio.sleep(0.01)  # the process is gone: the client's back-off
                    continue
                sent += 1
                assert answer.status_code in (202, 503), answer.text
                if answer.status_code == 202:
                    accepted.add(answer.json()["eventId"])
                    break
                assert answer.json()["retryable"] is True
                await asyncio.sleep(0.01)

    before: dict[str, psutil.Process] = {}

    async def all_are_there() -> bool:
        nonlocal before
        before = program.children()
        return set(before) == set(ROLES)

    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=program.url, headers=headers, timeout=SECONDS) as client,
        asyncio.TaskGroup() as tasks,
    ):
        lanes = [tasks.create_task(load(lane, client)) for lane in range(8)]
        for name in ROLES:
            # All of them: a role that was starting when its engine was killed has died with it.
            await until(all_are_there)
            already = len(accepted)
            before[name].send_signal(signal.SIGKILL)

            async def back() -> bool:
                now = program.children().get(name)  # noqa: B023  awaited in this round
                return now is not None and now.pid != before[name].pid  # noqa: B023

            async def goes_on() -> bool:
                return len(accepted) > already + 100 and await healthy(client)  # noqa: B023

            await until(back)
            await until(goes_on)
        stop.set()
        await asyncio.gather(*lanes)
    status, out, err = await run("verify", cwd=folder)
    assert status == 0, out + err
    state = json.loads((folder / "scoreboard-data" / "state.json").read_text())
    connection = await asyncpg.connect(state["urls"]["database"])
    rows = await connection.fetch("SELECT event_id::text FROM events WHERE user_id LIKE 'lane%'")
    await connection.close()
    assert {row[0] for row in rows} >= accepted, "every 202 is in the ledger"
    assert len(rows) == len({row[0] for row in rows})
    assert len(accepted) >= len(ROLES) * 100


async def healthy(client: httpx.AsyncClient) -> bool:
    try:
        answer = await client.get("/health/ready")
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and set(answer.json()["engines"].values()) == {"ok"}


def lives(process: psutil.Process) -> bool:
    """Has it not ended?"""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def test_a_killed_supervisor_leaves_nothing_behind_and_nothing_is_lost(home: Path) -> None:
    async with started("up", "--port", "0", cwd=home) as first:
        await first.ready()
        assert (await run("score", "ann", "point", "--count", "3", cwd=home))[0] == 0
        family = psutil.Process(first.pid).children(recursive=True)
        assert len(family) > len(ROLES)
        await first.stop(signal.SIGKILL)

        async def gone() -> bool:
            return not any(map(lives, family))

        await until(gone)
    async with started("up", "--port", "0", cwd=home) as second:
        url = await second.ready()
        async with httpx.AsyncClient(base_url=url) as client, watching(client) as screen:
            await frame_with(screen, [("ann", 3)])
        assert await second.stop(signal.SIGINT) == 0
    status, out, _ = await run("verify", cwd=home)  # starts everything while it works
    assert (status, out) == (0, "3 events, 1 users, 3 points: ledger = totals = board\n")
