"""The policy: may this principal have these points? Pure; the order of the decisions is DESIGN's.

Scope, then ownership, then the form of the ``actionId``, then the type and its policy. Points and boards come
from the catalogue alone, never from the request.
"""

from __future__ import annotations

import re

from scoreboard.config import Config
from scoreboard.errors import Problem
from scoreboard.model import (
    TYPE_PATTERN,
    UNIQUE_PATTERN,
    Principal,
    Scope,
    Update,
    event_id_of_action,
    flaw_of_user_id,
)

_ACTION_ID = re.compile(f"({TYPE_PATTERN}):({UNIQUE_PATTERN})")


class Policy:
    """Decides on updates under one catalogue."""

    def __init__(self, config: Config) -> None:
        self._actions = config.actions
        self._boards = {action: config.boards_of(action) for action in config.actions}

    def decide(self, principal: Principal, user_id: str, action_id: str) -> Update:
        """The update that is accepted.

        Raises:
            Problem: ``insufficient_scope``, ``user_mismatch``, ``invalid_field``, ``unknown_action`` or
                ``action_not_allowed``.
        """
        if principal.kind == "user":
            if principal.id != user_id:
                raise Problem("user_mismatch", "The token's subject is not userId.")
        elif Scope.SCORE_WRITE not in principal.scopes:
            raise insufficient(Scope.SCORE_WRITE)
        if flaw := flaw_of_user_id(user_id):
            raise Problem("invalid_field", f"userId {flaw}.")
        parts = _ACTION_ID.fullmatch(action_id)
        if parts is None:
            # An id without a colon must be a grant; grants have their place here.
            raise Problem("invalid_field", f"actionId must be of the form {TYPE_PATTERN}:{UNIQUE_PATTERN}")
        action, reference = parts[1], parts[2]
        event_id = event_id_of_action(user_id, action_id)
        known = self._actions.get(action)
        if known is None:
            raise Problem("unknown_action", f"There is no action {action!r}.", event_id=str(event_id))
        if principal.kind == "user" and known.policy != "open":
            msg = f"The action {action!r} can be submitted by a service only."
            raise Problem("action_not_allowed", msg, event_id=str(event_id))
        return Update(
            event_id=event_id.bytes,
            user=user_id,
            type=action,
            reference=reference,
            points=known.points,
            boards=self._boards[action],
            principal=principal.label,
            name=principal.name if principal.kind == "user" else None,
        )


def insufficient(scope: Scope) -> Problem:
    """The problem of a key that lacks a scope."""
    return Problem(
        "insufficient_scope", f"This needs a key with the scope {scope.value}.", extra={"scope": scope}
    )
