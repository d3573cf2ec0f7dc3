"""Grants that a key had made, and what becomes of them with it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from deployment import Deployment, bearer, problem, submit, until
from granting import CONFIG, EC, GAME, SPACED, client, deployment, granted, total
from scoreboard.auth.grants import Grants, new_grant
from scoreboard.auth.key_acts import create_key, revoke_key, rotate_key
from scoreboard.auth.keyring import NotYetKnown, once_more
from scoreboard.auth.keys import Keys
from scoreboard.auth.policy import Policy
from scoreboard.config import RateLimits
from scoreboard.database import Database
from scoreboard.errors import Problem
from scoreboard.model import Principal, Scope
from scoreboard.rates import Rates

__all__ = ["client", "deployment"]


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
