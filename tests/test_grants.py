"""Grants: who may have the points of one action once, and nobody else, and never twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from deployment import SECONDS, Deployment, bearer, free_port, submit, until
from processes import run, settings_of, started
from scoreboard.auth.grants import Grants, new_grant
from scoreboard.auth.key_acts import create_key, revoke_key, rotate_key
from scoreboard.auth.keyring import NotYetKnown, once_more
from scoreboard.auth.keys import Keys
from scoreboard.auth.policy import Policy
from scoreboard.config import Action, Auth, Config, RateLimits
from scoreboard.database import Database
from scoreboard.errors import ConfigurationError, Problem
from scoreboard.event_ids import event_id_of_grant
from scoreboard.issuers import Issuer
from scoreboard.model import Principal, Scope
from scoreboard.rates import Rates
from signing import Signer, part
from test_update_score import problem

GAME, EC, SPACED = Signer("EdDSA"), Signer("ES256"), Signer("EdDSA")
CONFIG = Config(
    actions={
        "boss-kill": Action(points=100, policy="grant"),
        "win": Action(points=10),
        "cheer": Action(points=5, policy="open"),
    },
    auth=Auth(
        grant_issuers=(
            Issuer(issuer="game-server", algorithms=("EdDSA",), keys=(GAME.pem,)),
            Issuer(issuer="ec-server", algorithms=("ES256",), keys=(EC.pem,)),
            Issuer(issuer="ec-server 2", algorithms=("EdDSA",), keys=(SPACED.pem,)),
        )
    ),
)
EVENT = str(event_id_of_grant("game-server", "one"))


@pytest.fixture(scope="module")
async def deployment(deploy: Any) -> Deployment:
    made: Deployment = await deploy(CONFIG)
    return made


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


async def total(client: httpx.AsyncClient, user: str) -> int:
    answer = await client.get(f"/boards/main/users/{user}")
    score: int = answer.json().get("score") or 0
    return score


async def granted(client: httpx.AsyncClient, deployment: Deployment, user: str, grant: str) -> httpx.Response:
    return await submit(client, user, grant, credentials=deployment.token(user))


async def test_a_user_with_a_grant_gets_its_points_once(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    key = await deployment.make_key(Scope.GRANT_CREATE)
    made = await client.post("/grants", json={"userId": "gil", "action": "boss-kill"}, headers=bearer(key))
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert made.json().keys() == {"actionId", "expiresAt"}
    claims = jwt.decode(made.json()["actionId"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 15 * 60
    first = (await granted(client, deployment, "gil", made.json()["actionId"])).json()
    assert (first["status"], first["points"], first["duplicate"]) == ("applied", 100, False)
    assert first["eventId"] == str(event_id_of_grant("scoreboard", claims["jti"]))
    again = (await granted(client, deployment, "gil", made.json()["actionId"])).json()
    assert (again["eventId"], again["duplicate"]) == (first["eventId"], True)
    assert await total(client, "gil") == 100
    async with deployment.database() as connection:
        row = await connection.fetchrow(
            "SELECT type, reference FROM events WHERE event_id = $1", UUID(first["eventId"])
        )
    assert row is not None
    assert tuple(row) == ("boss-kill", f"scoreboard {claims['jti']}")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"userId": "ann", "action": "boss-kill", "expiresIn": 86_400}, None),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": "1d"}, None),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": 86_401}, (400, "invalid_field")),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": 0}, (400, "invalid_field")),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": "soon"}, (400, "invalid_field")),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": True}, (400, "invalid_field")),
        ({"userId": "ann", "action": "boss-kill", "expiresIn": 1.5}, (400, "invalid_field")),
        ({"userId": "ann", "action": "boss-kill", "points": 1}, (400, "unknown_field")),
        ({"userId": "ann"}, (400, "invalid_field")),
        ({"userId": "a\u202enn", "action": "boss-kill"}, (400, "invalid_field")),
        ({"userId": "ann", "action": "nope"}, (422, "unknown_action")),
        ({"userId": "ann", "action": "win"}, (403, "action_not_allowed")),
        ({"userId": "ann", "action": "cheer"}, (403, "action_not_allowed")),
    ],
)
async def test_a_grant_is_made_for_what_is_there_and_for_a_day_at_most(
    deployment: Deployment,
    client: httpx.AsyncClient,
    body: dict[str, Any],
    expected: tuple[int, str] | None,
) -> None:
    key = await deployment.make_key(Scope.GRANT_CREATE)
    answer = await client.post("/grants", json=body, headers=bearer(key))
    if expected is None:
        assert answer.status_code == 201
    else:
        assert problem(answer) == expected


async def test_grants_are_made_for_services_with_the_scope_alone(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    body = {"userId": "ann", "action": "boss-kill"}
    for credentials in (deployment.key, await deployment.make_key(Scope.ADMIN), deployment.token("ann")):
        answer = await client.post("/grants", json=body, headers=bearer(credentials))
        assert problem(answer) == (403, "insufficient_scope")
        assert answer.json()["scope"] == "grant:create"
    assert problem(await client.post("/grants", json=body, headers={"authorization": ""})) == (
        401,
        "missing_token",
    )
    json_type = {"content-type": "application/json", **bearer(await deployment.make_key(Scope.GRANT_CREATE))}
    twice = b'{"userId":"ann","action":"boss-kill","userId":"bob"}'
    assert problem(await client.post("/grants", content=twice, headers=json_type)) == (400, "invalid_field")


async def test_a_service_may_submit_a_grant_for_the_user_it_names(client: httpx.AsyncClient) -> None:
    answer = await submit(client, "sue", GAME.grant(sub="sue", jti="for-sue"))
    assert answer.json()["status"] == "applied"
    assert problem(await submit(client, "tim", GAME.grant(sub="sue", jti="for-sue-2"))) == (
        422,
        "invalid_grant",
    )
    assert (await submit(client, "sue", "boss-kill:8812")).json()["status"] == "applied"  # as a service may


async def test_a_grant_is_its_users_own_and_of_its_type_alone(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    stolen = await granted(client, deployment, "eve", GAME.grant())
    assert problem(stolen) == (422, "invalid_grant")
    assert stolen.json()["eventId"] == EVENT
    for action, expected in (("win", (403, "action_not_allowed")), ("nope", (422, "unknown_action"))):
        answer = await granted(client, deployment, "ann", GAME.grant(act=action))
        assert problem(answer) == expected
        assert answer.json()["eventId"] == EVENT
    assert problem(await granted(client, deployment, "ann", "boss-kill:1")) == (403, "action_not_allowed")
    assert await total(client, "eve") == await total(client, "ann") == 0


NOW = int(time.time())
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
    "a fractional expiry": lambda: GAME.grant(exp=NOW + 60.5),
    "an expiry in a text": lambda: GAME.grant(exp=str(NOW + 60)),
    "a truth value for an expiry": lambda: GAME.grant(exp=True),
    "a long lifetime": lambda: GAME.grant(exp=NOW + 2 * 86_400),
    "from the future": lambda: GAME.grant(iat=NOW + 600, exp=NOW + 900),
    "not yet valid": lambda: GAME.grant(nbf=NOW + 600),
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
    now = int(time.time())
    late = GAME.grant(iat=now - 100, exp=now - 31)
    answer = await granted(client, deployment, "ann", late)
    assert problem(answer) == (410, "grant_expired")
    assert answer.json()["eventId"] == EVENT
    # Clocks may differ by half a minute.
    kind = await granted(
        client, deployment, "kim", GAME.grant(sub="kim", jti="k", iat=now - 60, exp=now - 10)
    )
    assert kind.json()["status"] == "applied"


async def test_the_expiry_is_judged_at_the_door_only(deploy: Any) -> None:
    made: Deployment = await deploy(CONFIG)
    now = int(time.time())
    async with made.serving() as client:  # nobody works yet
        expiring = GAME.grant(iat=now - 60, exp=now - 28)
        assert (await submit(client, "ann", expiring, wait=0)).status_code == 202

        async def too_late() -> bool:
            return (await submit(client, "ann", expiring, wait=0)).status_code == 410

        await until(too_late)
        async with made.working():

            async def counted() -> bool:
                status: str | None = (await client.get(f"/events/{EVENT}")).json().get("status")
                return status == "applied"

            await until(counted)


async def test_however_a_grant_is_written_or_signed_it_counts_once(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    claims: dict[str, Any] = {"iss": "ec-server", "sub": "max", "jti": "m1"}
    first = EC.grant(**claims)
    head, _, signature = first.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    assert decode_dss_signature(encode_dss_signature(r, order - s)) == (r, order - s)
    mirrored = f"{head}.{part(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    forms = [first, mirrored, EC.grant(**claims), EC.grant(**claims, exp=int(time.time()) + 600)]
    forms.append(EC.grant(**claims, note="another text", aud=["else", "scoreboard"]))
    forms.append(EC.grant(**claims, headers={"kid": "named"}))
    answers = [(await granted(client, deployment, "max", form)).json() for form in forms]
    assert {answer["status"] for answer in answers} == {"applied"}
    assert [answer["duplicate"] for answer in answers] == [False] + [True] * (len(forms) - 1)
    assert await total(client, "max") == 100


async def test_the_same_id_of_another_issuer_is_another_grant(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    for signer, issuer in ((GAME, "game-server"), (EC, "ec-server")):
        answer = await granted(client, deployment, "ida", signer.grant(iss=issuer, sub="ida", jti="same"))
        assert answer.json()["duplicate"] is False
    assert await total(client, "ida") == 200


async def test_a_grant_for_the_longest_user_id_is_not_too_long(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    key = await deployment.make_key(Scope.GRANT_CREATE)
    for user in ("\N{GRINNING FACE}" * 64, '"' * 128, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 128):
        body = {"userId": user, "action": "boss-kill"}
        made = (await client.post("/grants", json=body, headers=bearer(key))).json()
        assert len(made["actionId"]) < 1024
        assert (await submit(client, user, made["actionId"])).json()["status"] == "applied"


async def test_a_batch_may_hold_grants_each_judged_alone(client: httpx.AsyncClient) -> None:
    updates = [
        {"userId": "una", "actionId": GAME.grant(sub="una", jti="u1")},
        {"userId": "una", "actionId": GAME.grant(sub="uno", jti="u2")},
        {"userId": "una", "actionId": "boss-kill:1"},
    ]
    results = (await client.post("/update-scores", json=updates)).json()["results"]
    assert [r.get("code") or r["status"] for r in results] == ["accepted", "invalid_grant", "accepted"]


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


FILE = """
[actions.boss-kill]
points = 100
policy = "grant"

[[auth.grant_issuers]]
issuer = "game-server"
algorithms = ["EdDSA"]
keys = ["public.pem"]
"""


async def test_two_hundred_uses_of_one_grant_through_two_api_processes_count_once(
    deploy: Any, tmp_path: Path
) -> None:
    (tmp_path / "scoreboard.toml").write_text(FILE)
    (tmp_path / "public.pem").write_text(GAME.pem)
    made: Deployment = await deploy(CONFIG)
    grant = GAME.grant()
    headers = bearer(made.token("ann")) | {"prefer": "wait=10"}
    limits = httpx.Limits(max_connections=50)
    async with (
        made.working(),
        api(made, tmp_path) as one,
        api(made, tmp_path) as other,
        httpx.AsyncClient(headers=headers, limits=limits, timeout=SECONDS) as client,
    ):
        body = {"userId": "ann", "actionId": grant}
        answers = await asyncio.gather(
            *(client.post(f"{(one, other)[n % 2]}/update-score", json=body) for n in range(200))
        )
        found = [answer.json() for answer in answers]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer["eventId"] for answer in found} == {EVENT}
        assert sum(not answer["duplicate"] for answer in found) == 1
        assert (await client.get(f"{one}/boards/main/users/ann")).json()["score"] == 100


@asynccontextmanager
async def api(made: Deployment, folder: Path) -> AsyncIterator[str]:
    """An api process of its own; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with started("api", "--port", str(port), cwd=folder, settings=settings_of(made)):
        async with httpx.AsyncClient() as asking:

            async def ready() -> bool:
                try:
                    return (await asking.get(f"{url}/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready)
        yield url


async def test_the_command_prints_a_grant_alone(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "scoreboard.toml").write_text(FILE.partition("[[auth")[0])
    settings = {"SCOREBOARD_SECRET": deployment.environment.secret or ""}
    status, out, _ = await run(
        "grant",
        "--user",
        "cli",
        "--action",
        "boss-kill",
        "--expires-in",
        "1h",
        cwd=tmp_path,
        settings=settings,
    )
    assert status == 0
    grant = Grants(CONFIG, deployment.environment).read(out.strip(), "cli")
    assert grant.action == "boss-kill"
    claims = jwt.decode(out.strip(), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600
    for wrong in (("--action", "win"), ("--action", "boss-kill", "--expires-in", "2d")):
        status, out, _ = await run("grant", "--user", "cli", *wrong, cwd=tmp_path, settings=settings)
        assert (status, out) == (2, "")


@pytest.mark.parametrize(
    "program", [(sys.executable, "grant.py"), (shutil.which("node") or "node", "grant.mjs")]
)
async def test_a_backend_signs_grants_as_the_examples_show(
    deployment: Deployment, client: httpx.AsyncClient, tmp_path: Path, program: tuple[str, str]
) -> None:
    (tmp_path / "private.pem").write_text(GAME.private_pem)
    example = Path(__file__).parent.parent / "examples" / program[1]
    user = program[1]
    process = await asyncio.create_subprocess_exec(
        *(program[0], str(example), "private.pem", user, "boss-kill"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    answer = await granted(client, deployment, user, out.decode().strip())
    assert (answer.json()["status"], answer.json()["duplicate"]) == ("applied", False)


# Grants that a key had made, and what becomes of them with it.


async def with_keys(deployment: Deployment, *names: str) -> list[tuple[str, str]]:
    """Keys that may have grants made: (id, text) of each."""
    async with Database.open(deployment.database_url) as database:
        return [await create_key(database, name, [Scope.GRANT_CREATE]) for name in names]


async def made(client: httpx.AsyncClient, key: str, user: str) -> str:
    """A grant for a day, made for a service."""
    body = {"userId": user, "action": "boss-kill", "expiresIn": "1d"}
    answer = await client.post("/grants", json=body, headers=bearer(key))
    text: str = answer.json()["actionId"]
    return text


async def test_what_a_revoked_key_had_granted_is_refused_within_two_seconds_on_all_processes(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    (stolen, stolen_text), (_, other_text) = await with_keys(deployment, "stolen", "other")
    async with deployment.serving() as other:
        both = (client, other)
        used, unused, kept = [
            await made(client, key, "rob") for key in (stolen_text, stolen_text, other_text)
        ]
        by_command, _ = new_grant(deployment.environment.secret or "", "rob", "boss-kill", 60)
        for one in both:
            assert (await granted(one, deployment, "rob", used)).json()["status"] == "applied"
        async with Database.open(deployment.database_url) as database:
            assert await revoke_key(database, stolen)
        began = time.monotonic()

        async def refused() -> bool:
            answers = await asyncio.gather(*(granted(one, deployment, "rob", used) for one in both))
            return {answer.status_code for answer in answers} == {422}

        await until(refused)
        assert time.monotonic() - began < 2
        async with deployment.serving() as later:  # which has never seen one of that key
            for one in (*both, later):
                answer = await granted(one, deployment, "rob", unused)
                assert problem(answer) == (422, "invalid_grant")
                assert answer.json()["eventId"]
                assert "revoked" in answer.json()["detail"]
        for grant in (kept, by_command):
            assert (await granted(other, deployment, "rob", grant)).json()["status"] == "applied"
        assert await total(client, "rob") == 300


async def test_what_a_key_had_granted_outlives_it_if_it_ends_otherwise(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    ((key_id, key),) = await with_keys(deployment, "rotated")
    grant = await made(client, key, "ron")
    async with Database.open(deployment.database_url) as database:
        assert await rotate_key(database, key_id, 0)

        async def ended() -> bool:
            answer = await client.post("/grants", json={"userId": "a", "action": "win"}, headers=bearer(key))
            return answer.status_code == 401

        await until(ended)
    assert (await granted(client, deployment, "ron", grant)).json()["status"] == "applied"


async def test_givers_that_are_known_are_judged_without_the_database(deployment: Deployment) -> None:
    (known, _), (revoked, _), (unknown, _) = await with_keys(deployment, "known", "revoked", "unknown")
    async with Database.open(deployment.database_url) as database:
        await revoke_key(database, revoked)
        keys = Keys(database, Rates(RateLimits()))
        policy = Policy(CONFIG, Grants(CONFIG, deployment.environment), keys)

        async def judged(giver: str) -> str:
            grant, _ = new_grant(deployment.environment.secret or "", "ann", "boss-kill", 60, giver)

            def decide() -> str:
                return policy.decide(Principal("user", "ann"), "ann", grant).type

            try:
                try:
                    return decide()
                except NotYetKnown as unknown:
                    return await once_more(unknown, decide, "invalid_grant")
            except Problem as refused:
                return refused.code

        before = [await judged(one) for one in (known, revoked, "k_none")]
    # The pool is closed from here on.
    assert [await judged(one) for one in (known, revoked, "k_none")] == before
    assert before == ["boss-kill", "invalid_grant", "invalid_grant"]
    assert await judged(unknown) == "unavailable"


async def test_a_grant_of_another_issuer_has_no_giver(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    ((key_id, _),) = await with_keys(deployment, "unrelated")
    async with Database.open(deployment.database_url) as database:
        await revoke_key(database, key_id)
    answer = await granted(client, deployment, "oto", GAME.grant(sub="oto", jti=f"{key_id}.1"))
    assert answer.json()["status"] == "applied"


async def test_events_are_found_by_the_key_that_had_their_grants_made_and_by_the_grants_issuer(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    (stolen, stolen_text), (_, other_text) = await with_keys(deployment, "giver", "another")
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    by_stolen = [await made(client, stolen_text, "fay") for _ in range(2)]
    assert (await granted(client, deployment, "fay", by_stolen[0])).status_code == 200
    assert (await submit(client, "fay", by_stolen[1])).status_code == 200  # by a service, with its own key
    assert (await submit(client, "fay", await made(client, other_text, "fay"))).status_code == 200
    grants = [
        GAME.grant(sub="fay", jti=f"{stolen}.x"),
        EC.grant(iss="ec-server", sub="fay", jti="f1"),
        SPACED.grant(iss="ec-server 2", sub="fay", jti="f1"),
    ]
    for grant in grants:
        assert (await granted(client, deployment, "fay", grant)).json()["status"] == "applied"
    await submit(client, "fay", "win:scoreboard")
    assert await total(client, "fay") == 610

    async def undone(**selection: Any) -> int:
        body = {"userId": "fay", **selection}
        tried = (await client.post("/admin/revoke", json=body | {"dryRun": True}, headers=admin)).json()
        done = (await client.post("/admin/revoke", json=body, headers=admin)).json()
        assert done["status"] == "applied"
        assert tried["events"] == done["events"]
        count: int = done["events"]
        return count

    assert await undone(keyId="k_000000000000") == await undone(grantIssuer="game") == 0
    assert await undone(keyId=stolen) == 2
    assert await undone(grantIssuer="ec-server") == 1
    assert await undone(grantIssuer="scoreboard") == 1  # the other key's
    assert await total(client, "fay") == 210
    acts = (await client.get("/admin/audit", headers=admin)).json()["acts"]
    assert "user fay, grants of ec-server" in [act["target"] for act in acts]
    for wrong in ("", "a\0b", "x" * 257):
        answer = await client.post("/admin/revoke", json={"grantIssuer": wrong}, headers=admin)
        assert problem(answer) == (400, "invalid_field")
