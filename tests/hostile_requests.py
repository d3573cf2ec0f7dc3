"""A corpus of hostile requests, each with the problem that answers it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scoreboard.auth.grants import new_grant
from signing import Signer, part

ISSUER, OTHER, GAME = Signer("EdDSA"), Signer("EdDSA"), Signer("EdDSA")
RSA, EC = Signer("RS256"), Signer("ES256")
GRANT_BODY = b'{"userId":"ann","action":"boss-kill"}'
NOW = int(time.time())


class Case(NamedTuple):
    """One request, and what it is answered."""

    name: str
    status: int
    code: str
    credentials: str
    body: bytes
    path: str = "/update-score"
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


def update(user: str = "ann", action: str = "cheer:evil") -> bytes:
    return json.dumps({"userId": user, "actionId": action}).encode()


def resigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    return f"{part(header)}.{part(claims)}.{part(signature)}"


def raw_claims(text: str) -> str:
    """Well signed claims that no JSON library of ours would write."""
    head = part({"alg": "EdDSA", "typ": "JWT"})
    body = part(f'{{"iss":"https://id.example","aud":"scoreboard","sub":"ann","exp":{text}}}'.encode())
    return f"{head}.{body}.{part(ISSUER.private.sign(f'{head}.{body}'.encode()))}"


CLAIMS = {"iss": "https://id.example", "aud": "scoreboard", "sub": "ann", "iat": NOW, "exp": NOW + 3_600}


def confused(signer: Signer, issuer: str) -> str:
    """A token signed by HMAC with somebody's public key as the secret (RFC 8725 section 2.1)."""
    data = signer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = part({"alg": "HS256", "typ": "JWT"}), part(CLAIMS | {"iss": issuer})
    return f"{head}.{body}.{part(hmac.digest(data, f'{head}.{body}'.encode(), hashlib.sha256))}"


def tokens() -> Iterator[Case]:
    """Who are you? Not who you say."""
    good = ISSUER.token()
    head, body, signature = good.split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    bad: dict[str, str] = {
        "algorithm none": resigned({"alg": "none", "typ": "JWT"}, CLAIMS),
        "algorithm nOnE": resigned({"alg": "nOnE", "typ": "JWT"}, CLAIMS),
        "algorithm none with the old signature": f"{part({'alg': 'none'})}.{body}.{signature}",
        "no algorithm": resigned({"typ": "JWT"}, CLAIMS, b"x" * 64),
        "an algorithm that is a list": resigned({"alg": ["EdDSA"], "typ": "JWT"}, CLAIMS, b"x" * 64),
        "public EdDSA key as a secret": confused(ISSUER, "https://id.example"),
        "public RSA key as a secret": confused(RSA, "https://rsa.example"),
        "public EC key as a secret": confused(EC, "https://ec.example"),
        "RSA key for another's issuer": RSA.token(),
        "EC key for another's issuer": EC.token(),
        "a stranger's key": OTHER.token(),
        "a grant key": GAME.token(),
        "a grant key under its own name": GAME.token(iss="game-server"),
        "a grant as a token": GAME.grant(),
        "a changed subject": f"{head}.{part(CLAIMS | {'sub': 'bob'})}.{signature}",
        "a changed signature": f"{head}.{body}.{flipped}",
        "a signature cut short": f"{head}.{body}.{signature[:-4]}",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "five parts, as if encrypted": f"{head}.{body}.{signature}.x.y",
        "padding": f"{head}=.{body}.{signature}",
        "a header that brings its key": ISSUER.token(headers={"jwk": OTHER.jwk}),
        "a key of the attacker's in the header": OTHER.token(headers={"jwk": OTHER.jwk}),
        "a header that names a key set": OTHER.token(headers={"jku": "http://127.0.0.1:9/keys"}),
        "a header that names a certificate": OTHER.token(headers={"x5u": "http://127.0.0.1:9/x"}),
        "a header with certificates": OTHER.token(headers={"x5c": ["AAAA"]}),
        "an unknown critical header": ISSUER.token(headers={"crit": ["x"], "x": 1}),
        "an unencoded payload": ISSUER.token(headers={"b64": False, "crit": ["b64"]}),
        "a path as kid": OTHER.token(headers={"kid": "../../dev/null"}),
        "SQL as kid": OTHER.token(headers={"kid": "' OR 1=1 --"}),
        "another typ": ISSUER.token(headers={"typ": "logout+jwt"}),
        "the typ of a grant": ISSUER.token(headers={"typ": "sb-grant+jwt"}),
        "another audience": ISSUER.token(aud="elsewhere"),
        "no audience": ISSUER.token(aud=None),
        "another issuer": ISSUER.token(iss="https://evil.example"),
        "no issuer": ISSUER.token(iss=None),
        "an issuer that is a list": ISSUER.sign(CLAIMS | {"aud": "scoreboard"}).replace(
            body, part(CLAIMS | {"iss": ["https://id.example"]})
        ),
        "the local issuer": ISSUER.token(iss="scoreboard"),
        "no exp": ISSUER.token(exp=None),
        "exp in a text": ISSUER.token(exp=str(NOW + 3_600)),
        "exp with a fraction": ISSUER.token(exp=NOW + 3_600.5),
        "exp 1e300": raw_claims("1e300"),
        "exp NaN": raw_claims("NaN"),
        "exp Infinity": raw_claims("Infinity"),
        "exp far away": ISSUER.token(exp=NOW + 10**9),
        "exp beyond 64 bits": ISSUER.token(exp=2**70),
        "exp negative": ISSUER.token(exp=-(2**70)),
        "not yet valid": ISSUER.token(nbf=NOW + 3600),
        "made in the future": ISSUER.token(iat=NOW + 3600, exp=NOW + 3660),
        "no subject": ISSUER.token(sub=None),
        "a subject with a NUL": ISSUER.token(sub="ann\x00"),
        "an empty subject": ISSUER.token(sub=""),
        "5 KiB": ISSUER.token(x="y" * 5_000),
        "not a token": "Robert'); DROP TABLE events;--",
        "a NUL in the payload": f"{head}.{part(b'{}' + bytes(3))}.{signature}",
    }
    for name, token in bad.items():
        expired = name == "exp negative"
        yield Case(f"token: {name}", 401, "token_expired" if expired else "invalid_token", token, update())
    yield Case("token: expired", 401, "token_expired", ISSUER.token(iat=NOW - 200, exp=NOW - 100), update())
    yield Case("no token", 401, "missing_token", "", update())
    yield Case(
        "Basic authorization", 401, "missing_token", "", update(), headers={"authorization": "Basic YTpi"}
    )
    yield Case("a token in the address", 401, "missing_token", "", update(), f"/update-score?token={good}")


def authority() -> Iterator[Case]:
    """You are who you are, and may not do this."""
    ann = ISSUER.token()
    yield Case("another user's id", 403, "user_mismatch", ann, update("bob"))
    yield Case("another user's id by case", 403, "user_mismatch", ann, update("Ann"))
    yield Case("another user's id with a space", 403, "user_mismatch", ann, update("ann "))
    yield Case("an action for services only", 403, "action_not_allowed", ann, update(action="point:1"))
    yield Case("an action for grants, named", 403, "action_not_allowed", ann, update(action="boss-kill:1"))
    yield Case("an action that is not there", 422, "unknown_action", ann, update(action="jackpot:1"))
    yield Case("a batch as a user", 403, "insufficient_scope", ann, b"[]", "/update-scores")
    yield Case("making grants as a user", 403, "insufficient_scope", ann, GRANT_BODY, "/grants")
    yield Case("moderating as a user", 403, "insufficient_scope", ann, b'{"userId":"bob"}', "/admin/ban")
    yield Case("no key at all", 401, "invalid_token", "sb_" + "x" * 43, update())
    yield Case("half a key", 401, "invalid_token", "sb_x", update())
    yield Case("the hash of a key", 401, "invalid_token", "sb_" + "a" * 64, update())
    for scope, path, body in (
        ("score", "/grants", GRANT_BODY),
        ("score", "/admin/revoke", b'{"userId":"bob"}'),
        ("score", "/admin/restore", b'{"userId":"bob"}'),
        ("grants", "/update-score", update()),
        ("grants", "/update-scores", b"[]"),
        ("grants", "/admin/release", b'{"userId":"ann"}'),
        ("admin", "/update-score", update()),
        ("admin", "/update-scores", b"[]"),
        ("admin", "/grants", GRANT_BODY),
    ):
        yield Case(f"a key for {scope} at {path}", 403, "insufficient_scope", f"<{scope}>", body, path)
    yield Case("a revoked key", 401, "invalid_token", "<revoked>", update(action="point:1"))
    yield Case("a key for other actions", 403, "action_not_allowed", "<cheers>", update(action="point:1"))
    none = b'{"userId":"ann","action":"point"}'
    yield Case("grants for an action that has none", 403, "action_not_allowed", "<grants>", none, "/grants")


def grants() -> Iterator[Case]:
    """A grant that is not yours, not this one, not any more, or not a grant."""
    ann = ISSUER.token()
    good = GAME.grant(jti="stolen")
    head, _, signature = good.split(".")
    bad = {
        "altered action": f"{head}.{part(CLAIMS | {'act': 'other-boss', 'jti': 'a'})}.{signature}",
        "signed by a token key": ISSUER.grant(),
        "signed by a token key, under its name": ISSUER.grant(iss="https://id.example"),
        "signed by a stranger": OTHER.grant(),
        "algorithm none": resigned({"alg": "none", "typ": "sb-grant+jwt"}, {"act": "boss-kill"}),
        "a token as a grant": ISSUER.token(),
        "the typ of a token": GAME.grant(headers={"typ": "JWT"}),
        "another audience": GAME.grant(aud="elsewhere"),
        "no id": GAME.grant(jti=None),
        "an empty id": GAME.grant(jti=""),
        "no exp": GAME.grant(exp=None),
        "a life of a year": GAME.grant(exp=NOW + 365 * 86_400),
        "not yet": GAME.grant(iat=NOW + 3_600, exp=NOW + 3_660),
        "an action that is a list": GAME.grant(act=["boss-kill"]),
        "made by the local issuer's name": GAME.grant(iss="scoreboard"),
        "another user's": GAME.grant(sub="bob"),
        "no user": GAME.grant(sub=None),
    }
    for name, grant in bad.items():
        yield Case(f"grant: {name}", 422, "invalid_grant", ann, update(action=grant))
    expired = GAME.grant(iat=NOW - 2_000, exp=NOW - 1_000)
    yield Case("grant: expired", 410, "grant_expired", ann, update(action=expired))
    yield Case("grant: stolen", 422, "invalid_grant", ISSUER.token(sub="bob"), update("bob", good))
    yield Case("grant: words", 400, "invalid_field", ann, update(action="grant-me-points"))
    yield Case(
        "grant: for an open action", 403, "action_not_allowed", ann, update(action=GAME.grant(act="cheer"))
    )
    yield Case("grant: for no action", 422, "unknown_action", ann, update(action=GAME.grant(act="jackpot")))
    forged = new_grant("x" * 32, "ann", "boss-kill", 60)[0]
    yield Case("grant: under another secret", 422, "invalid_grant", ann, update(action=forged))


def bodies() -> Iterator[Case]:
    """What is not what it seems."""
    ann = ISSUER.token()
    for name, body, code in (
        ("nothing", b"", "malformed_json"),
        ("half an object", b'{"userId":"ann"', "malformed_json"),
        ("a list", b"[]", "invalid_field"),
        ("deep nesting", b'{"userId":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "invalid_field"),
        ("a duplicate key", b'{"userId":"ann","userId":"bob","actionId":"cheer:1"}', "invalid_field"),
        (
            "a key hidden by an escape",
            b'{"userId":"ann","user\\u0049d":"bob","actionId":"cheer:1"}',
            "invalid_field",
        ),
        ("points", b'{"userId":"ann","actionId":"cheer:1","points":9999}', "unknown_field"),
        ("a number as user", b'{"userId":1,"actionId":"cheer:1"}', "invalid_field"),
        ("an object as action", b'{"userId":"ann","actionId":{"$ne":null}}', "invalid_field"),
        ("null", b'{"userId":null,"actionId":null}', "invalid_field"),
        ("bytes that are no UTF-8", b'{"userId":"\xff\xfe","actionId":"cheer:1"}', "malformed_json"),
        ("a lone surrogate", b'{"userId":"\\ud800","actionId":"cheer:1"}', "malformed_json"),
        ("an id without a unique part", update(action="cheer:"), "invalid_field"),
        ("a unique part with a space", update(action="cheer:1 2"), "invalid_field"),
        ("a unique part with a NUL", update(action="cheer:1\x00"), "invalid_field"),
        ("a unique part with a line end", update(action="cheer:1\r\nX: y"), "invalid_field"),
        ("a unique part of 257", update(action="cheer:" + "x" * 257), "invalid_field"),
        ("a type in capitals", update(action="CHEER:1"), "invalid_field"),
        ("SQL as type", update(action="cheer';DROP TABLE events;--:1"), "invalid_field"),
    ):
        yield Case(f"body: {name}", 400, code, ann, body)
    for name, user in (
        ("a NUL", "ann\x00"), ("a bidi override", "ann\u202e"), ("a zero width joiner", "a\u200dnn"),
        ("nothing", ""), ("129 characters", "x" * 129), ("400 bytes", "\U0001f600" * 100), ("a tab", "ann\t"),
    ):  # fmt: skip
        yield Case(f"user id: {name}", 400, "invalid_field", "<score>", update(user, "point:1"))
    yield Case("4 KiB and one", 413, "payload_too_large", ann, b" " * 4_097)
    many = b"[" + b",".join([update()] * 1_001) + b"]"
    yield Case("1,001 at once", 413, "payload_too_large", "<score>", many, "/update-scores")
    yield Case("a form", 415, "unsupported_media_type", ann, update(), headers={"content-type": "text/plain"})
    yield Case(
        "compressed", 415, "unsupported_media_type", ann, update(), headers={"content-encoding": "gzip"}
    )


def acts() -> Iterator[Case]:
    """What one who may moderate asks for, by mistake or with a stolen key."""
    for name, path, text in (
        ("a NUL in a reason", "hide", r'"userId":"ann","reason":"x\u0000y"'),
        ("a line end in a reason", "ban", r'"userId":"ann","reason":"x\n2026-01-01  os:root  unban  bob"'),
        ("a line separator in a reason", "show", r'"userId":"ann","reason":"x\u2028y"'),
        ("an escape in a reason", "revoke", r'"userId":"ann","reason":"\u001b[2J"'),
        ("a bidi override in a reason", "restore", r'"userId":"ann","reason":"\u202e"'),
        ("half a surrogate in a reason", "unban", r'"userId":"ann","reason":"\udc00"'),
        ("a NUL in a reason to drop", "dead/drop", r'"number":0,"reason":"x\u0000y"'),
        ("a NUL in a key id", "revoke", r'"keyId":"k\u0000"'),
        ("SQL as key id", "revoke", "\"keyId\":\"k' OR ''='\""),
        ("a key as key id", "release", f'"keyId":"sb_{"x" * 43}"'),
        ("a NUL in a key id, tried", "revoke", r'"keyId":"a\u0000b","dryRun":true'),
        ("a time before the first", "revoke", '"userId":"x","since":"0001-01-01T00:00:00+14:00"'),
        ("a time after the last", "restore", '"userId":"x","until":"9999-12-31T23:59:59-14:00"'),
        ("no time, tried", "revoke", '"since":"0001-01-01T00:00:00+14:00","dryRun":true'),
        ("no key id", "reject", '"keyId":""'),
        ("a NUL in a user id", "ban", r'"userId":"ann\u0000"'),
        ("a user given twice", "hide", '"userId":"ann","userId":"bob"'),
        ("points", "restore", '"userId":"ann","points":9'),
        ("a dry run of all", "revoke", '"dryRun":true'),
    ):
        code = {"points": "unknown_field", "half a surrogate in a reason": "malformed_json"}.get(name)
        body = f"{{{text}}}".encode()
        yield Case(f"act: {name}", 400, code or "invalid_field", "<admin>", body, f"/admin/{path}")


CASES = [*tokens(), *authority(), *grants(), *bodies(), *acts()]
