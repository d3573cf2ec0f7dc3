"""Hostile requests: each gets its documented problem, nothing breaks, and no score moves.

Two users have honest points. Then everybody tries to get more: with forged tokens, stolen grants, other
people's ids, keys that may not, bodies that are not what they seem, and messages put into the log by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import jwt
import nats
import pytest

from deployment import Deployment, bearer, problem, submit, until
from hostile_requests import CASES, EC, GAME, ISSUER, RSA, Case, tokens, update
from scoreboard.auth.key_acts import create_key, revoke_key
from scoreboard.config import Action, Auth, Config, RateLimits
from scoreboard.database import Database
from scoreboard.envelope import Sealer, encode_entry
from scoreboard.event_ids import event_id_of_action
from scoreboard.issuers import Issuer
from scoreboard.model import Amend, Entry, Mark, Scope, Update, Verdict

CONFIG = Config(
    actions={
        "point": Action(points=1),
        "cheer": Action(points=5, policy="open"),
        "boss-kill": Action(points=100, policy="grant"),
        "other-boss": Action(points=1000, policy="grant"),
    },
    auth=Auth(
        issuers=(
            Issuer(issuer="https://id.example", algorithms=("EdDSA",), keys=(ISSUER.pem,)),
            Issuer(issuer="https://rsa.example", algorithms=("RS256",), keys=(RSA.pem,)),
            Issuer(issuer="https://ec.example", algorithms=("ES256",), keys=(EC.pem,)),
        ),
        grant_issuers=(Issuer(issuer="game-server", algorithms=("EdDSA",), keys=(GAME.pem,)),),
    ),
    rate_limits=RateLimits(enabled=False),  # each request is to be judged, however many there are
)
JSON = {"content-type": "application/json"}


class Target(NamedTuple):
    """What is attacked."""

    deployment: Deployment
    client: httpx.AsyncClient
    keys: dict[str, str]

    async def send(self, case: Case) -> httpx.Response:
        """Send a case's request."""
        credentials = self.keys.get(case.credentials, case.credentials)
        headers = JSON | (bearer(credentials) if credentials else {}) | case.headers
        return await self.client.post(case.path, content=case.body, headers=headers)

    async def ledger(self) -> Any:
        """All that could have moved: the sum of all scores, how many events count, who is marked."""
        async with self.deployment.database() as connection:
            scores = await connection.fetchval("SELECT sum(score) FROM scores")
            events = await connection.fetchval("SELECT count(*) FROM events WHERE outcome = 'applied'")
            marked = await connection.fetchval("SELECT count(*) FROM users WHERE banned OR hidden")
        return scores, events, marked


@pytest.fixture(scope="module")
async def target(deploy: Any) -> AsyncIterator[Target]:
    deployment: Deployment = await deploy(CONFIG)
    keys = {
        "<score>": deployment.key,
        "<grants>": await deployment.make_key(Scope.GRANT_CREATE),
        "<admin>": await deployment.make_key(Scope.ADMIN),
    }
    async with Database.open(deployment.database_url) as database:
        _, keys["<cheers>"] = await create_key(database, "c", [Scope.SCORE_WRITE], actions=["cheer"])
        key_id, keys["<revoked>"] = await create_key(database, "r", [Scope.SCORE_WRITE])
        await revoke_key(database, key_id)
    async with deployment.running() as client, httpx.AsyncClient(base_url=client.base_url) as anyone:
        for user in ("ann", "bob"):
            assert (await submit(client, user, "point:honest")).json()["status"] == "applied"
        yield Target(deployment, anyone, keys)


def test_the_corpus_is_large_enough_and_each_case_has_its_name() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
async def test_a_hostile_request_gets_its_problem_and_no_point(target: Target, case: Case) -> None:
    before = await target.ledger()
    assert problem(await target.send(case)) == (case.status, case.code)
    assert await target.ledger() == before


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE events; --",
        "\"; redis.call('FLUSHALL') --",
        "%s%n%x",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "../../etc",
    ],
)
async def test_what_would_be_code_elsewhere_is_text_here(target: Target, text: str) -> None:
    service = bearer(target.keys["<score>"])
    body = {"userId": text, "actionId": "point:" + text.replace(" ", "")}
    answer = await target.client.post("/update-score", json=body, headers=service | {"prefer": "wait=10"})
    assert answer.json()["boards"]["main"]["score"] == 1
    again = await target.client.post("/update-score", json=body, headers=service | {"prefer": "wait=10"})
    assert again.json()["duplicate"] is True


async def test_a_grant_counts_once_however_often_and_however_it_is_signed(target: Target) -> None:
    before = (await target.ledger())[0]
    signed = [GAME.grant(jti="once", exp=int(time.time()) + 60 + n) for n in range(20)]
    answers = await asyncio.gather(
        *(
            target.client.post(
                "/update-score", content=update(action=grant), headers=JSON | bearer(ISSUER.token())
            )
            for grant in signed * 3
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["eventId"] for answer in answers}) == 1

    async def counted() -> bool:
        return bool((await target.ledger())[0] > before)

    await until(counted)
    assert (await target.ledger())[0] == before + 100


async def test_what_is_put_into_the_log_by_hand_does_nothing(target: Target) -> None:
    before = await target.ledger()
    deployment = target.deployment
    event = event_id_of_action("eve", "point:1").bytes
    entries: list[Entry] = [
        Update(event, "eve", "point", "1", 10**6, ("main",), "key:k"),
        Mark(b"1" * 16, "bob", "banned", True, "key:k"),
        Amend(b"2" * 16, b"2" * 16, Verdict.REVOKE, "key:k", user="bob"),
    ]
    intruder = await nats.connect(deployment.environment.queue)
    stream = (await intruder.jetstream().stream_info(deployment.name)).config
    subject = str((stream.subjects or [""])[0]).replace("*", "0")
    ours = Sealer(str(deployment.environment.secret))
    genuine = ours.seal(deployment.config.catalogue, "", [], [encode_entry(entries[0])])
    forged = [
        Sealer("x" * 32).seal(deployment.config.catalogue, "", [], [encode_entry(entry)]) for entry in entries
    ]
    forged += [genuine[:-1], genuine[:32] + forged[1][32:], bytes(32) + genuine[32:], b"", b"\xc1" * 100]
    for body in forged:
        await intruder.jetstream().publish(subject, body)
    await intruder.close()
    async with deployment.database() as connection:

        async def set_aside() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM dead_letters") == len(forged))

        await until(set_aside)
    assert await target.ledger() == before


def test_the_library_that_signs_is_not_the_one_that_is_fooled() -> None:
    """The forged tokens are well-formed: PyJWT reads them all the same if it is told not to verify."""
    for case in tokens():
        if case.name in ("token: algorithm none", "token: public RSA key as a secret"):
            assert jwt.decode(case.credentials, options={"verify_signature": False})["sub"] == "ann"
