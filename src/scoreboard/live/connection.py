"""One WebSocket: the protocol class that uvicorn hands an upgraded socket to.

In come the upgrade request and what the client says, which is little: its token, pings, a close. Out go the
answer to the handshake, the hub's frames (which the hub writes itself), pongs and closes.

It must never read on for a client that does not listen, spend more on a talkative one than a fixed share of
time, or show a private board to who has not said who it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from scoreboard.live import wire
from scoreboard.live.handshake import Refusal, busy, greet
from scoreboard.live.hub import Hub
from scoreboard.live.hubs import Hubs
from scoreboard.live.inbound import BAD_MESSAGE, Ear, Heard, token_in
from scoreboard.live.watcher import (
    FORBIDDEN,
    TOO_MUCH,
    UNKNOWN_BOARD,
    Watcher,
    retry_seconds,
)
from scoreboard.model import Principal

if TYPE_CHECKING:
    from uvicorn.server import ServerState

INBOUND_BYTES = 8_192
"""What a client may say in a second. Parsing as many bytes of pings takes 4 ms; without a bound, the 256 KiB
that the loop reads at once held up everybody for 126 ms."""


class State(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = 0
    OPEN = 1
    CLOSING = 2
    """We sent a close frame and wait for the client's."""
    DEAF = 3
    """All is said; what still comes in is thrown away until the socket ends."""


class Connection(Watcher):
    """A client over WebSocket. It owns the socket from the upgrade request on."""

    __slots__ = ("_address", "_ear", "_said", "_second", "_state", "_wish")

    form = wire.WEBSOCKET

    def __init__(self, hubs: Hubs, others: set[Any]) -> None:
        super().__init__(hubs, others)
        self._state = State.HANDSHAKE
        self._wish: tuple[Hub, tuple[str, str]] | None = None
        """The private board that it waits for, and the frame that it has of it."""
        self._address = ""
        self._ear: Ear | None = None
        self._second = 0
        self._said = 0

    def data_received(self, data: bytes) -> None:
        """The upgrade request comes first, whole; then frames, in any pieces."""
        if self._state is State.HANDSHAKE:
            self._shake_hands(data)
        elif self._state is not State.DEAF:
            self._listen(data)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone."""
        self._state = State.DEAF
        self._ear = None
        super().connection_lost(error)

    def close(self, code: int, reason: str, retry_after: int | None = None) -> None:
        """Send a ``bye`` if it says when to come back, and a close frame; wait a little for the client's."""
        if self._state is State.OPEN:
            self._leave()
            self._state = State.CLOSING
            before = b"" if retry_after is None else wire.bye(code, retry_after)[self.form]
            self.write(before + wire.close(code, reason))
            self._hubs.closing(self)

    def welcome(self, credentials: str, principal: Principal) -> None:
        """It has proved who it is."""
        if self._state is State.OPEN:
            if self._wish is not None:
                (hub, known), self._wish = self._wish, None
                self._join(hub, known)
            self._hubs.members.enter(self, credentials, principal)

    # The handshake.

    def _shake_hands(self, request: bytes) -> None:
        self._admitted = self._hubs.admit(self.form)
        if not self._admitted:
            self._refuse(busy(retry_seconds()))
            return
        verdict = greet(request)
        if isinstance(verdict, Refusal):
            self._refuse(verdict)
            return
        self._state = State.OPEN
        peer = self._transport.get_extra_info("peername")
        self._address = self._hubs.members.address(peer[0] if peer else "", verdict.forwarded)
        hub = self._hubs.get(verdict.board)
        # After a welcome: a browser's script sees a close code, but never why a handshake failed.
        if hub is None:
            self.write(verdict.answer)
            self.close(UNKNOWN_BOARD, "unknown board")
        elif hub.public:
            self._join(hub, verdict.known, verdict.answer)
        elif self._hubs.origins.trusts(verdict.origin, verdict.host):
            self.write(verdict.answer)
            self._wish = (hub, verdict.known)
            self._hubs.unknown(self)
        else:
            self.write(verdict.answer)
            self.close(FORBIDDEN, "not for pages of this origin")

    def _join(self, hub: Hub, known: tuple[str, str], before: bytes = b"") -> None:
        self.hub = hub
        hub.join(self, known, before)

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

    def _understand(self, message: str) -> None:
        """Do what a message says."""
        token = token_in(message)
        if token is None:
            self.close(BAD_MESSAGE, "bad message")
        elif self._state is State.OPEN:
            self._hubs.known(self)
            self._hubs.members.ask(self, token, self._address)

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
        self._state = State.DEAF
        super()._finish()


def protocol(hubs: Hubs) -> Callable[..., Connection]:
    """What ``uvicorn.Config(ws=...)`` takes: makes a connection to these hubs for each upgrade request."""

    def connection(*, server_state: ServerState, **_: object) -> Connection:
        return Connection(hubs, cast("set[Any]", server_state.connections))

    return connection
