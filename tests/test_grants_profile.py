"""Grants: what is none, and no longer one, and whose keys and secrets make one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import httpx
import msgspec
import pytest

from deployment import Deployment, problem, submit, until
from granting import CONFIG, EC, EVENT, GAME, client, deployment, granted, total
from scoreboard.auth.grants import Grants, new_grant
from scoreboard.config import Auth, Config
from scoreboard.errors import ConfigurationError, Problem
from scoreboard.issuers import Issuer
from signing import Signer, now, part

__all__ = ["client", "deployment"]

OUTSIDE = {
    "another audience": lambda: GAME.grant(aud="other"),
    "another issuer": lambda: GAME.grant(iss="https://id.example"),
    "the issuer of local tokens": lambda: GAME.grant(iss="scoreboard"),
    "another issuer's key": EC.grant,
    "a key nobody knows": lambda: Signer().grant(),
    "another typ": lambda: GAME.grant(headers={"typ": "JWT"}),
    "no typ": lambda: GAME.grant(headers={"typ": None}),
    "a key by URL": lambda: GAME.grant(headers={"jku": "https://evil.example"}),
    "a key along": lambda: GAME.grant(headers={"jwk": GAME.jwk}),
    "an unknown header": lambda: GAME.grant(headers={"hint": "x"}),
    "a kid that is no text": lambda: part({"alg": "EdDSA", "typ": "sb-grant+jwt", "kid": 7}) + ".e30.AA",
    "a long kid": lambda: GAME.grant(headers={"kid": "k" * 257}),
    "no subject": lambda: GAME.grant(sub=None),
    "no action": lambda: GAME.grant(act=None),
    "no id": lambda: GAME.grant(jti=None),
    "no expiry": lambda: GAME.grant(exp=None),
    "no beginning": lambda: GAME.grant(iat=None),
    "an id that is no text": lambda: GAME.grant(jti=1, headers={}),
    "a long id": lambda: GAME.grant(jti="j" * 129),
    "an empty id": lambda: GAME.grant(jti=""),
    "an id with a space": lambda: GAME.grant(jti="a b"),
    "an id with a NUL": lambda: GAME.grant(jti="a\0b"),
    "an action that is no type": lambda: GAME.grant(act="Boss Kill"),
    "an action that is no text": lambda: GAME.grant(act=["boss-kill"]),
    "an endless expiry": lambda: GAME.grant(exp=1e300),
    "a fractional expiry": lambda: GAME.grant(exp=now() + 60.5),
    "an expiry in a text": lambda: GAME.grant(exp=str(now() + 60)),
    "a truth value for an expiry": lambda: GAME.grant(exp=True),
    "a long lifetime": lambda: GAME.grant(exp=now() + 2 * 86_400),
    "from the future": lambda: GAME.grant(iat=now() + 600, exp=now() + 900),
    "not yet valid": lambda: GAME.grant(nbf=now() + 600),
    "too long": lambda: GAME.grant(note="x" * 2048),
    "more parts": lambda: GAME.grant() + ".AAAA",
    "fewer parts": lambda: GAME.grant().rpartition(".")[0],
    "padding": lambda: GAME.grant() + "=",
    "an altered signature": lambda: GAME.grant()[:-8] + "AAAAAAAA",
    "altered claims": lambda: altered(GAME.grant(), act="boss-kill", sub="ann", jti="two"),
    "algorithm none": lambda: unsigned("none"),
    "algorithm nOnE": lambda: unsigned("nOnE"),
    "the public key as a secret": lambda: as_a_secret(GAME.pem),
    "deep nesting": lambda: part({"alg": "EdDSA", "typ": "sb-grant+jwt"}) + f".{part(b'[' * 900)}.AA",
}


def altered(text: str, **changes: Any) -> str:
    header, claims, signature = text.split(".")
    found = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return f"{header}.{part(found | changes)}.{signature}"


def unsigned(algorithm: str) -> str:
    claims = GAME.grant().split(".")[1]
    return f"{part({'alg': algorithm, 'typ': 'sb-grant+jwt'})}.{claims}."


def as_a_secret(pem: str) -> str:
    signing = f"{part({'alg': 'HS256', 'typ': 'sb-grant+jwt'})}.{GAME.grant().split('.')[1]}"
    return f"{signing}.{part(hmac.digest(pem.encode(), signing.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("grant", list(OUTSIDE.values()), ids=list(OUTSIDE))
async def test_a_grant_outside_the_profile_is_refused(
    deployment: Deployment, client: httpx.AsyncClient, grant: Any
) -> None:
    before = await total(client, "ann")
    assert problem(await granted(client, deployment, "ann", grant())) == (422, "invalid_grant")
    assert await total(client, "ann") == before


async def test_a_token_is_no_grant_and_a_grant_is_no_token(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    token = deployment.token("ann")
    assert problem(await submit(client, "ann", token, credentials=token)) == (422, "invalid_grant")
    secret = deployment.environment.secret
    assert secret is not None
    grant, _ = new_grant(secret, "ann", "boss-kill", 60)
    assert problem(await submit(client, "ann", "cheer:1", credentials=grant)) == (401, "invalid_token")


async def test_an_expired_grant_is_refused_with_its_events_id(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    late = GAME.grant(iat=now() - 100, exp=now() - 31)
    answer = await granted(client, deployment, "ann", late)
    assert problem(answer) == (410, "grant_expired")
    assert answer.json()["eventId"] == EVENT
    # Clocks may differ by half a minute.
    kind = await granted(
        client, deployment, "kim", GAME.grant(sub="kim", jti="k", iat=now() - 60, exp=now() - 10)
    )
    assert kind.json()["status"] == "applied"


async def test_the_expiry_is_judged_at_the_door_only(deploy: Any) -> None:
    made: Deployment = await deploy(CONFIG)
    async with made.serving() as client:  # nobody works yet
        expiring = GAME.grant(iat=now() - 60, exp=now() - 28)
        assert (await submit(client, "ann", expiring, wait=0)).status_code == 202

        async def too_late() -> bool:
            return (await submit(client, "ann", expiring, wait=0)).status_code == 410

        await until(too_late)
        async with made.working():

            async def counted() -> bool:
                status: str | None = (await client.get(f"/events/{EVENT}")).json().get("status")
                return status == "applied"

            await until(counted)


def test_a_secret_that_is_being_replaced_still_verifies(deployment: Deployment) -> None:
    old, new = "o" * 32, "n" * 32
    grant, _ = new_grant(old, "ann", "boss-kill", 60)
    environment = msgspec.structs.replace(deployment.environment, secret=new, secret_previous=old)
    assert Grants(CONFIG, environment).read(grant, "ann").action == "boss-kill"
    with pytest.raises(Problem, match="invalid_grant"):
        Grants(CONFIG, msgspec.structs.replace(environment, secret_previous=None)).read(grant, "ann")


@pytest.mark.parametrize(
    ("tokens", "grants", "complaint"),
    [
        (
            {"algorithms": ("EdDSA",), "keys": (GAME.pem,)},
            {"algorithms": ("EdDSA",), "keys": (GAME.pem,)},
            "set apart",
        ),
        (
            {"algorithms": ("HS256",), "secret": "s" * 32},
            {"algorithms": ("HS256",), "secret": "s" * 32},
            "set apart",
        ),
        (
            {"algorithms": ("EdDSA",), "jwks_url": "https://id.example/jwks"},
            {"algorithms": ("EdDSA",), "jwks_url": "https://id.example/jwks"},
            "set apart",
        ),
    ],
)
def test_a_key_for_tokens_is_not_taken_for_grants(
    deployment: Deployment, tokens: dict[str, Any], grants: dict[str, Any], complaint: str
) -> None:
    auth = Auth(issuers=(Issuer(issuer="id", **tokens),), grant_issuers=(Issuer(issuer="game", **grants),))
    with pytest.raises(ConfigurationError, match=complaint):
        Grants(Config(auth=auth), deployment.environment)


def test_the_name_of_our_own_issuer_is_taken(deployment: Deployment) -> None:
    auth = Auth(grant_issuers=(Issuer(issuer="scoreboard", algorithms=("EdDSA",), keys=(GAME.pem,)),))
    with pytest.raises(ConfigurationError, match="name of our own"):
        Grants(Config(auth=auth), deployment.environment)
