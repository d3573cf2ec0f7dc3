"""The profile of what is signed: compact JWS with claims (RFC 7515, RFC 7519), narrowed as RFC 8725 advises.

In comes a text and the keyrings of those who may have signed it, out go verified claims. The same for users'
tokens and for grants; what differs is in ``Kind``. The algorithm is the key's and never the token's, headers
that would bring a key along are refused, times are integers and lifetimes capped. Pure: no I/O.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
from msgspec import Struct

from scoreboard.auth.keyring import Keyring
from scoreboard.errors import Problem

LEEWAY_SECONDS = 30  # clocks differ
LIFETIME_SECONDS = 24 * 3600  # what is stolen is worth a day at most
KID_CHARACTERS = 256
# Besides what we read, thumbprints of certificates, and a mark that one provider adds. Above all not among
# them: what would bring or choose a key, or change what is signed (jku, jwk, x5u, x5c, crit, b64, zip).
HEADERS = frozenset(("alg", "typ", "kid", "x5t", "x5t#S256", "cat"))
# No character that another reader might take for something else (RFC 8725bis: JWT format confusion).
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JWS = jwt.PyJWS()
_ALGORITHMS = {name: _JWS.get_algorithm_by_name(name) for name in ("HS256", "RS256", "ES256", "EdDSA")}


class Kind(Struct, frozen=True):
    """What is expected: a user's token, or a grant."""

    name: str
    code: str
    """The problem of one that is not in order."""
    types: tuple[str | None, ...]
    """What ``typ`` may be; ``None``: absent."""
    bytes: int
    required: tuple[str, ...]


class Verified(Struct, frozen=True):
    """Claims that were signed by one of the issuer's keys, for us, and whose time has come."""

    claims: Mapping[str, Any]
    keyring: Keyring
    keys: object
    """The keys that the issuer had; what is remembered of these claims ends with them."""
    expired: bool


def verified(text: str, keyrings: Mapping[str, Keyring], kind: Kind) -> Verified:
    """What a signed text says.

    Raises:
        Problem: it is outside the profile.
        NotYetKnown: it may be in order, but the issuer's key is not known.
    """
    if len(text) > kind.bytes or not _FORM.fullmatch(text):
        raise Problem(kind.code, f"The {kind.name} is not a compact JWT of at most {kind.bytes} bytes.")
    try:
        parts = _JWS.decode_complete(text, options={"verify_signature": False})
        claims = msgspec.json.decode(parts["payload"])
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Problem(kind.code, f"The {kind.name} is not a JWT.") from error
    kid = _kid_of(parts["header"], kind)
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    keyring = keyrings.get(issuer) if isinstance(issuer, str) else None
    if keyring is None:
        raise Problem(kind.code, f"The {kind.name} has no issuer that is known here.")
    keys = keyring.keys
    signed_part = text.rpartition(".")[0].encode()
    # Taken apart once and verified with the key's algorithm, never with the one that the header names.
    if not any(
        parts["header"].get("alg") == key.algorithm
        and _ALGORITHMS[key.algorithm].verify(signed_part, key.material, parts["signature"])
        for key in keyring.fitting(kid)
    ):
        raise Problem(kind.code, f"The signature of the {kind.name} is not that of a key of its issuer.")
    now = time.time()
    if flaw := _flaw_of(claims, keyring.audience, kind, now):
        raise Problem(kind.code, f"The {kind.name} {flaw}.")
    return Verified(claims, keyring, keys, claims["exp"] + LEEWAY_SECONDS <= now)


def _kid_of(header: Mapping[str, Any], kind: Kind) -> str | None:
    """The key's name that a header gives, once the header is found in order."""
    if strange := header.keys() - HEADERS:
        raise Problem(kind.code, f"The header {min(strange)!r} of the {kind.name} is not accepted.")
    typ, kid = header.get("typ"), header.get("kid")
    if typ is not None:
        typ = typ.lower().removeprefix("application/") if isinstance(typ, str) else "?"
    if typ not in kind.types:
        raise Problem(kind.code, f"The typ of the {kind.name} is not the one that is expected here.")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= KID_CHARACTERS):
        msg = f"The kid of the {kind.name} must be a text of at most {KID_CHARACTERS} characters."
        raise Problem(kind.code, msg)
    return kid


def _flaw_of(claims: Mapping[str, Any], audience: str, kind: Kind, now: float) -> str | None:
    """What is wrong with signed claims, in words, apart from having expired."""
    for name in kind.required:
        if name not in claims:
            return f"lacks the claim {name}"
    named = claims["aud"]
    if audience != named and not (isinstance(named, list) and audience in named):
        return "is for another audience"
    for name in ("exp", "iat", "nbf"):
        if name in claims and type(claims[name]) is not int:
            return f"has a claim {name} that is not an integer"
    if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + LEEWAY_SECONDS:
        return "is not valid yet"
    if claims["exp"] - claims.get("iat", int(now)) > LIFETIME_SECONDS + LEEWAY_SECONDS:
        return f"has a lifetime of more than {LIFETIME_SECONDS // 3600} hours"
    return None


def signed(claims: Mapping[str, Any], key: bytes, typ: str) -> str:
    """Claims signed with a key of our own."""
    return _JWS.encode(msgspec.json.encode(claims), key, algorithm="HS256", headers={"typ": typ})
