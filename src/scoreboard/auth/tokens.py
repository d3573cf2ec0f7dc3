"""Users' tokens: JSON Web Tokens under a strict profile (RFC 7519, RFC 8725).

The algorithm belongs to the key and is never taken from the token. ``exp`` is required and an integer, the
lifetime is capped, ``iss``, ``aud`` and ``typ`` are checked, and headers that would bring a key along are
refused. A verified token is remembered by the SHA-256 of its bytes until it expires, so that a client's
second request costs microseconds; the memory is bounded.
"""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from scoreboard.config import Config, Environment, Issuer
from scoreboard.envelope import purpose_key
from scoreboard.errors import ConfigurationError, Problem
from scoreboard.model import Principal, flaw_of_name, flaw_of_user_id

LOCAL_ISSUER = "scoreboard"
LOCAL_AUDIENCE = "scoreboard"
TOKEN_BYTES = 4096
LIFETIME_SECONDS = 24 * 3600  # a stolen token is worth a day at most
LEEWAY_SECONDS = 30  # clocks differ
REMEMBERED = 50_000  # verified tokens: about 20 MB
TYPES = ("jwt", "at+jwt")
# Headers that would choose a key, or change what is signed (RFC 7515, 7797): never ours to follow.
FORBIDDEN_HEADERS = frozenset(("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"))
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class _Key(Struct, frozen=True):
    algorithm: str
    material: Any


class _Issuer(Struct, frozen=True):
    name: str
    audience: str
    keys: Sequence[_Key]


class Tokens:
    """Verifies tokens of the configured issuers, and of the local key while that is on."""

    def __init__(self, config: Config, environment: Environment) -> None:
        """Raises ``ConfigurationError`` if a PEM is not a public key of one of its issuer's algorithms."""
        self._issuers: dict[str, _Issuer] = {}
        for issuer in config.auth.issuers:
            self._issuers[issuer.issuer] = _Issuer(issuer.issuer, issuer.audience, _keys_of(issuer))
        local = not config.auth.issuers if config.auth.local is None else config.auth.local
        if local and environment.secret is not None:
            secrets = [s for s in (environment.secret, environment.secret_previous) if s is not None]
            keys = [_Key("HS256", purpose_key(secret, "local tokens")) for secret in secrets]
            self._issuers[LOCAL_ISSUER] = _Issuer(LOCAL_ISSUER, LOCAL_AUDIENCE, keys)
        self._remembered: dict[bytes, tuple[Principal, int]] = {}

    def principal(self, token: str) -> Principal:
        """The user that a token vouches for.

        Raises:
            Problem: ``invalid_token`` or ``token_expired``.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None:
            if time.time() < known[1] + LEEWAY_SECONDS:
                return known[0]
            del self._remembered[digest]
            raise Problem("token_expired")
        claims = self._verified(token)
        principal = _principal(claims)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))  # the oldest
        self._remembered[digest] = (principal, claims["exp"])
        return principal

    def _verified(self, token: str) -> dict[str, Any]:
        if len(token) > TOKEN_BYTES or not _FORM.fullmatch(token):
            raise Problem("invalid_token", "This is not a compact JWT of at most 4 KiB.")
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Problem("invalid_token", "This is not a JWT.") from error
        _check_header(unverified["header"])
        name = unverified["payload"].get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise Problem("invalid_token", "Nobody we know issued this token.")
        for key in issuer.keys:
            try:
                claims = jwt.decode(
                    token,
                    key.material,
                    algorithms=[key.algorithm],
                    audience=issuer.audience,
                    issuer=issuer.name,
                    leeway=LEEWAY_SECONDS,
                    options={"require": ["exp", "sub", "iss", "aud"], "verify_iat": True},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue  # perhaps another key of this issuer
            except jwt.ExpiredSignatureError as error:
                raise Problem("token_expired") from error
            except (jwt.PyJWTError, ValueError, OverflowError) as error:
                raise Problem("invalid_token", str(error)) from error
            _check_times(claims)
            return claims
        raise Problem("invalid_token", "The signature is not that of a key of this issuer.")


def local_token(secret: str, user: str, name: str | None, seconds: int) -> str:
    """A user's token signed with the local key, as ``scoreboard token`` prints it."""
    now = int(time.time())
    claims = {"iss": LOCAL_ISSUER, "aud": LOCAL_AUDIENCE, "sub": user, "iat": now, "exp": now + seconds}
    if name is not None:
        claims["name"] = name
    return jwt.encode(claims, purpose_key(secret, "local tokens"), algorithm="HS256")


def _check_header(header: Mapping[str, Any]) -> None:
    if found := FORBIDDEN_HEADERS.intersection(header):
        raise Problem("invalid_token", f"The header {min(found)!r} is not accepted.")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
        raise Problem("invalid_token", "The token's typ is not that of an access token.")


def _check_times(claims: Mapping[str, Any]) -> None:
    # PyJWT takes any number, and a number in a text, for these.
    for name in ("exp", "iat", "nbf"):
        if name in claims and type(claims[name]) is not int:
            raise Problem("invalid_token", f"The claim {name} must be an integer.")
    issued = claims.get("iat", int(time.time()))
    if claims["exp"] - issued > LIFETIME_SECONDS + LEEWAY_SECONDS:
        raise Problem("invalid_token", f"The lifetime is more than {LIFETIME_SECONDS // 3600} hours.")


def _principal(claims: Mapping[str, Any]) -> Principal:
    user = claims["sub"]
    if not isinstance(user, str) or (flaw := flaw_of_user_id(user)):
        raise Problem("invalid_token", f"The subject cannot be a user id: {flaw}.")
    name = claims.get("name")
    # A name that cannot be shown is not taken; who the user is does not depend on it.
    name = unicodedata.normalize("NFC", name) if isinstance(name, str) else None
    if name is not None and flaw_of_name(name):
        name = None
    return Principal("user", user, claims["iss"], name)


def _keys_of(issuer: Issuer) -> list[_Key]:
    if issuer.secret is not None:
        return [_Key("HS256", issuer.secret.encode())]
    keys = []
    for pem in issuer.keys:
        try:
            public = load_pem_public_key(pem.encode())
        except ValueError as error:
            raise ConfigurationError(f"issuer {issuer.issuer}: not a PEM public key: {error}") from error
        algorithm = _algorithm_of(public)
        if algorithm not in issuer.algorithms:
            msg = f"issuer {issuer.issuer}: a key is for {algorithm}, which is not among its algorithms"
            raise ConfigurationError(msg)
        keys.append(_Key(algorithm, public))
    return keys


def _algorithm_of(public: object) -> str:
    """The one algorithm a key is used with (RFC 8725 section 3.1)."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(public, rsa.RSAPublicKey):
        return "RS256"
    return "an unsupported algorithm"
