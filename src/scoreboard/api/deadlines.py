"""How long a client may take, and how many may be connected: uvicorn bounds neither.

A client that sends half a request and waits would hold its connection for ever; so would one that never says
anything, or never takes its answer. What comes in between (our work, the pause before the next request) is
not timed here. One slow tick serves all connections, and runs only while something is awaited.

It must never end a connection whose request is complete and whose answer is on its way: ``Prefer: wait`` and
streams take as long as they take.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SECONDS = 10.0  # for a request's head, and again for its body
TAKING_SECONDS = 30.0  # for an answer that does not fit into the kernel's memory
TICK_SECONDS = 1.0


class Connection(Protocol):
    """What is known here of a connection."""

    transport: asyncio.Transport

    def is_ours(self) -> bool:
        """Is it we who do not read on, and not the client that does not send?"""


class Deadlines:
    """The connections of a process, and until when something is awaited from them."""

    def __init__(
        self,
        connections: int,
        seconds: float = SECONDS,
        taking: float = TAKING_SECONDS,
        tick: float = TICK_SECONDS,
    ) -> None:
        self._limit, self._tick = connections, tick
        self.seconds, self.taking = seconds, taking
        self.connections = 0
        """Open HTTP connections."""
        self.draining = False
        """Does each answer end its connection?"""
        self._waiting: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self) -> bool:
        """Is there room for one more connection? Counts it in any case."""
        self.connections += 1
        return self.connections <= self._limit

    def gone(self, connection: Connection) -> None:
        """A connection has ended, or become a WebSocket."""
        self.connections -= 1
        self._waiting.pop(connection, None)

    def wait(self, connection: Connection, seconds: float, *, anew: bool = True) -> None:
        """Something is awaited within so many seconds; if not ``anew``, an earlier deadline stands."""
        if not anew and connection in self._waiting:
            return
        loop = asyncio.get_running_loop()
        self._waiting[connection] = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._expire)

    def done(self, connection: Connection) -> None:
        """Nothing is awaited any more."""
        self._waiting.pop(connection, None)

    def close(self) -> None:
        """Stop the tick."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one, deadline in self._waiting.items() if deadline <= now]:
            if connection.is_ours():
                self._waiting[connection] = now + self.seconds
            else:
                del self._waiting[connection]
                connection.transport.abort()
        self._timer = loop.call_later(self._tick, self._expire) if self._waiting else None
