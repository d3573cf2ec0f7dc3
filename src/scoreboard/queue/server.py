"""The connection to NATS: is it there, does it sync, can it write? And messages of which nothing is kept.

In come a URL and questions; out goes a connection that comes again by itself, and answers. A question must
never wait long for a server that is gone. Driver exceptions end here, as ``Unavailable`` or ``QueueFull``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import PubAck

from scoreboard.errors import QueueFull, Unavailable, heed_cancellation
from scoreboard.nats_services import HEALTH, SYNCS

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
GONE_SECONDS = 0.5  # a server that has not said by then that it is there is gone: a 503 within a second
# To ask that is not given up while its connection lives, which ends when it is silent for 6 s: nats-py (2.16)
# stops reading when a pong comes that nobody waits for.
ASKED_SECONDS = 20
SAY_SECONDS = 10.0  # between two words that the server is still waited for
FULL_CODES = (10023, 10047, 10077)  # insufficient resources, insufficient storage, maximum bytes exceeded


class Server:
    """The connection of one process to the server of its log."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=ANSWER_SECONDS)
        self._stream = namespace  # the stream's name; its subjects are below the same word
        self._identity = ""
        self._base = 0
        self._sending: set[asyncio.Future[PubAck]] = set()
        self._reading: set[asyncio.Queue[Msg | None]] = set()
        """Who publishes and who reads at the moment: told when the connection is lost."""
        self._asking: asyncio.Task[None] | None = None
        """Is the server there? All who want to know wait for the same answer."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, namespace: str, role: str, *, patient: bool = False) -> AsyncIterator[Self]:
        """A queue for as long as the block runs; it connects by itself again whenever it is cut off.

        ``patient``: a server that cannot be reached at the start is waited for, which the log says.

        Raises:
            Unavailable: it cannot be reached at the start, and we are not patient.
        """
        client = Client()
        queue = cls(client, namespace)
        connected, say_next = False, 0.0

        async def report(error: Exception) -> None:
            nonlocal say_next
            logger.debug("queue: %r", error)
            if connected:
                return
            heed_cancellation()  # the client tries until it succeeds, and swallows a cancellation meanwhile
            if not patient:
                raise Unavailable(f"The queue is away, or does not let us in: {error!r}") from error
            if time.monotonic() >= say_next:
                say_next = time.monotonic() + SAY_SECONDS
                logger.warning("waiting for the queue: %r", error)

        async def lost() -> None:
            queue._cut_off()

        try:
            with translated():
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
            connected = True
            yield queue
        finally:
            if client.servers:  # else the URL was none, and closing what was never begun is an error
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
        with translated():
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
            with translated():
                answer = await self._client.request(subject, timeout=seconds)
        except Unavailable as error:
            if isinstance(error.__cause__, nats.errors.NoRespondersError):
                return None
            await self._there()  # raises what is so, unless we have no permission to ask: no answer, too
            return None
        data: dict[str, Any] | None = json.loads(answer.data).get("data")
        return data

    async def listen(self, take: Callable[[bytes], Awaitable[None]]) -> str:
        """A subject of our own on which ``take`` gets each message (core NATS: nothing is kept)."""
        inbox = self._client.new_inbox()

        async def arrived(message: Msg) -> None:
            await take(message.data)

        with translated():
            await self._client.subscribe(inbox, cb=arrived)
        return inbox

    async def tell(self, inbox: str, body: bytes) -> None:
        """Send a message to whoever listens there; nobody may."""
        with translated():
            await self._client.publish(inbox, body)


@contextmanager
def translated() -> Iterator[None]:
    """Driver exceptions as ours."""
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
