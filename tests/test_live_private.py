"""Private boards: nothing is shown before it is known who asks, and nobody stays who may not come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from by_hand import Raw, Stream
from conftest import Deploy
from deployment import Deployment, bearer, frame_with, submit, watching
from scoreboard.auth.key_acts import create_key, revoke_key
from scoreboard.auth.profile import LEEWAY_SECONDS
from scoreboard.auth.tokens import local_token
from scoreboard.config import Board, Config
from scoreboard.database import Database
from scoreboard.live import hubs, members
from scoreboard.model import Scope
from watching import SECRET, TRUSTED, Serving, frame, serving, token, until

LIVE = "/boards/inner/live"
EVENTS = "/boards/inner/events"


@pytest.fixture
async def live() -> AsyncIterator[Serving]:
    async with serving(private=("inner",)) as server:
        inner = server.hubs.get("inner")
        assert inner is not None
        inner.publish(frame(1, board="inner"))
        server.hub.publish(frame(1))
        yield server


def said(credentials: str) -> bytes:
    return msgspec.json.encode({"type": "auth", "token": credentials})


async def test_a_private_board_opens_to_a_token_as_first_message(live: Serving) -> None:
    async with await Raw.watch(live, LIVE) as client:
        await client.send(9, b"still nothing")
        assert await client.receive() == (10, b"still nothing")
        await client.send(1, said(token()))
        assert (await client.message())["board"] == "inner"
        inner = live.hubs.get("inner")
        assert inner is not None
        inner.publish(frame(2, board="inner"))
        assert (await client.message())["seq"] == 2
    async with await Raw.watch(live, LIVE + "?epoch=e1&seq=2") as client:
        await client.send(1, said(token()))
        assert (await client.message())["type"] == "heartbeat"


async def test_a_token_in_the_address_opens_nothing(live: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "AUTH_SECONDS", 0.05)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    async with await Raw.watch(live, f"{LIVE}?token={token()}&access_token={token()}") as client:
        assert await client.receive() == (8, b"\x11\x31no token in time")
        await client.send(8, b"\x11\x31")
        await client.ended()
    assert not live.hubs._unknown
    async with await Stream.ask(live.address, f"{EVENTS}?token={token()}") as stream:
        assert stream.status == 401


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ("nonsense", 4401),
        ("", 4401),
        ("sb_nonsense", 4401),
        ("sb_" + "x" * 43, 4002),  # the database does not answer here, so nobody knows whose key it is
        (local_token("t" * 32, "ann", None, 600), 4401),
        (local_token(SECRET, "ann", None, -LEEWAY_SECONDS - 1), 4004),
    ],
)
async def test_what_does_not_hold_is_told_by_a_close_code(live: Serving, credentials: str, code: int) -> None:
    for path in (LIVE, "/boards/main/live"):
        async with await Raw.watch(live, path) as client:
            await client.send(1, said(credentials))
            assert (await client.closed())[0] == code


@pytest.mark.parametrize(
    "message",
    [
        b"{}",
        b"[]",
        b'{"type":"auth"}',
        b'{"type":"auth","token":1}',
        b'{"type":"auth","token":"x","more":1}',
        b'{"type":"hello","token":"x"}',
        b'"auth"',
    ],
)
async def test_another_message_is_a_bad_one(live: Serving, message: bytes) -> None:
    async with await Raw.watch(live, LIVE) as client:
        await client.send(1, message)
        assert await client.closed() == (4400, "bad message")


async def test_one_token_at_a_time(live: Serving) -> None:
    async with await Raw.watch(live, LIVE) as client:
        await client.send_bytes(b"".join(masked(said(token())) for _ in range(2)))
        assert await client.closed() == (4029, "one token at a time")


def masked(payload: bytes) -> bytes:
    return bytes([0x81, 0x80 | 126, *len(payload).to_bytes(2, "big"), 0, 0, 0, 0]) + payload


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        (None, True),
        ("http://board", True),  # the Host of the request
        ("https://BOARD", True),
        (TRUSTED, True),
        ("https://pages.example:444", False),
        ("http://board:81", False),
        ("https://evil.example", False),
        ("https://board.evil.example", False),
        ("null", False),
        ("board", False),
        ("", False),
    ],
)
async def test_a_private_board_is_for_pages_of_trusted_origins_alone(
    live: Serving, origin: str | None, may: bool
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    async with await Raw.connect(live) as client:
        assert (await client.ask(LIVE, **headers))[0] == 101
        if may:
            await client.send(1, said(token()))
            assert (await client.message())["board"] == "inner"
        else:
            assert (await client.closed())[0] == 4403
    for path in (EVENTS, "/boards/inner"):
        async with await Stream.ask(
            live.address, path, Authorization=f"Bearer {token()}", **headers
        ) as stream:
            assert stream.status == (200 if may else 403)
            shared = stream.headers.get("access-control-allow-origin")
            assert shared == (origin if may else None)
    async with await Raw.connect(live) as client:  # a public one is for all
        assert (await client.ask("/boards/main/live", **headers))[0] == 101
        assert (await client.message())["board"] == "main"


async def test_reads_of_a_private_board_want_authorization(live: Serving) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.address[1]}") as client:
        for path in ("/boards/inner", "/boards/inner?limit=3", "/boards/inner/users/ann", EVENTS):
            for headers in ({}, {"authorization": "Bearer nonsense"}):
                refused = await client.get(path, headers=headers)
                assert refused.status_code == 401
                assert "access-control-allow-origin" not in refused.headers
                assert b"n" * 50 not in refused.content
        shown = await client.get("/boards/inner", headers=bearer(token()))
        assert shown.json()["board"] == "inner"
        assert shown.headers["cache-control"] == "private, no-cache"
        assert "access-control-allow-origin" not in shown.headers
        assert shown.headers["vary"] == "Origin"


async def test_a_private_board_is_listed_for_who_may_see_it(live: Serving) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.address[1]}") as client:

        async def listed(**headers: str) -> list[tuple[str, bool]]:
            answer = await client.get("/boards", headers=headers)
            return [(one["board"], one["public"]) for one in answer.json()["boards"]]

        assert await listed() == [("main", True)]
        assert await listed(**bearer(token())) == [("main", True), ("inner", False)]
        assert (await client.get("/boards", headers=bearer("nonsense"))).status_code == 401


async def test_a_preflight_for_a_private_board_tells_only_trusted_pages(live: Serving) -> None:
    for origin, may in ((TRUSTED, True), ("https://evil.example", False)):
        async with await Stream.ask(live.address, EVENTS, "OPTIONS", Origin=origin) as client:
            assert client.headers.get("access-control-allow-origin") == (origin if may else None)


async def test_who_expires_is_told_so_on_both_transports(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = local_token(SECRET, "bob", None, 600)
    async with (
        await Raw.watch(live, LIVE) as client,
        await Raw.watch(live, LIVE) as other,
        await Raw.watch(live) as anyone,
        await Stream.ask(live.address, EVENTS, Authorization=f"Bearer {short}") as stream,
    ):
        await client.send(1, said(short))
        await other.send(1, said(short))
        assert [(await one.message())["seq"] for one in (client, other, anyone)] == [1, 1, 1]
        assert (await stream.message())["seq"] == 1
        await other.send(1, said(token("bob", 3_000)))  # a new token, in time
        await until(lambda: len(live.hubs.members._members) == 2)
        monkeypatch.setattr(members, "CHECK_SECONDS", 0.01)
        now = time.time()
        monkeypatch.setattr("scoreboard.auth.tokens.time.time", lambda: now + 600 + LEEWAY_SECONDS)
        assert await client.receive() == (8, b"\x0f\xa4token expired")
        assert await stream.message() == {"type": "bye", "code": 4004, "retryAfter": 0}
        assert await stream.rest() == b""
        live.hub.publish(frame(2))
        assert (await anyone.message())["seq"] == 2
        inner = live.hubs.get("inner")
        assert inner is not None
        inner.publish(frame(2, board="inner"))
        while (await other.message())["type"] != "board":
            pass
    await until(lambda: not live.hubs.members._members)
    assert not live.hubs.members._lines._lines


async def test_draining_reaches_those_who_have_not_said_who_they_are(live: Serving) -> None:
    async with await Raw.watch(live, LIVE) as client:
        draining = asyncio.create_task(live.hubs.drain(1.0))
        assert (await client.message())["type"] == "bye"
        assert (await client.closed())[0] == 4001
        await client.send(8, b"\x0f\xa1")
        await draining
    assert live.hubs.connections == 0


async def test_a_revoked_key_watches_no_longer(deploy: Deploy) -> None:
    deployment: Deployment = await deploy(Config(boards={"inner": Board(public=False)}))
    async with (
        Database.open(deployment.database_url) as database,
        deployment.running() as client,
        watching(client, "inner") as socket,
    ):
        key_id, key = await create_key(database, "screen", [Scope.SCORE_WRITE])
        await socket.send(said(key).decode())
        await submit(client, "ann", "point:1")
        await frame_with(socket, [("ann", 1)])
        async with client.stream("GET", EVENTS, headers=bearer(key)) as answer:
            lines = answer.aiter_lines()
            assert await first_data(lines) == ("board", None)
            began = time.monotonic()
            assert await revoke_key(database, key_id)
            assert await first_data(lines) == ("bye", 4004)
            await socket.wait_closed()
            assert socket.close_code == 4004
            assert time.monotonic() - began < 4  # documented: 2 s


async def first_data(lines: AsyncIterator[str]) -> tuple[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            found = msgspec.json.decode(line.removeprefix("data: "))
            return found["type"], found.get("code")
    raise AssertionError("the stream ended")


async def test_a_live_process_without_the_secret_knows_keys(deploy: Deploy) -> None:
    deployment: Deployment = await deploy(Config(boards={"inner": Board(public=False)}))
    deployment.settings = msgspec.structs.replace(
        deployment.settings, environment=msgspec.structs.replace(deployment.environment, secret=None)
    )
    key = deployment.key
    async with deployment.serving(api=False) as client:
        async with watching(client, "inner") as socket:
            await socket.send(said(deployment.token("ann")).decode())
            await socket.wait_closed()
            assert socket.close_code == 4401
        async with watching(client, "inner") as socket:
            await socket.send(said(key).decode())
            async with asyncio.timeout(10):
                assert msgspec.json.decode(await socket.recv())["board"] == "inner"
