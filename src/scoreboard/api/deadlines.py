"""How long a client may take, and how many may be connected: uvicorn bounds neither.

A client that sends half a request and waits would hold its connection for ever; so would one that never says
anything, or never takes its answer. Our own work is not timed here. One slow tick looks at all connections,
while there are any.

It must never end a connection whose request is complete and whose answer is on its way: ``Prefer: wait`` and
streams take as long as they take.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SECONDS = 10.0  # for a request's head, and again for its body
TAKING_SECONDS = 30.0  # for an answer that does not fit into the kernel's memory
PAUSE_SECONDS = 75.0  # between an answer and the next request
TICK_SECONDS = 1.0


class Connection(Protocol):
    """What is known here of a connection."""

    transport: asyncio.Transport
    deadline: float | None
    """When what is awaited must have come, on the loop's clock; ``None``: nothing is."""

    def is_ours(self) -> bool:
        """Is it we who do not read on, and not the client that does not send?"""


class Deadlines:
    """The connections of a process, and until when something is awaited from them."""

    def __init__(
        self,
        connections: int,
        seconds: float = SECONDS,
        taking: float = TAKING_SECONDS,
        pause: float = PAUSE_SECONDS,
        tick: float = TICK_SECONDS,
    ) -> None:
        self._limit, self._tick = connections, tick
        self.seconds, self.taking, self.pause = seconds, taking, pause
        self.draining = False
        """Does each answer end its connection?"""
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open HTTP connections."""
        return len(self._connections)

    def admit(self, connection: Connection) -> bool:
        """Is there room for one more connection? It counts in any case, until it is ``gone``."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._expire)
        return len(self._connections) <= self._limit

    def gone(self, connection: Connection) -> None:
        """A connection has ended, or become a WebSocket."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Stop the tick."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            if connection.deadline is None and connection.transport.is_closing():
                connection.deadline = now + self.taking  # what it still has to take is little, and may last
            if connection.deadline is None or connection.deadline > now:
                continue
            if connection.is_ours():
                connection.deadline = now + self.seconds
            else:
                connection.deadline = None
                connection.transport.abort()
        self._timer = loop.call_later(self._tick, self._expire) if self._connections else None
