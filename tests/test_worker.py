"""What was accepted is applied exactly once, wherever a worker ends and whoever goes on."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import nats
import pytest
from redis.asyncio import Redis

from conftest import Deploy
from crashing import STEPS
from deployment import SECONDS, Deployment, frame_with, free_port, is_ready, submit, until, watching
from processes import settings_of, started
from scoreboard import config, metrics
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.database.server import LOCK_CLASS
from scoreboard.envelope import Sealer, encode_entry
from scoreboard.errors import Unavailable
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Outcome, Result, Update
from scoreboard.queue import Queue
from scoreboard.refresh import ADVANCE_SECONDS
from scoreboard.verify import differences_of

HERE = Path(__file__).parent


async def accept(client: httpx.AsyncClient, first: int, count: int) -> list[str]:
    """Have updates accepted; the ids of those that were."""
    updates = [{"userId": f"u{n % 7}", "actionId": f"point:{n}"} for n in range(first, first + count)]
    results = (await client.post("/update-scores", json=updates)).json()["results"]
    assert {result["status"] for result in results} == {"accepted"}
    return [result["eventId"] for result in results]


async def audit(deployment: Deployment, accepted: list[str]) -> None:
    """Each accepted event is in the ledger once and nothing else is; ledger = totals = board, soon."""
    async with Database.open(deployment.database_url) as database, deployment.database() as connection:

        async def applied() -> bool:
            return int(await connection.fetchval("SELECT count(*) FROM events")) >= len(set(accepted))

        await until(applied)
        rows = await connection.fetch("SELECT event_id::text, outcome FROM events")
        assert sorted(row["event_id"] for row in rows) == sorted(set(accepted))
        assert {row["outcome"] for row in rows} == {"applied"}
        board = Board(deployment.environment.board, deployment.config)

        async def same() -> bool:
            return not await differences_of(deployment.config, database, board)

        await until(same)
        await board.close()


@pytest.mark.parametrize("point", STEPS)
async def test_a_worker_that_is_killed_leaves_nothing_lost_and_nothing_twice(
    deployment: Deployment, tmp_path: Path, point: str
) -> None:
    async with deployment.serving() as client:
        async with deployment.working():
            accepted = await accept(client, 0, 50)
            await audit(deployment, accepted)
        program = (sys.executable, str(HERE / "crashing.py"), point)
        async with started(cwd=tmp_path, program=program, settings=settings_of(deployment)) as worker:
            waiting = asyncio.create_task(submit(client, "ann", "point:wait", wait=1))
            accepted += await accept(client, 50, 300)
            accepted += await accept(client, 0, 60)  # ten of them for the first time
            assert await worker.process.wait() == -signal.SIGKILL
        accepted.append((await waiting).json()["eventId"])
        async with deployment.working():
            await audit(deployment, accepted)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_another_worker_takes_over_within_seconds(
    deployment: Deployment, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        deployment.serving() as client,
        started("worker", cwd=tmp_path, settings=settings_of(deployment)) as first,
    ):
        accepted = await accept(client, 0, 100)
        await audit(deployment, accepted)
        async with started("worker", cwd=tmp_path, settings=settings_of(deployment)) as second:
            accepted += await accept(client, 100, 100)
            await audit(deployment, accepted)
            first.process.send_signal(number)
            accepted += await accept(client, 200, 100)
            async with asyncio.timeout(10):
                await audit(deployment, accepted)
            if number == signal.SIGSTOP:
                # The one that was stopped wakes up and believes that it still applies.
                first.process.send_signal(signal.SIGCONT)
                accepted += await accept(client, 300, 100)
                await audit(deployment, accepted)
            assert second.process.returncode is None


async def test_a_worker_that_was_replaced_leaves_the_boards_to_the_other(deployment: Deployment) -> None:
    async with deployment.running() as client, deployment.working(), deployment.database() as connection:
        board = Board(deployment.environment.board, deployment.config)

        async def epoch_after(action: str) -> str:
            assert (await submit(client, "ann", action)).json()["status"] == "applied"
            frame = await board.frame("main")
            assert frame is not None
            return frame.epoch

        await epoch_after("point:0")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_locks USING (pid)"
            " WHERE datname = current_database() AND locktype = 'advisory' AND granted"
        )
        began = time.monotonic()
        epochs = [await epoch_after("point:1")]
        while time.monotonic() < began + 2.5 * ADVANCE_SECONDS:  # for so long both had a say
            epochs.append(await epoch_after(f"point:{len(epochs) + 1}"))
        assert len(set(epochs)) == 1
        await board.close()


async def test_a_worker_that_is_told_to_stop_in_the_moment_of_a_failure_stops(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = asyncio.Event()

    async def lost_when_cancelled(*_: object) -> AsyncIterator[None]:
        reading.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise Unavailable("lost in this very moment") from error
        yield

    monkeypatch.setattr(Queue, "read", lost_when_cancelled)
    async with deployment.working():
        await reading.wait()
        # Nothing that the worker does from here on asks an engine that would heed the cancellation.
        await deployment._administer(f'ALTER DATABASE "{deployment.name}" ALLOW_CONNECTIONS false')


async def test_a_worker_that_cannot_begin_tells_what_waits(deployment: Deployment) -> None:
    waiting = metrics.QUEUE_DEPTH.labels(0)
    waiting.set(0)
    async with deployment.serving() as client, deployment.database() as other:
        await other.execute("SELECT pg_advisory_lock($1, $2)", LOCK_CLASS, 0)
        await accept(client, 0, 3)

        async def told() -> bool:
            return bool(waiting._value.get() > 0)

        async with deployment.working(built=False):
            await until(told)


async def test_the_board_may_be_lost_at_any_moment(deployment: Deployment) -> None:
    async with deployment.running() as client:
        accepted = await accept(client, 0, 200)
        await audit(deployment, accepted)
        before = (await client.get("/boards/main")).json()
        board = Board(deployment.environment.board, deployment.config)
        keys = [key async for key in board._server._redis.scan_iter(f"{deployment.name}*")]
        assert keys
        await board._server._redis.delete(*keys)
        await board.close()

        async def shown() -> bool:
            now = (await client.get("/boards/main")).json()
            return bool(now["epoch"] != before["epoch"] and now["top"] == before["top"])

        await until(shown)  # though nobody scores
        accepted += await accept(client, 200, 10)
        await audit(deployment, accepted)


async def dead_letters(client: httpx.AsyncClient) -> float:
    """How many messages have been set aside, as an alarm sees it."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("scoreboard_dead_letters_total"))


async def test_what_is_not_sealed_by_us_is_set_aside_and_scores_nothing(deployment: Deployment) -> None:
    async with deployment.running() as client:
        accepted = await accept(client, 0, 10)
        before = await dead_letters(client)
        intruder = await nats.connect(deployment.environment.queue)
        stream = (await intruder.jetstream().stream_info(deployment.name)).config
        subject = str((stream.subjects or [""])[0]).replace("*", "0")
        event_id = event_id_of_action("eve", "point:1").bytes
        loot = Update(event_id, "eve", "point", "1", 10**6, ("main",), "key:k")
        forged = Sealer("x" * 32).seal(deployment.config.catalogue, "", [], [encode_entry(loot)])
        for body in (forged, b"", b"\xff" * 1000):
            await intruder.jetstream().publish(subject, body)
        await intruder.close()
        accepted += await accept(client, 10, 10)
        await audit(deployment, accepted)
        async with deployment.database() as connection:
            dead = await connection.fetch("SELECT body, reason FROM dead_letters ORDER BY accept_no")
        assert [bytes(row["body"]) for row in dead] == [forged, b"", b"\xff" * 1000]
        assert {row["reason"] for row in dead} == {"the seal is not ours"}
        assert await dead_letters(client) == before + 3, "the alarm is this counter"


async def test_nobody_but_the_worker_tells_a_client_that_it_scored(deployment: Deployment) -> None:
    event_id = event_id_of_action("eve", "point:1")
    lie = [Outcome(Result.APPLIED, str(event_id), duplicate=False, points=10**6)]
    ours = Sealer(str(deployment.environment.secret))
    intruder = await nats.connect(deployment.environment.queue)
    forged_before = metrics.FORGED_OUTCOMES._value.get()
    async with deployment.serving() as client:  # no worker: whatever is answered, it is not its word
        arrived = await intruder.subscribe(f"{deployment.name}.log.>")
        # Only now it is known to listen: what is asked goes after it. A flush does not tell: nats-py (2.16)
        # lets its ping overtake what is not sent yet.
        await intruder.jetstream().stream_info(deployment.name)
        for message, wait, status in (
            (Sealer("x" * 32).seal_outcomes(lie), 1, 202),
            (msgspec.msgpack.encode(lie), 1, 202),
            (ours.seal_outcomes(lie), 10, 200),  # so the others would have arrived
        ):
            asking = asyncio.create_task(submit(client, "eve", "point:1", wait=wait))
            inbox = ours.open((await arrived.next_msg(SECONDS)).data).inbox
            await intruder.publish(inbox, message)
            assert (await asking).status_code == status
    await intruder.close()
    assert metrics.FORGED_OUTCOMES._value.get() - forged_before == 2


async def test_roles_apart_do_what_they_do_together(deployment: Deployment, tmp_path: Path) -> None:

    settings = settings_of(deployment)
    api, live = f"http://127.0.0.1:{(a := free_port())}", f"http://127.0.0.1:{(b := free_port())}"
    async with (
        started("worker", cwd=tmp_path, settings=settings),
        started("api", "--port", str(a), cwd=tmp_path, settings=settings),
        started("live", "--port", str(b), cwd=tmp_path, settings=settings),
        httpx.AsyncClient(base_url=api, headers={"authorization": f"Bearer {deployment.key}"}) as door,
        httpx.AsyncClient(base_url=live) as screen,
    ):

        async def both_ready() -> bool:
            try:
                return await is_ready(door) and await is_ready(screen)
            except httpx.TransportError:
                return False

        await until(both_ready)
        await deployment.boards_are_built()
        async with watching(screen) as socket:
            assert (await submit(door, "ann", "point:1")).json()["boards"]["main"]["rank"] == 1
            await frame_with(socket, [("ann", 1)])
        assert (await screen.get("/boards/main")).content == (await door.get("/boards/main")).content
        refused = await submit(screen, "ann", "point:2")
        assert refused.status_code == 404
        assert (await door.get("/boards/main/live")).status_code in (404, 405)


async def test_a_board_that_nobody_can_read_holds_up_no_other(deploy: Deploy) -> None:
    deployment = await deploy(Config(boards={"first": config.Board(), "main": config.Board()}))
    meta = f"{deployment.name}:{{first:all}}:meta"
    async with deployment.serving() as client, Redis.from_url(deployment.environment.board) as redis:
        async with deployment.working():
            assert (await submit(client, "ann", "point:1")).json()["status"] == "applied"
        await redis.delete(meta)
        await redis.set(meta, "no hash")
        numbers = itertools.count(2)

        async def ranked() -> bool:
            answer = (await submit(client, "ann", f"point:{next(numbers)}")).json()
            assert answer["boards"]["first"]["rank"] is None
            return bool(answer["boards"]["main"]["rank"] == 1)

        async with deployment.working(built=False):
            await until(ranked)
        await redis.delete(meta)
