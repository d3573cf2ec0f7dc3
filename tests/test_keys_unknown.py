"""Keys that are unknown or have ended: how often they are looked up, and that nobody else waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conftest import Clock
from deployment import Deployment, bearer, until
from scoreboard.auth import Auth
from scoreboard.auth.key_acts import (
    create_key,
)
from scoreboard.auth.keys import LOOKUPS, UNKNOWN_SECONDS, Keys
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens
from scoreboard.config import Config, RateLimits, Web
from scoreboard.database import Database, hash_of_key
from scoreboard.errors import Problem
from scoreboard.rates import Rates
from services_keys import CONFIG, RATES, WRITE, database, deployment

__all__ = ["database", "deployment"]


async def test_an_expired_key_opens_nothing_even_with_the_database_away(deployment: Deployment) -> None:
    async with Database.open(deployment.database_url) as database:
        _, key = await create_key(database, "short", WRITE, seconds=1)
        keys = Keys(database, RATES)
        assert (await keys.principal(key)).kind == "service"
    # The pool is closed from here on; nobody follows the keys.

    async def refused() -> bool:
        try:
            await keys.principal(key)
        except Problem:
            return True
        return False

    await until(refused)


async def outcome(keys: Keys, key: str, address: str | None = None) -> str:
    try:
        await keys.principal(key, address)
    except Problem as problem:
        return problem.code
    return "fine"


async def test_that_a_key_is_unknown_is_remembered_for_a_second(
    deployment: Deployment, database: Database, clock: Clock
) -> None:
    keys, key = Keys(database, RATES), f"sb_{'n' * 43}"
    assert await outcome(keys, key) == "invalid_token"
    async with deployment.database() as connection:
        await connection.execute(
            "INSERT INTO keys (id, hash, name, scopes) VALUES ('k_new', $1, 'new', '{score:write}')",
            hash_of_key(key),
        )
    clock.now += 0.99
    assert await outcome(keys, key) == "invalid_token"  # it was not looked up again
    clock.now += 0.02
    assert await outcome(keys, key) == "fine"
    assert UNKNOWN_SECONDS == 1.0


async def test_a_process_looks_up_so_many_unknown_keys_a_second_and_no_more(
    database: Database, clock: Clock
) -> None:
    keys, made = Keys(database, RATES), (await create_key(database, "late", WRITE))[1]
    _, known = await create_key(database, "known", WRITE)
    assert await outcome(keys, known) == "fine"
    unknown = [f"sb_{number:043}" for number in range(LOOKUPS - 1)]
    assert {await outcome(keys, key) for key in unknown} == {"invalid_token"}
    assert await outcome(keys, made) == "unavailable"
    assert await outcome(keys, known) == "fine"
    clock.now += 1
    assert await outcome(keys, made) == "fine"


async def test_who_tries_keys_is_stopped_and_keeps_nobody_else_from_a_new_one(
    deploy: Any, clock: Clock
) -> None:
    config = Config(
        web=Web(trusted_proxies=("127.0.0.1",)), rate_limits=RateLimits(per_address="200/s", per_key="4999/s")
    )
    made: Deployment = await deploy(config)

    def at(address: str, key: str) -> dict[str, str]:
        return bearer(key) | {"x-forwarded-for": address}

    key = ""
    async with made.serving() as client, Database.open(made.database_url) as database:
        for burst in range(5):
            clock.now += 1
            tried = [
                client.get("/boards", headers=at("192.0.2.1", f"sb_{burst}{number:042}"))
                for number in range(2 * LOOKUPS)
            ]
            answers = await asyncio.gather(*tried)
            assert {answer.status_code for answer in answers} <= {401, 429}
            assert sum(answer.status_code == 401 for answer in answers) == LOOKUPS / 10
            (refused, *_) = [answer for answer in answers if answer.status_code == 429]
            assert int(refused.headers["retry-after"]) >= 1
            _, key = await create_key(database, f"new {burst}", WRITE)
            assert (await client.get("/boards", headers=at("192.0.2.2", key))).status_code == 200
        # One that is known has no need to be looked up, wherever it comes from.
        assert (await client.get("/boards", headers=at("192.0.2.3", key))).status_code == 200


@pytest.mark.usefixtures("clock")
async def test_a_look_up_that_is_refused_counts_for_its_address_like_one_that_fails(
    deployment: Deployment, database: Database
) -> None:
    limits = Rates(RateLimits(per_address="15/h"))
    auth = Auth(Tokens(CONFIG, deployment.environment), Keys(database, limits), limits, Proxies(()))

    async def seen(key: str, address: str) -> str:
        try:
            await auth.known(f"Bearer {key}", address, write=False)
        except Problem as problem:
            return problem.code
        return "fine"

    assert await seen(deployment.key, "192.0.2.1") == "fine"
    tries = [await seen(f"sb_{number:043}", "192.0.2.1") for number in range(15)]
    assert tries == ["invalid_token"] * 9 + ["rate_limited"] * 6  # a known key had been looked up, too
    assert await seen(deployment.key, "192.0.2.2") == "fine"
    assert await seen(deployment.key, "192.0.2.1") == "rate_limited"
