"""Tokens: what the profile takes and what it refuses, and how keys come, change and go."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from deployment import Deployment, problem, submit, until
from scoreboard.auth import Auth, jwks, keyring, tokens
from scoreboard.auth.grants import Grants
from scoreboard.auth.keyring import NotYetKnown
from scoreboard.auth.keys import Keys
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens, local_token
from scoreboard.config import Action, Config, Environment, RateLimits
from scoreboard.config import Auth as AuthTable
from scoreboard.database import Database
from scoreboard.errors import ConfigurationError, Problem
from scoreboard.issuers import Issuer
from scoreboard.rates import Rates
from signing import KeyServer, Signer, part

ID, OLD, NEW = Signer(), Signer(kid="old"), Signer(kid="new")
SECRET = "shared-with-the-issuer-0123456789abcdef"
WEAK_BITS = 1024
ALGORITHMS = ("EdDSA", "ES256", "RS256")


def tokens_of(**issuer: Any) -> Tokens:
    """Tokens of one issuer."""
    given = {"issuer": "https://id.example", "algorithms": ("EdDSA",)} | issuer
    return Tokens(Config(auth=AuthTable(issuers=(Issuer(**given),))), Environment())


TOKENS = tokens_of(keys=(ID.pem,))
NOW = int(time.time())


def code(judge: Tokens, token: str) -> str:
    """What becomes of a token."""
    try:
        judge.principal(token)
    except Problem as found:
        return found.code
    except NotYetKnown:
        return "unknown kid"
    return "fine"


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
        pytest.param(lambda: ID.token(iat=NOW + 20, nbf=NOW + 20), id="from a clock that is ahead"),
        pytest.param(lambda: ID.token(exp=int(time.time()) - 20), id="from a clock that is behind"),
        pytest.param(lambda: ID.token(headers={"kid": "any", "x5t": "AAAA"}), id="with kid and thumbprint"),
        pytest.param(lambda: ID.token(roles=["x"], nested={"a": [1]}), id="with further claims"),
        pytest.param(lambda: ID.token(exp=NOW + 86_400), id="for a day"),
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
        pytest.param(lambda: raw(exp=str(NOW + 60)), id="a text"),
        pytest.param(lambda: raw(exp=[NOW + 60]), id="a list"),
        pytest.param(lambda: ID.token(exp=NOW + 60.5), id="a fraction"),
        pytest.param(lambda: ID.token(exp=NOW + 2 * 86_400), id="two days"),
        pytest.param(lambda: ID.token(iat=None, exp=NOW + 2 * 86_400), id="two days from now"),
        pytest.param(lambda: ID.token(iat=-(10**9)), id="an early iat"),
        pytest.param(lambda: ID.token(iat=NOW + 600, exp=NOW + 900), id="from the future"),
        pytest.param(lambda: ID.token(nbf=NOW + 600), id="not yet valid"),
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
    now = int(time.time())
    claims = {"iss": "https://id.example", "aud": "scoreboard", "sub": "ann", "exp": now + 60} | changes
    body = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    return jwt.PyJWS().encode(body, ID.private, algorithm="EdDSA", headers={"typ": "JWT"})


def test_the_memory_of_tokens_is_bounded_and_ends_with_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 10)
    judge = tokens_of(keys=(ID.pem,))
    for number in range(30):
        judge.principal(ID.token(sub=f"u{number}"))
    assert len(judge._remembered) == 10
    expiring = ID.token(exp=int(time.time()) + 5)
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


# Keys in files.


def weak(size: int) -> str:
    public: bytes = (
        rsa.generate_private_key(public_exponent=65537, key_size=size)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public.decode()


@pytest.mark.parametrize(
    ("algorithm", "pem", "complaint"),
    [
        ("EdDSA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        ("EdDSA", ID.private_pem, "not a PEM public key"),
        ("RS256", ID.pem, "for EdDSA, which is not among"),
        ("RS256", weak(WEAK_BITS), "less than 2048 bits"),
    ],
)
def test_a_file_that_is_no_fitting_public_key_is_refused_at_start(
    algorithm: str, pem: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        tokens_of(algorithms=(algorithm,), keys=(pem,))


async def soon(judge: Tokens, old: str, new: str, first: str, second: str) -> None:
    """Wait, not for long, until the two tokens are judged so."""
    began = time.monotonic()

    async def so() -> bool:
        return (code(judge, old), code(judge, new)) == (first, second)

    await until(so)
    assert time.monotonic() - began < 5


async def test_a_key_file_that_changes_or_goes_takes_effect_within_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.05)
    file, other = tmp_path / "id.pem", Signer()
    file.write_text(ID.pem)
    judge = tokens_of(keys=(str(file),))
    old, new = ID.token(), other.token()
    async with followed(judge):
        assert (code(judge, old), code(judge, new)) == ("fine", "invalid_token")
        is_now = partial(soon, judge, old, new)

        (tmp_path / "next.pem").write_text(other.pem)
        (tmp_path / "next.pem").replace(file)
        await is_now("invalid_token", "fine")  # though the old one was remembered
        file.write_text("-----BEGIN PUB")  # somebody is still writing

        async def seen() -> bool:
            return "the key before it stays" in caplog.text

        await until(seen)
        assert code(judge, new) == "fine"
        file.write_text(ID.pem)
        await is_now("fine", "invalid_token")
        file.unlink()
        await is_now("unknown kid", "unknown kid")


def hs256(secret: str) -> str:
    claims = jwt.decode(ID.token(), options={"verify_signature": False})
    return jwt.encode(claims, secret, "HS256")


def secret_file(file: Path, secret: str, mode: int = 0o600) -> Path:
    """A file with a secret, put in its place in one step."""
    beside = file.with_suffix(".next")
    beside.write_text(secret + "\n")
    beside.chmod(mode)
    return beside.replace(file)


async def test_a_file_with_a_secret_that_changes_or_goes_takes_effect_within_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.05)
    file, next_secret = secret_file(tmp_path / "issuer.secret", SECRET), SECRET[::-1]
    judge = tokens_of(algorithms=("HS256",), secret_file=str(file))
    old, new = hs256(SECRET), hs256(next_secret)
    async with followed(judge):
        assert (code(judge, old), code(judge, new)) == ("fine", "invalid_token")
        is_now = partial(soon, judge, old, new)

        secret_file(file, next_secret, 0o644)

        async def told() -> bool:
            return "may be read by others" in caplog.text

        await until(told)
        assert code(judge, old) == "fine"  # as with a file that is no key
        file.chmod(0o600)
        await is_now("invalid_token", "fine")  # though the old one was remembered
        file.unlink()
        await is_now("unknown kid", "unknown kid")


@pytest.mark.parametrize(
    ("secret", "mode", "complaint"),
    [(SECRET, 0o640, "chmod 600"), (SECRET, 0o604, "chmod 600"), ("x" * 31, 0o600, "must hold 32 bytes")],
)
def test_a_file_whose_secret_is_weak_or_none_is_refused_at_start(
    tmp_path: Path, secret: str, mode: int, complaint: str
) -> None:
    file = secret_file(tmp_path / "issuer.secret", secret, mode)
    with pytest.raises(ConfigurationError, match=complaint):
        tokens_of(algorithms=("HS256",), secret_file=str(file))


def test_a_secret_is_a_token_issuers_or_a_grant_issuers_wherever_it_stands(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "issuer.secret", SECRET)
    table = AuthTable(
        issuers=(Issuer(issuer="a", algorithms=("HS256",), secret=SECRET),),
        grant_issuers=(Issuer(issuer="b", algorithms=("HS256",), secret_file=str(file)),),
    )
    with pytest.raises(ConfigurationError, match="a set apart"):
        Grants(Config(auth=table), Environment())


# Keys by URL.


@asynccontextmanager
async def followed(judge: Tokens) -> AsyncIterator[None]:
    """With the task that follows the issuers' keys."""
    following = asyncio.create_task(judge.run())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer().serving() as made:
        yield made


@asynccontextmanager
async def published(server: KeyServer, **issuer: Any) -> AsyncIterator[Auth]:
    """Auth with one issuer by URL, whose keys have been asked for once."""
    judge = tokens_of(**{"jwks_url": server.url, "algorithms": ALGORITHMS} | issuer)
    async with Database.open("postgresql://nobody@127.0.0.1:1/none") as database, followed(judge):

        async def asked() -> bool:
            return server.asked > 0

        await until(asked)
        rates = Rates(RateLimits())
        yield Auth(judge, Keys(database, rates), rates, Proxies(()))


async def outcome(auth: Auth, token: str) -> str:
    try:
        await auth.principal(f"Bearer {token}")
    except Problem as found:
        return found.code
    return "fine"


async def test_published_keys_verify_each_with_its_own_algorithm(server: KeyServer) -> None:
    signers = [Signer(algorithm, kid=algorithm) for algorithm in ALGORITHMS]
    server.publish(*(signer.jwk for signer in signers))
    async with published(server) as auth:
        for signer in signers:
            assert await outcome(auth, signer.token()) == "fine"
        assert await outcome(auth, signers[0].token(headers={"kid": "ES256"})) == "invalid_token"
        nameless = Signer()
        nameless.private = signers[0].private
        assert await outcome(auth, nameless.token()) == "fine"  # each key is tried
    assert server.asked == 1
    server.publish(*(signer.jwk for signer in signers))
    async with published(server, algorithms=("ES256",)) as auth:
        assert [await outcome(auth, signer.token()) for signer in signers[:2]] == ["invalid_token", "fine"]


async def test_invented_kids_do_not_hammer_the_issuer(server: KeyServer) -> None:
    server.publish(OLD.jwk)
    async with published(server) as auth:
        assert await outcome(auth, OLD.token()) == "fine"
        began = time.monotonic()
        forged = [ID.token(headers={"kid": f"k{number}"}) for number in range(300)]
        assert set(await asyncio.gather(*(outcome(auth, one) for one in forged))) == {"invalid_token"}
        for one in forged:
            assert await outcome(auth, one) == "unavailable"
        assert server.asked == 2
        assert time.monotonic() - began < 5
        assert await outcome(auth, OLD.token()) == "fine"


async def test_a_new_key_is_taken_at_its_first_token(server: KeyServer) -> None:
    server.publish(OLD.jwk)
    async with published(server) as auth:
        assert await outcome(auth, OLD.token()) == "fine"
        server.publish(OLD.jwk, NEW.jwk)
        assert [await outcome(auth, one.token()) for one in (NEW, OLD)] == ["fine", "fine"]
        assert server.asked == 2


async def test_an_invented_kid_does_not_have_a_new_key_refused_but_put_off(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(OLD.jwk)
    async with published(server) as auth:
        assert await outcome(auth, OLD.token()) == "fine"
        assert await outcome(auth, ID.token(headers={"kid": "invented"})) == "invalid_token"
        server.publish(OLD.jwk, NEW.jwk)
        with pytest.raises(Problem) as put_off:
            await auth.principal(f"Bearer {NEW.token()}")
        assert (put_off.value.code, put_off.value.retryable) == ("unavailable", True)
        assert put_off.value.retry_after in range(20, 31)
        monkeypatch.setattr(jwks, "AGAIN_SECONDS", 0.0)
        assert await outcome(auth, NEW.token()) == "fine"
        assert server.asked == 3


async def test_an_old_key_ends_when_it_is_gone_also_for_tokens_seen_before(server: KeyServer) -> None:
    server.publish(OLD.jwk, NEW.jwk)
    old = OLD.token()
    async with published(server, jwks_seconds=1) as auth:
        assert await outcome(auth, old) == "fine"
        assert await outcome(auth, ID.token(headers={"kid": "invented"})) == "invalid_token"
        server.publish(NEW.jwk)

        async def gone() -> bool:
            return await outcome(auth, old) == "invalid_token"

        await until(gone)  # though it was remembered, and an invented kid has used up the early fetch
        assert {await outcome(auth, old) for _ in range(20)} == {"invalid_token"}
        assert await outcome(auth, NEW.token()) == "fine"


OTHERS = json.dumps({"keys": [NEW.jwk]}).encode()
BROKEN: dict[str, Callable[[KeyServer], None]] = {
    "an error": lambda server: server.send(OTHERS, "500 Internal Server Error"),
    "not found": lambda server: server.send(OTHERS, "404 Not Found"),
    "not JSON": lambda server: server.send(b"<html>"),
    "not a key set": lambda server: server.send(b"[]"),
    "no keys": lambda server: server.publish(),
    "no key for us": lambda server: server.publish(OLD.jwk | {"use": "enc"}, {"kty": "oct"}),
    "too large": lambda server: server.send(OTHERS + b" " * jwks.SET_BYTES),
    "too many keys": lambda server: server.publish(*[{"kty": "RSA"}] * (jwks.SET_KEYS + 1)),
    "compressed": lambda server: server.send(OTHERS, "200 OK", "Content-Encoding: gzip"),
    "no HTTP": lambda server: setattr(server, "answer", b"hello\r\n\r\n"),
    "nothing": lambda server: setattr(server, "answer", b""),
    "a drip": lambda server: setattr(server, "drips", True),
    "silence": lambda server: setattr(server, "answer", None),
}


@pytest.mark.parametrize("broken", list(BROKEN.values()), ids=list(BROKEN))
async def test_the_last_good_set_survives_whatever_the_issuer_answers(
    server: KeyServer, broken: Callable[[KeyServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.2)
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.05)
    server.publish(OLD.jwk)
    async with published(server, jwks_seconds=0.05) as auth:
        assert await outcome(auth, OLD.token()) == "fine"
        broken(server)
        asked = server.asked

        async def asked_again() -> bool:
            return server.asked > asked + 2

        await until(asked_again)
        assert await outcome(auth, OLD.token()) == "fine"
        assert await outcome(auth, ID.token(headers={"kid": "unknown"})) == "unavailable"
        server.publish(NEW.jwk)

        async def taken() -> bool:
            return await outcome(auth, NEW.token()) == "fine"

        await until(taken)


async def test_a_redirect_is_not_followed(server: KeyServer) -> None:
    async with KeyServer().serving() as elsewhere:
        elsewhere.publish(OLD.jwk)
        server.send(b"", "302 Found", f"Location: {elsewhere.url}")
        async with published(server) as auth:
            assert await outcome(auth, OLD.token()) == "unavailable"
        assert elsewhere.asked == 0


async def test_tokens_wait_a_second_at_most_for_an_issuer_that_has_never_answered(server: KeyServer) -> None:
    server.answer = None
    async with published(server) as auth:
        began = time.monotonic()
        found = await asyncio.gather(*(outcome(auth, OLD.token(sub=f"u{n}")) for n in range(50)))
        assert set(found) == {"unavailable"}
        assert time.monotonic() - began < 2
        assert server.asked == 1


def jwk_of(public: Any, **changes: Any) -> dict[str, Any]:
    family: Any = RSAAlgorithm if isinstance(public, rsa.RSAPublicKey) else ECAlgorithm
    found: dict[str, Any] = json.loads(family.to_jwk(public))
    found.pop("key_ops", None)
    return found | {"kid": "k"} | changes


@pytest.mark.parametrize(
    ("jwk", "taken"),
    [
        (OLD.jwk, True),
        ({name: value for name, value in OLD.jwk.items() if name not in ("use", "alg", "kid")}, True),
        (OLD.jwk | {"key_ops": ["verify"]}, True),
        (OLD.jwk | {"use": "enc"}, False),
        (OLD.jwk | {"key_ops": ["sign"]}, False),
        (OLD.jwk | {"key_ops": "verify"}, False),
        (OLD.jwk | {"alg": "ES256"}, False),
        (OLD.jwk | {"alg": 1}, False),
        (OLD.jwk | {"kid": 1}, False),
        (OLD.jwk | {"kid": "k" * 257}, False),
        (OLD.jwk | {"d": "AAAA"}, False),
        (OLD.jwk | {"crv": "X25519"}, False),
        (OLD.jwk | {"x": "AAAA"}, False),
        (OLD.jwk | {"x": 1}, False),
        (OLD.jwk | {"kty": ["OKP"]}, False),
        ({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlYw", "kid": "old"}, False),
        (jwk_of(ec.generate_private_key(ec.SECP384R1()).public_key()), False),
        (jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=WEAK_BITS).public_key()), False),
        (jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()), True),
        ("text", False),
        (None, False),
    ],
)
def test_of_a_key_set_only_strong_public_keys_for_signatures_are_taken(jwk: Any, taken: bool) -> None:
    found = jwks.keys_of(json.dumps({"keys": [jwk, NEW.jwk]}).encode(), ALGORITHMS)
    assert len(found) == 1 + taken


async def test_a_deployment_follows_the_keys_of_its_issuers(deploy: Any, server: KeyServer) -> None:
    async with KeyServer().serving() as game:
        server.publish(OLD.jwk)
        game.publish(OLD.jwk)
        issuer = Issuer(
            issuer="https://id.example", algorithms=("EdDSA",), jwks_url=server.url, jwks_seconds=1
        )
        grants = Issuer(issuer="game-server", algorithms=("EdDSA",), jwks_url=game.url)
        config = Config(
            actions={"cheer": Action(points=1, policy="open"), "boss-kill": Action(points=9, policy="grant")},
            auth=AuthTable(issuers=(issuer,), grant_issuers=(grants,)),
        )
        made: Deployment = await deploy(config)
        async with made.running() as client:
            token = OLD.token()
            assert (await submit(client, "ann", "cheer:1", credentials=token)).json()["points"] == 1
            game.publish(NEW.jwk)  # known at the first grant that needs it
            assert (await submit(client, "ann", NEW.grant(), credentials=token)).json()["points"] == 9
            unknown = await submit(client, "ann", OLD.grant(jti="two"), credentials=token)
            assert problem(unknown) == (422, "invalid_grant")
            server.publish(NEW.jwk)

            async def refused() -> bool:
                answer = await submit(client, "ann", "cheer:2", credentials=token)
                return answer.status_code == 401

            await until(refused)
            assert game.asked == 2
