"""What is written and what became of it: updates, events and names, as documented handlers.

``POST /update-score`` is answered before the framework (``application.py``); its handler here calls the same
function, so that it is documented like the others and works the same when reached another way. Bodies are
read and parsed strictly by us; ``docs.py`` adds them to the documentation.
"""

from __future__ import annotations

import secrets
import unicodedata
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter
from msgspec import Meta, Struct

from scoreboard.api.acts import body_of, check_own
from scoreboard.api.boards import user_in_path
from scoreboard.api.bodies import parse_strictly
from scoreboard.api.forms import Name
from scoreboard.api.responses import WHO, WRITE, problems
from scoreboard.api.services import Services
from scoreboard.api.update_score import (
    BATCH_BYTES,
    Accepted,
    applied,
    parse,
    parse_all,
    wait_of,
)
from scoreboard.errors import Problem
from scoreboard.model import Outcome, Rename, Scope
from scoreboard.texts import flaw_of_name, flaw_of_user_id, text_of_time

QUEUE = ("queue_full", "unavailable")
Prefer = Annotated[
    str | None,
    HeaderParameter(name="Prefer", description="`wait=N`: answer when applied, at most N seconds later."),
]


class Results(Struct, frozen=True):
    """One answer for each update, in their order."""

    results: list[dict[str, Any]]


class EventState(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of an event."""

    event_id: str
    status: str
    user_id: str
    points: int | None = None
    boards: list[str] | None = None
    at: str | None = None
    """Time of acceptance."""
    reason: str | None = None
    retry_at: str | None = None
    """When a new action of the type can succeed."""


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """What a user is shown as."""

    name: Annotated[Name, Meta(description="What is shown: visible characters.")]


class Renamed(Struct, frozen=True, rename="camel"):
    """202: the name is synced to disk and will be shown."""

    status: str
    user_id: str
    name: str


_profile = msgspec.json.Decoder(Profile)


def parse_profile(body: bytes) -> Profile:
    """A profile, strictly. Raises ``Problem`` as ``parse`` does."""
    return parse_strictly(_profile.decode, body, 4)


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers. They need the services of a process that accepts."""
    auth, door, commit, outcomes = services.auth, services.door, services.commit, services.outcomes
    if door is None or commit is None or outcomes is None:
        return []

    @post(
        "/update-score",
        status_code=202,
        summary="Report a completed action",
        response_description="Synced to disk; will reach exactly one end state",
        responses={
            200: ResponseSpec(
                Outcome, generate_examples=False, description="With `Prefer: wait`: what became of it"
            ),
            **problems(
                *(
                    *WRITE,
                    *WHO,
                    "insufficient_scope",
                    "user_mismatch",
                    "action_not_allowed",
                    "grant_expired",
                    "unknown_action",
                    "invalid_grant",
                    *QUEUE,
                )
            ),
        },
    )
    async def update_score(
        request: Request[Any, Any, Any],
        prefer: Prefer = None,  # noqa: ARG001  for the documentation; several lines are read below
    ) -> Response[Accepted | Outcome]:
        submission = parse(await body_of(request))
        principal = await auth.who(request.scope)
        wait = wait_of(request.headers.getall("prefer", []))
        answer = await door.submit(principal, submission, wait)
        headers = applied(wait if answer.status == 200 else 0)
        return Response(answer.body, status_code=answer.status, headers=headers)

    @post(
        "/update-scores",
        status_code=200,
        response_description="What each would have been answered alone, in their order",
        summary="Report up to 1,000 completed actions (services)",
        responses=problems(*WRITE, *WHO, "insufficient_scope", "unavailable"),
    )
    async def update_scores(
        request: Request[Any, Any, Any],
        prefer: Prefer = None,  # noqa: ARG001  as above
    ) -> Response[Results]:
        submissions = parse_all(await body_of(request, BATCH_BYTES))
        principal = await auth.who(request.scope)
        results = await door.submit_all(
            principal, submissions, wait := wait_of(request.headers.getall("prefer", []))
        )
        return Response({"results": results}, status_code=200, headers=applied(wait))  # type: ignore[arg-type]

    @get(
        "/events/{event_id:str}",
        summary="What became of an event",
        responses=problems(*WHO, "insufficient_scope", "invalid_field", "unknown_event", "unavailable"),
    )
    async def show_event(request: Request[Any, Any, Any], event_id: FromPath[str]) -> Response[EventState]:
        principal = await auth.who(request.scope)
        check_own(principal, principal.id)  # that it is the event of this user is seen below
        try:
            wanted = UUID(event_id)
        except ValueError as error:
            raise Problem("invalid_field", "An eventId is a UUID.") from error
        event = await services.database.event(wanted)
        if event is not None:
            state = EventState(
                event_id=str(wanted),
                status=event.outcome,
                user_id=event.user,
                points=event.points,
                boards=None if event.boards is None else list(event.boards),
                at=text_of_time(event.at),
                reason=event.reason,
                retry_at=None if event.retry_at is None else text_of_time(event.retry_at),
            )
        else:
            state = EventState(str(wanted), "accepted", outcomes.accepted(wanted.bytes) or "")
        if not state.user_id or (principal.kind == "user" and principal.id != state.user_id):
            # Another user's event is told apart from none by nobody.
            raise Problem("unknown_event", event_id=str(wanted))
        return Response(state, headers={"cache-control": "no-store"})

    @put(
        "/users/{user_id:str}",
        status_code=202,
        response_description="Synced to disk; will be shown",
        summary="Choose the name that a user is shown under",
        responses=problems(*WRITE, *WHO, "insufficient_scope", "user_mismatch", *QUEUE),
    )
    async def name_user(request: Request[Any, Any, Any], user_id: FromPath[str]) -> Response[Renamed]:
        profile = parse_profile(await body_of(request))
        principal = await auth.who(request.scope)
        user = user_in_path(request, user_id)
        check_own(principal, user)
        name = unicodedata.normalize("NFC", profile.name)
        if flaw := flaw_of_user_id(user):
            raise Problem("invalid_field", f"The user id {flaw}.")
        if flaw := flaw_of_name(name):
            raise Problem("invalid_field", f"name {flaw}.")
        audited = Scope.ADMIN in principal.scopes
        await commit.accept(Rename(secrets.token_bytes(16), user, name, principal.label, audited))
        return Response(Renamed("accepted", user, name), status_code=202)

    return [update_score, update_scores, show_event, name_user]
