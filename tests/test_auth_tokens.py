"""Tokens: what the profile takes and what it refuses, and what is remembered of one."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from judging import ALGORITHMS, ID, SECRET, code, tokens_of
from scoreboard.auth import tokens
from scoreboard.auth.tokens import Tokens, local_token
from scoreboard.config import Auth as AuthTable
from scoreboard.config import Config, Environment
from scoreboard.issuers import Issuer
from signing import Signer, now, part

TOKENS = tokens_of(keys=(ID.pem,))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_is_verified_with_its_key(algorithm: Any) -> None:
    signer, judge = Signer(algorithm), tokens_of(algorithms=(algorithm,), keys=(Signer(algorithm).pem,))
    if algorithm == "RS256":  # made once for all tests
        assert judge.principal(signer.token()).id == "ann"
    else:
        assert code(judge, signer.token()) == "invalid_token"
        assert code(tokens_of(algorithms=(algorithm,), keys=(signer.pem,)), signer.token()) == "fine"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_of_another_length_is_none(algorithm: Any) -> None:
    signer = Signer(algorithm)
    judge, token = tokens_of(algorithms=(algorithm,), keys=(signer.pem,)), signer.token()
    head, _, signature = token.rpartition(".")
    for other in ("", "AA", signature[:-4], signature + signature, part(bytes(64)), part(bytes(256))):
        assert code(judge, f"{head}.{other}") == "invalid_token"
    assert code(judge, token) == "fine"


def test_a_shared_secret_is_verified_as_hs256_alone() -> None:
    judge = tokens_of(algorithms=("HS256",), secret=SECRET)
    claims = jwt.decode(ID.token(), options={"verify_signature": False})
    assert code(judge, jwt.encode(claims, SECRET, "HS256")) == "fine"
    assert code(judge, jwt.encode(claims, SECRET + SECRET, "HS512")) == "invalid_token"
    assert code(judge, jwt.encode(claims, SECRET.upper(), "HS256")) == "invalid_token"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: ID.token(), id="as usual"),  # noqa: PLW0108  made when it is used
        pytest.param(lambda: ID.token(headers={"typ": "at+jwt"}), id="an access token (RFC 9068)"),
        pytest.param(lambda: ID.token(headers={"typ": "application/at+JWT"}), id="its typ in full"),
        pytest.param(lambda: ID.token(headers={"typ": None}), id="without typ"),
        pytest.param(lambda: ID.token(aud=["account", "scoreboard"]), id="among other audiences"),
        pytest.param(lambda: ID.token(iat=None), id="without iat"),
        pytest.param(lambda: ID.token(iat=now() + 20, nbf=now() + 20), id="from a clock that is ahead"),
        pytest.param(lambda: ID.token(exp=now() - 20), id="from a clock that is behind"),
        pytest.param(lambda: ID.token(headers={"kid": "any", "x5t": "AAAA"}), id="with kid and thumbprint"),
        pytest.param(lambda: ID.token(roles=["x"], nested={"a": [1]}), id="with further claims"),
        pytest.param(lambda: ID.token(exp=now() + 86_400), id="for a day"),
    ],
)
def test_what_providers_send_is_taken(token: Callable[[], str]) -> None:
    assert TOKENS.principal(token()).id == "ann"


def forged(header: dict[str, Any], key: bytes = b"") -> str:
    text = f"{part(header)}.{ID.token().split('.')[1]}"
    return f"{text}.{part(hmac.digest(key, text.encode(), hashlib.sha256)) if key else ''}"


def mislabelled(algorithm: str) -> str:
    text = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{ID.token().split('.')[1]}"
    return f"{text}.{part(ID.private.sign(text.encode()))}"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: forged({"alg": "none"}), id="none"),
        pytest.param(lambda: forged({"alg": "NoNe", "typ": "JWT"}, b"x"), id="NoNe"),
        pytest.param(lambda: forged({"alg": "HS256"}, ID.pem.encode()), id="the public key as a secret"),
        pytest.param(lambda: forged({"alg": "HS256"}, b"x" * 32), id="another algorithm"),
        pytest.param(lambda: forged({}, b"x"), id="no algorithm"),
        pytest.param(lambda: mislabelled("none"), id="rightly signed, and labelled none"),
        pytest.param(lambda: mislabelled("ES256"), id="rightly signed, and labelled otherwise"),
        pytest.param(lambda: forged({"alg": ["EdDSA"]}, b"x"), id="a list of algorithms"),
        pytest.param(lambda: forged({"alg": "EdDSA", "kid": 1}, b"x"), id="a kid that is a number"),
        pytest.param(lambda: forged({"alg": "EdDSA", "kid": ""}, b"x"), id="an empty kid"),
        pytest.param(lambda: ID.token(headers={"kid": "k" * 257}), id="a kid that is too long"),
        pytest.param(lambda: ID.token(headers={"jwk": ID.jwk}), id="its own key"),
        pytest.param(lambda: ID.token(headers={"jku": "https://evil.example"}), id="a key by URL"),
        pytest.param(lambda: ID.token(headers={"x5u": "https://evil.example"}), id="a certificate by URL"),
        pytest.param(lambda: ID.token(headers={"x5c": ["AAAA"]}), id="a certificate"),
        pytest.param(lambda: ID.token(headers={"crit": ["exp"]}), id="crit"),
        pytest.param(lambda: forged({"alg": "EdDSA", "b64": True}, b"x"), id="b64"),
        pytest.param(lambda: ID.token(headers={"zip": "DEF"}), id="compression"),
        pytest.param(lambda: ID.token(headers={"cty": "JWT"}), id="a token in a token"),
        pytest.param(lambda: ID.token(headers={"enc": "A128GCM"}), id="encryption"),
        pytest.param(lambda: ID.token(headers={"typ": "logout+jwt"}), id="a logout token"),
        pytest.param(lambda: ID.token(headers={"typ": "sb-grant+jwt"}), id="a grant"),
        pytest.param(lambda: ID.token(headers={"typ": 1}), id="a typ that is a number"),
        pytest.param(lambda: ID.token(aud="other"), id="another audience"),
        pytest.param(lambda: ID.token(aud=["other"]), id="other audiences"),
        pytest.param(lambda: ID.token(aud={"scoreboard": 1}), id="an audience that is an object"),
        pytest.param(lambda: ID.token(aud=None), id="no audience"),
        pytest.param(lambda: ID.token(iss="https://id.example/"), id="nearly the issuer"),
        pytest.param(lambda: raw(iss=1), id="iss 1"),
        pytest.param(lambda: raw(iss=["https://id.example"]), id="a list of issuers"),
        pytest.param(lambda: ID.token(iss="scoreboard"), id="the local issuer"),
        pytest.param(lambda: raw(sub=7), id="a subject that is a number"),
        pytest.param(lambda: raw(sub=["ann"]), id="a list of subjects"),
        pytest.param(lambda: ID.token(sub=""), id="an empty subject"),
        pytest.param(lambda: ID.token(sub="a\u202enn"), id="a bidirectional subject"),
        pytest.param(lambda: ID.token(sub="a\0"), id="a NUL"),
        pytest.param(lambda: raw(exp=None), id="no expiry"),
        pytest.param(lambda: raw(exp=1e300), id="1e300"),
        pytest.param(lambda: raw(exp=float("nan")), id="NaN"),
        pytest.param(lambda: raw(exp=float("inf")), id="Infinity"),
        pytest.param(lambda: raw(exp=10**400), id="a number of 400 digits"),
        pytest.param(lambda: raw(exp=True), id="a truth value"),
        pytest.param(lambda: raw(exp=str(now() + 60)), id="a text"),
        pytest.param(lambda: raw(exp=[now() + 60]), id="a list"),
        pytest.param(lambda: ID.token(exp=now() + 60.5), id="a fraction"),
        pytest.param(lambda: ID.token(exp=now() + 2 * 86_400), id="two days"),
        pytest.param(lambda: ID.token(iat=None, exp=now() + 2 * 86_400), id="two days from now"),
        pytest.param(lambda: ID.token(iat=-(10**9)), id="an early iat"),
        pytest.param(lambda: ID.token(iat=now() + 600, exp=now() + 900), id="from the future"),
        pytest.param(lambda: ID.token(nbf=now() + 600), id="not yet valid"),
        pytest.param(lambda: raw(nbf="0"), id="nbf in a text"),
        pytest.param(lambda: ID.token(note="x" * 5000), id="5 KiB"),
        pytest.param(lambda: ID.token() + "=", id="padding"),
        pytest.param(lambda: ID.token() + "\n", id="a line end"),
        pytest.param(lambda: ID.token().replace(".", ".\u200b", 1), id="a zero width space"),
        pytest.param(lambda: ID.token() + ".", id="four parts"),
        pytest.param(lambda: "...", id="no parts"),
        pytest.param(lambda: f"{part([])}.e30.AAAA", id="a header that is a list"),
        pytest.param(lambda: f"{part({'alg': 'EdDSA'})}.{part([1])}.AAAA", id="claims that are a list"),
        pytest.param(lambda: f"{part({'alg': 'EdDSA'})}.{part(b'[' * 2500)}.AAAA", id="deep claims"),
        pytest.param(lambda: f"{part(b'[' * 2500)}.e30.AAAA", id="a deep header"),
        pytest.param(lambda: f"{part({'alg': 'EdDSA'})}.{part(bytes([255]))}.AAAA", id="not UTF-8"),
        pytest.param(lambda: ID.token()[:-8] + "AAAAAAAA", id="another signature"),
        pytest.param(lambda: Signer().token(), id="another's signature"),
    ],
)
def test_a_token_outside_the_profile_is_refused(token: Callable[[], str]) -> None:
    assert code(TOKENS, token()) == "invalid_token"


def raw(**changes: Any) -> str:
    """A token with claims that a library would not sign."""
    claims = {"iss": "https://id.example", "aud": "scoreboard", "sub": "ann", "exp": now() + 60} | changes
    body = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    return jwt.PyJWS().encode(body, ID.private, algorithm="EdDSA", headers={"typ": "JWT"})


def test_the_memory_of_tokens_is_bounded_and_ends_with_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 10)
    judge = tokens_of(keys=(ID.pem,))
    for number in range(30):
        judge.principal(ID.token(sub=f"u{number}"))
    assert len(judge._remembered) == 10
    expiring = ID.token(exp=now() + 5)
    judge.principal(expiring)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + 20)
    assert code(judge, expiring) == "fine"  # by the leeway, for it was verified again
    assert judge.principal(expiring).id == "ann"
    monkeypatch.setattr(time, "time", lambda: before + 36)
    assert code(judge, expiring) == "token_expired"


def test_of_a_remembered_token_no_more_is_kept_than_who_it_is() -> None:
    judge, count = tokens_of(keys=(ID.pem,)), 500
    given = [
        ID.token(sub=f"{number:0128}", name=f"{number:064}", roles=["player"] * 200)
        for number in range(count + 1)
    ]
    judge.principal(given.pop())
    tracemalloc.start()
    try:
        for token in given:
            judge.principal(token)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / count < 1_000, "bytes a token; the bound of REMEMBERED is counted with it"


def test_local_tokens_are_off_as_soon_as_there_is_an_issuer() -> None:
    secret = "s" * 32
    table = AuthTable(issuers=(Issuer(issuer="x", algorithms=("EdDSA",), keys=(ID.pem,)),))
    token = local_token(secret, "ann", None, 60)
    for auth, expected in (
        (AuthTable(), "fine"),
        (table, "invalid_token"),
        (AuthTable(local=True, issuers=table.issuers), "fine"),
        (AuthTable(local=False), "invalid_token"),
    ):
        assert code(Tokens(Config(auth=auth), Environment(secret=secret)), token) == expected
    previous = Environment(secret="n" * 32, secret_previous=secret)
    assert code(Tokens(Config(), previous), token) == "fine"
    assert code(Tokens(Config(), Environment(secret="n" * 32)), token) == "invalid_token"
