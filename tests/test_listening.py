"""When ``up`` says that it is ready."""

from __future__ import annotations

import asyncio

import pytest

from deployment import Deployment
from scoreboard import listening

LIMIT = 2.0  # seconds


async def test_a_start_waits_for_boards_that_are_being_built_however_long_it_takes(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "READY_SECONDS", LIMIT)
    async with deployment.serving() as client:  # nobody builds a board yet
        ready = asyncio.create_task(listening.until_ready(str(client.base_url).rstrip("/")))
        await asyncio.wait([ready], timeout=2 * LIMIT)
        assert not ready.done()
        async with deployment.working():
            await ready
