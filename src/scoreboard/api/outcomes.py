"""What became of the events that this process accepted: those who wait, and a short memory.

Outcomes arrive at this process's inbox after commit and board. Both memories are bounded by count. Who finds
no place to wait is told what is known: that it has been accepted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from uuid import UUID

from scoreboard import metrics
from scoreboard.envelope import NotOurs, Sealer
from scoreboard.model import Outcome

logger = logging.getLogger(__name__)

WAITING = 50_000  # updates a process whose outcome is awaited: about 40 MB, 50 full batches
REMEMBERED = 100_000  # accepted events a process, the latest, and up to as many before them: 20 to 40 MB


class Outcomes:
    """Knows who waits for which event, and which events were accepted here lately."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        # In the order of acceptance, which is the order in which outcomes come: of several that report the
        # same event, the first learns that it counted, the others that it had.
        self._waiting: dict[str, deque[asyncio.Future[Outcome]]] = {}
        self._count = 0
        self._accepted: dict[bytes, str] = {}
        self._accepted_before: dict[bytes, str] = {}

    @property
    def room(self) -> bool:
        """May one more wait?"""
        return self._count < WAITING

    def wait_for(self, event_id: UUID) -> asyncio.Future[Outcome]:
        """A future for the outcome of an event; give it back with ``forget``."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(str(event_id), deque()).append(future)
        self._count += 1
        return future

    def forget(self, event_id: UUID, future: asyncio.Future[Outcome]) -> None:
        """Nobody waits for this any more."""
        self._count -= 1
        waiting = self._waiting.get(str(event_id))
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[str(event_id)]

    def release(self) -> None:
        """Nobody waits any longer, as if each one's time were up."""
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(TimeoutError())
                    future.exception()  # whose request ends in another way does not look

    async def take(self, message: bytes) -> None:
        """Outcomes have arrived."""
        try:
            outcomes = self._sealer.open_outcomes(message)
        except NotOurs as error:
            metrics.FORGED_OUTCOMES.inc()
            logger.error("what arrived at our inbox is not outcomes: %s", error)
            return
        for outcome in outcomes:
            waiting = self._waiting.get(outcome.event_id)
            if waiting is None:
                continue  # nobody waits any more
            future = waiting.popleft()
            if not waiting:
                del self._waiting[outcome.event_id]
            if not future.done():
                future.set_result(outcome)

    def remember(self, event_id: bytes, user: str) -> None:
        """This event was accepted here."""
        self._accepted[event_id] = user
        if len(self._accepted) >= REMEMBERED:
            self._accepted, self._accepted_before = {}, self._accepted

    def accepted(self, event_id: bytes) -> str | None:
        """The user of an event that was accepted here lately."""
        return self._accepted.get(event_id) or self._accepted_before.get(event_id)
