"""For the tests of services' keys: a deployment in which they are made, and its database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployment import Deployment
from scoreboard.config import Action, Config, RateLimits
from scoreboard.config import Auth as AuthTable
from scoreboard.database import Database
from scoreboard.issuers import Issuer
from scoreboard.model import Scope
from scoreboard.rates import Rates
from signing import Signer

GAME = Signer()
CONFIG = Config(
    actions={
        "win": Action(points=10),
        "cheer": Action(points=5, policy="open"),
        "boss-kill": Action(points=100, policy="grant"),
        "quest": Action(points=50, policy="grant"),
    },
    auth=AuthTable(grant_issuers=(Issuer(issuer="game-server", algorithms=("EdDSA",), keys=(GAME.pem,)),)),
)
WRITE = [Scope.SCORE_WRITE]
RATES = Rates(RateLimits())


@pytest.fixture(scope="module")
async def deployment(deploy: Any) -> Deployment:
    made: Deployment = await deploy(CONFIG)
    return made


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


@pytest.fixture
async def database(deployment: Deployment) -> AsyncIterator[Database]:
    async with Database.open(deployment.database_url) as made:
        yield made
