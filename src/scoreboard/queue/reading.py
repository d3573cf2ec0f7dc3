"""Reading: the messages of a partition in order, from any place, as they come.

In comes the number after which to begin; out go messages, each time what there is. Nothing is acknowledged.
A hole must never be passed over: who reads is told, and begins again after the last message that it has.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from scoreboard.errors import Unavailable
from scoreboard.queue.log import Log, Logged
from scoreboard.queue.server import translated

READ_AHEAD = 64  # envelopes asked for at once: bounds what a reader holds to 64 x 256 KiB
PULL_SECONDS = 20  # how long the server keeps a request for messages open
BEAT_SECONDS = 1  # it says so each second; three beats missed means that it is gone


class Reader(Log):
    """The log of one deployment, to be read."""

    async def read(self, partition: int, after: int) -> AsyncGenerator[list[Logged], None]:
        """The messages of a partition after a number, in order, as they come: each time what there is.

        Raises:
            Unavailable: the connection was lost or a message is missing; begin again after the last one.
        """
        messages: asyncio.Queue[Msg | None] = asyncio.Queue()  # bounded by what is asked for: READ_AHEAD
        inbox = self._client.new_inbox()

        async def arrived(message: Msg) -> None:
            messages.put_nowait(message)

        with translated():
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


def _logged(message: Msg, base: int) -> tuple[Logged, int]:
    # $JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING, or the newer form with
    # domain and account before the stream and a token at the end.
    tokens = message.reply.split(".")
    sequence, count, nanoseconds = map(int, tokens[5:8] if len(tokens) == 9 else tokens[7:10])
    at = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    at += timedelta(microseconds=nanoseconds % 10**9 // 1000)
    return Logged(sequence + base, at, message.data), count
