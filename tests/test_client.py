"""The Python client (``scoreboard.client``), on the real system, behind a gate that fails as networks do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import TypeVar

import msgspec
import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from gate import Gate, gate
from scoreboard.client import Client, Receipt, Refused, Unreachable
from scoreboard.config import Config, RateLimits
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Scope

T = TypeVar("T")
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
    b'{"code":"unavailable","title":"Not now.","status":503,"retryable":true}'
)
BOBS = b'[{"userId":"bob","actionId":"point:1"}]'


@pytest.fixture
async def way(deployment: Deployment) -> AsyncIterator[Gate]:
    """The running system, behind a gate."""
    async with deployment.running() as server, gate(str(server.base_url)) as standing:
        yield standing


async def first(told: AsyncIterator[T]) -> T:
    async with asyncio.timeout(SECONDS):
        return await anext(told)


async def test_an_action_is_reported_and_counts_once(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.key) as client:
        accepted = await client.submit("ann", "point:1")
        assert accepted == Receipt("accepted", str(event_id_of_action("ann", "point:1")))
        again = await client.submit("ann", "point:1", wait=10)
        assert (again.status, again.event_id, again.duplicate) == ("applied", accepted.event_id, True)
        fresh = await client.submit("ann", "point:2", wait=10)
        assert (fresh.duplicate, fresh.points) == (False, 1)
        assert (fresh.boards["main"].score, fresh.boards["main"].rank) == (2, 1)


async def test_many_are_answered_each_in_order(deployment: Deployment, way: Gate) -> None:
    updates = [("ann", f"point:{number}") for number in range(501)]
    async with Client(way.url, deployment.key) as client:
        results = await client.submit_many([*updates, ("ann", "pont:1"), ("ann", "point:0")], wait=10)
        assert await client.submit_many([]) == []
    assert [result.status for result in results if isinstance(result, Receipt)] == ["applied"] * 502
    wrong = results[501]
    assert isinstance(wrong, Refused)
    assert (wrong.code, wrong.retryable) == ("unknown_action", False)
    assert wrong.event_id == str(event_id_of_action("ann", "pont:1"))
    assert isinstance(results[502], Receipt)
    assert results[502].duplicate


async def test_a_refusal_says_its_code_and_is_not_repeated(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.token("bob")) as client:
        with pytest.raises(Refused, match="can be submitted by a service only") as refused:
            await client.submit("bob", "point:1")
        assert (refused.value.code, refused.value.retryable) == ("action_not_allowed", False)
    assert len(way.seen("/update-score")) == 1
    with pytest.raises(ValueError, match="is not like"):
        Client("scores.example")


async def test_a_refusal_is_told_once(deploy: Deploy) -> None:
    limits = RateLimits(per_address="1000/s", per_user="1/h")
    deployment = await deploy(Config(rate_limits=limits))
    async with deployment.serving() as server:

        async def told(credentials: str, user: str, action: str) -> str:
            async with Client(str(server.base_url), credentials, patience=0) as client:
                with pytest.raises(Refused) as refused:
                    await client.submit(user, action)
            return str(refused.value)

        admin, ann = await deployment.make_key(Scope.ADMIN), deployment.token("ann")
        assert await told(deployment.key, "ann", "pont:1") == "There is no action 'pont'."
        assert await told(admin, "ann", "point:1") == "This needs a key with the scope score:write."
        assert await told(ann, "bob", "point:1") == "The token's subject is not userId."
        assert await told(ann, "ann", "point:1") == "Too many requests from this user."
        assert await told("x.y.z", "ann", "point:1") == "The token is not a JWT."
        expired = deployment.token("ann", lifetime=-60)
        assert await told(expired, "ann", "point:1") == "The token has expired."


async def test_a_lost_answer_is_asked_for_again_under_the_same_id(deployment: Deployment, way: Gate) -> None:
    way.answers = [b""]  # the connection ends without an answer
    async with Client(way.url, deployment.key) as client:
        receipt = await client.submit("ann", "point:1", wait=10)
        assert receipt.status == "applied"
        assert receipt.boards["main"].score == 1
    assert len(way.seen("/update-score")) == 2


async def test_a_busy_server_is_asked_again_when_it_said(deployment: Deployment, way: Gate) -> None:
    way.answers = [BUSY]
    began = time.monotonic()
    async with Client(way.url, deployment.key) as client:
        assert (await client.submit("ann", "point:1", wait=10)).status == "applied"
    assert time.monotonic() - began >= 1
    assert len(way.seen("/update-score")) == 2


async def test_what_is_busy_in_a_batch_alone_is_sent_again(deployment: Deployment, way: Gate) -> None:
    body = (
        b'{"results":[{"status":"accepted","eventId":"e"},'
        b'{"code":"queue_full","title":"The queue is full.","retryable":true}]}'
    )
    way.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body]
    async with Client(way.url, deployment.key) as client:
        results = await client.submit_many([("ann", "point:1"), ("bob", "point:1")], wait=10)
    assert [result.status for result in results if isinstance(result, Receipt)] == ["accepted", "applied"]
    assert f"content-length: {len(BOBS)}" in way.seen("/update-scores")[1].lower()


async def test_patience_ends(deployment: Deployment, way: Gate) -> None:
    way.blocked = ["/update-score"]
    async with Client(way.url, deployment.key, patience=0.5) as client:
        with pytest.raises(Unreachable) as unreachable:
            await client.submit("ann", "point:1")
        assert (unreachable.value.code, unreachable.value.retryable) == ("unreachable", True)
        assert len(way.seen("/update-score")) > 1
        way.blocked = []
        way.answers = [BUSY]
        with pytest.raises(Refused) as refused:  # it asks for more patience than there is
            await client.submit("ann", "point:1")
        assert (refused.value.code, refused.value.retry_after) == ("unavailable", 1)


async def test_an_expired_token_is_renewed(deployment: Deployment, way: Gate) -> None:
    tokens = [deployment.token("ann", lifetime=-60), deployment.token("ann")]

    async def renewed() -> str:
        return tokens.pop(0)

    async with Client(way.url, renewed) as client:
        await client.rename("ann", "Ann")
    assert tokens == []
    async with Client(way.url, deployment.token("ann", lifetime=-60)) as client:
        with pytest.raises(Refused) as refused:
            await client.rename("ann", "Ann")
        assert refused.value.code == "token_expired"


async def test_a_name_may_hold_what_addresses_do_not(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.key) as client:
        await client.rename("u/1 ?#é", "Zoë")
        await client.submit("u/1 ?#é", "point:1", wait=10)
        async with aclosing(client.watch("main")) as frames:
            frame = await first(frames)
    assert [(line.user_id, line.name) for line in frame.top] == [("u/1 ?#é", "Zoë")]


async def test_a_board_is_watched_through_a_broken_connection(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.key) as client:
        await client.submit("ann", "point:1", wait=10)
        async with aclosing(client.watch("main")) as frames:
            frame = await first(frames)
            assert [(line.user_id, line.score) for line in frame.top] == [("ann", 1)]

            newest = asyncio.create_task(anext(frames))
            way.cut()
            await way.until(f"/live?epoch={frame.epoch}&seq={frame.seq} ")  # it resumes: no frame comes twice
            await client.submit("bob", "point:1", wait=10)
            newer = await newest
            assert (newer.epoch, newer.seq > frame.seq) == (frame.epoch, True)
            assert [line.user_id for line in newer.top] == ["ann", "bob"]


async def test_a_client_waits_as_long_as_the_server_says(way: Gate) -> None:
    async with Client(way.url) as client, aclosing(client.watch("main")) as frames:
        await first(frames)
        waiting = asyncio.create_task(anext(frames))
        bye = b'{"type":"bye","code":4001,"retryAfter":1500}'
        gone = time.monotonic()
        way.inject(bytes([0x81, len(bye)]) + bye)
        way.cut()
        way.answers = [BUSY]
        await way.until("/live", 2)
        assert time.monotonic() - gone >= 1.5  # by itself it would wait for half a second at most
        await way.until("/live", 3)
        assert time.monotonic() - gone >= 2.5
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def test_a_board_that_is_not_there_is_refused(way: Gate) -> None:
    async with Client(way.url) as client:
        with pytest.raises(Refused) as refused:
            await first(client.watch("nope"))
        assert (refused.value.code, refused.value.retryable) == ("unknown_board", False)


async def test_a_user_is_told_its_own_line(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.key) as game, Client(way.url, deployment.token("bob")) as client:
        await game.submit("ann", "point:1", wait=10)
        async with aclosing(client.watch_you("main")) as lines:
            you = await first(lines)
            assert (you.rank, you.score, you.to_next, you.above) == (None, None, None, ())
            await game.submit("bob", "point:1", wait=10)
            you = await first(lines)
            assert (you.rank, you.score, you.to_next) == (2, 1, 1)
            assert [line.user_id for line in you.above] == ["ann"]


async def test_a_private_board_is_watched_with_a_token_for_as_long_as_there_are_valid_ones(
    deploy: Deploy,
) -> None:
    config = msgspec.convert({"boards": {"main": {"public": False}}}, Config)
    deployment = await deploy(config)
    tokens = [deployment.token("ann", lifetime=-60), deployment.token("ann")]
    async with deployment.running() as server:
        url = str(server.base_url)
        await submit(server, "ann", "point:1")
        async with Client(url, lambda: tokens.pop(0)) as client, aclosing(client.watch("main")) as frames:
            assert [line.user_id for line in (await first(frames)).top] == ["ann"]
        assert tokens == []


async def test_credentials_are_in_no_address(deployment: Deployment, way: Gate) -> None:
    async with Client(way.url, deployment.key) as client:
        await client.submit("ann", "point:1", wait=10)
        async with aclosing(client.watch("main")) as frames:
            await first(frames)
    assert len(way.requests) == 2
    assert all(deployment.key not in request.partition("\r\n")[0] for request in way.requests)
    assert deployment.key not in way.requests[1]  # it is the first message, not a header
