"""The policy: may this principal have these points? Pure; the order of the decisions is DESIGN's.

Scope, then ownership, then the form of the ``actionId``, then the grant if it is one, then the type and its
policy. Points and boards come from the catalogue alone, never from the request.
"""

from __future__ import annotations

import re
from uuid import UUID

from scoreboard.auth.grants import Grants
from scoreboard.auth.keys import Keys
from scoreboard.config import Config
from scoreboard.errors import Problem
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Principal, Scope, Update
from scoreboard.texts import TYPE_PATTERN, UNIQUE_PATTERN, flaw_of_user_id

_ACTION_ID = re.compile(f"({TYPE_PATTERN}):({UNIQUE_PATTERN})")


class Policy:
    """Decides on updates under one catalogue."""

    def __init__(self, config: Config, grants: Grants, keys: Keys) -> None:
        self._actions = config.actions
        self._boards = {action: config.boards_of(action) for action in config.actions}
        self._grants, self._keys = grants, keys

    def decide(self, principal: Principal, user_id: str, action_id: str) -> Update:
        """The update that is accepted.

        Raises:
            Problem: ``insufficient_scope``, ``user_mismatch``, ``invalid_field``, ``invalid_grant``,
                ``grant_expired``, ``unknown_action`` or ``action_not_allowed``.
            NotYetKnown: the grant may be in order, but its issuer's key is not known, or whether the key that
                had it made was revoked.
        """
        if principal.kind == "user":
            if principal.id != user_id:
                raise Problem("user_mismatch", "The token's subject is not userId.")
        elif Scope.SCORE_WRITE not in principal.scopes:
            raise insufficient(Scope.SCORE_WRITE)
        elif flaw := flaw_of_user_id(user_id):  # a user's own was looked at with the token
            raise Problem("invalid_field", f"userId {flaw}.")
        granted = ":" not in action_id and "." in action_id
        if granted:
            grant = self._grants.read(action_id, user_id)
            action, reference, event_id = grant.action, grant.reference, grant.event_id
            if grant.giver is not None and not self._keys.stands(grant.giver):
                raise _refused("invalid_grant", "The key that had the grant made has been revoked.", event_id)
        else:
            parts = _ACTION_ID.fullmatch(action_id)
            if parts is None:
                msg = f"actionId must be a grant or of the form {TYPE_PATTERN}:{UNIQUE_PATTERN}"
                raise Problem("invalid_field", msg)
            action, reference = parts[1], parts[2]
            event_id = event_id_of_action(user_id, action_id).bytes
        known = self._actions.get(action)
        if known is None:
            raise _refused("unknown_action", f"There is no action {action!r}.", event_id)
        if granted and known.policy != "grant":
            raise _refused("action_not_allowed", f"The action {action!r} takes no grants.", event_id)
        if principal.kind == "user" and not granted and known.policy != "open":
            who = "a service only" if known.policy == "service" else "its user with a grant, or by a service"
            raise _refused(
                "action_not_allowed", f"The action {action!r} can be submitted by {who}.", event_id
            )
        check_key(principal, action, event_id)
        return Update(
            event_id=event_id,
            user=user_id,
            type=action,
            reference=reference,
            points=known.points,
            boards=self._boards[action],
            principal=principal.label,
            name=principal.name if principal.kind == "user" else None,
        )

    def check_grantable(self, principal: Principal, action: str) -> None:
        """Raise ``Problem`` unless this service may give grants for this type of action."""
        known = self._actions.get(action)
        if known is None:
            raise Problem("unknown_action", f"There is no action {action!r}.")
        if known.policy != "grant":
            raise Problem("action_not_allowed", f"The action {action!r} takes no grants.")
        check_key(principal, action)


def check_key(principal: Principal, action: str, event_id: bytes | None = None) -> None:
    """Raise ``Problem`` if the principal's key is for other types of action."""
    if principal.actions is not None and action not in principal.actions:
        raise _refused("action_not_allowed", f"This key is not for the action {action!r}.", event_id)


def _refused(code: str, detail: str, event_id: bytes | None) -> Problem:
    return Problem(code, detail, event_id=None if event_id is None else str(UUID(bytes=event_id)))


def insufficient(scope: Scope) -> Problem:
    """The problem of a key that lacks a scope."""
    return Problem(
        "insufficient_scope", f"This needs a key with the scope {scope.value}.", extra={"scope": scope}
    )
