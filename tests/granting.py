"""For the tests of grants: who issues them, a deployment that takes them, and what a user has by them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployment import Deployment, submit
from scoreboard.config import Action, Auth, Config
from scoreboard.event_ids import event_id_of_grant
from scoreboard.issuers import Issuer
from signing import Signer

GAME, EC, SPACED = Signer("EdDSA"), Signer("ES256"), Signer("EdDSA")
CONFIG = Config(
    actions={
        "boss-kill": Action(points=100, policy="grant"),
        "win": Action(points=10),
        "cheer": Action(points=5, policy="open"),
    },
    auth=Auth(
        grant_issuers=(
            Issuer(issuer="game-server", algorithms=("EdDSA",), keys=(GAME.pem,)),
            Issuer(issuer="ec-server", algorithms=("ES256",), keys=(EC.pem,)),
            Issuer(issuer="ec-server 2", algorithms=("EdDSA",), keys=(SPACED.pem,)),
        )
    ),
)
EVENT = str(event_id_of_grant("game-server", "one"))


@pytest.fixture(scope="module")
async def deployment(deploy: Any) -> Deployment:
    made: Deployment = await deploy(CONFIG)
    return made


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


async def total(client: httpx.AsyncClient, user: str) -> int:
    answer = await client.get(f"/boards/main/users/{user}")
    score: int = answer.json().get("score") or 0
    return score


async def granted(client: httpx.AsyncClient, deployment: Deployment, user: str, grant: str) -> httpx.Response:
    return await submit(client, user, grant, credentials=deployment.token(user))
