"""The ASGI application of a process that serves HTTP: its routes, and what goes before the framework."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar import Litestar

from scoreboard import logs
from scoreboard.api import (
    boards,
    dead_letters,
    docs,
    embeds,
    health,
    moderation,
    pages,
    problems,
    streams,
    updates,
)
from scoreboard.api import demo as demo_routes
from scoreboard.api import grants as grant_routes
from scoreboard.api.at_once import AtOnce
from scoreboard.api.cross_origin import CrossOrigin
from scoreboard.api.places import Place
from scoreboard.api.readers import Readers
from scoreboard.api.services import Services
from scoreboard.api.straight import Handler, Straight
from scoreboard.auth.origins import Origins

# Of a request, given by who sends it: at most 40 characters, which no credential of ours fits into.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,40}")
_USER_PATH = re.compile(rb"(/users/|/boards/[^/]+/users/)(.+)", re.DOTALL)
_EVENTS = b"/events"


def _naming(request_id: bytes, send: Any) -> Any:
    """``send``, so that answer and log bear the request's id."""
    logs.REQUEST.set(request_id.decode())

    async def named(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
        await send(message)

    return named


class Application:
    """The ASGI application of a process that serves HTTP. The hot route goes before the framework."""

    def __init__(self, services: Services) -> None:
        self._door = services.door
        straight: dict[tuple[bytes, bytes], Handler] = {
            (b"GET", f"/boards/{name}".encode()): boards.Top(services.hubs, name)
            for name, board in services.config.boards.items()
            if board.public
        }
        places: dict[tuple[bytes, bytes], Handler] = {
            (b"GET", f"/boards/{name}/users".encode()): Place(services.places, name)
            for name, board in services.config.boards.items()
            if board.public
        }
        if services.door is not None:
            straight[b"POST", b"/update-score"] = AtOnce(services.door)
        self.straight = Straight(straight, below=places)
        """What is answered before it gets here."""
        self._cross_origin = CrossOrigin(self._answer, Origins(services.config.web.origins))
        readers = Readers(services.config, services.auth)
        handlers = [
            *updates.routes(services),
            *grant_routes.routes(services),
            *moderation.routes(services),
            *dead_letters.routes(services),
            *boards.routes(services, readers),
            *(streams.routes(services, readers) if services.live else []),
            *health.routes(services.config, services.engines, services.hubs),
            *demo_routes.routes(services),
        ]
        self._rest = Litestar(
            [*handlers, *docs.routes(handlers), *pages.routes(), *embeds.routes(services.config)],
            openapi_config=None,  # docs.py has its own page: the framework's loads scripts from elsewhere
            exception_handlers={Exception: problems.handle},
            logging_config=None,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        answer = self._answer
        for name, value in scope["headers"]:
            if name == b"origin":
                answer = self._cross_origin
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                send = _naming(value, send)
        await answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        door = self._door
        if door is not None and scope["raw_path"] == b"/update-score" and scope["method"] == "POST":
            await door(scope, receive, send)
            return
        if found := _USER_PATH.fullmatch(scope["raw_path"]):
            # A user id is taken as it is; the framework would fold its slashes.
            before, user = found.groups()
            after = _EVENTS if user.endswith(_EVENTS) and user != _EVENTS else b""
            user = user.removesuffix(after)
            path = unquote_to_bytes(before + b"-" + after).decode(errors="replace")
            scope = {**scope, "path": path, "user_id": unquote_to_bytes(user)}
        if scope["method"] == "HEAD":
            # Answered as GET; the server leaves the body out (RFC 9110 section 9.3.2).
            scope = {**scope, "method": "GET"}
        await self._rest(scope, receive, send)
