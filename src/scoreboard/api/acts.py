"""What the handlers of acts share: bodies, who may, what became of commands that went through the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar import Request

from scoreboard.api.bodies import read_body
from scoreboard.api.outcomes import Outcomes
from scoreboard.api.straight import BODY_BYTES
from scoreboard.auth import Auth
from scoreboard.auth.policy import insufficient
from scoreboard.errors import Problem
from scoreboard.group_commit import GroupCommit
from scoreboard.model import Amend, Mark, Outcome, Principal, Scope, Settle
from scoreboard.texts import flaw_of_line

WAIT_SECONDS = 10.0


async def body_of(request: Request[Any, Any, Any], limit: int = BODY_BYTES) -> bytes:
    """The request's body. Raises ``Problem`` as ``read_body`` does."""
    return await read_body(dict(request.scope["headers"]), request.receive, limit)


def check_own(principal: Principal, user: str) -> None:
    """Refuse whoever is neither this user nor a service that may act for any."""
    if principal.kind == "user":
        if principal.id != user:
            raise Problem("user_mismatch", "The token's subject is not this user.")
    elif not principal.scopes & {Scope.SCORE_WRITE, Scope.ADMIN}:
        raise insufficient(Scope.SCORE_WRITE)


async def admin(auth: Auth, request: Request[Any, Any, Any]) -> Principal:
    """Who asks, with the scope ``admin``. Raises ``Problem``."""
    principal = await auth.who(request.scope)
    if Scope.ADMIN not in principal.scopes:
        raise insufficient(Scope.ADMIN)
    return principal


def check_reason(reason: str) -> None:
    """Refuse a reason that would be more than one line where it is shown."""
    if flaw := flaw_of_line(reason):
        raise Problem("invalid_field", f"reason {flaw}.")


async def carried_out(
    commit: GroupCommit, outcomes: Outcomes, commands: Sequence[tuple[Mark | Amend | Settle, int | None]]
) -> list[Outcome]:
    """What became of commands, each with its partition if it is not its user's.

    Raises:
        TimeoutError: that is not known within ``WAIT_SECONDS``; they are in the log.
    """
    futures = {one.command_id: outcomes.wait_for(UUID(bytes=one.command_id)) for one, _ in commands}
    try:
        await asyncio.gather(
            *(commit.accept(one, wanted=True, partition=partition) for one, partition in commands)
        )
        async with asyncio.timeout(WAIT_SECONDS):
            return list(await asyncio.gather(*futures.values()))
    finally:
        for command_id, future in futures.items():
            outcomes.forget(UUID(bytes=command_id), future)
