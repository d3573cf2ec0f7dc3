"""The log itself: made once, one for each deployment; its state, what it holds of a partition, its end.

In come the configuration and the identity of the log that the database has been reading; out go the log's
state and the numbers and times of its messages. It must never make a second log where one has been, nor drop
a message that it was not told to.
"""

from __future__ import annotations

import logging
import secrets
from datetime import datetime

import nats.js.errors
from msgspec import Struct
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from scoreboard.errors import LogMismatch, Unavailable
from scoreboard.queue.server import Server, translated

logger = logging.getLogger(__name__)

FULL_BYTES = 64 << 10  # with less than this left the log refuses many an envelope: call it full
NO_MESSAGE = 10037  # there is no such message; another "not found" says that there is no log


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


class Log(Server):
    """The log of one deployment, as a whole."""

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
            with translated():
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
        with translated():
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
        with translated():
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

    def subject(self, partition: int) -> str:
        """Where envelopes of a partition are published."""
        return f"{self._stream}.log.{self._identity}.{partition}"

    async def time_of(self, number: int) -> datetime | None:
        """When a message was accepted; ``None`` if the log no longer holds it."""
        with translated():
            try:
                message = await self._jetstream.get_msg(self._stream, seq=number - self._base, direct=False)
            except nats.js.errors.NotFoundError:
                return None
        return message.time

    async def oldest(self, partition: int, after: int) -> tuple[int, datetime] | None:
        """Number and time of the first message of a partition after a number; ``None``: there is none."""
        with translated():
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
        with translated():
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
        with translated():
            await self._jetstream.purge_stream(self._stream, seq=first)
