"""One watching client, whatever it watches through: what a socket of ours has to do with the hubs.

In come the socket and news of it from the event loop; out goes what the hub writes, which it does itself.
``connection.py`` and ``sse.py`` say how each transport begins, listens and ends.

It must never buffer for a client that does not read.
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

if TYPE_CHECKING:
    from scoreboard.live.hub import Hub
    from scoreboard.live.hubs import Hubs
    from scoreboard.live.members import Member
    from scoreboard.live.you import Line

DRAINING = 4001
SERVER_ERROR = 4002
TOKEN_EXPIRED = 4004
TOO_MUCH = 4029
INVALID_TOKEN = 4401
FORBIDDEN = 4403
UNKNOWN_BOARD = 4404

RETRY_SECONDS = (1, 5)
"""A refused client comes back after a random time within this, lest all come at once."""
BYE_MILLISECONDS = (500, 5_000)
"""So do the clients of a process that drains: 20,000 of them stay below 5,000 handshakes a second."""


class Watcher(asyncio.Protocol):
    """A client of a hub, and the owner of its socket."""

    __slots__ = (
        "_admitted", "_hubs", "_others", "_transport",
        "hub", "line", "member", "paused", "place", "version", "write",
    )  # fmt: skip

    form: ClassVar[int]
    """Its place in ``wire.Forms``."""
    write: Callable[[bytes], object]

    def __init__(self, hubs: Hubs, others: set[Any], *, admitted: bool = False) -> None:
        self._hubs = hubs
        self._others = others
        self._admitted = admitted
        self.hub: Hub | None = None
        """The hub that it is in; ``None`` before and after."""
        self.member: Member | None = None
        """Who it has proved to be; ``None`` if it has not said."""
        self.line: Line | None = None
        """Its user's own line, if it has one."""
        self.paused = False
        self.place = 0
        self.version = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self._others.add(self)
        # Whoever hands the socket over may do this only later; pause_writing must reach us before.
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=0)
        if self._transport.get_write_buffer_size() and not self.paused:
            self.pause_writing()  # the answer to an earlier request on this socket is still being sent

    def pause_writing(self) -> None:
        """The kernel is full: the hub passes us over until it is not."""
        self.paused = True
        self._hubs.paused(self)

    def resume_writing(self) -> None:
        """All that was written is with the kernel: take what is newest if there was something meanwhile."""
        self.paused = False
        self._hubs.resumed(self)
        self._transport.resume_reading()
        if self.hub is not None:
            self.hub.resumed(self)
        if self.line is not None and not self.paused:
            self.line.resumed(self)

    def eof_received(self) -> None:
        """The client will say nothing more. The loop closes the transport when this returns."""
        self._finish()

    def connection_lost(self, _: Exception | None) -> None:
        """The socket is gone."""
        self._leave()
        self._others.discard(self)
        self._hubs.gone(self, admitted=self._admitted)

    def shutdown(self) -> None:
        """Uvicorn stops."""
        self.bye()

    def bye(self) -> None:
        """Tell the client to come back later, and close."""
        after = random.randint(*BYE_MILLISECONDS)  # noqa: S311 - spreads load, keeps no secret
        self.close(DRAINING, "draining", after)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    @abstractmethod
    def close(self, code: int, reason: str, retry_after: int | None = None) -> None:
        """Say why, and when to come back (ms), and end the connection soon."""

    def _finish(self) -> None:
        """Close the socket once everything is written, or soon."""
        self._leave()
        self._transport.close()
        self._hubs.closing(self)

    def _leave(self) -> None:
        if self.hub is not None:
            self.hub.leave(self)
            self.hub = None
        self.forget()

    def forget(self) -> None:
        """It is nobody that we know from now on."""
        if self.line is not None:
            self.line.leave(self)
            self.line = None
        if self.member is not None:
            self.member.leave(self)
            self.member = None


def retry_seconds() -> int:
    """When a client that is refused now may come back."""
    return random.randint(*RETRY_SECONDS)  # noqa: S311 - spreads load, keeps no secret
