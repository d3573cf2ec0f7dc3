"""One WebSocket: the protocol class that uvicorn hands an upgraded socket to.

In come the upgrade request and what the client says, which is little: pings, a close. Out go the answer to
the handshake, the hub's frames (which the hub writes itself), pongs and closes.

It must never buffer for a client that does not read, read on for one that does not listen, or spend more on a
talkative client than a fixed share of time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from scoreboard.live import wire
from scoreboard.live.handshake import Refusal, busy, greet
from scoreboard.live.hub import Hub
from scoreboard.live.hubs import Hubs
from scoreboard.live.inbound import BAD_MESSAGE, Ear, Heard

if TYPE_CHECKING:
    from uvicorn.server import ServerState

INBOUND_BYTES = 8_192
"""What a client may say in a second. Parsing as many bytes of pings takes 4 ms; without a bound, the 256 KiB
that the loop reads at once held up everybody for 126 ms."""
RETRY_SECONDS = (1, 5)
"""A refused client comes back after a random time within this, lest all come at once."""
BYE_MILLISECONDS = (500, 5_000)
"""So do the clients of a process that drains: 20,000 of them stay below 5,000 handshakes a second."""

DRAINING = 4001
TOO_MUCH = 4029
UNKNOWN_BOARD = 4404


class State(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = 0
    OPEN = 1
    CLOSING = 2
    """We sent a close frame and wait for the client's."""
    DEAF = 3
    """All is said; what still comes in is thrown away until the socket ends."""


class Connection(asyncio.Protocol):
    """A client of a hub. It owns the socket from the upgrade request on."""

    __slots__ = (
        "_admitted", "_ear", "_hub", "_hubs", "_others", "_said", "_second", "_state", "_transport",
        "paused", "place", "version", "write",
    )  # fmt: skip

    write: Callable[[bytes], object]

    def __init__(self, hubs: Hubs, others: set[Any]) -> None:
        self._hubs = hubs
        self._others = others
        self._hub: Hub | None = None
        self._state = State.HANDSHAKE
        self._admitted = False
        self.paused = False
        self.place = 0
        self.version = 0
        self._ear: Ear | None = None
        self._second = 0
        self._said = 0

    # What the event loop and uvicorn call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self._others.add(self)
        # uvicorn does this only after it has passed the request on; pause_writing must reach us before.
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=0)
        if self._transport.get_write_buffer_size() and not self.paused:
            self.pause_writing()  # the answer to an earlier request on this socket is still being sent

    def data_received(self, data: bytes) -> None:
        """The upgrade request comes first, whole; then frames, in any pieces."""
        if self._state is State.HANDSHAKE:
            self._shake_hands(data)
        elif self._state is not State.DEAF:
            self._listen(data)

    def pause_writing(self) -> None:
        """The kernel is full: the hub passes us over until it is not."""
        self.paused = True
        self._hubs.paused(self)

    def resume_writing(self) -> None:
        """All that was written is with the kernel: take the newest frame if there was one meanwhile."""
        self.paused = False
        self._hubs.resumed(self)
        self._transport.resume_reading()
        if self._hub is not None:
            self._hub.resumed(self)

    def eof_received(self) -> None:
        """The client will say nothing more. The loop closes the transport when this returns."""
        self._finish()

    def connection_lost(self, _: Exception | None) -> None:
        """The socket is gone."""
        self._leave()
        self._state = State.DEAF
        self._ear = None
        self._others.discard(self)
        self._hubs.gone(self, admitted=self._admitted)

    def shutdown(self) -> None:
        """Uvicorn stops."""
        self.bye()

    # What the hubs call.

    def bye(self) -> None:
        """Tell the client to come back later, and close."""
        after = random.randint(*BYE_MILLISECONDS)  # noqa: S311 - spreads load, keeps no secret
        self.close(DRAINING, "draining", wire.bye(DRAINING, after))

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def close(self, code: int, reason: str, before: bytes = b"") -> None:
        """Send a close frame (after ``before``), and wait a little for the client's."""
        if self._state is State.OPEN:
            self._leave()
            self._state = State.CLOSING
            self.write(before + wire.close(code, reason))
            self._hubs.closing(self)

    # The handshake.

    def _shake_hands(self, request: bytes) -> None:
        self._admitted = self._hubs.admit()
        if not self._admitted:
            self._refuse(busy(random.randint(*RETRY_SECONDS)))  # noqa: S311 - spreads load, keeps no secret
            return
        verdict = greet(request)
        if isinstance(verdict, Refusal):
            self._refuse(verdict)
            return
        self._state = State.OPEN
        hub = self._hubs.get(verdict.board)
        if hub is None:
            # After a welcome: a browser's script sees a close code, but never why a handshake failed.
            self.close(UNKNOWN_BOARD, "unknown board", verdict.answer)
            return
        self._hub = hub
        hub.join(self, verdict.known, verdict.answer)

    def _refuse(self, refusal: Refusal) -> None:
        self.write(refusal.answer)
        self._finish()

    # What the client says.

    def _listen(self, data: bytes) -> None:
        if self.paused:
            # It talks and does not read. Hear this, for it may be a close, and then nothing until it reads.
            self._transport.pause_reading()
        room = self._room(len(data))
        if self._ear is None:
            self._ear = Ear()
        heard = self._ear.hear(data[:room])
        if heard.complete:
            self._ear = None
        for message in heard.messages:
            self._understand(message)
        if heard.fault is not None:
            self.close(*heard.fault)
        if self._state is State.OPEN:
            self._reply(heard)
        if heard.closed:
            self._finish()
        elif heard.failed:
            self._turn_deaf()
        elif room < len(data):
            self.close(TOO_MUCH, "too many messages")
            self._turn_deaf()

    def _room(self, size: int) -> int:
        """How much of so many bytes the client may still say in this second."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._said = second, 0
        room = max(0, INBOUND_BYTES - self._said)
        self._said += size
        return min(size, room)

    def _understand(self, _message: str) -> None:
        """Do what a message says. There is none yet that a client may send."""
        self.close(BAD_MESSAGE, "bad message")

    def _reply(self, heard: Heard) -> None:
        if not self.paused:
            self.write(b"".join(heard.replies))
        elif heard.closed or heard.failed:
            self.write(heard.replies[-1])  # a close frame is worth its few bytes in our buffer, pongs are not

    # The end.

    def _turn_deaf(self) -> None:
        """After a close frame that needs no answer: end our side, and read on, or the rest would reset the
        connection before the client has seen the close frame.
        """
        self._leave()
        self._state = State.DEAF
        self._hubs.closing(self)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS
            self._transport.close()

    def _finish(self) -> None:
        """Close the socket once everything is written, or soon."""
        self._leave()
        self._state = State.DEAF
        self._transport.close()
        self._hubs.closing(self)

    def _leave(self) -> None:
        if self._hub is not None:
            self._hub.leave(self)
            self._hub = None


def protocol(hubs: Hubs) -> Callable[..., Connection]:
    """What ``uvicorn.Config(ws=...)`` takes: makes a connection to these hubs for each upgrade request."""

    def connection(*, server_state: ServerState, **_: object) -> Connection:
        return Connection(hubs, cast("set[Any]", server_state.connections))

    return connection
