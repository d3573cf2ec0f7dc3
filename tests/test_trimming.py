"""What all partitions have applied leaves the log; a silent one holds back nothing, and nothing else goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from deployment import Deployment, until
from processes import run, settings_of
from scoreboard import adoption, backup, config, trimming
from scoreboard.app.starting import ensure_log
from scoreboard.database import Database
from scoreboard.database.server import LOCK_CLASS
from scoreboard.errors import Unavailable
from scoreboard.group_commit import partition_of
from scoreboard.queue import Queue, State
from test_adoption import both, jetstream
from test_worker import audit

USERS = [next(f"u{n}" for n in range(99) if partition_of(f"u{n}", 2) == partition) for partition in (0, 1)]
"""A user of each partition."""
BOUND = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is a twentieth, and a minute a fifth of a second; a day stays one."""
    monkeypatch.setattr(trimming, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(trimming, "TRIM_SECONDS", 0.2)
    monkeypatch.setattr(trimming, "PASS_SECONDS", 0.2)


@pytest.fixture
async def two(deploy: Any) -> Deployment:
    """A deployment with two partitions, and a small log."""
    made: Deployment = await deploy(config.Config(queue=config.Queue(partitions=2, max_bytes=BOUND)))
    return made


async def fill(client: httpx.AsyncClient, user: str, first: int, count: int) -> list[str]:
    """Have updates of one user accepted, however often the log says that it is full; their ids."""
    found: dict[int, str] = {}
    wanted = range(first, first + count)

    async def all_accepted() -> bool:
        missing = [n for n in wanted if n not in found][:200]
        updates = [{"userId": user, "actionId": f"point:{user}-{n}-{'x' * 240}"} for n in missing]
        results = (await client.post("/update-scores", json=updates)).json()["results"]
        codes = {result["code"] for result in results if result["status"] != "accepted"}
        assert codes <= {"queue_full", "unavailable"}
        found.update((n, r["eventId"]) for n, r in zip(missing, results, strict=True) if "eventId" in r)
        return len(found) == count

    await until(all_accepted)
    return [found[n] for n in wanted]


async def state_of(deployment: Deployment) -> State:
    async with both(deployment) as (_, queue):
        return await queue.state()


async def cursors(deployment: Deployment) -> dict[int, int]:
    async with Database.open(deployment.database_url) as database:
        return await database.positions()


async def all_moved_along(deployment: Deployment) -> bool:
    """Are all cursors at the end of the log?"""
    return set((await cursors(deployment)).values()) == {(await state_of(deployment)).last}


@pytest.mark.parametrize("silent", [0, 1])
async def test_a_silent_partition_does_not_let_the_log_fill_up(two: Deployment, silent: int) -> None:
    async with two.running() as client:
        accepted = await fill(client, USERS[silent], 0, 1)
        await audit(two, accepted)
        accepted += await fill(client, USERS[1 - silent], 0, 6_000)  # twice its bound
        await audit(two, accepted)
        assert (await state_of(two)).first > 2, "the silent one's only message is gone, and more"
    # A worker that begins again accepts that, and so does whoever else looks at the log before it starts.
    async with both(two) as (database, queue):
        await ensure_log(queue, two.config, database)
        assert await adoption.plan(database, queue, two.config) is None
    async with two.running() as client:
        accepted += await fill(client, USERS[silent], 1, 10)
        accepted += await fill(client, USERS[1 - silent], 6_000, 10)
        await audit(two, accepted)


@pytest.mark.parametrize("begun", [False, True])
async def test_what_one_partition_has_not_applied_stays_however_full_the_log_is(
    two: Deployment, begun: bool
) -> None:
    accepted: list[str] = []
    if begun:
        async with two.running() as client:
            accepted += await fill(client, USERS[1], 0, 1)
            await audit(two, accepted)
    async with two.serving() as client, two.database() as other:
        await other.execute("SELECT pg_advisory_lock($1, 1)", LOCK_CLASS)  # applies it, but not now
        async with two.working():
            accepted += await fill(client, USERS[1], 1, 1)
            while (await state_of(two)).size < (trimming.NEAR_BOUND + 0.05) * BOUND:
                accepted += await fill(client, USERS[0], len(accepted), 100)

            async def applied() -> bool:
                return int(await other.fetchval("SELECT count(*) FROM events")) == len(accepted) - 1

            await until(applied)
            await asyncio.sleep(10 * trimming.LOOK_SECONDS)
            before = await state_of(two)
            assert before.first <= 1 + begun
            await other.execute("SELECT pg_advisory_unlock_all()")
            await audit(two, accepted)

            async def room() -> bool:
                return (await state_of(two)).size < before.size / 2

            await until(room)


async def test_a_log_without_any_message_is_begun_again_by_all(
    two: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "KEEP", timedelta(0))
    async with two.running() as client:
        accepted = await fill(client, USERS[1], 0, 1) + await fill(client, USERS[0], 0, 20)

        async def empty() -> bool:
            state = await state_of(two)
            return state.first == state.last + 1

        await until(empty)
    async with two.running() as client:
        accepted += await fill(client, USERS[1], 1, 1)
        await audit(two, accepted)


async def test_a_backup_is_caught_up_though_a_partition_was_silent_before_it(
    two: Deployment, tmp_path: Path
) -> None:
    settings = settings_of(two) | {
        "SCOREBOARD_QUEUE_PARTITIONS": "2",
        "SCOREBOARD_QUEUE_MAX_BYTES": str(BOUND),
    }
    async with two.running() as client:
        accepted = await fill(client, USERS[1], 0, 1) + await fill(client, USERS[0], 0, 50)
        await until(lambda: all_moved_along(two))
        status, _, err = await run("backup", "file", cwd=tmp_path, settings=settings)
        assert status == 0, err
        accepted += await fill(client, USERS[0], 50, 50)
        await audit(two, accepted)
    read = backup.read_header(tmp_path / "file").log
    assert [one.partition for one in read] == [0, 1]
    assert read[0].last_at > read[1].last_at, "the time is that of the partition's own last message"
    async with both(two) as (_, queue):
        await queue.state()
        await queue.trim(min(one.last for one in read))  # most of a day later
        state = await queue.state()
        assert 1 < state.first <= state.last
        assert adoption.flaw(read, state) is None
        lost = msgspec.structs.replace(state, first=state.first + 1)
        assert f"partition {min(read, key=lambda one: one.last).partition}" in (
            adoption.flaw(read, lost) or ""
        )
    await two.lose_database()
    status, told, err = await run("restore", "file", cwd=tmp_path, settings=settings)
    assert (status, "the worker will apply them" in told) == (0, True), err
    async with two.running() as client:
        accepted += await fill(client, USERS[1], 1, 1)
        await audit(two, accepted)


async def test_a_cursor_may_go_to_where_nothing_of_its_partition_is_and_no_further(two: Deployment) -> None:
    async with opened(two) as queue:
        state = await queue.state()
        assert await queue.clear_of(0, 0, state) == 0, "there is nothing to pass"
        assert [await queue.publish(n, b"") for n in (1, 0, 0)] == [1, 2, 3]
        state = await queue.state()
        assert await queue.clear_of(1, 1, state) == 3
        assert await queue.clear_of(1, 0, state) == 0, "the next one is its own"
        assert await queue.clear_of(0, 0, state) == 1, "up to its own"
        # What comes after the state was taken is never passed, whichever partition it is of.
        assert [await queue.publish(n, b"") for n in (0, 1)] == [4, 5]
        assert await queue.clear_of(0, 3, state) == 3
        assert await queue.clear_of(1, 1, state) == 4, "as was found: before its own"
        assert await queue.clear_of(1, 5, state) == 5, "never back"


async def test_what_comes_while_it_is_asked_is_not_passed(
    two: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(two) as queue:
        for partition in (1, 0):
            await queue.publish(partition, b"")
        state, ask = await queue.state(), queue.oldest

        async def oldest(partition: int, after: int) -> Any:
            await queue.publish(0, b"just before")
            found = await ask(partition, after)
            await queue.publish(1, b"just after, and its own")
            return found

        monkeypatch.setattr(queue, "oldest", oldest)
        assert await queue.clear_of(1, 1, state) == 2
        assert await ask(1, 2) == (4, await queue.time_of(4)), "it is still to come"


async def test_nothing_is_passed_where_it_cannot_be_told(two: Deployment) -> None:
    async with opened(two) as queue:
        for _ in range(3):
            await queue.publish(0, b"")
        await queue.trim(2)
        state = await queue.state()
        assert await queue.clear_of(1, 1, state) == 1, "what was between is gone: perhaps it was its own"
        assert await queue.clear_of(1, 2, state) == 3
        other = msgspec.structs.replace(state, identity="other")
        assert await queue.clear_of(1, 2, other) == 2
        async with jetstream(two) as log:
            await log.delete_stream(two.name)
        with pytest.raises(Unavailable):
            await queue.clear_of(1, 2, state)


async def test_trimming_up_to_what_is_before_the_log_drops_nothing(two: Deployment) -> None:
    async with opened(two) as queue:
        await queue.publish(0, b"")
        for number in (2, 100):
            state = await queue.renumber(number, 2)
            for upto in (0, number - 1):
                await queue.trim(upto)
                assert await queue.state() == state


@asynccontextmanager
async def opened(deployment: Deployment) -> AsyncIterator[Queue]:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=2, max_bytes=BOUND, replicas=1, known=None)
        yield queue
