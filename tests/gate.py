"""A gate before a real server: it passes bytes on, refuses some requests, and cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from deployment import SECONDS

_REQUEST = re.compile(rb"^(?:GET|POST|PUT|OPTIONS|HEAD) \S+ HTTP/1\.1\r\n", re.MULTILINE)


class Gate:
    """What stands in the way."""

    def __init__(self, server: str) -> None:
        self.server = server
        """The URL of the server behind; may change."""
        self.url = ""
        """Where clients find the gate."""
        self.blocked: list[str] = []
        """A request with one of these in its head ends with its connection."""
        self.answers: list[bytes] = []
        """Given to the next requests instead of the server's, one each."""
        self.requests: list[str] = []
        """The first lines of all requests, and their heads' other lines."""
        self._links: dict[asyncio.StreamWriter, str] = {}
        self._more = asyncio.Event()

    def seen(self, part: str) -> list[str]:
        """The requests so far with this in their heads."""
        return [request for request in self.requests if part in request]

    def open(self, part: str) -> int:
        """How many connections are open whose newest request has this in its head."""
        return sum(part in head for head in self._links.values())

    async def until(self, part: str, count: int = 1) -> None:
        """Wait for so many requests with this in their heads."""
        async with asyncio.timeout(SECONDS):
            while len(self.seen(part)) < count:
                self._more.clear()
                await self._more.wait()

    def inject(self, data: bytes) -> None:
        """Say something to all clients in the server's name."""
        for client in self._links:
            client.write(data)

    def cut(self) -> None:
        """End all connections at once, as a network does."""
        for client in list(self._links):
            client.close()

    async def meet(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """A client connects."""
        parts = urlsplit(self.server)
        try:
            answers, server = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            client.transport.abort()
            return
        self._links[client] = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._back(answers, client))
                await self._forth(reader, client, server)
        except* (OSError, EOFError):
            pass
        finally:
            del self._links[client]
            for end in (client, server):
                end.transport.abort()

    async def _forth(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65_536):
            for found in _REQUEST.finditer(data):
                head = data[found.start() :].partition(b"\r\n\r\n")[0].decode("latin-1")
                self.requests.append(head)
                self._links[client] = head
                self._more.set()
                if any(part in head for part in self.blocked):
                    raise EOFError
                if self.answers:
                    client.write(self.answers.pop(0))
                    await client.drain()
                    raise EOFError
            server.write(data)
            await server.drain()
        raise EOFError

    async def _back(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await answers.read(65_536):
            client.write(data)
            await client.drain()
        raise EOFError


@asynccontextmanager
async def gate(server: str) -> AsyncIterator[Gate]:
    """A gate before a server, for as long as the block runs."""
    standing = Gate(server.rstrip("/"))
    listener = await asyncio.start_server(standing.meet, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    standing.url = f"http://127.0.0.1:{port}"
    try:
        yield standing
    finally:
        listener.close()
        standing.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await listener.wait_closed()
