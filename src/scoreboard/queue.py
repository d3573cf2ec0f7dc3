"""The queue: an ordered log on disk (NATS JetStream). Envelopes in, envelopes out.

A publish answers once the message is synced to disk (``sync_interval: always``), with its place in the one
order of acceptance. Reading goes in that order from any place, without acknowledgements: what has been
read is the database's to remember. Limits retention with ``discard: new``: at its bound the log refuses
what is new and never drops what is old; the worker trims what has been applied.

Driver exceptions leave this module as ``Unavailable`` or ``QueueFull`` only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    PubAck,
    StorageType,
    StreamConfig,
)

from scoreboard.errors import LogMismatch, QueueFull, Unavailable, heed_cancellation

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 2.0  # a synced publish takes a millisecond; after this its outcome is unknown
ANSWER_SECONDS = 3.0
READ_AHEAD = 64  # envelopes asked for at once: bounds what a reader holds to 64 x 256 KiB
PULL_SECONDS = 20  # how long the server keeps a request for messages open
BEAT_SECONDS = 1  # it says so each second; three beats missed means that it is gone
SLOW_SECONDS = 0.3  # a publish that takes longer has the server asked whether it is there at all
GONE_SECONDS = 0.5  # a server that does not answer even that by then is gone: a 503 within a second
# That question is not given up while its connection lives, which ends when it is silent for 6 s: nats-py
# (2.16) stops reading when a pong comes that nobody waits for.
ASKED_SECONDS = 20
FULL_BYTES = 64 << 10  # with less than this left the log refuses many an envelope: call it full
ASKED = SYNCS, HEALTH = ("$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.SERVER.PING.HEALTHZ")
"""Services of NATS' system account that ours has to import: does it sync, can it write?"""
NO_MESSAGE = 10037  # there is no such message; another "not found" says that there is no log
FULL_CODES = (10023, 10047, 10077)  # insufficient resources, insufficient storage, maximum bytes exceeded


class Logged(Struct, frozen=True):
    """One message of the log."""

    sequence: int
    """Its number: the stream's sequence, and what was added when the log was adopted (``State.base``)."""
    at: datetime
    body: bytes


class State(Struct, frozen=True):
    """The log as it is now."""

    identity: str
    partitions: int
    first: int
    last: int
    size: int
    bound: int
    base: int = 0
    """What is added to the stream's own sequences: ``first`` and ``last``, as all numbers here, have it."""

    @property
    def full(self) -> bool:
        """Is there hardly any room left?"""
        return self.bound > 0 and self.bound - self.size < FULL_BYTES


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except nats.js.errors.APIError as error:
        if error.err_code in FULL_CODES:
            raise QueueFull from error
        raise Unavailable(f"The queue refuses: {error}") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        heed_cancellation()
        raise Unavailable(f"The queue does not answer: {error!r}") from error
    heed_cancellation()


class Queue:
    """The log of one deployment. Open it with ``Queue.open``."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=ANSWER_SECONDS)
        self._stream = namespace  # the stream's name; its subjects are below the same word
        self._identity = ""
        self._base = 0
        self._sending: set[asyncio.Future[PubAck]] = set()
        self._reading: set[asyncio.Queue[Msg | None]] = set()
        self._asking: asyncio.Task[None] | None = None
        """Is the server there? All who want to know wait for the same answer."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, namespace: str, role: str) -> AsyncIterator[Queue]:
        """A queue for as long as the block runs; it connects by itself again whenever it is cut off.

        Raises:
            Unavailable: it cannot be reached at the start.
        """

        client = Client()
        queue = cls(client, namespace)

        async def report(error: Exception) -> None:
            logger.debug("queue: %r", error)

        async def lost() -> None:
            queue._cut_off()

        with _translated():
            await client.connect(
                url,
                name=f"scoreboard {role}",
                connect_timeout=2,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # type: ignore[arg-type]  # seconds; a fraction is fine
                ping_interval=2,
                max_outstanding_pings=2,
                error_cb=report,
                disconnected_cb=lost,
            )
        try:
            yield queue
        finally:
            await client.close()
            if queue._asking is not None:
                queue._asking.cancel()
                await asyncio.wait([queue._asking])

    def _cut_off(self) -> None:
        """The connection is lost: what waits for an answer over it need not wait any longer."""
        for sending in self._sending:
            sending.cancel()
        for messages in self._reading:
            messages.put_nowait(None)
        if self._asking is not None:
            self._asking.cancel()

    async def ensure(self, *, partitions: int, max_bytes: int, replicas: int, known: str | None) -> State:
        """Make the log if there is none and never was; its state. To be called before anything else.

        Args:
            partitions: as configured.
            max_bytes: as configured.
            replicas: as configured.
            known: the identity of the log that the database has been reading; ``None`` if it has read none.

        Raises:
            LogMismatch: there is another log than the known one, or one for another number of partitions.
            Unavailable: the queue does not answer.
        """
        identity = secrets.token_hex(8)
        config = StreamConfig(
            name=self._stream,
            # The identity is part of the subject, so that nothing is ever published into another log.
            subjects=[f"{self._stream}.log.{identity}.*"],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=max_bytes,
            num_replicas=replicas,
            allow_direct=True,
            deny_delete=True,
            metadata={"identity": identity, "partitions": str(partitions)},
        )
        state = await self.there()
        if state is None:
            if known is not None:
                raise LogMismatch(f"The database has been reading the log {known}; the queue holds none.")
            with _translated():
                try:
                    await self._jetstream.add_stream(config)
                except nats.js.errors.BadRequestError as refused:
                    logger.info("the log was made by another role: %s", refused)
            state = await self.state()
        if known is not None and state.identity != known:
            msg = f"The database has been reading the log {known}; the queue now holds {state.identity}."
            raise LogMismatch(msg)
        self._identity = state.identity
        if state.partitions != partitions:
            raise LogMismatch(
                f"queue.partitions is {partitions}, but the log was made with {state.partitions}."
            )
        if state.bound != max_bytes:
            state = await self._change(max_bytes=max_bytes)
        return state

    async def renumber(self, number: int, partitions: int) -> State:
        """Give the first message that the log holds, or else the next one, this number."""
        state = await self.state()
        base = state.base + number - state.first
        return await self._change(
            metadata={"identity": state.identity, "partitions": str(partitions), "base": str(base)}
        )

    async def _change(self, **settings: object) -> State:
        with _translated():
            config = (await self._jetstream.stream_info(self._stream)).config
            await self._jetstream.update_stream(config.evolve(**settings))
        return await self.state()

    async def there(self) -> State | None:
        """As ``state``, and ``None`` if there is no log."""
        try:
            return await self.state()
        except Unavailable as error:
            if isinstance(error.__cause__, nats.js.errors.NotFoundError):
                return None
            raise

    async def state(self) -> State:
        """The log as it is now.

        Raises:
            LogMismatch: it was there and is gone.
            Unavailable: the queue does not answer.
        """
        with _translated():
            try:
                info = await self._jetstream.stream_info(self._stream)
            except nats.js.errors.NotFoundError as error:
                if self._identity:
                    raise LogMismatch(f"The log {self._identity} is no longer there.") from error
                raise
        metadata = info.config.metadata or {}
        self._base = base = int(metadata.get("base", "0"))
        return State(
            identity=metadata.get("identity", ""),
            partitions=int(metadata.get("partitions", "1")),
            first=max(1, info.state.first_seq) + base,
            last=info.state.last_seq + base,
            size=info.state.bytes,
            bound=info.config.max_bytes or 0,
            base=base,
        )

    async def publish(self, partition: int, body: bytes) -> int:
        """Put an envelope into the log; its number, once it is synced to disk.

        Raises:
            QueueFull: the log is at its bound; the envelope is not in it.
            Unavailable: whether it is in the log is not known.
        """
        if not self._client.is_connected:
            raise Unavailable("The queue is not connected.")
        sending = asyncio.ensure_future(
            self._jetstream.publish(
                self.subject(partition), body, timeout=PUBLISH_SECONDS, stream=self._stream
            )
        )
        self._sending.add(sending)
        try:
            await asyncio.wait([sending], timeout=SLOW_SECONDS)
            if not sending.done():
                await self._there()
                await asyncio.wait([sending])
        finally:
            self._sending.discard(sending)
            sending.cancel()  # does nothing if it is done
        if sending.cancelled():
            raise Unavailable("The connection to the queue was lost.")
        with _translated():
            return sending.result().seq + self._base

    async def _there(self) -> None:
        """Raises ``Unavailable`` unless the server answers at once; what it does besides may take longer."""
        if not self._client.is_connected:
            raise Unavailable("The queue is not connected.")
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._client.flush(ASKED_SECONDS))
            asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # if nobody waits
        await asyncio.wait([asking], timeout=GONE_SECONDS)
        if not asking.done() or asking.cancelled():
            raise Unavailable("The queue does not answer.")
        with _translated():
            asking.result()

    async def syncs(self) -> bool | None:
        """Is a message on disk before its publish is answered? ``None``: the server does not tell us.

        Raises:
            Unavailable: there is no connection.
        """
        said = await self._asked(SYNCS, ANSWER_SECONDS)
        return None if said is None else bool(said["jetstream"]["config"].get("sync_always"))

    async def flaw(self) -> str | None:
        """What the server says that it cannot do, e.g. write; ``None``: nothing, or it does not tell us.

        In a cluster the first server that answers speaks for all, be it the log's leader or not.

        Raises:
            Unavailable: it does not answer.
        """
        await self._there()
        said = await self._asked(HEALTH, GONE_SECONDS)
        if said is None or said.get("status_code", 200) == 200:
            return None
        return str(said.get("error") or said.get("status"))

    async def _asked(self, subject: str, seconds: float) -> dict[str, Any] | None:
        try:
            with _translated():
                answer = await self._client.request(subject, timeout=seconds)
        except Unavailable as error:
            if isinstance(error.__cause__, nats.errors.NoRespondersError):
                return None
            await self._there()  # raises what is so, unless we have no permission to ask: no answer, too
            return None
        data: dict[str, Any] | None = json.loads(answer.data).get("data")
        return data

    def subject(self, partition: int) -> str:
        """Where envelopes of a partition are published."""
        return f"{self._stream}.log.{self._identity}.{partition}"

    async def read(self, partition: int, after: int) -> AsyncGenerator[list[Logged], None]:
        """The messages of a partition after a number, in order, as they come: each time what there is.

        Raises:
            Unavailable: the connection was lost or a message is missing; begin again after the last one.
        """
        messages: asyncio.Queue[Msg | None] = asyncio.Queue()  # bounded by what is asked for: READ_AHEAD
        inbox = self._client.new_inbox()

        async def arrived(message: Msg) -> None:
            messages.put_nowait(message)

        with _translated():
            subscription = await self._client.subscribe(inbox, cb=arrived)
            self._reading.add(messages)
            try:
                consumer = await self._jetstream.add_consumer(
                    self._stream,
                    ConsumerConfig(
                        name=f"worker-{partition}-{secrets.token_hex(6)}",
                        filter_subject=self.subject(partition),
                        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                        opt_start_seq=max(1, after + 1 - self._base),
                        ack_policy=AckPolicy.NONE,
                        inactive_threshold=30,
                        mem_storage=True,
                        num_replicas=1,
                    ),
                )
                async for batch in self._pull(consumer.name, inbox, messages):
                    yield batch
            finally:
                self._reading.discard(messages)
                if not self._client.is_closed:
                    await subscription.unsubscribe()

    async def _pull(
        self, consumer: str, inbox: str, messages: asyncio.Queue[Msg | None]
    ) -> AsyncIterator[list[Logged]]:
        ask = json.dumps(
            {
                "batch": READ_AHEAD,
                "expires": PULL_SECONDS * 10**9,
                "idle_heartbeat": BEAT_SECONDS * 10**9,
            }
        ).encode()
        delivered = 0  # the consumer's own count: a hole in it is a message that never arrived
        owed = 0  # messages that the open request may still bring
        while True:
            if owed == 0:
                subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer}"
                await self._client.publish(subject, ask, reply=inbox)
                owed = READ_AHEAD
            async with asyncio.timeout(3 * BEAT_SECONDS):
                arrived = [await messages.get()]
            while not messages.empty():
                arrived.append(messages.get_nowait())
            batch = []
            for message in arrived:
                if message is None:
                    raise Unavailable("The connection to the queue was lost.")
                if message.reply.startswith("$JS.ACK."):
                    logged, count = _logged(message, self._base)
                    if count != delivered + 1:
                        raise Unavailable(f"The queue skipped from {delivered} to {count}.")
                    delivered, owed = count, owed - 1
                    batch.append(logged)
                elif (status := (message.headers or {}).get("Status")) == "408":
                    owed = 0  # the request ran out of time; the next one follows
                elif status != "100":
                    raise Unavailable(f"The queue ended the reading: {message.headers}")
            if batch:
                yield batch

    async def time_of(self, number: int) -> datetime | None:
        """When a message was accepted; ``None`` if the log no longer holds it."""
        with _translated():
            try:
                message = await self._jetstream.get_msg(self._stream, seq=number - self._base, direct=False)
            except nats.js.errors.NotFoundError:
                return None
        return message.time

    async def oldest(self, partition: int, after: int) -> tuple[int, datetime] | None:
        """Number and time of the first message of a partition after a number; ``None``: there is none."""
        with _translated():
            try:
                message = await self._jetstream.get_msg(
                    self._stream,
                    seq=max(1, after + 1 - self._base),
                    subject=self.subject(partition),
                    next=True,
                )
            except nats.js.errors.NotFoundError as error:
                if error.err_code != NO_MESSAGE:
                    raise
                return None
        assert message.seq is not None and message.time is not None  # noqa: S101, PT018  each message has both
        return message.seq + self._base, message.time

    async def clear_of(self, partition: int, after: int, state: State) -> int:
        """Up to where the log holds no message of a partition after a number, and never will.

        All messages of the partition up to ``after`` are applied, so all up to the answer are. Where that
        cannot be told it is ``after`` itself.

        Args:
            partition: which one.
            after: how far it has been applied.
            state: the log as it was before this is asked. That order is what makes the answer safe: whatever
                is published later gets a number beyond ``state.last``, and what was there before is found
                now, for it is dropped only if it is applied. Asked the other way round, a message that came
                in between would be taken for one that is not there.
        """
        if state.identity != self._identity or state.first > after + 1:
            return after  # another log; or one that has lost what nobody can know any more
        found = await self.oldest(partition, after)
        return max(after, state.last if found is None else found[0] - 1)

    async def last_of(self, partition: int) -> int:
        """The number of the last message that the log holds of a partition; 0 if it holds none."""
        identity = (await self.state()).identity
        subject = f"{self._stream}.log.{identity}.{partition}"
        with _translated():
            try:
                message = await self._jetstream.get_last_msg(self._stream, subject)
            except nats.js.errors.NotFoundError:
                return 0
        return (message.seq or 0) + self._base

    async def trim(self, up_to: int) -> None:
        """Drop the messages up to and with a number. Only what has been applied may be dropped."""
        first = up_to + 1 - self._base
        if first <= 1:
            return  # nothing is before the first; and NATS takes 0 for all
        with _translated():
            await self._jetstream.purge_stream(self._stream, seq=first)

    async def listen(self, take: Callable[[bytes], Awaitable[None]]) -> str:
        """A subject of our own on which ``take`` gets each message (core NATS: nothing is kept)."""
        inbox = self._client.new_inbox()

        async def arrived(message: Msg) -> None:
            await take(message.data)

        with _translated():
            await self._client.subscribe(inbox, cb=arrived)
        return inbox

    async def tell(self, inbox: str, body: bytes) -> None:
        """Send a message to whoever listens there; nobody may."""
        with _translated():
            await self._client.publish(inbox, body)


def _logged(message: Msg, base: int) -> tuple[Logged, int]:
    # $JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING, or the newer form with
    # domain and account before the stream and a token at the end.
    tokens = message.reply.split(".")
    sequence, count, nanoseconds = map(int, tokens[5:8] if len(tokens) == 9 else tokens[7:10])
    at = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    at += timedelta(microseconds=nanoseconds % 10**9 // 1000)
    return Logged(sequence + base, at, message.data), count
