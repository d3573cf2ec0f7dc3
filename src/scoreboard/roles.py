"""The roles that ``scoreboard up`` runs: which processes they are, and one keeper for each.

In: the options and the listening socket. Out: child processes that are started again when they die. A keeper
must never restart a child that has said that starting it again does not help (``EX_CONFIG``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from scoreboard import metrics
from scoreboard.engines import Engines
from scoreboard.engines.process import Backoff, Process
from scoreboard.engines.server import outcome
from scoreboard.errors import EX_CONFIG, ConfigurationError

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0  # for a role to drain; a request waits no longer than that (`Prefer: wait`)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What ``scoreboard up`` is asked to do."""

    config: Path | None
    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    processes: int = 1
    demo: bool = False


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep alive."""

    role: str
    argv: tuple[str, ...]
    fds: tuple[int, ...] = ()
    """What it inherits besides the standard streams."""
    after_ready: bool = False
    """Does it need the HTTP API to start with?"""


Children = Callable[[Options, int, str], Sequence[Child]]
"""From the options, the listening socket and the base URL to the children, in the order of starting."""


def children(options: Options, fd: int, url: str) -> list[Child]:
    """The roles of the flow: the worker, the servers, and with ``demo`` the imaginary players."""
    app = (sys.executable, "-m", "scoreboard.app")
    demo = ("--demo",) if options.demo else ()
    serve = (*app, "api+live", "--fd", str(fd), *demo)
    found = [Child(role="worker", argv=(*app, "worker", *demo))]
    found += [Child(role="api+live", argv=serve, fds=(fd,)) for _ in range(options.processes)]
    if options.demo:
        found.append(Child(role="demo", argv=(*app, "demo", "--url", url), after_ready=True))
    return found


class Keeper:
    """Keeps one child alive."""

    def __init__(self, child: Child, number: int, env: dict[str, str], engines: Engines) -> None:
        self.child = child
        self._name = f"{child.role} {number}"
        self._env = env
        self._engines = engines
        self._process: Process | None = None

    async def keep(self) -> None:
        """Starts the child, and again whenever it has died. Runs until cancelled.

        Raises:
            ConfigurationError: it says that it cannot run with this configuration.
        """
        role, backoff = self.child.role, Backoff()
        while True:
            self._process = process = await Process.spawn(
                self.child.argv, env=self._env, pass_fds=self.child.fds
            )
            if self._engines.leftovers is not None:
                self._engines.leftovers.remember(self._name, process.pid)
            code = await process.wait()
            metrics.forget(self._env, process.pid)
            if code == EX_CONFIG:
                raise ConfigurationError(f"the {role} cannot run with this configuration; it says why above")
            delay = backoff.after(process.age)
            logger.error("%s has died (%s); starting again in %.1f s", role, outcome(code), delay)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Has the child drain and end; kills it if that takes too long."""
        if self._process is not None and not await self._process.stop(signal.SIGTERM, STOP_SECONDS):
            logger.warning("%s had to be killed after %.0f s", self.child.role, STOP_SECONDS)

    def kill(self) -> None:
        """Ends the child at once."""
        if self._process is not None:
            self._process.send(signal.SIGKILL)
