"""An upgrade request in; a welcome or a refusal out. Pure: no input, output or state.

``websockets`` judges the handshake (RFC 6455 section 4.2); this module adds the address, the subprotocol and
the form of all refusals: problems, as over HTTP. It must never agree to an extension: with one, clients could
not share a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from scoreboard.errors import Problem
from scoreboard.live.inbound import quiet

SUBPROTOCOL = Subprotocol("scoreboard.v1")


class Welcome(Struct, frozen=True, kw_only=True):
    """The handshake succeeds."""

    answer: bytes
    """The whole response."""
    board: str
    known: tuple[str, str]
    """Epoch and seq of the frame that the client says it has, as it wrote them; else empty."""
    host: str
    origin: str | None
    """The page that asks; ``None`` for a program."""
    forwarded: list[str]
    """What proxies say of where it comes from."""


class Refusal(Struct, frozen=True):
    """The handshake fails; the connection ends after the answer."""

    answer: bytes


def greet(data: bytes) -> Welcome | Refusal:
    """Judge one whole upgrade request: ``GET /boards/{board}/live[?epoch=&seq=]``."""
    library = ServerProtocol(select_subprotocol=_choose, logger=quiet)
    library.receive_data(data)
    request = next((event for event in library.events_received() if isinstance(event, Request)), None)
    if request is None:  # nothing that the library reads as a request
        return _refusal(Problem("malformed_request", "This is no upgrade request, or a line is too long."))
    if len(request.headers.get_all("Host")) != 1:  # RFC 9112 section 3.2
        return _refusal(Problem("malformed_request", "There must be one Host."))
    if request.headers.get_all("Sec-WebSocket-Version") != ["13"]:  # RFC 6455 section 4.4
        return _refusal(Problem("upgrade_required"), Upgrade="websocket", **{"Sec-WebSocket-Version": "13"})
    response = library.accept(request)
    if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _refusal(Problem("method_not_allowed"), Allow="GET")
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        return _refusal(Problem("malformed_request", response.body.decode().strip()))
    path, _, query = request.path.partition("?")
    match path.split("/"):
        case ["", "boards", board, "live"]:
            return Welcome(
                answer=response.serialize(),
                board=unquote(board),
                known=known(query),
                host=request.headers["Host"],
                origin=request.headers.get("Origin"),
                forwarded=request.headers.get_all("X-Forwarded-For"),
            )
    return _refusal(Problem("not_found", "WebSockets are at /boards/{board}/live"))


def known(query: str) -> tuple[str, str]:
    """Epoch and seq of a query."""
    hints = parse_qs(query)
    return hints.get("epoch", [""])[0], hints.get("seq", [""])[0]


def busy(retry_after: int) -> Refusal:
    """The refusal while the process takes no more clients: come back after so many seconds."""
    return _refusal(Problem("unavailable", "No room to watch; try later", retry_after=retry_after))


def _choose(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it was offered, else none: a client that names no subprotocol is as welcome."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _refusal(problem: Problem, **more: str) -> Refusal:
    body = msgspec.json.encode(problem.body())
    headers = Headers(
        {
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Connection": "close",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **more,
        }
    )
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    return Refusal(Response(problem.status, HTTPStatus(problem.status).phrase, headers, body).serialize())
