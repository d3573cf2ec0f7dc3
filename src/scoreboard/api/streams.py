"""``GET /boards/{board}/events``: the live frames as Server-Sent Events.

The request is judged here like any other. Then the socket is handed to live, which writes to it what
everybody gets; no task of the request remains.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.datastructures import ResponseHeader
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from scoreboard.api.boards import PRIVATE
from scoreboard.api.readers import Readers
from scoreboard.api.responses import problems
from scoreboard.api.services import Services
from scoreboard.errors import Problem
from scoreboard.live import EventStream
from scoreboard.live.watcher import retry_seconds
from scoreboard.live.wire import EVENTS

MEDIA_TYPE = "text/event-stream; charset=utf-8"
# A proxy must pass each event on at once, and keep none.
HEADERS = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "x-accel-buffering": "no"}


def routes(services: Services, readers: Readers) -> list[HTTPRouteHandler]:
    """The handler."""
    hubs = services.hubs

    @get(
        "/boards/{board:str}/events",
        summary="The live frames of a board as Server-Sent Events",
        description="The same messages as over WebSocket, each with `id: epoch:seq`.",
        responses={
            200: ResponseSpec(None, description="A stream without end", media_type="text/event-stream"),
            **problems(
                "unknown_board",
                *PRIVATE,
                "unavailable",
            ),
        },
        response_headers=[ResponseHeader("X-Accel-Buffering", value="no", documentation_only=True)],
    )
    async def watch_board(
        request: Request[Any, Any, Any],
        board: FromPath[str],
        epoch: Annotated[str, QueryParameter(description="Of the newest frame you have.")] = "",
        seq: Annotated[str, QueryParameter(description="Of the newest frame you have.")] = "",
    ) -> ASGIApp:
        principal = await readers.may_read(request, board) or await readers.who(request)
        hub = hubs.get(board)
        assert hub is not None  # noqa: S101  the reader's boards are the hubs'
        headers = readers.headers(request, board) | HEADERS
        if "hand_over" not in request.scope:  # HEAD: the same, without the stream
            return ASGIResponse(headers=headers, media_type=MEDIA_TYPE)

        def admitted(others: set[Any]) -> EventStream:
            if not hubs.admit(EVENTS):
                raise Problem("unavailable", "No room to watch; try later.", retry_after=retry_seconds())
            return EventStream(hubs, others)

        stream = request.scope["hand_over"](admitted, headers)  # type: ignore[typeddict-item]
        if stream is not None:
            last_id = request.headers.get("last-event-id")
            known = (epoch, seq) if last_id is None else _known(last_id)
            who = None if principal is None else (request.headers["authorization"], principal)
            stream.begin(hub, known, who)
        return _handed_over

    return [watch_board]


def _known(last_id: str) -> tuple[str, str]:
    """Epoch and seq of ``Last-Event-ID``."""
    epoch, _, seq = last_id.rpartition(":")
    return epoch, seq


async def _handed_over(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Nothing is left to be answered here."""
