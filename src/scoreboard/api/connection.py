"""A client's connection: uvicorn's, with deadlines (timed.py), and a straight way for the hot routes.

In come bytes, out go requests to the ASGI application and its answers. What goes the straight way
(straight.py) is answered in its turn like any other, and its size is bounded before it is read. A head that
has gone it before is known again by its bytes, and not parsed once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from scoreboard.api.deadlines import Deadlines
from scoreboard.api.straight import BODY_BYTES, Handler, Request, Straight, head_of
from scoreboard.api.timed import Timed

HEAD_BYTES = 64 * 1024
"""Of a request's head; its last piece may be up to 256 KiB more, and so may the first one behind an earlier
request. The parser has no bound itself.
"""
Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)
# Headers that a handler of the straight way may look at; one that comes twice is the application's to judge.
_HEADERS = frozenset(
    (b"authorization", b"content-length", b"content-type", b"if-none-match", b"x-forwarded-for")
)
# Headers that make the application do more than answer.
_MORE = frozenset(
    (b"content-encoding", b"expect", b"origin", b"prefer", b"transfer-encoding", b"upgrade", b"x-request-id")
)


class Http(Timed):
    """uvicorn's connection, with deadlines and the straight way."""

    def __init__(self, deadlines: Deadlines, straight: Straight, **kwargs: Any) -> None:
        super().__init__(deadlines, **kwargs)
        self._straight = straight
        self._request: Request | None = None
        """Of the straight way, while it comes."""
        self._piece = b""
        """What is being parsed, if a request begins with it; until that one has come whole."""
        self._every: tuple[Any, bytes] = (None, b"")

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or all of it, or more."""
        if self.transport.is_closing():
            return  # what comes after the end is nobody's
        if not self._in_head and not self._in_body:
            if self._is_known(data):
                return
            self._piece = data
        before = (self._in_head, self._in_body)
        self._begun = 0
        self._head += len(data)
        self._new = 0 if any(before) else len(data)
        super().data_received(data)
        self._piece = b""
        if self._upgraded:
            return
        if self._in_head and self._head > HEAD_BYTES:
            self._cut_off("The request's head is too large.")
        self._review(anew=before != (self._in_head, self._in_body))

    def _is_known(self, data: bytes) -> bool:
        """Is this one whole request whose head went the straight way before? Then it goes there."""
        if self._must_wait():
            return False
        if (found := self._straight.known(data)) is None:
            return False
        head, body = found
        earlier: Any = self.cycle
        request = Request(self, head.handler, head.said, body)
        self.cycle = request  # type: ignore[assignment]  # it is all of one that is used
        self.deadline = None
        if head.handler(request):
            return True
        self.cycle = earlier
        return False

    def _must_wait(self) -> bool:
        """Must what comes now not go straight, because something else comes first, or the end?"""
        busy = self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]
        return busy or self.flow.write_paused or self._deadlines.draining

    def handle_websocket_upgrade(self) -> None:
        """The socket is live's from here on.

        Unless requests before this one still wait: their answers come first (RFC 9112 9.3.2), and then
        the connection ends.
        """
        if self.parser.get_http_version() != "1.1":
            self._cut_off("A WebSocket begins with HTTP/1.1.")  # RFC 6455 section 4.2.1
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
        head = head_of(HTTPStatus.OK, headers.items())
        self.transport.write(head + self._of_every_answer() + b"connection: close\r\n\r\n")
        self.flow.resume_reading()
        protocol.connection_made(self.transport)
        return protocol

    def on_headers_complete(self) -> None:
        """The head has come; the body is next, if there is one."""
        self._in_head, self._in_body = False, True
        handler = self._straight.handler(self.parser.get_method(), self.url)
        if handler is not None:
            self._request = self._going_straight(handler)
        if self._request is not None:
            self.cycle = self._request  # type: ignore[assignment]  # it is all of one that is used
        else:
            self._to_the_application()

    def _going_straight(self, handler: Handler) -> Request | None:
        if self._must_wait():
            return None
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return None
        headers: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _HEADERS:
                if name in headers:
                    return None
                headers[name] = value
            elif name in _MORE:
                return None
        if int(headers.get(b"content-length", 0)) > BODY_BYTES:
            return None
        said = handler.read(self.url, headers)
        return None if said is None else Request(self, handler, said)

    def _to_the_application(self) -> None:
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if self.parser.get_method() == b"GET" and cycle is not None and cycle.scope is self.scope:
            self.scope["hand_over"] = partial(self.hand_over, cycle)  # type: ignore[typeddict-unknown-key]
        if self._deadlines.draining:
            self.last_one()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._request is not None:
            self._request.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come whole."""
        self._in_body = False
        request, self._request = self._request, None
        piece, self._piece = self._piece, b""
        if request is not None:
            if request.handler(request):
                if piece:
                    self._straight.keep(piece, request)
                return
            self.cycle = None  # type: ignore[assignment]
            self._to_the_application()
            super().on_body(request.body)
        super().on_message_complete()

    def _of_every_answer(self) -> bytes:
        """The headers of each answer; uvicorn makes new ones each second, for the date."""
        headers = self.server_state.default_headers
        if headers is not self._every[0]:
            self._every = headers, b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return self._every[1]

    def answer(self, request: Request, head: bytes, body: bytes) -> None:
        """Answer a request of the straight way."""
        if request.disconnected or self.transport.is_closing():
            return
        last = b"" if request.keep_alive else b"connection: close\r\n"
        self.transport.write(b"".join((head, self._of_every_answer(), last, b"\r\n", body)))
        request.response_complete = True
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()


def http(deadlines: Deadlines, straight: Straight | None = None) -> Callable[..., Http]:
    """What ``uvicorn.Config(http=...)`` takes."""

    straight = straight or Straight({})

    def connection(**kwargs: Any) -> Http:
        return Http(deadlines, straight, **kwargs)

    return connection
