"""The worker: read the log in order, apply each entry exactly once, bring the boards up to date.

In come sealed envelopes from the queue; out go committed batches (ledger.py has the exactly-once argument)
and absolute, versioned rows to the boards (refresh.py). One worker applies a partition at a time: it holds an
advisory lock of its database session, and a session that falls silent is ended by the server, so a stopped
worker is replaced within seconds and its late tries are fenced by the cursor. The others stand by.

Whatever goes wrong between reading and commit ends the reading; it begins again after the cursor's last
message. So nothing is skipped, and a commit whose outcome was not seen is not repeated. Only what can never
be applied is set aside, alone (dead_letters.py), so that nothing behind it waits.

It must never acknowledge or skip a message that the cursor has not passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import asyncpg

from scoreboard import dead_letters, ledger, metrics
from scoreboard.book import Applied, Memory
from scoreboard.config import Config
from scoreboard.database import closed, connect, translated
from scoreboard.dead_letters import DeadLetter
from scoreboard.drift import Checker
from scoreboard.envelope import NotOurs, Sealer
from scoreboard.errors import Fenced, Unavailable, heed_cancellation
from scoreboard.ledger import Batch, Position, Terms
from scoreboard.model import PLACES, Accepted, Result
from scoreboard.queue import Logged, Queue
from scoreboard.queue.reading import READ_AHEAD
from scoreboard.refresh import Refresher
from scoreboard.rules import rules_of
from scoreboard.trimming import Trimmer

logger = logging.getLogger(__name__)

# Entries a transaction, reached by a backlog alone: bounds its memory (some 20 MB) and its time (0.5 s).
# Of a user with several among them one total is written, and one row is told.
BATCH_ENTRIES = 16_000
PULSE_SECONDS = 1.0  # an idle session says something this often; the server ends it after 4 s of silence
GATHER_SECONDS = 0.025  # between two transactions under load: each costs some 2 ms, whatever is in it
GATHER_BYTES = 4_000  # at hand: load; some 25 updates, which is what comes in 5 ms of 5,000 a second
AGAIN_SECONDS = (0.1, 5.0)  # back-off between tries: first, longest
LOOK_SECONDS = 1.0  # how often the figures of the log are taken
SETTLING = {Result.DEAD.value, "settled"}  # what a batch counts when dead letters come or go


class Worker:
    """Applies the log of one deployment, all its partitions."""

    def __init__(
        self, config: Config, database_url: str, queue: Queue, sealer: Sealer, refresher: Refresher
    ) -> None:
        self._config, self._database_url = config, database_url
        self._catalogue = config.catalogue
        self._queue, self._sealer, self._refresher = queue, sealer, refresher
        self._checker = Checker(config, refresher.database, refresher.board)
        self._trimmer = Trimmer(queue, refresher.database, config.queue.partitions)
        self._terms = Terms(
            boards=tuple(config.boards),
            rules=rules_of(config.actions, config.timezone),
            partitions=config.queue.partitions,
        )
        self._applied_to: dict[int, int] = {}
        """How far each partition has been applied that is ours, as far as we know."""
        self._between = [asyncio.Lock() for _ in range(config.queue.partitions)]
        """Held while a batch is applied."""

    async def run(self) -> None:
        """Apply until cancelled. A log that is not the database's ends it: ``LogMismatch``, in a group."""
        async with asyncio.TaskGroup() as tasks:
            for partition in range(self._config.queue.partitions):
                tasks.create_task(self._keep_applying(partition))
            tasks.create_task(self._measure())

    async def rest(self) -> None:
        """Return when the batches at hand are applied; no further one is begun. To be cancelled then."""
        for between in self._between:
            await between.acquire()

    async def _keep_applying(self, partition: int) -> None:
        pause, longest = AGAIN_SECONDS
        while True:
            began = time.monotonic()
            try:
                connection = await connect(self._database_url, applying=True)
                try:
                    await self._apply_partition(connection, partition)
                finally:
                    await closed(connection)
            except* Fenced:
                logger.warning("another worker moved the cursor", extra={"partition": partition})
            except* Unavailable as errors:
                if time.monotonic() - began > longest:
                    pause = AGAIN_SECONDS[0]
                reason = errors.exceptions[0]
                logger.warning("applying is interrupted: %s", reason, extra={"partition": partition})
            heed_cancellation()  # a group of tasks swallows one that comes with the failure of a child
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _apply_partition(self, connection: asyncpg.Connection[asyncpg.Record], partition: int) -> None:
        self._applied_to.pop(partition, None)  # others may have gone on; until we have the lock they do
        await ledger.lock(connection, partition)
        await ledger.begin(connection, self._terms)
        state = await self._queue.state()
        position = await ledger.position(connection, partition, state)
        metrics.DEAD_WAITING.set(await dead_letters.count_waiting(connection))
        logger.info("applying", extra={"partition": partition, "after": position.last})
        self._applied_to[partition] = position.last
        await self._refresher.begin(partition, (position.last + 1) * PLACES - 1)
        arrived: asyncio.Queue[list[Logged] | int] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(partition, position.last, arrived))
            passer = tasks.create_task(
                self._trimmer.keep_from_falling_behind(
                    partition, lambda: self._applied_to[partition], arrived.put
                )
            )
            trimmer = tasks.create_task(self._trim(partition))
            checker = tasks.create_task(self._check(partition))
            try:
                await self._apply_all(connection, partition, position, arrived)
            finally:
                reader.cancel()
                passer.cancel()
                trimmer.cancel()
                checker.cancel()
                self._refresher.end(partition)

    async def _read(self, partition: int, after: int, arrived: asyncio.Queue[list[Logged] | int]) -> None:
        """Read ahead by one batch, so that the next one is there when a transaction ends.

        When much comes, what comes soon after is gathered, and shares a transaction.
        """
        async with aclosing(self._queue.read(partition, after)) as batches:
            async for messages in batches:
                await arrived.put(messages)
                if len(messages) < READ_AHEAD and sum(len(one.body) for one in messages) >= GATHER_BYTES:
                    await asyncio.sleep(GATHER_SECONDS)

    async def _apply_all(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        partition: int,
        position: Position,
        arrived: asyncio.Queue[list[Logged] | int],
    ) -> None:
        """Apply what arrives: messages, or a number up to which there are none that are not applied."""
        memory = Memory(trusting=True)
        while True:
            try:
                async with asyncio.timeout(PULSE_SECONDS):
                    messages = await arrived.get()
            except TimeoutError:
                with translated():
                    await connection.execute("SELECT")
                continue
            for batch in self._batches(partition, position, messages):
                async with self._between[partition]:
                    began = time.monotonic()
                    applied = await self._apply(connection, batch, memory)
                    metrics.BATCH_SECONDS.observe(time.monotonic() - began)
                    for outcome, count in applied.counts.items():
                        metrics.APPLIED.labels(outcome).inc(count)
                    position = Position(batch.stream, batch.last, batch.last_at)
                    self._applied_to[partition] = batch.last
                    accepted_at = batch.accepted[0].at if batch.accepted else None
                    await self._refresher.committed(
                        partition, (batch.last + 1) * PLACES - 1, applied, accepted_at
                    )
                if batch.dead or applied.counts.keys() & SETTLING:
                    metrics.DEAD_LETTERS.inc(len(batch.dead) + applied.counts.get(Result.DEAD.value, 0))
                    metrics.DEAD_WAITING.set(await dead_letters.count_waiting(connection))

    async def _apply(
        self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch, memory: Memory
    ) -> Applied:
        """Apply a batch. One that fails is tried a few times, then what makes it fail is set aside."""
        for pause in dead_letters.TRY_AGAIN_SECONDS:
            try:
                return await ledger.apply(connection, batch, self._terms, memory)
            except Exception as error:
                if not dead_letters.blames(error):
                    raise
                logger.warning("a batch cannot be applied, it is tried again: %r", error)
            await asyncio.sleep(pause)
        return await ledger.apply(connection, batch, self._terms, memory, isolating=True)

    def _batches(
        self, partition: int, position: Position, messages: Sequence[Logged] | int
    ) -> Sequence[Batch]:
        """The messages opened and cut into batches of bounded size; for a number, one without any."""
        if isinstance(messages, int):
            if messages <= position.last:
                return []
            return [Batch(partition, position.stream, position.last, messages, position.last_at, [])]
        batches: list[Batch] = []
        accepted: list[Accepted] = []
        dead: list[DeadLetter] = []
        previous, at = position.last, position.last_at

        def cut(last: int) -> None:
            nonlocal accepted, dead, previous
            batches.append(Batch(partition, position.stream, previous, last, at, accepted, dead))
            accepted, dead, previous = [], [], last

        for message in messages:
            at = max(at, message.at)  # time of acceptance never goes back within a partition
            self._open(message, at, accepted, dead)
            if len(accepted) + len(dead) >= BATCH_ENTRIES:
                cut(message.sequence)
        if messages[-1].sequence != previous:
            cut(messages[-1].sequence)
        return batches

    def _open(self, message: Logged, at: datetime, accepted: list[Accepted], dead: list[DeadLetter]) -> None:
        first = message.sequence * PLACES
        try:
            envelope = self._sealer.open(message.body)
        except NotOurs as error:
            logger.error("a message of the log is set aside: %s", error, extra={"sequence": message.sequence})
            metrics.FORGED.inc()
            dead.append(DeadLetter(first, at, str(error), message.body))
            return
        if envelope.catalogue != self._catalogue:
            logger.error(
                "accepted under another catalogue: api and worker are configured differently",
                extra={"theirs": envelope.catalogue, "ours": self._catalogue},
            )
            metrics.CATALOGUE_MISMATCH.inc()
        wanted = frozenset(envelope.wanted)
        accepted.extend(
            Accepted(first + place, at, entry, envelope.inbox if place in wanted else "")
            for place, entry in enumerate(envelope.entries)
        )

    async def _measure(self) -> None:
        """Keep the figures of the log, while the database is away, too: then they are wanted most."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(Unavailable):
                state = await self._queue.state()
                metrics.QUEUE_BYTES.labels("used").set(state.size)
                metrics.QUEUE_BYTES.labels("bound").set(state.bound)
                positions = self._applied_to
                if len(positions) < self._config.queue.partitions:  # others apply them, or nobody does
                    positions = await self._refresher.database.positions() | positions
                for partition in range(self._config.queue.partitions):
                    applied = positions.get(partition, 0)
                    oldest = await self._queue.oldest(partition, applied) if applied < state.last else None
                    depth, age = 0, 0.0
                    if oldest is not None:
                        depth = max(state.last - oldest[0] + 1, 1)
                        age = max((datetime.now(UTC) - oldest[1]).total_seconds(), 0.0)
                    metrics.QUEUE_DEPTH.labels(partition).set(depth)
                    metrics.QUEUE_AGE.labels(partition).set(age)

    async def _check(self, partition: int) -> None:
        if partition == 0:  # whoever applies the first partition looks after the boards
            await self._checker.run()

    async def _trim(self, partition: int) -> None:
        if partition == 0:  # one log, one trimmer
            await self._trimmer.run()
