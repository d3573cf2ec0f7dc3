"""The interface does what its OpenAPI document says, whatever is thrown at it: all checks of Schemathesis."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment
from processes import environment
from scoreboard.config import Action, Board, Config
from scoreboard.errors import PROBLEMS
from scoreboard.model import Scope

CONFIG = Config(
    actions={
        "point": Action(points=1),
        "cheer": Action(points=1, policy="open", cooldown="1s", limit="5/day"),
        "boss-kill": Action(points=100, policy="grant"),
    },
    boards={"main": Board(), "inner": Board(public=False)},
)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


@pytest.fixture(scope="module")
async def operations(client: httpx.AsyncClient) -> dict[tuple[str, str], Any]:
    paths = (await client.get("/docs/openapi.json")).json()["paths"]
    return {(method, path): one for path, methods in paths.items() for method, one in methods.items()}


async def test_every_operation_answers_as_documented(
    deployment: Deployment, client: httpx.AsyncClient, operations: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    key = await deployment.make_key(*Scope)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml"),
        *("run", f"{client.base_url}/docs/openapi.json", "--url", str(client.base_url)),
        *("--header", f"Authorization:Bearer {key}", "--checks", "all", "--continue-on-failure"),
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(HERE)}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 6 * SECONDS)
    assert process.returncode == 0, out.decode()
    assert f"Tested: {len(operations) - 1}\n" in out.decode()  # all but the stream, which has no end


def test_every_operation_says_how_it_may_be_refused(operations: dict[tuple[str, str], Any]) -> None:
    for (method, path), operation in operations.items():
        refusals = " ".join(answer["description"] for answer in operation["responses"].values())
        if operation.get("security"):
            for code in ("missing_token", "invalid_token", "token_expired", "rate_limited"):
                assert code in refusals, (method, path, code)
        if "requestBody" in operation:
            for code in ("origin_denied", "malformed_json", "payload_too_large", "unsupported_media_type"):
                assert code in refusals, (method, path, code)
        assert set(re.findall(r"`([a-z]+_[a-z_]+)`", refusals)) <= PROBLEMS.keys(), path
