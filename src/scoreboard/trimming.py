"""Trimming: what all partitions have applied leaves the log, after a day, or sooner near the log's bound.

In come the cursors and the log as it is now; out goes the beginning of the log, and how far a cursor may be
moved without applying anything. The partitions share one log, so only what lies before all their cursors may
go. A partition whose users are silent would hold back the others': its cursor stands at its last message.
So it is moved along, through the same transaction as a batch, to where the log holds nothing of the partition
(``Queue.clear_of``). That way "all up to the cursor is applied" stays true, and is all that a trim, a start,
a backup or its restore have to know.

It must never drop a message that the cursor of its partition has not passed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from scoreboard.database import Database
from scoreboard.errors import Unavailable
from scoreboard.queue import Queue, State

LOOK_SECONDS = 1.0  # how often the log's size is looked at: it must not stay full of what is applied
TRIM_SECONDS = 60.0  # how often what is applied and old is dropped from it
PASS_SECONDS = 60.0  # how often a silent partition's cursor is moved: a backup's cursors are never older
KEEP = timedelta(days=1)  # how long what is applied stays, so that a restored backup catches up by itself
NEAR_BOUND = 0.8  # of the log's bound; beyond it everything applied is dropped


class Trimmer:
    """Looks after the beginning of one deployment's log."""

    def __init__(self, queue: Queue, database: Database, partitions: int) -> None:
        self._queue, self._database, self._partitions = queue, database, partitions

    async def run(self) -> None:
        """Drop from the log what every partition has applied and is a day old, sooner near its bound."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            with contextlib.suppress(Unavailable):  # it is tried again in a second
                state = await self._queue.state()
                if _near_bound(state):
                    await self._queue.trim(await self._applied())
                elif looks * LOOK_SECONDS >= TRIM_SECONDS:
                    looks = 0
                    await self._trim_old(state)

    async def keep_from_falling_behind(
        self, partition: int, applied: Callable[[], int], move: Callable[[int], Awaitable[None]]
    ) -> None:
        """Tell ``move`` each minute, sooner near the bound, if a cursor may go on though nothing came.

        Args:
            partition: of which cursor. For whoever applies it, and for as long as it does.
            applied: where that cursor is now, committed.
            move: takes the number that it may be moved to. It holds for a cursor that has gone on meanwhile.
        """
        if self._partitions == 1:
            return  # its cursor is at the log's end whenever it has nothing to do
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            with contextlib.suppress(Unavailable):
                state = await self._queue.state()
                if not _near_bound(state) and looks * LOOK_SECONDS < PASS_SECONDS:
                    continue
                looks = 0
                after = applied()
                if (upto := await self._queue.clear_of(partition, after, state)) > after:
                    await move(upto)

    async def _applied(self) -> int:
        """The number up to which every partition has been applied."""
        positions = await self._database.positions()
        # A partition without a cursor has not begun: it has applied nothing, whatever the others have.
        return min(positions.get(partition, 0) for partition in range(self._partitions))

    async def _trim_old(self, state: State) -> None:
        # Sequences grow with time: halve the interval until the first message that is young enough is found.
        low, high = state.first, await self._applied() + 1
        while low < high:
            middle = (low + high) // 2
            at = await self._queue.time_of(middle)
            if at is None or at < datetime.now(UTC) - KEEP:
                low = middle + 1
            else:
                high = middle
        if low > state.first:
            await self._queue.trim(low - 1)


def _near_bound(state: State) -> bool:
    return state.bound > 0 and state.size > NEAR_BOUND * state.bound
