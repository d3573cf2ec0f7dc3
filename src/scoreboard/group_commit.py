"""Group commit: many accepted entries, one synced publish.

A synced publish costs a millisecond whatever its size. So each process keeps one envelope a partition in
flight and gathers what arrives meanwhile into the next, and what its connections have brought by then.
Alone, an entry waits for nothing; under load, hundreds share one sync. In come entries that the door
accepted; an ``accept`` returns once its entry is on disk in the log. What waits is bounded: over the bound
``QueueFull`` is raised at once, and says when there should be room, from how long envelopes took lately.
When the log does not answer, all that waits is answered at once: nobody waits behind a publish that may
never come back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from scoreboard import metrics
from scoreboard.envelope import ENTRIES, ENTRY_BYTES, Envelope, Sealer, encode_entry
from scoreboard.errors import QueueFull, Unavailable
from scoreboard.model import Entry
from scoreboard.queue import Queue

logger = logging.getLogger(__name__)

WAITING_ENTRIES = 20_000  # entries a process that may wait for an envelope: about 6 MB, 40 full envelopes
RETRY_MOST = 30  # seconds; what drains more slowly than that cannot be foretold
LINGER_SECONDS = 0.003  # at most, for what is on its way; a small part of what an answer takes under load
WEIGHT = 0.1  # of the newest envelope in the mean time that one takes: the last ten or so count


def partition_of(user: str, partitions: int) -> int:
    """The partition that all entries of this user go through."""
    return zlib.crc32(user.encode()) % partitions if partitions > 1 else 0


class _Waiting(Struct):
    """Entries of one who wants to be told of them, in order."""

    data: Sequence[bytes]
    """Encoded."""
    wanted: bool
    told: Callable[[int, Exception | None], None]


class _Line:
    """What waits for an envelope of one partition."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.entries = 0
        self._waiting: deque[_Waiting] = deque()

    def join(self, one: _Waiting) -> None:
        """Wait behind the others."""
        if not self.entries:
            self.came.set()
        self._waiting.append(one)
        self.entries += len(one.data)

    def gather(self) -> list[_Waiting]:
        """The longest beginning that fits into one envelope; at least one entry."""
        gathered: list[_Waiting] = []
        free, room = ENTRIES, ENTRY_BYTES
        while self._waiting:
            one = self._waiting[0]
            fit = 0
            for data in one.data:
                room -= len(data)
                if not free or (room < 0 and free < ENTRIES):
                    break
                free -= 1
                fit += 1
            if fit < len(one.data):
                if fit:
                    gathered.append(_Waiting(one.data[:fit], one.wanted, one.told))
                    one.data = one.data[fit:]
                break
            gathered.append(self._waiting.popleft())
        self.entries -= ENTRIES - free
        return gathered

    def leave(self) -> list[_Waiting]:
        """All that waits; nobody does any more."""
        left = list(self._waiting)
        self._waiting.clear()
        self.entries = 0
        return left


class GroupCommit:
    """Gathers entries into envelopes and publishes them. ``run`` must be running for ``accept`` to return."""

    def __init__(self, queue: Queue, sealer: Sealer, *, partitions: int, catalogue: str, inbox: str) -> None:
        self._queue, self._sealer = queue, sealer
        self._catalogue, self._inbox = catalogue, inbox
        self._lines = [_Line() for _ in range(partitions)]
        self._count = 0  # entries of which nobody has been told
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._seconds = 0.0  # what an envelope takes, the mean of lately
        self._refusing = 0.0  # since when the log takes nothing; 0: it does

    @property
    def partitions(self) -> int:
        """How many partitions the log has."""
        return len(self._lines)

    @property
    def room(self) -> int:
        """How many more entries may wait."""
        return WAITING_ENTRIES - self._count

    def open(self, message: bytes) -> Envelope:
        """What is in a message of the log. Raises ``NotOurs``."""
        return self._sealer.open(message)

    def accept(
        self, entry: Entry, *, wanted: bool = False, partition: int | None = None
    ) -> asyncio.Future[None]:
        """A future that is done once the entry is synced to disk in the log.

        Args:
            entry: what the door accepted.
            wanted: is its outcome awaited at our inbox?
            partition: where it goes if it is not one user's.

        Raises:
            QueueFull: too much is waiting already, or (from the future) the log is full; it is not accepted.
            Unavailable: (from the future) whether the entry is in the log is not known.
        """
        accepted = asyncio.get_running_loop().create_future()
        self.enter((entry,), partial(_settle, accepted), wanted=wanted, partition=partition)
        return accepted

    def enter(
        self,
        entries: Sequence[Entry],
        told: Callable[[int, Exception | None], None],
        *,
        wanted: bool = False,
        partition: int | None = None,
    ) -> None:
        """As ``accept``, for several entries of one partition, at least one, and for who needs no futures.

        ``told(count, error)`` is called for each envelope that they come into: the next ``count`` of them, in
        order, are on disk if ``error`` is ``None``. If there is no room for all, none is accepted.
        """
        if self._closing:
            raise Unavailable("This process is stopping.")
        if len(entries) > self.room:
            raise self._full(QueueFull("Too many updates wait to be written."))
        if partition is None:
            partition = partition_of(entries[0].user, len(self._lines))
        self._lines[partition].join(_Waiting(list(map(encode_entry, entries)), wanted, told))
        if not self._count:
            self._idle.clear()
        self._count += len(entries)

    async def run(self) -> None:
        """Publish until cancelled; what is left then is answered ``Unavailable``."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for partition, line in enumerate(self._lines):
                    tasks.create_task(self._publish(partition, line))
        finally:
            self._closing = True
            for line in self._lines:
                self._answer(line.leave(), Unavailable("This process is stopping."))

    async def drain(self) -> None:
        """Take nothing new and return when all that waits has been answered."""
        self._closing = True
        await self._idle.wait()

    async def _publish(self, partition: int, line: _Line) -> None:
        while True:
            await line.came.wait()
            line.came.clear()
            while line.entries:
                await self._all_that_came(line)
                gathered = line.gather()
                error: Exception | None = Unavailable("This process is stopping.")
                began = time.monotonic()
                try:
                    await self._queue.publish(partition, envelope := self._seal(gathered))
                    self._synced(time.monotonic() - began, _entries(gathered), len(envelope))
                    error = None
                except QueueFull as refused:
                    self._refusing = self._refusing or began
                    error = self._full(refused)
                except Unavailable as refused:
                    self._refusing = self._refusing or began
                    error = refused
                    gathered += line.leave()
                finally:
                    self._answer(gathered, error)

    async def _all_that_came(self, line: _Line) -> None:
        """Return once no connection brings more at this moment, an envelope is full, or after a while."""
        until, before = time.monotonic() + LINGER_SECONDS, 0
        while before < line.entries < ENTRIES and time.monotonic() < until:
            before = line.entries
            await asyncio.sleep(0)

    def _full(self, error: QueueFull) -> QueueFull:
        """The error with when to come back: as long as what waits will take, or nothing has got in so far."""
        draining = self._count / ENTRIES * self._seconds
        refusing = time.monotonic() - self._refusing if self._refusing else 0.0
        error.retry_after = math.ceil(min(max(draining, refusing, 1), RETRY_MOST))
        return error

    def _synced(self, seconds: float, entries: int, size: int) -> None:
        self._seconds += WEIGHT * (seconds - self._seconds)
        self._refusing = 0.0
        metrics.PUBLISH_SECONDS.observe(seconds)
        metrics.ENVELOPE_ENTRIES.observe(entries)
        metrics.ENVELOPE_BYTES.observe(size)

    def _answer(self, gathered: Sequence[_Waiting], error: Exception | None) -> None:
        for one in gathered:
            self._count -= len(one.data)
            try:
                one.told(len(one.data), error)
            except Exception:  # the others are to be told all the same
                logger.exception("who waited for an entry could not be told")
        if not self._count:
            self._idle.set()
        metrics.WAITING.set(self._count)

    def _seal(self, gathered: Sequence[_Waiting]) -> bytes:
        wanted: list[int] = []
        entries: list[bytes] = []
        for one in gathered:
            if one.wanted:
                wanted.extend(range(len(entries), len(entries) + len(one.data)))
            entries += one.data
        inbox = self._inbox if wanted else ""
        return self._sealer.seal(self._catalogue, inbox, wanted, entries)


def _entries(gathered: Sequence[_Waiting]) -> int:
    return sum(len(one.data) for one in gathered)


def _settle(accepted: asyncio.Future[None], _: int, error: Exception | None) -> None:
    if accepted.done():
        return  # its request was cancelled
    if error is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(error)
