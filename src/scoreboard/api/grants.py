"""``POST /grants``: a service has a grant made, which its user then submits as an ``actionId``.

In comes for whom and for what, out goes a signed text. Nothing is kept: a grant that is never used leaves
nothing behind.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from scoreboard.api.acts import body_of
from scoreboard.api.bodies import parse_strictly
from scoreboard.api.forms import Duration, Type, UserId
from scoreboard.api.responses import WHO, WRITE, problems
from scoreboard.api.services import Services
from scoreboard.auth.grants import DEFAULT_SECONDS, LIFETIME_SECONDS, new_grant
from scoreboard.auth.policy import insufficient
from scoreboard.errors import Problem
from scoreboard.model import Scope
from scoreboard.texts import flaw_of_user_id, seconds_of, text_of_time


class GrantRequest(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Whom to permit what."""

    user_id: Annotated[UserId, Meta(description="Who may have the points: 1 to 128 visible characters.")]
    action: Annotated[Type, Meta(description="A type of the policy `grant`.")]
    expires_in: Annotated[
        Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": LIFETIME_SECONDS})] | Duration,
        Meta(description="Seconds, or a text like `15m`; at most a day. Default: 15 minutes."),
    ] = DEFAULT_SECONDS


class GrantMade(Struct, frozen=True, rename="camel"):
    """201: what the user submits as its `actionId`, once, until then."""

    action_id: str
    expires_at: str


_decode = msgspec.json.Decoder(GrantRequest).decode


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handler. It needs the services of a process that accepts."""
    auth, policy = services.auth, services.policy
    if policy is None:
        return []

    @post(
        "/grants",
        status_code=201,
        summary="Have a grant made (services)",
        response_description="Signed; counts once, for this user",
        responses=problems(
            *WRITE, *WHO, "insufficient_scope", "action_not_allowed", "unknown_action", "unavailable"
        ),
    )
    async def make_grant(request: Request[Any, Any, Any]) -> Response[GrantMade]:
        wanted = parse_strictly(_decode, await body_of(request), 8)
        principal = await auth.who(request.scope)
        if principal.kind != "service" or Scope.GRANT_CREATE not in principal.scopes:
            raise insufficient(Scope.GRANT_CREATE)
        if flaw := flaw_of_user_id(wanted.user_id):
            raise Problem("invalid_field", f"userId {flaw}.")
        seconds = seconds_of(wanted.expires_in) if isinstance(wanted.expires_in, str) else wanted.expires_in
        if seconds is None or not 1 <= seconds <= LIFETIME_SECONDS:
            raise Problem("invalid_field", f"expiresIn must be 1 to {LIFETIME_SECONDS} seconds, or like 15m.")
        policy.check_grantable(principal, wanted.action)
        text, expires = new_grant(services.secret, wanted.user_id, wanted.action, seconds, principal.id)
        made = GrantMade(text, text_of_time(expires))
        return Response(made, status_code=201, headers={"cache-control": "no-store"})

    return [make_grant]
