"""How long a client may take, and how many may be connected: uvicorn bounds neither.

A client that sends half a request and waits would hold its connection for ever; so would one that never says
anything, or never takes its answer. What comes in between (our work, the pause before the next request) is
not timed here. One slow tick serves all connections, and runs only while something is awaited.

It must never end a connection whose request is complete and whose answer is on its way: ``Prefer: wait`` and
streams take as long as they take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from scoreboard.api.problems import MEDIA_TYPE, headers_of
from scoreboard.errors import Problem

SECONDS = 10.0  # for a request's head, and again for its body
TAKING_SECONDS = 30.0  # for an answer that does not fit into the kernel's memory
TICK_SECONDS = 1.0
HEAD_BYTES = 64 * 1024
"""Of a request's head; its last piece may be up to 256 KiB more. The parser has no bound itself."""
Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)
_MAPPED = "::ffff:"  # how a socket for both families tells IPv4 addresses


class Deadlines:
    """The connections of a process, and until when something is awaited from them."""

    def __init__(
        self,
        connections: int,
        seconds: float = SECONDS,
        taking: float = TAKING_SECONDS,
        tick: float = TICK_SECONDS,
    ) -> None:
        self._limit, self._tick = connections, tick
        self.seconds, self.taking = seconds, taking
        self.connections = 0
        """Open HTTP connections."""
        self.draining = False
        """Does each answer end its connection?"""
        self._waiting: dict[Http, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self) -> bool:
        """Is there room for one more connection? Counts it in any case."""
        self.connections += 1
        return self.connections <= self._limit

    def gone(self, connection: Http) -> None:
        """A connection has ended, or become a WebSocket."""
        self.connections -= 1
        self._waiting.pop(connection, None)

    def wait(self, connection: Http, seconds: float, *, anew: bool = True) -> None:
        """Something is awaited within so many seconds; if not ``anew``, an earlier deadline stands."""
        if not anew and connection in self._waiting:
            return
        loop = asyncio.get_running_loop()
        self._waiting[connection] = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._expire)

    def done(self, connection: Http) -> None:
        """Nothing is awaited any more."""
        self._waiting.pop(connection, None)

    def close(self) -> None:
        """Stop the tick."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one, deadline in self._waiting.items() if deadline <= now]:
            if connection.is_ours():
                self._waiting[connection] = now + self.seconds
            else:
                del self._waiting[connection]
                connection.transport.abort()
        self._timer = loop.call_later(self._tick, self._expire) if self._waiting else None


class Http(HttpToolsProtocol):
    """uvicorn's connection, with deadlines."""

    def __init__(self, deadlines: Deadlines, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._deadlines = deadlines
        self._upgraded = False
        self._in_head = self._in_body = False
        self._head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; its first request is awaited."""
        super().connection_made(transport)
        if self.client is not None and self.client[0].startswith(_MAPPED):
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        if not self._deadlines.admit():
            transport.write(_BUSY)
            transport.close()
        self._deadlines.wait(self, self._deadlines.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self._upgraded:
            self._deadlines.gone(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or all of it, or more."""
        if self.transport.is_closing():
            return  # what comes after the end is nobody's
        before = (self._in_head, self._in_body)
        super().data_received(data)
        if self._upgraded:
            return
        if self._in_head:
            self._head = self._head + len(data) if before[0] else len(data)
            if self._head > HEAD_BYTES:
                self.send_400_response("The request's head is too large.")
        self._review(anew=before != (self._in_head, self._in_body))

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._deadlines.wait(self, self._deadlines.taking)

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
            self._deadlines.wait(self, self._deadlines.seconds, anew=anew)
        elif idle and self.timeout_keep_alive_task is None:
            # An empty line before a request: uvicorn has stopped its own clock.
            self._deadlines.wait(self, self._deadlines.seconds, anew=False)
        elif not self.flow.write_paused:
            self._deadlines.done(self)

    def handle_websocket_upgrade(self) -> None:
        """The socket is live's from here on.

        Unless requests before this one still wait: their answers come first (RFC 9112 9.3.2), and then
        the connection ends.
        """
        if self.parser.get_http_version() != "1.1":
            self.send_400_response("A WebSocket begins with HTTP/1.1.")  # RFC 6455 section 4.2.1
            return
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            self.cycle.keep_alive = False
            return
        self._upgraded = True
        self._deadlines.gone(self)
        super().handle_websocket_upgrade()

    def hand_over(
        self,
        cycle: RequestResponseCycle,
        make: Callable[[set[Any]], Protocol],
        headers: Mapping[str, str],
    ) -> Protocol | None:
        """Begin to answer the request, and give the socket away: the body is another protocol's, without end.

        Args:
            cycle: the request. What was sent behind it gets no answer: this one has no end.
            make: makes that protocol, given uvicorn's set of connections. If it raises, nothing has happened.
            headers: of the answer, which is 200.

        Returns:
            The protocol; ``None`` if the client has gone.
        """
        if cycle.disconnected:
            return None
        protocol = make(self.connections)
        self._upgraded = True
        self._deadlines.gone(self)
        self.connections.discard(self)
        self.pipeline.clear()
        cycle.response_started = cycle.response_complete = True
        lines = [name + b": " + value for name, value in self.server_state.default_headers]
        lines += [f"{name}: {value}".encode() for name, value in headers.items()]
        self.transport.write(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"connection: close\r\n\r\n"]))
        self.flow.resume_reading()
        protocol.connection_made(self.transport)
        return protocol

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as a request is answered like everything else."""
        self.transport.write(_answer(Problem("malformed_request", msg)))
        self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head has come; the body is next, if there is one."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if self.parser.get_method() == b"GET" and cycle is not None and cycle.scope is self.scope:
            self.scope["hand_over"] = partial(self.hand_over, cycle)  # type: ignore[typeddict-unknown-key]
        if self._deadlines.draining:
            self.last_one()

    def last_one(self) -> None:
        """The newest request is the last one on this connection; the answer says so."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request has come whole."""
        self._in_body = False
        super().on_message_complete()


def _answer(problem: Problem) -> bytes:
    body = msgspec.json.encode(problem.body())
    headers = headers_of(problem) | {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


_BUSY = _answer(Problem("unavailable", "Too many connections.", retry_after=1))


def http(deadlines: Deadlines) -> Callable[..., Http]:
    """What ``uvicorn.Config(http=...)`` takes."""

    def connection(**kwargs: Any) -> Http:
        return Http(deadlines, **kwargs)

    return connection
