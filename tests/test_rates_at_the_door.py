"""Rate limits through the door: who sends too much is told when to come back, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import Deployment, bearer, submit, watching
from scoreboard.config import Action, Board, Config, RateLimits, Web
from scoreboard.model import Scope

# Slow enough that nothing comes back while a test runs.
CONFIG = Config(
    actions={"point": Action(points=1), "cheer": Action(points=1, policy="open")},
    boards={"main": Board(), "inner": Board(public=False)},
    web=Web(trusted_proxies=("127.0.0.1",)),
    rate_limits=RateLimits(per_address="8/h", per_user="3/h", per_key="5/h"),
)


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


@pytest.fixture
def at(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> Any:
    """Sends from an address of the test's own, as a proxy that is trusted says."""
    number = 1 + sum(ord(letter) * place for place, letter in enumerate(request.node.name, 1)) % 65_000
    address = {"x-forwarded-for": f"203.0.113.{number % 256}, 198.18.{number >> 8}.{number & 255}"}

    async def send(method: str, path: str, credentials: str = "", **kwargs: Any) -> httpx.Response:
        headers = address | kwargs.pop("headers", {})
        if credentials:
            headers |= bearer(credentials)
        request = client.build_request(method, path, headers=headers, **kwargs)
        if not credentials:
            del request.headers["authorization"]
        return await client.send(request)

    return send


def update(user: str, action: str) -> dict[str, Any]:
    return {"json": {"userId": user, "actionId": action}}


def assert_refused(answer: httpx.Response, who: str) -> None:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 3_600
    problem = answer.json()
    assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
    assert problem["detail"] == f"Too many requests from this {who}."


async def test_a_user_who_sends_too_much_is_told_when_to_come_back(deployment: Deployment, at: Any) -> None:
    bob, eve = deployment.token("bob"), deployment.token("eve")
    for number in range(3):
        assert (await at("POST", "/update-score", bob, **update("bob", f"cheer:{number}"))).status_code == 202
    assert_refused(await at("POST", "/update-score", bob, **update("bob", "cheer:3")), "user")
    # Another token of the same user, and every other way to ask, is the same user.
    again = deployment.token("bob", name="Bobby")
    assert_refused(await at("PUT", "/users/bob", again, json={"name": "Bobby"}), "user")
    assert_refused(await at("GET", "/users/bob/events", again), "user")
    assert_refused(await at("GET", "/boards/inner", again), "user")
    assert (await at("GET", "/boards/main")).status_code == 200
    assert (await at("POST", "/update-score", eve, **update("eve", "cheer:0"))).status_code == 202


async def test_a_batch_is_one_request_of_its_key(deployment: Deployment, at: Any) -> None:
    key = await deployment.make_key(Scope.SCORE_WRITE)
    for number in range(5):
        updates = [{"userId": "ann", "actionId": f"point:{number}-{one}"} for one in range(100)]
        answer = await at("POST", "/update-scores", key, json=updates)
        assert {one["status"] for one in answer.json()["results"]} == {"accepted"}
    assert_refused(await at("POST", "/update-scores", key, json=[]), "key")
    assert_refused(await at("GET", "/admin/audit", key), "key")


async def test_an_address_may_write_so_much_whoever_it_is(deployment: Deployment, at: Any) -> None:
    for number in range(8):
        token = deployment.token(f"u{number}")
        answer = await at("POST", "/update-score", token, **update(f"u{number}", "cheer:1"))
        assert answer.status_code == 202
    answer = await at("POST", "/update-score", deployment.token("u9"), **update("u9", "cheer:1"))
    assert_refused(answer, "address")
    # What is public stays so; who says who it is has failed before it is looked at.
    assert (await at("GET", "/boards/main")).status_code == 200
    assert_refused(await at("GET", "/boards/inner", deployment.token("u9")), "address")
    # Addresses are what the trusted proxy saw, which is the last; what stands before is anybody's word.
    spoofed = {"x-forwarded-for": "192.0.2.77"}
    answer = await at("POST", "/grants", headers=spoofed, json={"userId": "a", "action": "point"})
    assert answer.status_code == 401


async def test_failing_to_prove_who_one_is_counts_and_reading_does_not(
    deployment: Deployment, at: Any
) -> None:
    for number in range(8):
        for _ in range(3):
            assert (await at("GET", "/boards/main")).status_code == 200
        answer = await at("GET", "/events/00000000-0000-8000-8000-000000000000", f"sb_{number:043}")
        assert answer.status_code == 401
    assert_refused(await at("GET", "/boards", "sb_nonsense"), "address")
    assert_refused(
        await at("POST", "/update-score", deployment.token("ann"), **update("ann", "cheer:1")), "address"
    )


@pytest.mark.parametrize(("method", "number"), [("GET", 2), ("POST", 3)])
async def test_saying_twice_who_one_is_counts_as_failing_to_prove_it(
    client: httpx.AsyncClient, method: str, number: int
) -> None:
    address = ("x-forwarded-for", f"198.19.0.{number}")
    twice = [address, ("authorization", "Bearer one"), ("authorization", "Bearer two")]
    path, body = ("/boards", None) if method == "GET" else ("/update-score", update("a", "cheer:1")["json"])
    for _ in range(8):
        answer = await client.request(method, path, headers=twice, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert_refused(await client.request(method, path, headers=twice, json=body), "address")


async def test_the_limits_stand_behind_the_form_and_before_the_credentials(at: Any) -> None:
    for _ in range(8):
        assert (await at("POST", "/update-score", **update("ann", "cheer:1"))).status_code == 401
    assert (await at("POST", "/update-score", content=b"{")).status_code == 415
    assert (await at("POST", "/update-score", json={"userId": 1})).json()["code"] == "invalid_field"
    assert_refused(await at("POST", "/update-score", "nonsense", **update("ann", "cheer:1")), "address")


async def test_tokens_over_a_websocket_count_like_all_others(
    client: httpx.AsyncClient, deployment: Deployment
) -> None:
    address = {"x-forwarded-for": "198.19.0.1"}
    wrong = msgspec.json.encode({"type": "auth", "token": "wrong"}).decode()

    async def close_code(message: str) -> int | None:
        connection = watching(client, "inner")
        connection.additional_headers = address
        async with connection as socket:
            await socket.send(message)
            await socket.wait_closed()
            return socket.close_code

    assert {await close_code(wrong) for _ in range(8)} == {4401}
    assert await close_code(wrong) == 4029
    headers = address | bearer(deployment.token("zoe"))
    assert_refused(await client.get("/boards/inner", headers=headers), "address")


async def test_a_client_cannot_choose_its_address_when_no_proxy_is_trusted(deploy: Deploy) -> None:
    config = Config(rate_limits=RateLimits(per_address="5/h"))
    async with (await deploy(config)).serving() as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    "/update-score", **update("ann", "point:1"), headers={"x-forwarded-for": f"192.0.2.{one}"}
                )
                for one in range(20)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 15


async def test_by_default_a_user_may_send_twenty_at_once(deploy: Deploy) -> None:
    # Another limit differs, or the tests' own rule would turn all of them off.
    made = await deploy(msgspec.structs.replace(CONFIG, rate_limits=RateLimits(per_key="4999/s")))
    async with made.running() as client:
        token = made.token("ann")

        async def cheer(first: int, count: int) -> list[httpx.Response]:
            numbers = range(first, first + count)
            return await asyncio.gather(
                *(submit(client, "ann", f"cheer:{number}", credentials=token) for number in numbers)
            )

        answers = await cheer(0, 20)
        assert {answer.json()["status"] for answer in answers} == {"applied"}
        more = await cheer(20, 100)
        assert 429 in {answer.status_code for answer in more}
