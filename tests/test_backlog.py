"""A backlog: it is applied in large transactions, whose size is bounded, and whoever waits is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployment import Deployment, until
from scoreboard import ledger, worker
from scoreboard.book import Applied
from scoreboard.queue import Queue

REQUESTS, EACH = 20, 500
BOUND = 2_000


async def test_all_who_wait_for_a_large_batch_are_told(deployment: Deployment) -> None:
    async with (
        deployment.serving() as client,
        Queue.open(deployment.environment.queue, deployment.config.namespace, "test") as queue,
    ):

        async def all_are_in_the_log() -> bool:
            return (await queue.state()).last >= REQUESTS

        async def report(request: int) -> list[str]:
            updates = [
                {"userId": f"user-{request}-{n}", "actionId": f"point:{request}-{n}"} for n in range(EACH)
            ]
            answer = await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
            return [one["status"] for one in answer.json()["results"]]

        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(report(request)) for request in range(REQUESTS)]
            await until(all_are_in_the_log)
            async with deployment.working():
                await asyncio.wait(waiting)
    assert [task.result() for task in waiting] == [["applied"] * EACH] * REQUESTS


async def test_a_transaction_holds_no_more_than_it_may(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    apply = ledger.apply

    async def counted(connection: Any, batch: ledger.Batch, *args: Any, **how: Any) -> Applied:
        sizes.append(len(batch.accepted))
        return await apply(connection, batch, *args, **how)

    monkeypatch.setattr(ledger, "apply", counted)
    monkeypatch.setattr(worker, "BATCH_ENTRIES", BOUND)
    async with deployment.serving() as client:
        for request in range(REQUESTS):
            updates = [{"userId": f"user-{n}", "actionId": f"point:{request}-{n}"} for n in range(EACH)]
            results = (await client.post("/update-scores", json=updates)).json()["results"]
            assert [one["status"] for one in results] == ["accepted"] * EACH
        async with deployment.working():
            await deployment.ledger_holds(REQUESTS * EACH)
    assert sum(sizes) == REQUESTS * EACH
    assert max(sizes) == BOUND, "the bound is kept, and reached"
