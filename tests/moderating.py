"""For the tests of moderation: a deployment with a service and an admin, and what they do there."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from conftest import Deploy
from deployment import Deployment, bearer, submit, until
from scoreboard.config import Action, Board, Config, Quarantine, Queue
from scoreboard.model import SCORE_LIMIT, Scope

ACTIONS = {
    "point": Action(points=1),
    "big": Action(points=SCORE_LIMIT),
    "loss": Action(points=-5),
    "visit": Action(points=0),
    "wave": Action(points=1, cooldown="1h"),
    "win": Action(points=10, quarantine=Quarantine(points_per_hour=10)),
}


class Moderated:
    """A running deployment, a service and an admin."""

    def __init__(self, deployment: Deployment, service: httpx.AsyncClient, admin: str) -> None:
        self.deployment, self.service, self.admin = deployment, service, bearer(admin)

    async def act(self, what: str, **body: Any) -> dict[str, Any]:
        """Carry out an act; its answer."""
        answer = await self.service.post(f"/admin/{what}", json=body, headers=self.admin)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def line(self, user: str) -> dict[str, Any]:
        """A user's own line."""
        found: dict[str, Any] = (await self.service.get(f"/boards/main/users/{user}")).json()
        return found

    async def ranked(self, user: str) -> bool:
        """Is the board told at once what happens in the user's partition? Not until it has caught up."""
        answer = (await submit(self.service, user, f"loss:{uuid4()}")).json()
        return bool(answer["boards"]["main"]["rank"])

    async def state(self, event: str) -> Any:
        """What became of an event."""
        return (await self.service.get(f"/events/{event}")).json()["status"]

    async def score(self, user: str, *actions: str) -> list[str]:
        """Report actions; their event ids."""
        return [(await submit(self.service, user, action)).json()["eventId"] for action in actions]


@pytest.fixture(scope="module", params=[1, 3], ids=["1 partition", "3 partitions"])
async def place(deploy: Deploy, request: pytest.FixtureRequest) -> Any:
    config = Config(actions=ACTIONS, boards={"main": Board()}, queue=Queue(partitions=request.param))
    deployment = await deploy(config)
    admin = await deployment.make_key(Scope.ADMIN)
    async with deployment.running() as client:
        place = Moderated(deployment, client, admin)
        await asyncio.gather(*(until(partial(place.ranked, f"early-{n}")) for n in range(12)))
        yield place
