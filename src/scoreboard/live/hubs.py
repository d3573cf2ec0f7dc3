"""All boards of a process: who may come in, who has waited too long, and how everybody leaves.

In come the configuration, frames from the bus (``follow``) and news of connections; out go the hub of a board
by name, and the end of clients that are stuck or will not close. One slow tick serves all clients, and runs
only while there is somebody to watch over.

It must never hold a client beyond its deadline, or let in more clients than the configuration allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence

from scoreboard import metrics
from scoreboard.auth.origins import Origins
from scoreboard.config import Config
from scoreboard.live.hub import BATCH, Client, Hub
from scoreboard.live.members import Members
from scoreboard.live.watcher import INVALID_TOKEN, Watcher
from scoreboard.live.wire import TRANSPORTS
from scoreboard.model import Frame
from scoreboard.texts import rate_of

STUCK_SECONDS = 30.0
"""A client that took nothing for so long while something waited for it is dropped."""
AUTH_SECONDS = 5.0
"""How long a client may take to say who it is, where that is asked."""
CLOSE_SECONDS = 2.0
"""How long a client may take to answer our close frame, or to take the last bytes we wrote."""
TICK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Hubs:
    """The hubs of one process by board, with what they share."""

    def __init__(self, config: Config, members: Members) -> None:
        self._hubs = {name: Hub(name, public=board.public) for name, board in config.boards.items()}
        self.members = members
        self.origins = Origins(config.web.origins)
        self._limit = config.live.connections
        self._burst, seconds = rate_of(config.live.handshakes)
        self._rate = self._burst / seconds
        self._tokens = float(self._burst)
        self._refilled = 0.0
        self._draining = False
        self._empty = asyncio.Event()
        self.connections = 0
        """Watching clients, from the handshake to the end of the socket."""
        self._through = [0] * len(TRANSPORTS)
        """The same by transport."""
        # Since when, in order: a dict keeps it, and each is added with the time of now.
        self._stuck: dict[Watcher, float] = {}
        self._unknown: dict[Watcher, float] = {}
        self._closing: dict[Watcher, float] = {}
        self._tick: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Hub]:
        return iter(self._hubs.values())

    def get(self, board: str) -> Hub | None:
        """The hub of a board, or ``None`` if there is no such board."""
        return self._hubs.get(board)

    async def follow(self, frames: AsyncIterator[Frame]) -> None:
        """Publish frames to their hubs until they end. A board that is not configured here is passed over."""
        async for frame in frames:
            hub = self._hubs.get(frame.board)
            if hub is not None:
                hub.publish(frame)

    def contact(self, board: str, there: bool) -> None:
        """Say whether a board can be followed now."""
        self._hubs[board].contact(there=there)

    def admit(self, form: int) -> bool:
        """May one more client of a form come in now? Counts it if so; ``gone`` gives the place back."""
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._draining or self.connections >= self._limit or self._tokens < 1:
            return False
        self._tokens -= 1
        self._count(form, 1)
        return True

    def gone(self, client: Watcher, *, admitted: bool) -> None:
        """A connection has ended."""
        for waiting in (self._stuck, self._unknown, self._closing):
            waiting.pop(client, None)
        if admitted:
            self._count(client.form, -1)
        if not self.connections and not self._closing:
            self._empty.set()

    def _count(self, form: int, number: int) -> None:
        self.connections += number
        self._through[form] += number
        metrics.CONNECTIONS.labels(TRANSPORTS[form]).set(self._through[form])

    def paused(self, client: Watcher) -> None:
        """A client does not take what was written to it; it has ``STUCK_SECONDS`` to do so."""
        self._stuck[client] = asyncio.get_running_loop().time()
        self._watch()

    def resumed(self, client: Watcher) -> None:
        """A client has taken all that was written to it."""
        self._stuck.pop(client, None)

    def unknown(self, client: Watcher) -> None:
        """A client has to say who it is; it has ``AUTH_SECONDS`` to do so."""
        self._unknown[client] = asyncio.get_running_loop().time()
        self._watch()

    def known(self, client: Watcher) -> None:
        """A client has said who it is; what becomes of that is the members' to say."""
        self._unknown.pop(client, None)

    def closing(self, client: Watcher) -> None:
        """A client is being closed; it has ``CLOSE_SECONDS`` to take part."""
        self._closing.setdefault(client, asyncio.get_running_loop().time())
        self._watch()

    async def drain(self, deadline: float) -> None:
        """Let nobody in any more, tell everybody to come back later, and close.

        Returns when all are gone, or after ``deadline`` seconds with the rest cut off.
        """
        self._draining = True
        everybody: list[Sequence[Client]] = [*(hub.clients() for hub in self), list(self._unknown)]
        for clients in everybody:
            for start in range(0, len(clients), BATCH):
                for client in clients[start : start + BATCH]:
                    client.bye()
                await asyncio.sleep(0)
        if self.connections or self._closing:
            self._empty.clear()
            try:
                async with asyncio.timeout(deadline):
                    await self._empty.wait()
            except TimeoutError:
                _log.info("%d clients did not leave in time", self.connections)
        self.close()

    def close(self) -> None:
        """Cut off whoever is left and stop all timers."""
        for client in [*self._closing, *self._unknown, *(client for hub in self for client in hub.clients())]:
            client.abort()
        for hub in self:
            hub.close()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _watch(self) -> None:
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TICK_SECONDS, self._expire)

    def _expire(self) -> None:
        """End whoever is past the deadline. The oldest come first, so this looks at nobody else."""
        self._tick = None
        now = asyncio.get_running_loop().time()
        for stuck in list(_older(self._stuck, now - STUCK_SECONDS)):
            del self._stuck[stuck]
            metrics.STUCK.inc()
            stuck.abort()
        for unknown in list(_older(self._unknown, now - AUTH_SECONDS)):
            del self._unknown[unknown]
            unknown.close(INVALID_TOKEN, "no token in time")
        for closing in list(_older(self._closing, now - CLOSE_SECONDS)):
            del self._closing[closing]
            closing.abort()
        if self._stuck or self._unknown or self._closing:
            self._watch()


def _older(waiting: dict[Watcher, float], time: float) -> Iterator[Watcher]:
    for client, since in waiting.items():
        if since > time:
            return
        yield client
