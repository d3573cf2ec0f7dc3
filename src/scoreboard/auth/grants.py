"""Grants: signed permissions to have the points of one action once (``typ`` ``sb-grant+jwt``).

In comes the text of a grant, out goes what it permits, with the id of the event that it stands for. That id
is made of who gave the grant and the grant's own id, so that however a grant is re-encoded or signed again
it counts once. Our own grants are signed with a key derived from the deployment's secret; backends that hold
a grant key sign theirs. Expiry is judged here, at the door, and nowhere else. Pure: no I/O.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime

from msgspec import Struct

from scoreboard.auth import keyring
from scoreboard.auth.profile import LIFETIME_SECONDS, Kind, signed, verified
from scoreboard.auth.tokens import LOCAL_AUDIENCE, own_keyring
from scoreboard.config import Config, Environment
from scoreboard.envelope import purpose_key
from scoreboard.errors import Problem
from scoreboard.event_ids import event_id_of_grant
from scoreboard.model import GIVER_ENDS, LOCAL_ISSUER
from scoreboard.texts import TYPE_PATTERN

__all__ = ["DEFAULT_SECONDS", "LIFETIME_SECONDS", "Grant", "Grants", "new_grant"]

TYPE = "sb-grant+jwt"
PURPOSE = "grants"
DEFAULT_SECONDS = 15 * 60
ID_BYTES = 16  # of our own grants' ids: 128 random bits
GRANT = Kind(
    name="grant",
    code="invalid_grant",
    types=(TYPE,),
    bytes=2048,
    required=("iss", "aud", "sub", "act", "jti", "iat", "exp"),
)
_ID = re.compile(r"[!-~]{1,128}")
_ACTION = re.compile(TYPE_PATTERN)


class Grant(Struct, frozen=True):
    """What a grant permits: these points, to its user, once."""

    action: str
    reference: str
    """Who gave it, and its id."""
    event_id: bytes
    giver: str | None = None
    """Of one of our own: the id of the key that had it made."""


class Grants:
    """Verifies our own grants, and those of the configured grant issuers."""

    def __init__(self, config: Config, environment: Environment) -> None:
        """Raises ``ConfigurationError`` if a key is not in order, or is a token issuer's, too."""
        keyring.check_apart(config.auth.issuers, config.auth.grant_issuers)
        self._keyrings = keyring.keyrings(config.auth.grant_issuers, own_keyring(environment, PURPOSE))

    def read(self, text: str, user: str) -> Grant:
        """What a grant permits to this user.

        Raises:
            Problem: ``invalid_grant`` or ``grant_expired``, with the event's id once the grant is known.
            NotYetKnown: the issuer's key is not known.
        """
        found = verified(text, self._keyrings, GRANT)
        claims = found.claims
        issuer, grant_id, action = claims["iss"], claims["jti"], claims["act"]
        if not isinstance(grant_id, str) or not _ID.fullmatch(grant_id):
            raise Problem(
                "invalid_grant", "The claim jti of the grant must be 1 to 128 visible ASCII characters."
            )
        event_id = event_id_of_grant(issuer, grant_id)
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            msg = "The claim act of the grant must be a type of action."
            raise Problem("invalid_grant", msg, event_id=str(event_id))
        if claims["sub"] != user:
            raise Problem("invalid_grant", "The grant is for another user.", event_id=str(event_id))
        if found.expired:
            raise Problem("grant_expired", event_id=str(event_id))
        giver, made_with_key, _ = grant_id.partition(GIVER_ENDS)
        ours = issuer == LOCAL_ISSUER and made_with_key
        return Grant(action, f"{issuer} {grant_id}", event_id.bytes, giver if ours else None)

    async def run(self) -> None:
        """Follow the grant issuers' keys until cancelled."""
        await keyring.follow(self._keyrings.values())


def new_grant(
    secret: str, user: str, action: str, seconds: int, giver: str | None = None
) -> tuple[str, datetime]:
    """A grant of our own: (its text, when it expires). ``giver``: the id of the key that had it made.

    The giver is a part of the grant's id. So it comes into the ledger with it, and the event is found by it.
    """
    now = int(time.time())
    before = "" if giver is None else giver + GIVER_ENDS
    claims = {
        "iss": LOCAL_ISSUER,
        "aud": LOCAL_AUDIENCE,
        "sub": user,
        "act": action,
        "jti": before + secrets.token_urlsafe(ID_BYTES),
        "iat": now,
        "exp": now + seconds,
    }
    return signed(claims, purpose_key(secret, PURPOSE), TYPE), datetime.fromtimestamp(now + seconds, UTC)
