"""The straight way: from the bytes of a request to its answer, without scope, messages, task or framework.

A request that this process can judge with what it has at hand goes straight (connection.py). Its handler
first reads the head; what a head says is kept, so that the next request with the very same bytes needs no
parsing, however long its body is. Once the request has come whole its handler is called, and answers at once
or later. A handler that cannot judge a request yet, or does not like it, says so before it has done anything,
and the application gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec
from msgspec import Struct

from scoreboard.api.problems import MEDIA_TYPE, headers_of

if TYPE_CHECKING:
    from scoreboard.api.connection import Http
    from scoreboard.errors import Problem

BODY_BYTES = 4 * 1024
"""Of a request of the straight way."""
HEADS = 10_000  # heads that are kept: 5 MB, and 25 if all of them are as long as may be
KEPT_BYTES = 2 * 1024  # of a head that is kept
_END = b"\r\n\r\n"  # of a head
_LENGTH = b"ength: "  # of Content-Length, whichever way its capitals are written
_NAME = b"\r\ncontent-l"  # what must stand before it


class _Unheard:
    """What uvicorn tells a request that waits for its body or end. Ours do not."""

    def set(self) -> None:
        """Nobody waits."""


class Request(Struct, eq=False):
    """A request of the straight way; to uvicorn it is the one that is being answered."""

    connection: Http
    handler: Handler
    said: Any
    """What the handler has read in its head."""
    body: bytes = b""
    keep_alive: bool = True
    disconnected: bool = False
    response_complete: bool = False
    message_event: ClassVar[_Unheard] = _Unheard()
    scope: ClassVar[Any] = None

    @property
    def peer(self) -> str:
        """The address that has opened the connection."""
        return self.connection.client[0] if self.connection.client else ""

    def answer(self, head: bytes, body: bytes) -> None:
        """The answer, once. ``head``: made by ``head_of``; ``body``: as long as that says."""
        self.connection.answer(self, head, body)


class Handler(Protocol):
    """Answers the requests of one target, or of all that are one step below it."""

    keeps: bool
    """Are its heads worth being kept?"""

    def read(self, target: bytes, headers: Mapping[bytes, bytes], /) -> Any:
        """What a head says: the target as sent, and the headers that a handler may look at; ``None``: it is
        the application's.

        It is kept without the head, so it must hold no credential, nothing that holds only now, and nothing
        of how long the body is.
        """

    def __call__(self, request: Request) -> bool:
        """Answer, now or later; ``False``: it has done nothing, and the application shall answer."""


class Head:
    """A head that went the straight way."""

    __slots__ = ("handler", "said")

    def __init__(self, handler: Handler, said: Any) -> None:
        self.handler, self.said = handler, said


class Straight:
    """The handlers of a process, by method and target as sent, and the heads that have come to them."""

    def __init__(
        self,
        handlers: Mapping[tuple[bytes, bytes], Handler],
        below: Mapping[tuple[bytes, bytes], Handler] = MappingProxyType({}),
    ) -> None:
        """``below``: of the targets that have one step more than the one given."""
        self._handlers, self._below = handlers, below
        self._heads: dict[bytes, Head] = {}

    def handler(self, method: bytes, target: bytes) -> Handler | None:
        """Whose such a request is, if anybody's."""
        found = self._handlers.get((method, target))
        return self._below.get((method, target.rpartition(b"/")[0])) if found is None else found

    def known(self, piece: bytes) -> tuple[Head, bytes] | None:
        """The head and the body, if this is one whole request and its head has come before.

        Its body may have been of another length then. A head is known by its SHA-256: nothing else is kept.
        """
        if (cut := _cut(piece)) is None:
            return None
        named, end, length = cut
        head = self._heads.get(sha256(named).digest())
        if head is None or len(piece) - end != length or length > BODY_BYTES:
            return None
        return head, piece[end:]

    def keep(self, piece: bytes, request: Request) -> None:
        """A request has gone straight that has come in one piece: remember its head, if that is all of it.

        What a parser takes for the end of a head, or for two requests, must leave no doubt: no line ends in
        another way.
        """
        if not request.handler.keeps or (cut := _cut(piece)) is None:
            return
        named, end, length = cut
        if (
            length == len(request.body)
            and piece[end:] == request.body
            and piece.count(b"\n", 0, end) == piece.count(b"\r\n", 0, end)
            and (len(named) == end or piece.partition(_LENGTH)[0].lower().endswith(_NAME))
        ):
            if len(self._heads) >= HEADS:
                del self._heads[next(iter(self._heads))]  # the oldest
            self._heads[sha256(named).digest()] = Head(request.handler, request.said)


def _cut(piece: bytes) -> tuple[bytes, int, int] | None:
    """A head without the number behind its first ``ength: ``, where it ends, and that number, if it is one.

    Only if that was ``Content-Length`` is the rest kept, and what comes later has the same name there.
    """
    end = piece.find(_END) + len(_END)
    if not len(_END) <= end <= KEPT_BYTES:
        return None
    at = piece.find(_LENGTH, 0, end) + len(_LENGTH)
    if at < len(_LENGTH):
        return piece[:end], end, 0
    stop = piece.find(b"\r", at)
    number = piece[at:stop]
    return (piece[:at] + piece[stop:end], end, int(number)) if number.isdigit() else None


def head_of(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Status line and headers of an answer, without those that all answers have."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n").encode()


def answer_of(problem: Problem, more: Mapping[str, str] = MappingProxyType({})) -> tuple[bytes, bytes]:
    """Head and body of a problem. ``more``: headers."""
    body = msgspec.json.encode(problem.body())
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body))} | headers_of(problem)
    return head_of(problem.status, {**headers, **more}.items()), body
