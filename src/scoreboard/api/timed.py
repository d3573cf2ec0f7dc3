"""A client's connection in time: uvicorn's, with deadlines and an end of our own.

In come uvicorn's calls about what the client does; out goes until when something is awaited from it, for
``deadlines.py`` to see to. Who is cut off is told why. It must never cut off a client that waits for us.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scoreboard.api.deadlines import Deadlines
from scoreboard.api.straight import answer_of
from scoreboard.errors import Problem

AT_ONCE = 500  # requests in one piece: they are read, and many answered, in one turn of the loop; some 10 ms
_MAPPED = "::ffff:"  # how a socket for both families tells IPv4 addresses


class Timed(HttpToolsProtocol):
    """uvicorn's connection, with deadlines."""

    def __init__(self, deadlines: Deadlines, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._deadlines = deadlines
        self._upgraded = False
        self.deadline: float | None = None
        self._in_head = self._in_body = False
        self._begun = 0
        """Requests of the piece that comes."""
        self._head = self._new = 0
        """Bytes of the head that comes, and of the piece that comes if the next head begins with it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; its first request is awaited."""
        super().connection_made(transport)
        if self.client is not None and self.client[0].startswith(_MAPPED):
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        if not self._deadlines.admit(self):
            transport.write(_BUSY)
            transport.close()
        self._within(self._deadlines.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self._upgraded:
            self._deadlines.gone(self)
        super().connection_lost(exc)

    def _within(self, seconds: float) -> None:
        """What comes next, from the client or to it, must come within so many seconds."""
        self.deadline = self.loop.time() + seconds

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._within(self._deadlines.taking)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._review(anew=True)

    def is_ours(self) -> bool:
        """Is it we who do not read on, and not the client that does not send?"""
        return self.flow.read_paused and not self.flow.write_paused and not self.transport.is_closing()

    def _review(self, *, anew: bool) -> None:
        """Is something awaited now? ``anew`` if it is something else than before."""
        idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        if self._in_head or self._in_body or self.transport.is_closing():
            if anew or self.deadline is None:
                self._within(self._deadlines.seconds)
        elif not self.flow.write_paused:
            if not idle:
                self.deadline = None
            elif anew:
                self._within(self._deadlines.pause)

    def on_response_complete(self) -> None:
        """An answer has been given: the turn of the next request, if it is there. As uvicorn's; our clock."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._in_head and not self._in_body and not self.flow.write_paused:
            self._within(self._deadlines.pause)

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as a request is answered like everything else; not before what came earlier."""
        if self._begun > AT_ONCE:
            msg = f"More than {AT_ONCE} requests came at once. Wait for the answers."
        earlier = self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]
        if earlier and not self._in_body:
            self.last_one()
        else:
            self._cut_off(msg)

    def _cut_off(self, msg: str) -> None:
        self.transport.write(_last_answer(Problem("malformed_request", msg)))
        self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._begun += 1
        if self._begun > AT_ONCE:
            raise OverflowError  # it ends the parsing; ``send_400_response`` is next
        self._in_head = True
        self._head, self._new = self._new, 0
        if not self.flow.write_paused:  # else the earlier answer has a deadline, which is the later one
            self._within(self._deadlines.seconds)
        super().on_message_begin()

    def last_one(self) -> None:
        """The newest request is the last one on this connection; the answer says so."""
        if self.cycle is not None:
            self.cycle.keep_alive = False


def _last_answer(problem: Problem) -> bytes:
    """To a client that is cut off: nothing else is known of it."""
    head, body = answer_of(problem)
    return (
        head
        + b"connection: close\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\r\n"
        + body
    )


_BUSY = _last_answer(Problem("unavailable", "Too many connections.", retry_after=1))
