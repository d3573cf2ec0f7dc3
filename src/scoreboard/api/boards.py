"""Reads of boards: the top, pages of it, and one user's place. Anyone may read, from any page.

The default answer of ``GET /boards/{board}`` is the very bytes that live sends, from the memory of this
process. Everything else is read from the board at once, or answered ``unavailable``.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from scoreboard.api.responses import problems
from scoreboard.api.services import Services
from scoreboard.errors import Problem
from scoreboard.live import Hub
from scoreboard.model import Around

LIMIT = 1_000
# Anyone may read a public board from any page: there are no cookies that a foreign page could use.
ANYWHERE = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "ETag, Retry-After",
    "cache-control": "no-cache",
}


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers."""
    config, ranking, hubs = services.config, services.board, services.hubs

    def hub_of(name: str) -> Hub:
        hub = hubs.get(name)
        if hub is None:
            raise Problem("unknown_board")
        return hub

    @get("/boards", summary="All boards", response_headers=None, sync_to_thread=False)
    def list_boards() -> Response[dict[str, Any]]:
        listed = [
            {
                "board": name,
                "title": one.title or name,
                "top": one.top,
                "rank": one.rank,
                "order": one.order,
                "actions": [action for action in config.actions if name in config.boards_of(action)],
            }
            for name, one in config.boards.items()
        ]
        demo = {"action": "cheer"} if services.demo else None
        return Response({"boards": listed, "demo": demo}, headers=ANYWHERE)

    @get(
        "/boards/{board:str}",
        summary="The top of a board",
        description="Without parameters: the newest live frame, with its epoch and seq as `ETag`.",
        responses=problems("unknown_board", "invalid_field", "unavailable"),
    )
    async def show_board(
        request: Request[Any, Any, Any],
        board: FromPath[str],
        limit: Annotated[int | None, QueryParameter(ge=1, le=LIMIT, description="Rows.")] = None,
        cursor: Annotated[
            str | None, QueryParameter(max_length=1024, description="`next` of the page before.")
        ] = None,
    ) -> Response[bytes]:
        hub = hub_of(board)
        if cursor is None and limit is None:
            if hub.latest is None:
                raise Problem("unavailable", "The board is being built.", retry_after=1)
            frame = hub.latest.frame
            return tagged(request, hub.latest.json, f'"{frame.epoch}-{frame.seq}"')
        try:
            page = await ranking.page(board, limit=limit or config.boards[board].top, after=cursor)
        except ValueError as error:
            raise Problem("invalid_field", "cursor is not one of this board's.") from error
        if page is None:
            raise Problem("unavailable", "The board is being built.", retry_after=1)
        body = msgspec.json.encode(page)
        return tagged(request, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    @get(
        "/boards/{board:str}/users/{user_id:str}",
        summary="One user's place, with two neighbours on each side",
        responses=problems("unknown_board", "unknown_user", "unavailable"),
    )
    async def show_user(
        request: Request[Any, Any, Any], board: FromPath[str], user_id: FromPath[str]
    ) -> Response[Around]:
        hub_of(board)
        user = user_in_path(request, user_id)
        around = await ranking.around(board, user)
        if around is None:
            known = await services.database.user(user, [board])
            if known is None:
                raise Problem("unknown_user")
            around = Around(board, user, known[0] or user, None, None, None, (), ())
        return Response(around, headers=ANYWHERE)

    return [list_boards, show_board, show_user]


def user_in_path(request: Request[Any, Any, Any], given: str) -> str:
    """The user id of a path, as it was sent (``app.py`` keeps it); percent-decoded once, never normalised."""
    try:
        raw: bytes = request.scope.get("user_id", given.encode())  # type: ignore[assignment]
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid_field", "A user id is UTF-8.") from error


def tagged(request: Request[Any, Any, Any], body: bytes, etag: str) -> Response[bytes]:
    """The body, or 304 if the client has it already (RFC 9110 section 13.1.2)."""
    headers = ANYWHERE | {"etag": etag}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
        return Response(b"", status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
