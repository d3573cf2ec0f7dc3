"""For the tests of the door: deployments that take updates, and one that refuses all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployment import Deployment
from scoreboard.config import Action, Auth, Board, Config
from scoreboard.issuers import Issuer

SIGNER = Ed25519PrivateKey.generate()
PEM = SIGNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
CONFIG = Config(
    actions={
        "point": Action(points=1),
        "win": Action(points=10),
        "cheer": Action(points=5, policy="open"),
        "fine": Action(points=-3),
    },
    boards={"main": Board(), "wins": Board(actions=("win",))},
    auth=Auth(
        local=True,
        issuers=(Issuer(issuer="https://id.example", algorithms=("EdDSA",), keys=(PEM,)),),
    ),
)


@pytest.fixture
async def deployment(deploy: Any) -> Deployment:
    made: Deployment = await deploy(CONFIG)
    return made


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


@pytest.fixture(scope="module")
async def door(deploy: Any) -> AsyncIterator[httpx.AsyncClient]:
    """For what is refused: it leaves nothing behind, so one deployment does for all."""
    async with (await deploy(CONFIG)).running() as made:
        yield made
        assert (await made.get("/boards/main")).json()["total"] == 0
