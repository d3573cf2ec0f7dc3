"""Publishing: an envelope goes into the log, and is answered for once it is synced to disk.

In come a partition and the bytes of an envelope; out goes its number. What is not known to be in the log must
never be told as accepted: then it is ``QueueFull``, which means that it is not, or ``Unavailable``.
"""

from __future__ import annotations

import asyncio

from scoreboard.errors import Unavailable
from scoreboard.queue.reading import Reader
from scoreboard.queue.server import translated

PUBLISH_SECONDS = 2.0  # a synced publish takes a millisecond; after this its outcome is unknown
SLOW_SECONDS = 0.3  # a publish that takes longer has the server asked whether it is there at all


class Queue(Reader):
    """The log of one deployment. Open it with ``Queue.open``."""

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
        with translated():
            return sending.result().seq + self._base
