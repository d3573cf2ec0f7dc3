"""One board watched over WebSocket: messages of any connection come in, newer frames and own lines go out.

It must never give an older board after a newer one, or hurry a server that is just coming back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
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

EXPIRED = 4004
REFUSALS = {4400: "bad_message", 4401: "invalid_token", 4403: "origin_denied", 4404: "unknown_board"}
"""What close codes mean that trying again will not make better (all from 4400 to 4499)."""

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


class Bye(Struct, frozen=True, rename="camel", tag="bye", tag_field="type"):
    """The server ends the connection, and says when to come back."""

    retry_after: int = 0


_messages = msgspec.json.Decoder(Frame | You | Heartbeat | Bye)


async def messages(url: str, board: str, asking: Asking) -> AsyncGenerator[Frame | You]:
    """Newer frames, and the user's own lines. Raises ``Refused`` when the server will not show the board."""
    address = f"{url.replace('http', 'ws', 1)}/boards/{quote(board, safe='')}/live"
    newest: Frame | None = None
    anonymous = False
    tries = 0
    clock = asyncio.get_running_loop().time
    while True:
        began, wish = clock(), 0.0
        query = f"?{urlencode({'epoch': newest.epoch, 'seq': newest.seq})}" if newest else ""
        try:
            credentials = None if anonymous else await asking.credentials()
            async with _connected(address + query) as socket:
                if credentials:
                    await socket.send(msgspec.json.encode({"type": "auth", "token": credentials}).decode())
                async for message in _received(socket):
                    if isinstance(message, You):
                        yield message
                    elif isinstance(message, Bye):
                        wish = min(message.retry_after / 1000, PATIENCE_SECONDS)
                    elif isinstance(message, Frame) and _is_newer(message, newest):
                        newest = message
                        yield message
        except (OSError, TimeoutError, WebSocketException) as error:
            code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else 0
            if 4400 <= code <= 4499:
                raise Refused(REFUSALS.get(code, "refused"), f"{board} is not shown: {error}") from error
            # A token that was given as text and has expired is no use; a public board can do without.
            anonymous = anonymous or (code == EXPIRED and not asking.renewable)
            if isinstance(error, InvalidStatus):
                wish = min(_seconds(error), PATIENCE_SECONDS)
            tries = 0 if clock() - began > STEADY_SECONDS else tries
            pause = wish or backoff(tries, FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
            tries += 1
            logger.info("lost %s, back in %.1f s: %s", address, pause, error)
            await asyncio.sleep(pause)


def _connected(address: str) -> connect:
    return connect(
        address,
        subprotocols=[Subprotocol("scoreboard.v1")],
        compression=None,
        ping_interval=None,  # heartbeats tell as much
        max_queue=1,  # whoever is slow shall find the newest frame, not a row of old ones
    )


async def _received(socket: ClientConnection) -> AsyncGenerator[Frame | You | Heartbeat | Bye]:
    while True:
        message = await asyncio.wait_for(socket.recv(decode=False), SILENCE_SECONDS)
        try:
            yield _messages.decode(message)
        except msgspec.ValidationError:
            continue  # a newer server may say what this client does not know


def _is_newer(frame: Frame, known: Frame | None) -> bool:
    return known is None or frame.epoch != known.epoch or frame.seq > known.seq


def _seconds(error: InvalidStatus) -> float:
    after = error.response.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0
