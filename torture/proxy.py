"""A network between a role and an engine: it can be slow, silent, or cut.

In come connections on loopback, out go the same bytes to the engine, later or not at all. It understands
nothing of what passes. It runs in a process of its own, ``python proxy.py ENGINE``, so that it is as slow as
it is told to be, and not as its creator: it prints its port, and is told by lines how the network is.
"""

from __future__ import annotations

import asyncio
import os
import sys
from types import TracebackType
from typing import Literal, Self

from scoreboard.engines.server import LOOPBACK

CHUNK_BYTES = 65_536
SLOW_SECONDS = 0.15  # each way: what one sees from the other side of the world

Line = Literal["open", "slow", "silent", "cut"]


class Proxy:
    """A proxy's process, for as long as the block runs.

    Args:
        engine: where the engine listens: the path of a Unix socket, or a port on loopback.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, self._engine),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def set(self, line: Line) -> None:
        """From now on the network is like this."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())


class Forwarder:
    """What the process does."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._line = "open"
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Serve until standard input ends."""
        server = await asyncio.start_server(self._meet, LOOPBACK, 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            self._line = line
            if line == "silent":
                self._flows.clear()
            else:
                self._flows.set()
            if line == "cut":
                for end in self._ends:
                    end.transport.abort()
        os._exit(0)

    async def _meet(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        ends = [client]
        try:
            if self._line == "cut":
                return
            answers, engine = await (
                asyncio.open_connection(LOOPBACK, int(self._engine))
                if self._engine.isdecimal()
                else asyncio.open_unix_connection(self._engine)
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


if __name__ == "__main__":
    asyncio.run(Forwarder(sys.argv[1]).run())
