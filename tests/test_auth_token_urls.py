"""Keys of issuers by URL: how they come, change and go, whatever the issuer answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from deployment import Deployment, problem, submit, until
from judging import ALGORITHMS, ID, NEW, OLD, WEAK_BITS, followed, tokens_of
from scoreboard.auth import Auth, jwks
from scoreboard.auth.keys import Keys
from scoreboard.auth.proxies import Proxies
from scoreboard.config import Action, Config, RateLimits
from scoreboard.config import Auth as AuthTable
from scoreboard.database import Database
from scoreboard.errors import Problem
from scoreboard.issuers import Issuer
from scoreboard.rates import Rates
from signing import KeyServer, Signer


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
