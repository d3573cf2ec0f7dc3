"""One stream of Server-Sent Events: the same messages as over WebSocket, for clients that have only HTTP.

The request is a common one: it is routed, judged and authenticated like all others (api/streams.py), and only
then the socket is handed over. From there on it is a client of the hub like any other, and costs no task.

The body ends with the connection, so that an event is the same bytes for everybody: no chunks, no length.
"""

from __future__ import annotations

from typing import Any

from scoreboard.live import wire
from scoreboard.live.hub import Hub
from scoreboard.live.hubs import Hubs
from scoreboard.live.watcher import Watcher, retry_seconds
from scoreboard.model import Principal

SAID_BYTES = 8_192
"""What a client may send after its request, which is nothing; a proxy's stray bytes are forgiven."""


class EventStream(Watcher):
    """A client over Server-Sent Events. It owns the socket once its request has been granted."""

    __slots__ = ("_ended", "_said")

    form = wire.EVENTS

    def __init__(self, hubs: Hubs, others: set[Any]) -> None:
        super().__init__(hubs, others, admitted=True)
        self._ended = False
        self._said = 0

    def begin(self, hub: Hub, known: tuple[str, str], who: tuple[str, Principal] | None) -> None:
        """Watch a board, from the frame on that the client has.

        Args:
            hub: of the board.
            known: epoch and seq of that frame, as text.
            who: the credentials that the client sent, if any, and whose they are.
        """
        self.hub = hub
        hub.join(self, known, b"retry: %d\n\n" % (1000 * retry_seconds()))
        if who is not None:
            self._hubs.members.enter(self, *who)

    def data_received(self, data: bytes) -> None:
        """There is nothing that it has to say."""
        self._said += len(data)
        if self._said > SAID_BYTES:
            self.abort()

    def close(self, code: int, reason: str, retry_after: int | None = None) -> None:  # noqa: ARG002
        """Send a ``bye``, which stands for a close frame, and end the stream."""
        if not self._ended:
            self.write(wire.bye(code, retry_after or 0)[self.form])
            self._finish()

    def _finish(self) -> None:
        self._ended = True
        super()._finish()
