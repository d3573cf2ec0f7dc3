"""Users' tokens: JSON Web Tokens under the strict profile of ``profile.py``.

In comes a token, out goes the user whom it vouches for. A verified token is remembered by the SHA-256 of its
bytes, so that a client's second request costs microseconds; the memory is bounded, and never outlives the
token's ``exp`` or a change of its issuer's keys.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from scoreboard.auth import keyring
from scoreboard.auth.keyring import Key, Keyring
from scoreboard.auth.profile import LIFETIME_SECONDS, Kind, signed, verified
from scoreboard.config import Config, Environment
from scoreboard.envelope import purpose_key
from scoreboard.errors import Problem
from scoreboard.model import LOCAL_ISSUER, Principal
from scoreboard.texts import flaw_of_name, flaw_of_user_id

__all__ = ["LIFETIME_SECONDS", "Tokens", "local_token"]

LOCAL_AUDIENCE = "scoreboard"
PURPOSE = "local tokens"
REMEMBERED = 50_000  # verified tokens: about 20 MB, and 50 if all ids and names are as long as may be
TOKEN = Kind(
    name="token",
    code="invalid_token",
    types=("jwt", "at+jwt", None),
    bytes=4096,
    required=("iss", "aud", "sub", "exp"),
)


class _Remembered(Struct, frozen=True):
    """What is needed of a verified token: its claims would take several times as much."""

    principal: Principal
    exp: int
    keyring: Keyring
    keys: object
    """What the keyring had then."""


class Tokens:
    """Verifies tokens of the configured issuers, and of the local key while that is on."""

    def __init__(self, config: Config, environment: Environment) -> None:
        """Raises ``ConfigurationError`` if a PEM is not a public key of one of its issuer's algorithms."""
        local = own_keyring(environment, PURPOSE) if config.auth.local_tokens else None
        self._keyrings = keyring.keyrings(config.auth.issuers, local)
        self._remembered: dict[bytes, _Remembered] = {}

    def principal(self, token: str) -> Principal:
        """The user that a token vouches for.

        Raises:
            Problem: ``invalid_token`` or ``token_expired``.
            NotYetKnown: the issuer's key is not known.
        """
        digest = digest_of(token)
        if (remembered := self.remembered(digest)) is not None:
            return remembered
        found = verified(token, self._keyrings, TOKEN)
        if found.expired:
            raise Problem("token_expired")
        principal = _principal(found.claims, found.keyring.name)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))  # the oldest
        self._remembered[digest] = _Remembered(principal, found.claims["exp"], found.keyring, found.keys)
        return principal

    def remembered(self, digest: bytes) -> Principal | None:
        """The user that a token vouches for, if it has been verified before and that still holds."""
        known = self._remembered.get(digest)
        if known is None:
            return None
        if time.time() < known.exp and known.keyring.keys is known.keys:
            return known.principal
        del self._remembered[digest]
        return None

    async def run(self) -> None:
        """Follow the issuers' keys until cancelled."""
        await keyring.follow(self._keyrings.values())


def digest_of(token: str) -> bytes:
    """By what a token is remembered."""
    return hashlib.sha256(token.encode()).digest()


def own_keyring(environment: Environment, purpose: str) -> Keyring | None:
    """The keys for a purpose that come from our own secret, and from the one before it; none without."""
    secrets = [s for s in (environment.secret, environment.secret_previous) if s is not None]
    keys = [Key("HS256", purpose_key(secret, purpose)) for secret in secrets]
    return Keyring(LOCAL_ISSUER, LOCAL_AUDIENCE, keys) if keys else None


def local_token(secret: str, user: str, name: str | None, seconds: int) -> str:
    """A user's token signed with the local key, as ``scoreboard token`` prints it."""
    now = int(time.time())
    claims = {"iss": LOCAL_ISSUER, "aud": LOCAL_AUDIENCE, "sub": user, "iat": now, "exp": now + seconds}
    if name is not None:
        claims["name"] = name
    return signed(claims, purpose_key(secret, PURPOSE), "JWT")


def _principal(claims: Mapping[str, Any], issuer: str) -> Principal:
    user = claims["sub"]
    flaw = flaw_of_user_id(user) if isinstance(user, str) else "must be a text"
    if flaw is not None:
        raise Problem("invalid_token", f"The subject cannot be a user id: {flaw}.")
    name = claims.get("name")
    # A name that cannot be shown is not taken; who the user is does not depend on it.
    name = unicodedata.normalize("NFC", name) if isinstance(name, str) else None
    if name is not None and flaw_of_name(name):
        name = None
    return Principal("user", user, issuer, name)
