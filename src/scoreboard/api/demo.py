"""``scoreboard up --demo``: a visitor takes part under a name of its choice. Exists in the demo only."""

from __future__ import annotations

import secrets
import unicodedata
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from scoreboard.api.acts import body_of
from scoreboard.api.responses import WRITE, problems
from scoreboard.api.services import Services
from scoreboard.api.updates import parse_profile
from scoreboard.auth.tokens import local_token
from scoreboard.errors import Problem
from scoreboard.texts import flaw_of_name

VISIT_SECONDS = 3600


class Visit(Struct, frozen=True, rename="camel"):
    """A visitor's identity for an hour."""

    user_id: str
    name: str
    token: str
    action: str


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers; none outside the demo."""
    if not services.demo:
        return []

    @post("/demo/join", summary="Take part in the demo", responses=problems(*WRITE, "rate_limited"))
    async def join(request: Request[Any, Any, Any]) -> Response[Any]:
        body = await body_of(request)
        profile = parse_profile(body)
        services.auth.anyone(request.scope)
        name = unicodedata.normalize("NFC", profile.name).strip()
        if flaw := flaw_of_name(name):
            raise Problem("invalid_field", f"name {flaw}.")
        user = f"guest-{secrets.token_hex(4)}"
        token = local_token(services.secret, user, name, VISIT_SECONDS)
        return Response(Visit(user, name, token, "cheer"), status_code=201)

    return [join]
