"""Real processes: ``scoreboard up`` and single roles, as an operator starts them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from click.testing import CliRunner

from deployment import SECONDS, Deployment
from scoreboard.cli import main

COMMAND = (sys.executable, "-m", "scoreboard.cli")


class Program:
    """One ``scoreboard`` command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def ready(self) -> str:
        """The URL of its ``ready`` line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(3 * SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                if line.startswith("ready "):
                    self.url = line.split()[1]
                    return self.url
        raise AssertionError(f"it ended without being ready, with {await self.process.wait()}")

    def children(self) -> dict[str, psutil.Process]:
        """Its children by what the process list calls them."""
        found = {}
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                line = child.cmdline()
                name = line[0] if line and line[0].startswith("scoreboard") else Path((line or ["?"])[0]).name
                found[name] = child
        return found

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 2 * SECONDS)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: ours without settings, and these."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SCOREBOARD_")} | dict(extra)


def settings_of(deployment: Deployment) -> dict[str, str]:
    """A deployment's engines and secret, as variables for single roles."""
    outer = deployment.environment
    return {
        "SCOREBOARD_RATE_LIMITS_ENABLED": str(deployment.config.rate_limits.enabled).lower(),
        "SCOREBOARD_DATABASE_URL": outer.database,
        "SCOREBOARD_QUEUE_URL": outer.queue,
        "SCOREBOARD_BOARD_URL": outer.board,
        "SCOREBOARD_SECRET": outer.secret or "",
        "SCOREBOARD_NAMESPACE": deployment.name,
    }


@asynccontextmanager
async def started(
    *argv: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    program: tuple[str, ...] = COMMAND,
) -> AsyncIterator[Program]:
    """A command in a folder, for as long as the block runs; killed if it does not end by itself then."""
    with (cwd / f"{argv[0] if argv else 'program'}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *program,
            *argv,
            cwd=cwd,
            env=environment(settings or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    running = Program(process)
    try:
        yield running
    finally:
        try:
            await running.stop()
        except TimeoutError:
            process.kill()
            await process.wait()


def assert_one_error(err: str) -> None:
    """What a command wrote to standard error: any log lines, then one line that says what is wrong."""
    *before, last = err.splitlines()
    assert last.startswith("scoreboard: "), err
    assert all(line.startswith("{") and '"level":"info"' in line for line in before), err


async def run(*argv: str, cwd: Path, settings: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command to its end: (exit status, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *argv,
        cwd=cwd,
        env=environment(settings or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 3 * SECONDS)
    return process.returncode or 0, out.decode(), err.decode()


async def command(*argv: str, cwd: Path, settings: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Like ``run``, in a thread of this process: where what a command does is tested, not how it starts."""
    file = cwd / "scoreboard.toml"
    where = ["--data", str(cwd / "scoreboard-data"), *(["--config", str(file)] if file.exists() else [])]
    found = await asyncio.to_thread(CliRunner().invoke, main, [*argv, *where], env=settings)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr
