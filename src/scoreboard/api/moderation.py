"""Moderation over HTTP: bans, hiding, undoing, what is held back, who did what. Scope ``admin``.

Every act is a command through the log: it is answered once it has been applied, with what it changed, or has
been set aside because it could not be; or 202 if that takes longer than ``WAIT_SECONDS``. ``dryRun`` tells
what it would change and changes nothing.
``GET /users/{userId}/events`` explains a score; it is for the user itself, too.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import Meta, Struct

from scoreboard import history
from scoreboard.amending import Trial
from scoreboard.api.acts import admin, body_of, carried_out, check_own, check_reason
from scoreboard.api.boards import user_in_path
from scoreboard.api.bodies import parse_strictly
from scoreboard.api.forms import Issuer, KeyId, Reason, UserId
from scoreboard.api.responses import WHO, WRITE, problems
from scoreboard.api.services import Services
from scoreboard.errors import DatabaseUnavailable, Problem
from scoreboard.history import Act, Held, History
from scoreboard.model import Amend, Mark, Principal, Result, Verdict
from scoreboard.texts import KEY_ID_PATTERN, flaw_of_user_id

ROWS = 1_000  # a page at most
READS = problems(*WHO, "insufficient_scope", "invalid_field", "unavailable")
MARKS: dict[str, tuple[str, bool, str]] = {
    "ban": ("banned", True, "Refuse all that a user reports from now on"),
    "unban": ("banned", False, "Let a banned user score again; nothing is judged anew"),
    "hide": ("hidden", True, "Take a user off all boards, reversibly; ranks close up"),
    "show": ("hidden", False, "Show a hidden user again"),
}
VERDICTS: dict[Verdict, str] = {
    Verdict.REVOKE: "Undo events: totals are what they would be without them",
    Verdict.RESTORE: "Take a revocation back",
    Verdict.RELEASE: "Let events that are held back count",
    Verdict.REJECT: "Reject events that are held back",
}

Time = Annotated[datetime, Meta(tz=True)]
T = TypeVar("T")
Rows = Annotated[int, QueryParameter(ge=1, le=ROWS, description="Rows.")]


class About(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Whom an act is about."""

    user_id: Annotated[UserId, Meta(description="The user.")]
    reason: Reason = ""


class Selection(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which events an act is about: those accepted before it that fit all that is given; not nothing."""

    event_id: Annotated[UUID | None, Meta(description="One event, also one that has not come yet.")] = None
    user_id: Annotated[UserId | None, Meta(description="Events of this user.")] = None
    key_id: Annotated[
        KeyId | None,
        Meta(description="Events reported with this service's key, or with grants that it had made."),
    ] = None
    grant_issuer: Annotated[
        Issuer | None, Meta(description="Events of grants that this issuer signed; `scoreboard` is ours.")
    ] = None
    since: Annotated[Time | None, Meta(description="Accepted at or after this time (RFC 3339).")] = None
    until: Annotated[Time | None, Meta(description="Accepted before this time.")] = None
    reason: Reason = ""
    dry_run: Annotated[bool, Meta(description="Only tell what it would do.")] = False


class Done(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an act did."""

    status: str
    """``applied``; ``accepted``: it is in the log and will be done; ``dead``: it could not be done and is set
    aside, in at least one partition: what the others did stands.
    """
    act_id: str
    events: int | None = None
    users: int | None = None
    unknown: tuple[str, ...] = ()
    """Of what was named, that of which nothing is known."""


class HeldEvents(Struct, frozen=True, rename="camel"):
    """Events that are held back, oldest first."""

    events: list[Held]
    next: int | None
    """To be given as ``after`` for the next part."""


class Acts(Struct, frozen=True, rename="camel"):
    """Administrative acts, newest first."""

    acts: list[Act]


_about = msgspec.json.Decoder(About).decode
_selection = msgspec.json.Decoder(Selection).decode


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers. They need the services of a process that accepts."""
    auth, commit, outcomes, database = (
        services.auth,
        services.commit,
        services.outcomes,
        services.database,
    )
    if commit is None or outcomes is None:
        return []

    async def answered(act: bytes, commands: Sequence[Mark | Amend]) -> Response[Done | Trial]:
        try:
            # An amendment goes to every partition.
            placed = [(one, n if isinstance(one, Amend) else None) for n, one in enumerate(commands)]
            done = await carried_out(commit, outcomes, placed)
        except TimeoutError:
            return Response(Done("accepted", str(UUID(bytes=act))), status_code=202)
        events = None if isinstance(commands[0], Mark) else sum(one.events or 0 for one in done)
        users = sum(one.users or 0 for one in done)
        unknown: tuple[str, ...] = ()
        with suppress(DatabaseUnavailable):  # the act is done all the same
            unknown = await history.unknown(database, commands[0])
        # Each is applied or dead, wholly: nothing else becomes of a command.
        status = Result.DEAD if any(one.status is Result.DEAD for one in done) else Result.APPLIED
        return Response(Done(status, str(UUID(bytes=act)), events, users, unknown), status_code=200)

    def mark(act: str, what: str, on: bool, summary: str) -> HTTPRouteHandler:
        @post(f"/admin/{act}", name=act, operation_id=act, summary=summary, **_answers())
        async def handler(request: Request[Any, Any, Any]) -> Response[Done | Trial]:
            about = parse_strictly(_about, await body_of(request), -1)
            principal = await admin(auth, request)
            _check_user(about.user_id)
            check_reason(about.reason)
            command_id = secrets.token_bytes(16)
            command = Mark(command_id, about.user_id, what, on, principal.label, about.reason)  # type: ignore[arg-type]
            return await answered(command_id, [command])

        return handler

    def amend(verdict: Verdict, summary: str) -> HTTPRouteHandler:
        @post(
            f"/admin/{verdict}",
            name=verdict,
            operation_id=str(verdict),
            summary=summary,
            **_answers(),
        )
        async def handler(request: Request[Any, Any, Any]) -> Response[Done | Trial]:
            selection = parse_strictly(_selection, await body_of(request), -1)
            principal = await admin(auth, request)
            act = secrets.token_bytes(16)
            commands = [
                _command(verdict, selection, principal, act, partition)
                for partition in range(commit.partitions)
            ]
            if selection.dry_run:
                return Response(await history.tried(database, commands[0]), status_code=200)
            return await answered(act, commands)

        return handler

    @get(
        "/admin/held",
        summary="Events that are held back",
        responses=READS,
    )
    async def show_held(
        request: Request[Any, Any, Any],
        limit: Rows = 100,
        after: Annotated[
            int, QueryParameter(ge=0, le=history.END, description="`next` of the part before.")
        ] = 0,
    ) -> Response[HeldEvents]:
        await admin(auth, request)
        return _private(HeldEvents(*await history.held(database, limit, after)))

    @get(
        "/admin/audit",
        summary="Who did what, when and why",
        responses=READS,
    )
    async def show_audit(
        request: Request[Any, Any, Any],
        limit: Rows = 100,
        before: Annotated[
            int, QueryParameter(ge=1, le=history.END, description="Acts before this `number`.")
        ] = history.END,
    ) -> Response[Acts]:
        await admin(auth, request)
        return _private(Acts(await history.acts(database, limit, before)))

    @get(
        "/users/{user_id:str}/events",
        summary="A user's score, explained event by event, newest first",
        responses=problems(*WHO, "insufficient_scope", "user_mismatch", "invalid_field", "unavailable"),
    )
    async def explain(
        request: Request[Any, Any, Any],
        user_id: FromPath[str],
        limit: Rows = 100,
        cursor: Annotated[
            str | None, QueryParameter(max_length=64, description="`next` of the part before.")
        ] = None,
    ) -> Response[History]:
        principal = await auth.who(request.scope)
        user = user_in_path(request, user_id)
        check_own(principal, user)
        _check_user(user)
        try:
            told = await history.of_user(database, user, limit, cursor, who=principal.kind == "service")
        except ValueError as error:
            raise Problem("invalid_field", "cursor is not one of this user's.") from error
        return _private(told)

    return [
        *(mark(act, *rest) for act, rest in MARKS.items()),
        *(amend(verdict, summary) for verdict, summary in VERDICTS.items()),
        show_held,
        show_audit,
        explain,
    ]


def _answers() -> dict[str, Any]:
    """How an act may be answered, for the documentation."""
    return {
        "status_code": 200,
        "response_description": "What it did, or would do",
        "responses": {
            202: ResponseSpec(Done, generate_examples=False, description="In the log; it will be done"),
            **problems(*WRITE, *WHO, "insufficient_scope", "queue_full", "unavailable"),
        },
    }


def _command(
    verdict: Verdict, selection: Selection, principal: Principal, act: bytes, partition: int
) -> Amend:
    given = (selection.event_id, selection.user_id, selection.key_id, selection.since, selection.until)
    if selection.grant_issuer is None and all(one is None for one in given):
        raise Problem(
            "invalid_field", "Say which events: eventId, userId, keyId, grantIssuer, since or until."
        )
    if selection.user_id is not None:
        _check_user(selection.user_id)
    if selection.key_id is not None and not re.fullmatch(KEY_ID_PATTERN, selection.key_id):
        raise Problem("invalid_field", "keyId must be like k_0123456789ab.")
    check_reason(selection.reason)
    return Amend(
        hashlib.sha256(act + partition.to_bytes(2, "big")).digest()[:16],
        act,
        verdict,
        principal.label,
        selection.reason,
        None if selection.event_id is None else selection.event_id.bytes,
        selection.user_id or "",
        selection.key_id or "",
        _utc("since", selection.since),
        _utc("until", selection.until),
        selection.grant_issuer or "",
    )


def _utc(field: str, at: datetime | None) -> datetime | None:
    try:
        return at and at.astimezone(UTC)
    except OverflowError as error:
        raise Problem("invalid_field", f"{field} is outside the years 1 to 9999 in UTC.") from error


def _check_user(user: str) -> None:
    if flaw := flaw_of_user_id(user):
        raise Problem("invalid_field", f"The user id {flaw}.")


def _private(body: T) -> Response[T]:
    return Response(body, headers={"cache-control": "no-store"})
