"""Each process imports what it works with and no more: that is most of the time which a start takes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

SERVING = {"litestar", "uvicorn", "websockets"}
COMMAND = str(Path(sys.executable).parent / "scoreboard")
ENGINES = "scoreboard.engines.nats, scoreboard.engines.postgres, scoreboard.engines.valkey"


async def imported(*arguments: str) -> tuple[int | None, set[str]]:
    """How a Python process ended, and which packages it had imported."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", *arguments),
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("SCOREBOARD_")},
    )
    _, told = await process.communicate()
    lines = [line for line in told.decode().splitlines() if line.startswith("import time:")]
    return process.returncode, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


async def test_a_worker_does_without_what_serves() -> None:
    code, packages = await imported("-m", "scoreboard.app", "worker")  # no engine is given: it ends at once
    assert code == os.EX_CONFIG
    assert {"asyncpg", "nats", "redis"} <= packages
    assert not packages & {*SERVING, "httpx"}


async def test_the_supervisor_does_without_what_its_children_work_with() -> None:
    code, packages = await imported("-c", f"import scoreboard.cli.serve, scoreboard.supervisor, {ENGINES}")
    assert code == 0
    assert {"click", "msgspec"} <= packages
    assert not packages & {*SERVING, "httpx", "asyncpg", "nats", "redis", "cryptography"}


@pytest.mark.parametrize("subcommand", ["--help", "up --help", "score --help"])
async def test_help_does_without_nearly_everything(subcommand: str) -> None:
    code, packages = await imported(COMMAND, *subcommand.split())
    assert code == 0
    assert "click" in packages
    assert not packages & {*SERVING, "httpx", "asyncpg", "nats", "redis", "cryptography", "uvloop"}


async def test_who_serves_does_without_an_http_client() -> None:
    code, packages = await imported("-c", "import scoreboard.app.__main__, scoreboard.app.serving")
    assert code == 0
    assert packages >= SERVING
    assert "httpx" not in packages
