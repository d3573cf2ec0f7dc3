"""Rate limits: who sends too much is told when to come back, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from conftest import Clock, Deploy
from deployment import Deployment, bearer, submit, watching
from scoreboard import rates
from scoreboard.auth.proxies import Proxies
from scoreboard.config import Action, Board, Config, RateLimits, Web
from scoreboard.errors import Problem
from scoreboard.model import Principal, Scope
from scoreboard.rates import Limit, Rates, network_of

# Slow enough that nothing comes back while a test runs.
CONFIG = Config(
    actions={"point": Action(points=1), "cheer": Action(points=1, policy="open")},
    boards={"main": Board(), "inner": Board(public=False)},
    web=Web(trusted_proxies=("127.0.0.1",)),
    rate_limits=RateLimits(per_address="8/h", per_user="3/h", per_key="5/h"),
)


# One limit.


@pytest.mark.parametrize(("rate", "each"), [("5/s", 0.2), ("6/m", 10), ("4/h", 900), ("1/s", 1)])
def test_a_limit_lets_a_burst_through_and_then_one_at_a_time(clock: Clock, rate: str, each: float) -> None:
    limit, burst = Limit(rate), int(rate[0])
    assert [limit.take("ann") for _ in range(burst)] == [0] * burst
    assert limit.take("ann") == pytest.approx(each, rel=0.02)
    for _ in range(3):
        clock.now += each * 0.9
        assert limit.take("ann") > 0
        clock.now += each * 0.1
        assert limit.wait("ann") <= 0
        assert limit.take("ann") == 0
        assert limit.take("ann") == pytest.approx(limit.wait("ann"))
        assert limit.take("ann") > 0


def test_over_time_nobody_gets_more_than_the_rate_and_one_burst(clock: Clock) -> None:
    limit = Limit("20/s")
    passed = 0
    for _ in range(10_000):  # ten seconds, asking a thousand times a second
        passed += limit.take("ann") == 0
        clock.now += 0.001
    assert 200 <= passed <= 220 + 1


def test_what_is_refused_does_not_put_off_what_comes_later(clock: Clock) -> None:
    limit = Limit("2/s")
    refused = [limit.take("ann") for _ in range(1_000)]
    assert refused.count(0) == 2
    clock.now += 0.5
    assert limit.take("ann") == 0


def test_a_flood_of_others_neither_grows_the_memory_nor_frees_who_is_over_the_limit(clock: Clock) -> None:
    limit = Limit("100/h")
    while limit.take("attacker") == 0:
        clock.now += 0.001
    before = {name: len(row) for name, row in vars(limit).items() if hasattr(row, "__len__")}
    for number in range(200_000):
        limit.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert limit.take("attacker") > 0
    assert {name: len(row) for name, row in vars(limit).items() if hasattr(row, "__len__")} == before
    assert set(before.values()) == {rates.PLACES}


def test_hundreds_at_their_limit_are_not_taken_for_somebody_else() -> None:
    limit = Limit("20/h")
    for attacker in range(500):
        for _ in range(20):
            limit.take(f"attacker {attacker}")
    others = [limit.take(f"ann {number}") for number in range(2_000)]
    assert sum(wait > 0 for wait in others) <= 5  # 0.1 are to be expected


def test_limits_that_are_off_refuse_nobody() -> None:
    off = Rates(RateLimits(enabled=False, per_address="1/h", per_user="1/h", per_key="1/h"))
    for _ in range(10):
        off.address("192.0.2.1", write=True)
        off.failed("192.0.2.1")
        off.principal(Principal("user", "ann"))


def test_a_user_and_a_key_of_the_same_name_are_two() -> None:
    limits = Rates(RateLimits(per_user="1/h", per_key="1/h"))
    limits.principal(Principal("user", "k_1"))
    limits.principal(Principal("service", "k_1"))
    with pytest.raises(Problem, match="from this user") as refused:
        limits.principal(Principal("user", "k_1", issuer="another"))
    assert refused.value.retry_after in range(3_550, 3_601)
    with pytest.raises(Problem, match="from this key"):
        limits.principal(Principal("service", "k_1"))


# Whom an address stands for.


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0:0:0:1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "_hidden", False),
        ("::1::", "unknown", False),
        ("", "192.0.2.1", False),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ((), "192.0.2.1", [], "192.0.2.1"),
        ((), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        (("10.0.0.0/8",), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["1.1.1.1, 198.51.100.9"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["1.1.1.1, 10.0.0.9", "198.51.100.9,10.0.0.2"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        (("10.0.0.1",), "::ffff:10.0.0.1", ["198.51.100.9:4711"], "198.51.100.9"),
        (("10.0.0.1",), "10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        (("10.0.0.1",), "10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        (("fd00::/8",), "fd00::1", ["1.1.1.1,, 198.51.100.9 "], "198.51.100.9"),
        (("10.0.0.1",), "10.0.0.1", ["198.51.100.9, "], "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", [], "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", ["1.1.1.1, unknown"], "unknown"),
        (("10.0.0.1",), "", ["1.1.1.1"], ""),
    ],
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(
    trusted: tuple[str, ...], peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies(trusted).client(peer, forwarded) == client


# Through the door.


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
