"""Grants: who may have the points of one action once, and nobody else, and never twice."""

from __future__ import annotations

import asyncio
import base64
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
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from deployment import SECONDS, Deployment, at_once, bearer, free_port, problem, submit, until
from granting import CONFIG, EC, EVENT, GAME, client, deployment, granted, total
from processes import run, settings_of, started
from scoreboard.auth.grants import Grants
from scoreboard.event_ids import event_id_of_grant
from scoreboard.model import Scope
from signing import part

__all__ = ["client", "deployment"]


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
    async with (
        made.working(),
        api(made, tmp_path) as one,
        api(made, tmp_path) as other,
        httpx.AsyncClient(headers=headers, timeout=SECONDS) as client,
    ):
        urls = [f"{url}/update-score" for url in (one, other)]
        answers = await at_once(urls, headers, 200 * [{"userId": "ann", "actionId": grant}])
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
