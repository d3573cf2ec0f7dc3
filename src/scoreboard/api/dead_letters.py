"""Dead letters over HTTP: try again, or drop. Scope ``admin``; a command through the log like any other."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta, Struct

from scoreboard import dead_letters
from scoreboard.api.acts import admin, body_of, carried_out, check_reason
from scoreboard.api.bodies import parse_strictly
from scoreboard.api.forms import Reason
from scoreboard.api.responses import WHO, WRITE, problems
from scoreboard.api.services import Services
from scoreboard.dead_letters import Letter
from scoreboard.envelope import NotOurs
from scoreboard.errors import Problem
from scoreboard.history import END
from scoreboard.model import Amend, Settle

ACTS: dict[Literal["retry", "drop"], str] = {
    "retry": "Try a dead letter again: judged now, at the end of the log; it still counts at most once",
    "drop": "Give a dead letter up: its event is revoked, for ever",
}


class Choice(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which dead letter an act is about."""

    number: Annotated[int, Meta(ge=0, le=END, description="The letter's number.")]
    reason: Reason = ""


class Settled(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of a dead letter; ``accepted``: the act is in the log and will be done."""

    status: str
    """``dropped``, or what the event now is: `applied`, `rejected`, …; still `dead` if it failed again."""
    act_id: str
    reason: str | None = None


_choice = msgspec.json.Decoder(Choice).decode


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers. They need the services of a process that accepts."""
    commit, outcomes = services.commit, services.outcomes
    if commit is None or outcomes is None:
        return []

    async def send_again(letter: Letter) -> None:
        """Put what a whole message holds into the log again; what has counted does not count twice."""
        try:
            entries = commit.open(letter.body).entries
        except NotOurs as error:
            raise Problem("invalid_field", f"The dead letter cannot be tried again: {error}.") from error
        goes_to = letter.goes_to(commit.partitions)
        await asyncio.gather(
            # What is one user's goes to that user's partition, wherever it came from.
            *(
                commit.accept(entry, partition=goes_to if isinstance(entry, Amend | Settle) else None)
                for entry in entries
            )
        )

    def act(what: Literal["retry", "drop"], summary: str) -> HTTPRouteHandler:
        @post(
            f"/admin/dead/{what}",
            name=f"{what}_dead",
            operation_id=f"{what}Dead",
            summary=summary,
            status_code=200,
            response_description="What became of it",
            responses={
                202: ResponseSpec(
                    Settled, generate_examples=False, description="In the log; it will be done"
                ),
                **problems(*WRITE, *WHO, "insufficient_scope", "not_found", "queue_full", "unavailable"),
            },
        )
        async def handler(request: Request[Any, Any, Any]) -> Response[Settled]:
            choice = parse_strictly(_choice, await body_of(request), -1)
            check_reason(choice.reason)
            principal = await admin(services.auth, request)
            letter = await dead_letters.letter(services.database, choice.number)
            if letter is None or letter.settled == "retried":
                raise Problem("not_found", f"No dead letter {choice.number} waits.")
            if what == "retry" and letter.event_id is None:
                await send_again(letter)
            command_id = secrets.token_bytes(16)
            command = Settle(command_id, choice.number, what, principal.label, choice.reason, letter.user)
            act_id = str(UUID(bytes=command_id))
            try:
                (outcome,) = await carried_out(
                    commit, outcomes, [(command, letter.goes_to(commit.partitions))]
                )
            except TimeoutError:
                return Response(Settled("accepted", act_id), status_code=202)
            status = "dropped" if outcome.reason == "dropped" else outcome.status.value
            return Response(Settled(status, act_id, None if status == "dropped" else outcome.reason))

        return handler

    return [act(what, summary) for what, summary in ACTS.items()]
