"""``Prefer: wait`` behind a backlog: whoever waits is told, however many are applied in one transaction."""

from __future__ import annotations

import asyncio

from deployment import Deployment, until
from scoreboard.queue import Queue

REQUESTS, EACH = 20, 500


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
