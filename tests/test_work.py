"""How much is done for an update, counted instead of timed: it must not grow unnoticed.

A bound that is passed is no bug by itself. Whoever raises it says what the work is for, and what
``make bench`` says of it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import asyncpg
import httpx
import pytest

from deployment import Deployment, frame, frame_with, submit, watching
from plain_board import board_on, row, running, told
from scoreboard import drift, group_commit
from scoreboard.envelope import Sealer
from scoreboard.group_commit import GroupCommit
from scoreboard.model import Rename
from scoreboard.queue import Queue

MANY = 1_000
ENVELOPES = MANY // 500
# BEGIN, cursor, known events, users, scores; ledger, totals; COMMIT.
STATEMENTS = 8
COMMANDS = 18  # of Valkey for a batch, those within the script included
REQUESTS = 5
CALLS = 22  # Python functions an update, from the request's body to the commit, among 500


async def accept(client: httpx.AsyncClient, word: str, count: int) -> None:
    """Report so many actions, of as many users, in one request."""
    updates = [{"userId": f"u{n}", "actionId": f"point:{word}{n}"} for n in range(count)]
    results = (await client.post("/update-scores", json=updates)).json()["results"]
    assert [result["status"] for result in results] == ["accepted"] * count


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The statements of each transaction of the connections that are opened from now on."""
    found: list[list[str]] = []
    connect = asyncpg.connect

    async def listened_to(*args: Any, **settings: Any) -> Any:
        connection = await connect(*args, **settings)
        if settings.get("server_settings", {}).get("application_name") == "scoreboard worker":
            connection.add_query_logger(said)
        return connection

    def said(logged: Any) -> None:
        if logged.query.startswith("BEGIN"):
            found.append([])
        if found:
            found[-1].append(logged.query)

    monkeypatch.setattr(asyncpg, "connect", listened_to)
    return found


async def test_a_batch_takes_the_same_few_statements_whatever_it_holds(
    deployment: Deployment, transactions: list[list[str]]
) -> None:
    async with deployment.serving() as client, deployment.working():
        await accept(client, "first", 1)  # the driver asks for the types of the columns
        await deployment.ledger_holds(1)
        for count, total in ((1, 2), (MANY, MANY + 2)):
            transactions.clear()
            await accept(client, f"{total}-", count)
            await deployment.ledger_holds(total)
            assert 1 <= len(transactions) <= ENVELOPES
            for statements in transactions:
                whole = statements[: 1 + next(n for n, one in enumerate(statements) if "COMMIT" in one)]
                assert len(whole) <= STATEMENTS, whole


async def test_a_thousand_updates_at_once_take_two_synced_publishes(deployment: Deployment) -> None:
    async with (
        deployment.serving() as client,
        Queue.open(deployment.environment.queue, deployment.name, "test") as queue,
    ):
        before = (await queue.state()).last
        await accept(client, "", MANY)
        assert (await queue.state()).last - before == ENVELOPES


async def test_what_comes_with_each_turn_of_the_loop_takes_one_publish(deployment: Deployment) -> None:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
        commit = GroupCommit(queue, Sealer("s" * 32), partitions=1, catalogue="c", inbox="")
        loop = asyncio.get_running_loop()
        accepted: list[asyncio.Future[None]] = []

        def come() -> None:
            accepted.append(commit.accept(Rename(b"%16d" % len(accepted), "ann", "Ann", "user:ann")))
            if len(accepted) < 10:
                loop.call_soon(come)

        running = asyncio.create_task(commit.run())
        come()
        await asyncio.wait(accepted[:1])
        assert (await queue.state()).last == 1
        assert all(one.done() for one in accepted)
        assert len(accepted) == 10
        running.cancel()
        await asyncio.wait([running])


async def test_an_envelope_does_not_wait_while_more_and_more_comes(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "ENTRIES", group_commit.WAITING_ENTRIES * 2)  # it is never full
    publishing, publish = asyncio.Event(), Queue.publish

    async def noted(self: Queue, partition: int, body: bytes) -> int:
        publishing.set()
        return await publish(self, partition, body)

    monkeypatch.setattr(Queue, "publish", noted)
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
        commit = GroupCommit(queue, Sealer("s" * 32), partitions=1, catalogue="c", inbox="")
        running = asyncio.create_task(commit.run())
        accepted: list[asyncio.Future[None]] = []
        while not publishing.is_set():
            accepted.append(commit.accept(Rename(b"%16d" % len(accepted), "ann", "Ann", "user:ann")))
            await asyncio.sleep(0)
        await asyncio.wait(accepted)
        assert all(one.exception() is None for one in accepted)
        running.cancel()
        await asyncio.wait([running])


async def test_a_change_makes_one_frame_and_one_that_nobody_sees_makes_none(deployment: Deployment) -> None:
    async with deployment.running() as client:
        for word in ("a", "b"):
            await accept(client, word, 10)
        await deployment.ledger_holds(20)
        async with watching(client) as screen:
            top = [(f"u{n}", 2) for n in range(10)]
            shown = await frame_with(screen, top)
            await submit(client, "below", "point:1")  # the eleventh
            await submit(client, "u0", "point:more")
            after = await frame(screen)
            assert after["seq"] == shown["seq"] + 1
            assert (after["top"][0]["score"], after["total"]) == (3, 11)
            await accept(client, "c", MANY)  # all at once: the top changes with each message at most
            await deployment.ledger_holds(22 + MANY)
            await frame_with(screen, [("u0", 4), *((f"u{n}", 3) for n in range(1, 10))])
            last = (await client.get("/boards/main")).json()
            assert last["seq"] <= shown["seq"] + 1 + ENVELOPES


async def test_a_batch_is_one_script_and_a_fixed_number_of_commands(tmp_path: Path) -> None:
    async with running(tmp_path) as server, board_on(server) as board, server.client() as redis:
        counts = []
        for number, users in enumerate((10, MANY), 1):
            await told(board, *(row(f"u{n}", n, number * MANY + n) for n in range(users)))  # all are new
            await redis.config_resetstat()
            await told(board, *(row(f"u{n}", 2 * n, (number + 2) * MANY + n) for n in range(users)))
            stats = await redis.info("commandstats")
            counts.append(
                {name: one["calls"] for name, one in stats.items() if not name.startswith("cmdstat_config")}
            )
        few, many = counts
        assert few == many
        assert many["cmdstat_evalsha"] == 1
        assert sum(many.values()) <= COMMANDS, many


@contextmanager
def counted() -> Iterator[Counter[CodeType]]:
    """How often each Python function was called meanwhile in this thread."""
    calls: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            calls[frame.f_code] += 1

    previous = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(previous)


async def test_an_update_among_many_takes_few_calls(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "STEP_SECONDS", 3600.0)
    async with deployment.running() as client:
        await accept(client, "first", MANY)
        await deployment.ledger_holds(MANY)
        with counted() as calls:
            for n in range(REQUESTS):
                await accept(client, f"{n}-", MANY)
            await deployment.ledger_holds((1 + REQUESTS) * MANY)
    updates = REQUESTS * MANY
    # What is called less often is done for an envelope, or again and again as time goes by.
    each = [(code.co_qualname, n / updates) for code, n in calls.items() if n >= updates]
    assert sum(n for _, n in each) <= CALLS, each
