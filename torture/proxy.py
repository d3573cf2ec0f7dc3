"""A network between a role and an engine: it can be slow, silent, or cut.

In come connections on loopback, out go the same bytes to the engine, later or not at all. It understands
nothing of what passes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from scoreboard.engines.server import LOOPBACK

CHUNK_BYTES = 65_536
SLOW_SECONDS = 0.15  # each way: what one sees from the other side of the world

Line = Literal["open", "slow", "silent", "cut"]


class Proxy:
    """Stands before one engine, for as long as the block runs. ``line`` says how the network is."""

    def __init__(self, engine: Path | int) -> None:
        self._engine = engine
        """Its Unix socket, or its port on loopback."""
        self._line: Line = "open"
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.line = "cut"

    @property
    def line(self) -> Line:
        """How the network is now."""
        return self._line

    @line.setter
    def line(self, line: Line) -> None:
        self._line = line
        if line == "silent":
            self._flows.clear()
        else:
            self._flows.set()
        if line == "cut":
            for end in self._ends:
                end.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        ends = [client]
        try:
            if self._line == "cut":
                return
            answers, engine = await (
                asyncio.open_unix_connection(str(self._engine))
                if isinstance(self._engine, Path)
                else asyncio.open_connection(LOOPBACK, self._engine)
            )
            ends.append(engine)
            self._ends.update(ends)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, engine))
                tasks.create_task(self._pass(answers, client))
        except* (OSError, EOFError):
            pass
        finally:
            self._ends.difference_update(ends)
            for end in ends:
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            if self._line == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            await self._flows.wait()
            sink.write(data)
            await sink.drain()
        raise EOFError
