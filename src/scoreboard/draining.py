"""How a process that serves ends: in the order of the flow, within a deadline, nobody left without an answer.

1. It stops listening. Connections that wait in the kernel's queue are taken over first: closing the socket
   would reset them. (One that arrives between the last look and the close, microseconds later, still is.)
2. Watching clients are told when to come back, and closed.
3. Requests go on being answered, each answer with ``Connection: close``, so that a client that keeps its
   connection does not use it again. Where nothing was asked for ``LINGER_SECONDS``, the connection is closed;
   a request that crosses this close is not answered, and its client sends it again.
4. Who still waits for an outcome (``Prefer: wait``) shortly before the deadline is told that it is accepted.

In comes the wish to stop, out goes a server without connections. Signals are the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from scoreboard.api.connection import Http
from scoreboard.api.deadlines import Deadlines
from scoreboard.api.outcomes import Outcomes
from scoreboard.live import Hubs

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 8.0  # how long open requests may take to end; the supervisor kills after 10
RELEASE_SECONDS = 1.0  # before that, nobody waits for outcomes any more
LINGER_SECONDS = 1.0  # a client that keeps its connection busy has used it within that, and knows
LOOK_SECONDS = 0.02


class Server(uvicorn.Server):
    """uvicorn, with an end of our own, and without its ideas about signals."""

    def __init__(
        self,
        config: uvicorn.Config,
        deadlines: Deadlines,
        hubs: Hubs | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        super().__init__(config)
        self._deadlines, self._hubs, self._outcomes = deadlines, hubs, outcomes

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Return when all connections are gone, or after ``DRAIN_SECONDS`` with the rest cut off."""
        end = asyncio.get_running_loop().time() + DRAIN_SECONDS
        self._deadlines.draining = True
        await self._stop_listening(sockets or [])
        for connection in self._requests():
            connection.last_one()
        async with asyncio.TaskGroup() as tasks:
            if self._hubs is not None:
                tasks.create_task(self._hubs.drain(DRAIN_SECONDS))
            await self._requests_end(end)
        await self._until(end, lambda: not self.server_state.connections)
        for task in list(self.server_state.tasks):
            task.cancel()
        if self.server_state.connections:
            logger.warning("%d connections did not end in time", len(self.server_state.connections))
        for server in self.servers:
            await server.wait_closed()

    async def _requests_end(self, end: float) -> None:
        await self._until(end - DRAIN_SECONDS + LINGER_SECONDS, lambda: not self._requests())
        for connection in self._requests():
            connection.shutdown()  # closes it if it is idle
        await self._until(end - RELEASE_SECONDS, lambda: not self._requests())
        if self._outcomes is not None:
            self._outcomes.release()
        await self._until(end, lambda: not self._requests())

    @staticmethod
    async def _until(end: float, done: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while not done() and loop.time() < end:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(LOOK_SECONDS)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        held: list[socket.socket] = []
        with contextlib.suppress(OSError):  # no descriptor is left for them
            held += [sock.dup() for sock in sockets]  # until they are empty
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        waiting = []
        for sock in held:
            # Without a pause, lest those who are answered meanwhile come again and again.
            with sock, contextlib.suppress(OSError):  # nobody waits, or no descriptor is left
                sock.setblocking(False)
                while True:
                    with contextlib.suppress(ConnectionAbortedError):  # that one has gone
                        waiting.append(sock.accept()[0])
        loop = asyncio.get_running_loop()
        for accepted in waiting:
            with contextlib.suppress(OSError):  # the same
                await loop.connect_accepted_socket(self._connection, accepted)

    def _connection(self) -> asyncio.Protocol:
        found: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return found

    def _requests(self) -> list[Http]:
        return [one for one in self.server_state.connections if isinstance(one, Http)]
