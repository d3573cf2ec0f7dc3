"""Limits hold at any concurrency: many tries at the edge, several apis, several workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import SECONDS, at_once, bearer, free_port, is_ready, submit, until
from processes import settings_of, started
from scoreboard.config import Action, Config, Quarantine

CONFIG = Config(
    actions={
        "kill": Action(points=10, limit="3/week"),
        "wave": Action(points=1, cooldown="1h"),
        "first": Action(points=5, once=True),
        "win": Action(points=10, quarantine=Quarantine(points_per_hour=30)),
    }
)
FILE = """
[actions.kill]
points = 10
limit = "3/week"
"""


async def test_of_500_tries_at_one_below_the_limit_exactly_one_gets_in(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = await deploy(Config(actions={"kill": CONFIG.actions["kill"]}))
    (tmp_path / "scoreboard.toml").write_text(FILE)
    settings = settings_of(deployment)
    ports = [free_port(), free_port()]
    headers = bearer(deployment.key) | {"prefer": "wait=10"}
    async with (
        started("worker", cwd=tmp_path, settings=settings),
        started("worker", cwd=tmp_path, settings=settings),
        started("api", "--port", str(ports[0]), cwd=tmp_path, settings=settings),
        started("api", "--port", str(ports[1]), cwd=tmp_path, settings=settings),
        httpx.AsyncClient(headers=headers, timeout=SECONDS) as client,
    ):
        urls = [f"http://127.0.0.1:{port}/update-score" for port in ports]

        async def serve() -> bool:
            try:
                answers = [await client.get(url.replace("update-score", "health/ready")) for url in urls]
            except httpx.TransportError:
                return False
            return all(answer.status_code == 200 for answer in answers)

        await until(serve)

        for number, url in enumerate(urls):
            answer = await client.post(url, json={"userId": "ann", "actionId": f"kill:before-{number}"})
            assert answer.json()["status"] == "applied"
        bodies = [{"userId": "ann", "actionId": f"kill:{number}"} for number in range(500)]
        answers = [answer.json() for answer in await at_once(urls, headers, bodies)]
    told = Counter((answer["status"], answer.get("reason")) for answer in answers)
    assert told == {("applied", None): 1, ("rejected", "limit"): 499}
    async with deployment.database() as connection:
        assert await connection.fetchval("SELECT score FROM scores WHERE user_id = 'ann'") == 30
        outcomes = await connection.fetch("SELECT outcome, count(*) FROM events GROUP BY outcome")
        assert dict(outcomes) == {"applied": 3, "rejected": 499}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def client(deploy: Deploy) -> Any:
    deployment = await deploy(CONFIG)
    async with deployment.running() as running:
        await until(lambda: is_ready(running))
        yield running


async def test_a_refusal_tells_why_and_when_another_can_succeed(client: httpx.AsyncClient) -> None:
    assert (await submit(client, "cat", "wave:1")).json()["status"] == "applied"
    refused = (await submit(client, "cat", "wave:2")).json()
    assert (refused["status"], refused["reason"]) == ("rejected", "cooldown")
    state = (await client.get(f"/events/{refused['eventId']}")).json()
    assert (state["status"], state["reason"], state["retryAt"]) == (
        "rejected",
        "cooldown",
        refused["retryAt"],
    )
    first = (await client.get("/users/cat/events")).json()["events"][-1]
    waited = datetime.fromisoformat(refused["retryAt"]) - datetime.fromisoformat(first["at"])
    assert abs(waited.total_seconds() - 3600) < 0.002  # both are told to the millisecond


async def test_the_same_event_is_judged_once_and_answered_the_same_again(client: httpx.AsyncClient) -> None:
    answers = [(await submit(client, "dan", f"wave:{n}")).json() for n in (1, 2, 2)]
    assert answers[1] == answers[2]
    again = (await submit(client, "dan", "wave:1")).json()
    assert (again["status"], again["duplicate"]) == ("applied", True)


async def test_once_is_once_for_each_user(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(submit(client, "eve", f"first:{n}") for n in range(20)))
    assert Counter(answer.json()["status"] for answer in answers) == {"applied": 1, "rejected": 19}
    rejected = next(answer.json() for answer in answers if answer.json()["status"] == "rejected")
    assert "retryAt" not in rejected, "there is no such time"
    assert (await submit(client, "fay", "first:1")).json()["status"] == "applied"


async def test_what_is_implausible_is_held_back_and_scores_nothing(client: httpx.AsyncClient) -> None:
    statuses = [(await submit(client, "gus", f"win:{n}")).json()["status"] for n in range(5)]
    assert statuses == ["applied"] * 3 + ["quarantined"] * 2
    assert (await client.get("/boards/main/users/gus")).json()["score"] == 30


async def test_a_rule_that_was_off_for_a_while_knows_what_counted_meanwhile(deploy: Deploy) -> None:
    deployment = await deploy(CONFIG)
    told = []
    for rule, numbers in (("3/week", (1,)), (None, (2, 3, 4)), ("3/week", (5,))):
        actions = {"kill": Action(points=10, limit=rule)}
        config = msgspec.structs.replace(deployment.config, actions=actions)
        deployment.settings = msgspec.structs.replace(deployment.settings, config=config)
        async with deployment.running() as client:
            told += [(await submit(client, "hal", f"kill:{n}")).json()["status"] for n in numbers]
    assert told == [*["applied"] * 4, "rejected"]
