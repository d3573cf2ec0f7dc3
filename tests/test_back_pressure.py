"""What is too much, or cannot be written, is refused at once and honestly; and it heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment, bearer, submit, until
from foreign import SYNCING, TELLING, nats_server
from processes import command, started
from scoreboard.api import outcomes
from scoreboard.config import Config
from scoreboard.config import Queue as QueueTable
from scoreboard.engines import folder
from scoreboard.envelope import Sealer
from scoreboard.errors import QueueFull, Unavailable
from scoreboard.group_commit import RETRY_MOST, WAITING_ENTRIES, GroupCommit
from scoreboard.model import Rename
from scoreboard.queue import Queue
from scoreboard.queue.publishing import PUBLISH_SECONDS

HEAL_SECONDS = 10.0
SLACK_SECONDS = 0.5  # what a machine that is busy with other things may add


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose log is on a disk of 16 MiB."""
    data = tmp_path / "scoreboard-data"
    nats = data / "nats"
    nats.mkdir(parents=True)
    (data / folder.LOCK).touch()
    mount = ("mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(nats))
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield nats
    subprocess.run(["umount", "--lazy", str(nats)], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


async def test_a_log_whose_disk_was_full_heals_by_itself_and_loses_nothing(
    tmp_path: Path, small_disk: Path
) -> None:
    async with started("up", "--port", "0", cwd=tmp_path) as up:
        url = await up.ready()
        key = (await command("key", "create", "--name", "k", "--scope", "score:write", cwd=tmp_path))[
            1
        ].strip()
        accepted: list[str] = []
        number = 0
        async with httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=SECONDS) as client:

            async def attempt() -> int:
                nonlocal number
                number += 1
                answer = await submit(client, "ann", f"point:{number}", wait=0)
                if answer.status_code == 202:
                    accepted.append(answer.json()["eventId"])
                else:
                    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
                return answer.status_code

            async def fails() -> bool:
                return await attempt() == 503

            async def heals() -> bool:
                return await attempt() == 202

            async def queue_is(state: str) -> bool:
                ready = await client.get("/health/ready")
                return bool(ready.json()["engines"]["queue"] == state)

            assert await heals()
            filler = fill(small_disk)
            await until(fails)
            await until(lambda: queue_is("failing"))
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/boards/main")).status_code == 200, "reading goes on"
            filler.unlink()
            began = time.monotonic()
            await until(heals)
            assert time.monotonic() - began < HEAL_SECONDS
            await until(lambda: queue_is("ok"))
            assert (await submit(client, "ann", "point:last")).status_code == 200, "all before it are applied"
        status, out, err = await command("verify", cwd=tmp_path)
        assert status == 0, out + err
        ledger = int(re.match(r"\d+", out)[0])  # type: ignore[index]
        assert ledger > len(accepted) >= 2


@asynccontextmanager
async def with_queue(deployment: Deployment, url: str) -> AsyncIterator[Deployment]:
    """The same deployment on another NATS, with what it takes to stand that."""
    was = deployment.settings
    environment = msgspec.structs.replace(was.environment, queue_url=url)
    deployment.settings = msgspec.structs.replace(was, environment=environment)
    try:
        yield deployment
    finally:
        deployment.settings = was


async def test_a_queue_that_hangs_is_answered_503_within_a_second_whoever_waits(
    deployment: Deployment, tmp_path: Path
) -> None:
    async with (
        nats_server(tmp_path, SYNCING, TELLING) as (url, nats),
        with_queue(deployment, url),
        deployment.serving() as client,
    ):
        assert (await submit(client, "ann", "point:0", wait=0)).status_code == 202
        nats.send_signal(signal.SIGSTOP)

        async def several(count: int) -> None:
            updates = [{"userId": "ann", "actionId": f"point:{count}-{n}"} for n in range(count)]
            began = time.monotonic()
            many, one = await asyncio.gather(
                client.post("/update-scores", json=updates),
                submit(client, "ann", "point:one", wait=5),
            )
            assert time.monotonic() - began < 1.0 + SLACK_SECONDS
            assert {result["code"] for result in many.json()["results"]} == {"unavailable"}
            assert (one.status_code, one.json()["code"]) == (503, "unavailable")
            assert one.json()["eventId"]
            assert one.headers["retry-after"]

        await asyncio.gather(*map(several, (1_000, 2, 1)))  # three envelopes: none waits for another
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["engines"]["queue"]) == (503, "away")
        nats.send_signal(signal.SIGCONT)

        async def accepts() -> bool:
            return (await submit(client, "ann", "point:0", wait=0)).status_code == 202

        began = time.monotonic()
        await until(accepts)
        assert time.monotonic() - began < PUBLISH_SECONDS, "over the connection that it has"


def noted(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once an envelope is being published."""
    found, publish = asyncio.Event(), Queue.publish

    async def published(self: Queue, partition: int, body: bytes) -> int:
        found.set()
        return await publish(self, partition, body)

    monkeypatch.setattr(Queue, "publish", published)
    return found


@pytest.mark.parametrize("how", ["we are told to stop", "the connection breaks"])
async def test_what_is_in_flight_when_it_ends_is_never_said_to_be_accepted(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with (
        nats_server(tmp_path, SYNCING, TELLING) as (url, nats),
        Queue.open(url, deployment.name, "test") as queue,
    ):
        await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
        commit = GroupCommit(queue, Sealer("s" * 32), partitions=1, catalogue="c", inbox="")
        running = asyncio.create_task(commit.run())
        await commit.accept(Rename(b"1" * 16, "ann", "Ann", "user:ann"))
        nats.send_signal(signal.SIGSTOP)
        on_its_way = noted(monkeypatch)
        in_flight = commit.accept(Rename(b"2" * 16, "ann", "Ann", "user:ann"))
        await on_its_way.wait()
        if how == "the connection breaks":
            nats.kill()
        else:
            running.cancel()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(in_flight, 1.0 + SLACK_SECONDS)
        running.cancel()
        await asyncio.wait([running])


async def test_without_the_database_updates_are_accepted_until_the_log_is_full_and_then_refused(
    deploy: Deploy,
) -> None:
    deployment = await deploy(Config(queue=QueueTable(max_bytes=1 << 20)))
    async with deployment.working(), deployment.serving() as client:
        assert (await submit(client, "ann", "point:0")).status_code == 200
        admin = await asyncpg.connect(deployment.admin_url)
        await admin.execute(f'ALTER DATABASE "{deployment.name}" ALLOW_CONNECTIONS false')
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        await admin.execute(ended, deployment.name)
        accepted, codes = 1, set[str]()
        while not codes:
            updates = [{"userId": f"u{n % 7}", "actionId": f"point:{accepted + n}"} for n in range(500)]
            results = (await client.post("/update-scores", json=updates)).json()["results"]
            accepted += sum(result.get("status") == "accepted" for result in results)
            codes = {result["code"] for result in results if "code" in result}
        assert codes == {"queue_full"}
        assert accepted > 2_000
        # A large envelope no longer fits; small ones do until nothing does.
        while (refused := await submit(client, "ann", f"point:{accepted}", wait=0)).status_code == 202:
            accepted += 1
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.elapsed.total_seconds() < 0.5 + SLACK_SECONDS

        async def later_the_longer_it_lasts() -> bool:
            answer = await submit(client, "ann", "point:more", wait=0)
            return 1 < int(answer.headers["retry-after"]) <= RETRY_MOST

        await until(later_the_longer_it_lasts)

        async def told() -> bool:
            ready = await client.get("/health/ready")
            figures = (await client.get("/metrics")).text
            return (
                ready.status_code == 200
                and ready.json()["engines"] == {"database": "away", "board": "ok", "queue": "full"}
                and 'scoreboard_engine_up{engine="database"} 0.0' in figures
                and 'scoreboard_engine_up{engine="board"} 1.0' in figures
                and figure(figures, 'scoreboard_queue_messages{partition="0"}') > 1
                and figure(figures, 'scoreboard_queue_age_seconds{partition="0"}') > 1
                and figure(figures, 'scoreboard_queue_bytes{which="bound"}') == 1 << 20
            )

        await until(told)
        await admin.execute(f'ALTER DATABASE "{deployment.name}" ALLOW_CONNECTIONS true')
        await admin.close()

        async def all_applied() -> bool:
            try:
                async with deployment.database() as connection:
                    return bool(await connection.fetchval("SELECT count(*) FROM events") == accepted)
            except asyncpg.PostgresError:
                return False

        async def room_again() -> bool:
            return (await submit(client, "ann", "point:more", wait=0)).status_code == 202

        await until(all_applied)
        await until(room_again)


def figure(figures: str, series: str) -> float:
    """One figure of ``GET /metrics``; -1 if it is not there."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", figures, re.MULTILINE)
    return float(found[1]) if found else -1.0


async def test_without_the_board_everything_goes_on_but_ranks(deployment: Deployment) -> None:
    nowhere = msgspec.structs.replace(deployment.environment, board_url="redis://127.0.0.1:1/0")
    deployment.settings = msgspec.structs.replace(deployment.settings, environment=nowhere)
    async with deployment.working(built=False), deployment.serving() as client:
        answer = await submit(client, "ann", "point:1")
        assert answer.json()["boards"]["main"] == {"score": 1, "rank": None, "previousRank": None}
        engines = (await client.get("/health/ready")).json()["engines"]
        assert engines == {"database": "ok", "board": "away", "queue": "ok"}


async def test_who_finds_no_place_to_wait_is_told_that_it_is_accepted(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment.working(), deployment.serving() as client:
        assert (await submit(client, "ann", "point:1")).json()["status"] == "applied"
        monkeypatch.setattr(outcomes, "WAITING", 0)
        answer = await submit(client, "ann", "point:2")
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        monkeypatch.setattr(outcomes, "WAITING", 1)  # whoever waited before has given the place back
        assert (await submit(client, "ann", "point:3")).json()["status"] == "applied"
        assert (await submit(client, "ann", "point:4")).json()["status"] == "applied"


async def test_retry_after_grows_with_what_waits_and_how_long_the_log_refuses(
    deployment: Deployment,
) -> None:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
        commit = GroupCommit(queue, Sealer("s" * 32), partitions=1, catalogue="c", inbox="")
        for seconds, least, most in ((0.001, 1, 1), (0.2, 8, 8), (3.0, RETRY_MOST, RETRY_MOST)):
            commit = GroupCommit(queue, Sealer("s" * 32), partitions=1, catalogue="c", inbox="")
            for _ in range(100):
                commit._synced(seconds, 500, 100_000)
            for number in range(WAITING_ENTRIES):
                commit.accept(Rename(number.to_bytes(16), "ann", "Ann", "user:ann"))
            with pytest.raises(QueueFull) as refused:
                commit.accept(Rename(b"x" * 16, "ann", "Ann", "user:ann"))
            assert least <= (refused.value.retry_after or 0) <= most
