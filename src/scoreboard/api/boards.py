"""Reads of boards: the top, pages of it, and one user's place.

The default answer of ``GET /boards/{board}`` is the very bytes that live sends, from the memory of this
process. Everything else is read from the board at once, or answered ``unavailable``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import HttpMethod, Request, Response, get, route
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from scoreboard.api import straight
from scoreboard.api.readers import PUBLIC, Readers
from scoreboard.api.responses import WHO, problems
from scoreboard.api.services import Services
from scoreboard.board.form import Page
from scoreboard.errors import Problem
from scoreboard.live import Hubs
from scoreboard.live.wire import Latest
from scoreboard.model import Around, Frame

LIMIT = 1_000
# Only if the board is.
PRIVATE = (*WHO, "origin_denied")
# What a heartbeat says to those who watch: the board cannot be followed now.
STALE = {"scoreboard-stale": "1"}
# What a page may send along, and for how long (s) its browser need not ask again.
PREFLIGHT = {
    "allow": "GET, HEAD, OPTIONS",
    "access-control-allow-methods": "GET",
    "access-control-allow-headers": "Authorization, If-None-Match, Last-Event-ID",
    "access-control-max-age": "7200",
}


def routes(services: Services, readers: Readers) -> list[HTTPRouteHandler]:
    """The handlers."""
    config, ranking, hubs = services.config, services.board, services.hubs

    @get(
        "/boards",
        summary="All boards",
        description="Private ones only for who sends a valid token or key.",
        responses=problems("invalid_token", "token_expired", "rate_limited"),
    )
    async def list_boards(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        anyone = await readers.who(request) is None
        listed = [
            {
                "board": name,
                "title": one.title or name,
                "top": one.top,
                "rank": one.rank,
                "order": one.order,
                "public": one.public,
                "actions": [action for action in config.actions if name in config.boards_of(action)],
            }
            for name, one in config.boards.items()
            if one.public or not anyone
        ]
        demo = {"action": "cheer"} if services.demo else None
        return Response({"boards": listed, "demo": demo}, headers=readers.headers(request))

    @get(
        "/boards/{board:str}",
        summary="The top of a board",
        description="Without parameters: the newest live frame, with its epoch and seq as `ETag`."
        " While the server cannot follow the board: `Scoreboard-Stale: 1`, with a 304, too.",
        responses={
            200: ResponseSpec(Frame | Page, generate_examples=False, description="The frame, or a page"),
            304: ResponseSpec(None, description="`If-None-Match` names what would be answered"),
            **problems("unknown_board", "invalid_field", *PRIVATE, "unavailable"),
        },
    )
    async def show_board(
        request: Request[Any, Any, Any],
        board: FromPath[str],
        limit: Annotated[int | None, QueryParameter(ge=1, le=LIMIT, description="Rows.")] = None,
        cursor: Annotated[
            str | None, QueryParameter(max_length=1024, description="`next` of the page before.")
        ] = None,
    ) -> Response[bytes]:
        await readers.may_read(request, board)
        headers = readers.headers(request, board)
        if cursor is None and limit is None:
            hub = hubs.get(board)
            if hub is None or hub.latest is None:
                raise Problem("unavailable", "The board is being built.", retry_after=1)
            if hub.stale:
                headers |= STALE
            frame = hub.latest.frame
            return tagged(request, hub.latest.json, f'"{frame.epoch}-{frame.seq}"', headers)
        try:
            page = await ranking.page(board, limit=limit or config.boards[board].top, after=cursor)
        except ValueError as error:
            raise Problem("invalid_field", "cursor is not one of this board's.") from error
        if page is None:
            raise Problem("unavailable", "The board is being built.", retry_after=1)
        body = msgspec.json.encode(page)
        return tagged(request, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', headers)

    @get(
        "/boards/{board:str}/users/{user_id:str}",
        summary="One user's place, with two neighbours on each side",
        responses=problems("unknown_board", "unknown_user", *PRIVATE, "unavailable"),
    )
    async def show_user(
        request: Request[Any, Any, Any], board: FromPath[str], user_id: FromPath[str]
    ) -> Response[Around]:
        await readers.may_read(request, board)
        user = user_in_path(request, user_id)
        around = await services.places.around(board, user)
        return Response(around, headers=readers.headers(request, board))

    @route(
        [
            "/boards",
            "/boards/{board:str}",
            "/boards/{board:str}/events",
            "/boards/{board:str}/users/{user_id:str}",
        ],
        http_method=HttpMethod.OPTIONS,
        include_in_schema=False,
        status_code=204,
        sync_to_thread=False,
    )
    def preflight(request: Request[Any, Any, Any]) -> Response[None]:
        """A browser asks whether another host's page may send a token along (Fetch, CORS preflight)."""
        headers = readers.headers(request, request.path_params.get("board"))
        return Response(None, status_code=204, headers=headers | PREFLIGHT)

    # The framework answers OPTIONS itself unless it has met a handler of ours before.
    return [preflight, list_boards, show_board, show_user]


class Top:
    """The default answer of ``GET /boards/{board}``, of a public board, straight from the memory."""

    keeps = True

    def __init__(self, hubs: Hubs, board: str) -> None:
        self._hubs, self._board = hubs, board
        self._latest: Latest | None = None
        self._etag = self._head = self._same = b""

    def read(self, _: bytes, headers: Mapping[bytes, bytes], /) -> bytes:
        """The answer that the client has already, by its entity tag; empty: none."""
        return headers.get(b"if-none-match", b"")

    def __call__(self, request: straight.Request) -> bool:
        """Answer a request, if there is an answer and nothing more to say than usual."""
        hub = self._hubs.get(self._board)
        if hub is None or hub.latest is None or hub.stale or request.body:
            return False
        if hub.latest is not self._latest:
            self._prepare(hub.latest)
        if not request.said:
            request.answer(self._head, hub.latest.json)
        elif request.said == self._etag:
            request.answer(self._same, b"")
        else:
            return False  # several, or one of another time
        return True

    def _prepare(self, latest: Latest) -> None:
        etag = f'"{latest.frame.epoch}-{latest.frame.seq}"'
        headers = [*PUBLIC.items(), ("etag", etag)]
        of_body = [("content-type", "application/json"), ("content-length", str(len(latest.json)))]
        self._latest, self._etag = latest, etag.encode()
        self._head = straight.head_of(200, [*headers, *of_body])
        self._same = straight.head_of(304, headers)


def user_in_path(request: Request[Any, Any, Any], given: str) -> str:
    """The user id of a path, as sent (``application.py`` keeps it); decoded once, never normalised."""
    try:
        raw: bytes = request.scope.get("user_id", given.encode())  # type: ignore[assignment]
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid_field", "A user id is UTF-8.") from error


def tagged(
    request: Request[Any, Any, Any], body: bytes, etag: str, headers: dict[str, str]
) -> Response[bytes]:
    """The body, or 304 if the client has it already (RFC 9110 section 13.1.2)."""
    headers |= {"etag": etag}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
        return Response(b"", status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
