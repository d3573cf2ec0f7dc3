"""A log that is not the database's is refused in words; an operator adopts it, and nothing counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from deployment import SECONDS, Deployment, bearer, free_port, submit
from processes import assert_one_error, run, settings_of, started
from scoreboard import adoption, config
from scoreboard.app.starting import ensure_log
from scoreboard.database import Database, connect
from scoreboard.errors import EngineError, LogMismatch, Unavailable
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import PLACES, Row, Scope
from scoreboard.queue import Queue, State
from test_worker import accept, audit


@asynccontextmanager
async def jetstream(deployment: Deployment) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(deployment.environment.queue)
    yield client.jetstream()
    await client.close()


@asynccontextmanager
async def both(deployment: Deployment) -> AsyncIterator[tuple[Database, Queue]]:
    """The database and the log of a deployment, as the command has them."""
    async with (
        Database.open(deployment.database_url) as database,
        Queue.open(deployment.environment.queue, deployment.name, "test") as queue,
    ):
        yield database, queue


async def refused(deployment: Deployment, words: str) -> None:
    """No role that needs a log starts on this one."""
    async with both(deployment) as (database, queue):
        with pytest.raises(LogMismatch, match=f"{words}.*`scoreboard adopt --dry-run`"):
            await ensure_log(queue, deployment.config, database)


async def highest(deployment: Deployment) -> int:
    async with deployment.database() as connection:
        number: int = await connection.fetchval("SELECT max(accept_no) FROM events")
        return number


def divided(deployment: Deployment, partitions: int) -> Deployment:
    """The same deployment with another number of partitions in its configuration."""
    wanted = msgspec.structs.replace(deployment.config, queue=config.Queue(partitions=partitions))
    return deployment.with_config(wanted)


async def adopt(deployment: Deployment) -> adoption.Plan:
    """What the command does."""
    async with both(deployment) as (database, queue):
        plan = await adoption.plan(database, queue, deployment.config)
        assert plan is not None
        await adoption.adopt(database, queue, deployment.config, plan, "")
        return plan


async def cursors(deployment: Deployment) -> dict[int, int]:
    """How far each partition has been applied."""
    async with deployment.database() as connection:
        return {row[0]: row[1] for row in await connection.fetch("SELECT partition, last FROM cursor")}


async def test_a_new_log_is_adopted_and_the_numbering_goes_on(deployment: Deployment, tmp_path: Path) -> None:
    settings = settings_of(deployment)
    async with deployment.running() as client:
        accepted = await accept(client, 0, 300)
        await audit(deployment, accepted)
    status, told, _ = await run("adopt", cwd=tmp_path, settings=settings)
    assert (status, told.split(";")[1]) == (0, " there is nothing to adopt.\n")
    before = await highest(deployment)
    async with jetstream(deployment) as log:
        await log.delete_stream(deployment.name)
    await refused(deployment, "the queue holds n")

    status, told, _ = await run("adopt", "--dry-run", cwd=tmp_path, settings=settings)
    assert status == 0
    number = before // PLACES + 1
    assert f"Its first message gets the number {number}." in told
    assert "Lost: what was accepted after that." in told
    assert told.endswith("Nothing was changed: without --dry-run it is done.\n")
    await refused(deployment, "the queue holds n")

    status, told, err = await run("adopt", "--reason", "disk died", cwd=tmp_path, settings=settings)
    assert (status, told.splitlines()[-1]) == (0, "Done. Start the roles again."), err
    async with deployment.running() as client:
        accepted += await accept(client, 250, 300)  # fifty of them once more
        await audit(deployment, accepted)
        assert (await submit(client, "ann", "point:last")).json()["duplicate"] is False
    after = await highest(deployment)
    assert after > before
    async with deployment.database() as connection:
        first = await connection.fetchval("SELECT min(accept_no) FROM events WHERE accept_no > $1", before)
    assert first // PLACES == number
    _, told, _ = await run("audit", cwd=tmp_path, settings=settings)
    assert "adopt  log" in told.splitlines()[0]
    assert "disk died The database has been reading the log" in told


async def test_roles_end_for_good_on_a_log_that_is_not_the_databases(
    deployment: Deployment, tmp_path: Path
) -> None:
    settings, port = settings_of(deployment), str(free_port())
    async with (
        deployment.serving() as client,
        started("worker", "--port", port, cwd=tmp_path, settings=settings) as worker,
    ):
        await audit(deployment, await accept(client, 0, 10))
        async with jetstream(deployment) as log:
            await log.delete_stream(deployment.name)
        assert await asyncio.wait_for(worker.process.wait(), SECONDS) == 78, "while it runs"
    last = (tmp_path / "worker.log").read_text().splitlines()[-1]
    assert last.startswith("scoreboard: The log ")
    assert "is no longer there. Nothing is skipped by itself: `scoreboard adopt --dry-run` says" in last
    for role in ("api", "worker"):
        status, _, err = await run(role, "--port", port, cwd=tmp_path, settings=settings)
        assert (status, "the queue holds none" in err) == (78, True), err
        assert_one_error(err)


async def test_what_another_log_holds_counts_once(deployment: Deployment) -> None:
    """The worst: after a loss, a new database took updates with a new log; then the old one was restored."""
    async with deployment.running() as client:
        accepted = await accept(client, 0, 300)
        await audit(deployment, accepted)
    before = await highest(deployment)
    async with jetstream(deployment) as log:
        await log.delete_stream(deployment.name)
    async with both(deployment) as (_, queue):
        await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
    async with deployment.beside() as other, other.running() as client:
        accepted += await accept(client, 200, 300)
        await audit(other, accepted[300:])
    await refused(deployment, "the queue now holds")
    async with both(deployment) as (database, queue):
        plan = await adoption.plan(database, queue, deployment.config)
        assert plan is not None
        assert plan.number == before // PLACES + 1
        assert "All are read" in plan.lines[-1]
        await adoption.adopt(database, queue, deployment.config, plan, "")
        assert await adoption.plan(database, queue, deployment.config) is None
    async with deployment.running():
        await audit(deployment, accepted)
    assert await highest(deployment) > before


async def test_an_older_copy_of_the_log_is_refused_and_adopted(deployment: Deployment) -> None:
    async with deployment.running() as client:
        accepted = [(await submit(client, "ann", f"point:{n}")).json()["eventId"] for n in range(5)]
    before = await highest(deployment)
    async with jetstream(deployment) as log:
        config = (await log.stream_info(deployment.name)).config
        kept = [await log.get_msg(deployment.name, seq=n, direct=False) for n in (1, 2)]
        await log.delete_stream(deployment.name)
        await log.add_stream(config)
        for message in kept:
            await log.publish(message.subject or "", message.data or b"")
    await refused(deployment, "older copy of itself")
    async with both(deployment) as (database, queue):
        plan = await adoption.plan(database, queue, deployment.config)
        assert plan is not None
        await adoption.adopt(database, queue, deployment.config, plan, "")
    async with deployment.running() as client:
        accepted.append((await submit(client, "ann", "point:5")).json()["eventId"])
        assert (await submit(client, "ann", "point:0")).json()["duplicate"] is True
        await audit(deployment, accepted)
    assert await highest(deployment) > before


async def test_a_log_that_lost_its_beginning_says_how_much(deployment: Deployment) -> None:
    async with deployment.serving() as client:
        async with deployment.working():
            accepted = [(await submit(client, "ann", "point:0")).json()["eventId"]]
        for number in range(1, 5):
            assert (await submit(client, "ann", f"point:{number}", wait=0)).status_code == 202
        accepted.append((await submit(client, "ann", "point:5", wait=0)).json()["eventId"])
    async with jetstream(deployment) as log:
        await log.purge_stream(deployment.name, seq=6)
    await refused(deployment, "is gone")
    async with both(deployment) as (database, queue):
        plan = await adoption.plan(database, queue, deployment.config)
        assert plan is not None
        assert plan.lines[1].startswith("Lost: up to 4 messages, accepted between 20")
        assert plan.number == 6, "numbers stay as they are where they can"
        worker = await connect(deployment.database_url)
        await worker.execute("SELECT pg_advisory_lock($1, 0)", 0x5C0E)
        with pytest.raises(EngineError, match="worker is at work"):
            await adoption.adopt(database, queue, deployment.config, plan, "")
        await worker.close()
        await adoption.adopt(database, queue, deployment.config, plan, "")
    async with deployment.running():
        await audit(deployment, accepted)


async def test_partitions_change_once_all_is_applied(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment.serving() as client:
        async with deployment.working():
            accepted = await accept(client, 0, 200)
            await audit(deployment, accepted)
        accepted += await accept(client, 200, 20)
    changed = divided(deployment, 3)
    wanted = changed.config
    await refused(changed, r"queue\.partitions is 3, but the log was made with 1")
    async with both(deployment) as (database, queue):
        with pytest.raises(EngineError, match="not applied"):
            await adoption.plan(database, queue, wanted)
        async with deployment.working():
            await audit(deployment, accepted)
        plan = await adoption.plan(database, queue, wanted)
        assert plan is not None
        assert "cannot be caught up" in plan.lines[-1]
        await adoption.adopt(database, queue, wanted, plan, "")
        state = await queue.state()
        assert (state.partitions, state.first) == (3, state.last + 1)
    before = await highest(deployment)
    changed_rows, since = Database.changed_rows, []

    async def told(database: Database, board: str, after: int) -> list[Row]:
        since.append(after)
        return await changed_rows(database, board, after)

    monkeypatch.setattr(Database, "changed_rows", told)
    async with changed.running() as client:
        accepted += await accept(client, 150, 300)  # some once more, through other partitions
        await audit(deployment, accepted)
        async with deployment.database() as connection:
            last = await connection.fetch("SELECT last FROM cursor")
        assert len({row[0] for row in last}) == 3

    assert await highest(deployment) > before
    assert all(after >= before for after in since), "no board was read whole, into memory"


async def test_what_no_worker_has_read_is_never_dropped(deployment: Deployment) -> None:
    changed = divided(deployment, 3)
    async with deployment.serving() as client:
        accepted = await accept(client, 0, 20)
    async with both(changed) as (database, queue):
        with pytest.raises(EngineError, match="not applied"):
            await adoption.plan(database, queue, changed.config)
    async with deployment.working():
        await audit(deployment, accepted)
    await adopt(changed)
    async with changed.serving() as client:
        accepted += await accept(client, 20, 20)
    # A database that is new, beside a log that is not: nothing of it is applied.
    async with changed.beside() as other, both(other) as (database, queue):
        with pytest.raises(EngineError, match="not applied"):
            await adoption.plan(database, queue, deployment.config)
    async with changed.working():
        await audit(changed, accepted)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (3, 2)])
@pytest.mark.parametrize("renumbered", [False, True])
async def test_a_change_of_partitions_that_was_cut_off_is_finished(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, old: int, new: int, renumbered: bool
) -> None:
    before, changed = divided(deployment, old), divided(deployment, new)
    async with before.running() as client:
        accepted = await accept(client, 0, 200)
        accepted.append((await submit(client, "ann", "point:1")).json()["eventId"])  # others stay behind it
        await audit(before, accepted)
    renumber = Queue.renumber

    async def dying(queue: Queue, number: int, partitions: int) -> State:
        if renumbered:
            await renumber(queue, number, partitions)
        raise Unavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Queue, "renumber", dying)
        with pytest.raises(Unavailable, match="killed"):
            await adopt(changed)
    if renumbered:
        async with changed.serving() as client:  # nobody noticed, and it accepts
            accepted += await accept(client, 200, 50)
    plan = await adopt(changed)
    assert not any("Lost" in line for line in plan.lines)
    assert (await cursors(changed)).keys() == set(range(new))
    async with both(changed) as (database, queue):
        assert await adoption.plan(database, queue, changed.config) is None
    async with changed.running() as client:
        accepted += await accept(client, 190, 100)
        await audit(changed, accepted)


async def test_a_partition_that_is_ahead_stays_there(deployment: Deployment) -> None:
    changed = divided(deployment, 2)
    async with changed.running() as client:
        accepted: list[str] = []
        for first in range(0, 50, 10):
            accepted += await accept(client, first, 10)
            await audit(changed, accepted)
    ahead = (await cursors(changed))[0]
    async with changed.database() as connection:
        await connection.execute("UPDATE cursor SET last = 1 WHERE partition = 1")
    async with jetstream(changed) as log:
        await log.purge_stream(changed.name, seq=ahead - 1)
    await refused(changed, "is gone")
    await adopt(changed)
    assert await cursors(changed) == {0: ahead, 1: ahead - 2}
    async with changed.running():
        await audit(changed, accepted)


async def test_what_was_restored_stays_so_when_partitions_change(deployment: Deployment) -> None:
    three, one = divided(deployment, 3), divided(deployment, 1)
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    to_come = {"eventId": str(event_id_of_action("ann", "point:1"))}
    async with three.running() as client:
        assert (await client.post("/admin/revoke", json=to_come, headers=admin)).status_code == 200
    await adopt(one)
    async with one.running() as client:
        assert (await client.post("/admin/restore", json=to_come, headers=admin)).status_code == 200
    await adopt(three)
    async with three.running() as client:
        assert (await submit(client, "ann", "point:1")).json()["status"] == "applied"


async def test_a_restore_without_the_log_says_what_is_lost(deployment: Deployment, tmp_path: Path) -> None:
    settings = settings_of(deployment)
    async with deployment.running() as client:
        accepted = await accept(client, 0, 50)
        await audit(deployment, accepted)
    assert (await run("backup", "file", cwd=tmp_path, settings=settings))[0] == 0
    async with deployment.running() as client:
        await audit(deployment, accepted + await accept(client, 50, 50))
    async with jetstream(deployment) as log:
        await log.purge_stream(deployment.name)
    await deployment.lose_database()
    status, told, err = await run("restore", "file", cwd=tmp_path, settings=settings)
    assert (status, told) == (1, "")
    assert "what lies between is gone" in err
    assert "nothing was restored" in err
    async with deployment.database() as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    status, told, err = await run("restore", "--adopt", "file", cwd=tmp_path, settings=settings)
    assert status == 0, err
    assert "Lost: up to 1 messages" in told
    async with deployment.running() as client:
        await audit(deployment, accepted)
        await audit(deployment, accepted + await accept(client, 100, 50))
