"""One board watched over WebSocket: messages come in, the newest frame or own line goes out.

A task reads, whatever the consumer does, and keeps the newest message alone: whoever is slow finds that, not
a row of old ones. It must never give an older board after a newer one, or hurry a server that is coming back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from scoreboard.client.asking import Asking, Refused, backoff
from scoreboard.model import Frame, Line

SILENCE_SECONDS = 30.0
"""The server says something at least every 20 s; after this long without anything the line is dead."""
FIRST_PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 20.0
STEADY_SECONDS = 5.0
"""A connection that lived this long was a good one: the next loss begins at the shortest pause."""
PATIENCE_SECONDS = 60.0
"""A server that asks for more patience than this is not taken at its word."""

EXPIRED, INVALID = 4004, 4401
REFUSALS = {
    EXPIRED: "token_expired",
    4400: "bad_message",
    INVALID: "invalid_token",
    4403: "origin_denied",
    4404: "unknown_board",
}
"""What close codes mean that trying again will not make better: all from 4400 to 4499, and an expired token
without another."""

State = Literal["connecting", "live", "stale", "waiting"]
"""``live``: what came last is the newest there is. ``stale``: connected, but the server has lost sight of the
board. ``waiting``: lost, until the next attempt."""
Ear = Callable[[State], object]
T = TypeVar("T")

logger = logging.getLogger(__name__)


class You(Struct, frozen=True, rename="camel", tag="you", tag_field="type"):
    """One user's own line. Without an entry the numbers are ``None`` and the lists empty."""

    board: str
    seq: int
    rank: int | None
    score: int | None
    to_next: int | None
    """Points needed to take the next rank; ``None`` at the top."""
    above: tuple[Line, ...] = ()
    below: tuple[Line, ...] = ()


class Heartbeat(Struct, frozen=True, tag="heartbeat", tag_field="type"):
    """Nothing has changed."""

    stale: bool = False


class Bye(Struct, frozen=True, rename="camel", tag="bye", tag_field="type"):
    """The server ends the connection, and says when to come back."""

    retry_after: int = 0


_messages = msgspec.json.Decoder(Frame | You | Heartbeat | Bye)


async def newest(
    kind: type[T], url: str, board: str, asking: Asking, on_state: Ear | None = None
) -> AsyncGenerator[T]:
    """The newest message of this kind, and again whenever a newer one has come since the last was taken.

    Raises ``Refused`` when the server will not show the board, and what ``on_state`` raises.
    """
    held: deque[T] = deque(maxlen=1)
    there = asyncio.Event()

    def take(message: Frame | You) -> None:
        if isinstance(message, kind):
            held.append(message)
            there.set()

    public = kind is not You  # without a name there is no own line
    reading = asyncio.create_task(_Reading(url, board, asking, take, on_state, public=public).run())
    reading.add_done_callback(lambda _: there.set())
    try:
        while held or not reading.done():
            await there.wait()
            there.clear()
            if held:
                yield held.popleft()
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class _Reading:
    """Connects, reads, and connects again, until the server will not show the board."""

    def __init__(
        self,
        url: str,
        board: str,
        asking: Asking,
        take: Callable[[Frame | You], None],
        on_state: Ear | None,
        *,
        public: bool,
    ) -> None:
        self._address = f"{url.replace('http', 'ws', 1)}/boards/{quote(board, safe='')}/live"
        self._board, self._asking, self._take, self._on_state = board, asking, take, on_state
        self._public = public
        """May it go on without a token that was refused, as a public board can?"""
        self._anonymous = False
        self._newest: Frame | None = None
        self._state: State | None = None
        self._wish = 0.0

    async def run(self) -> None:
        """Until ``Refused`` is raised."""
        clock = asyncio.get_running_loop().time
        tries = 0
        while True:
            began, self._wish = clock(), 0.0
            self._tell("connecting")
            try:
                await self._connect()
            except (OSError, TimeoutError, WebSocketException) as error:
                self._judge(error)
                tries = 0 if clock() - began > STEADY_SECONDS else tries
                pause = self._wish or backoff(tries, FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
                tries += 1
                logger.info("lost %s, back in %.1f s: %s", self._address, pause, error)
                self._tell("waiting")
                await asyncio.sleep(pause)

    async def _connect(self) -> None:
        """One connection, until it is lost."""
        known = self._newest
        query = f"?{urlencode({'epoch': known.epoch, 'seq': known.seq})}" if known else ""
        credentials = None if self._anonymous else await self._asking.credentials()
        async with _connected(self._address + query) as socket:
            if credentials:
                await socket.send(msgspec.json.encode({"type": "auth", "token": credentials}).decode())
            while True:
                # No task: all that has come is read before the consumer gets its turn.
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await socket.recv(decode=False)
                with suppress(msgspec.ValidationError):  # a newer server may say what we do not know
                    self._hear(_messages.decode(message))

    def _hear(self, message: Frame | You | Heartbeat | Bye) -> None:
        if isinstance(message, You):
            self._take(message)
        elif isinstance(message, Bye):
            self._wish = min(message.retry_after / 1000, PATIENCE_SECONDS)
        elif isinstance(message, Heartbeat):
            self._tell("stale" if message.stale else "live")
        else:
            self._tell("live")
            if _is_newer(message, self._newest):
                self._newest = message
                self._take(message)

    def _judge(self, error: Exception) -> None:
        """Why was it lost? Raises ``Refused`` if it is no use to come back."""
        code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else 0
        useless = code == INVALID or (code == EXPIRED and not self._asking.renewable)
        if useless and not self._anonymous and self._public:
            self._anonymous = True
        elif useless or 4400 <= code <= 4499:
            text = f"{self._board} is not shown: {error}"
            raise Refused(REFUSALS.get(code, "refused"), text) from error
        if isinstance(error, InvalidStatus):
            self._wish = min(_seconds(error), PATIENCE_SECONDS)

    def _tell(self, state: State) -> None:
        if state != self._state:
            self._state = state
            if self._on_state is not None:
                self._on_state(state)


def _connected(address: str) -> connect:
    return connect(
        address,
        subprotocols=[Subprotocol("scoreboard.v1")],
        compression=None,
        ping_interval=None,  # heartbeats tell as much
    )


def _is_newer(frame: Frame, known: Frame | None) -> bool:
    return known is None or frame.epoch != known.epoch or frame.seq > known.seq


def _seconds(error: InvalidStatus) -> float:
    after = error.response.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0
