"""The straight way: answers come in the order of their requests, to the last, and are not hoarded."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partialmethod
from typing import Any

import httpx
import pytest

from conftest import Deploy
from deployment import Deployment, submit
from scoreboard.api.connection import HEAD_BYTES
from scoreboard.api.deadlines import Deadlines
from scoreboard.api.timed import AT_ONCE
from scoreboard.group_commit import GroupCommit
from straight_way import CONFIG, action, asked, get, post, raw, served

__all__ = ["asked", "served"]

MOST = 1 << 24
"""Bytes of requests: their answers are far more than kernel and server may keep for one client."""


async def test_answers_come_in_the_order_of_their_requests(
    served: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, client = served
    requests = [
        post(deployment.key, action("ann", "point:1")),
        get("/boards/main/users/nobody"),
        post(deployment.key, action("ann", "nothing:1")),
        get("/boards/main"),
        post(deployment.key, action("ann", "point:2"), "Prefer: wait=10"),
        post(deployment.key, action("ann", "point:3")),
        get("/nowhere"),
        post(deployment.key, action("ann", "point:4")),
    ]
    wanted = [202, 404, 422, 200, 200, 202, 404, 202]
    async with raw(client) as connection:
        connection.send(b"".join(requests))
        assert [(await connection.answer()).status for _ in requests] == wanted
        for one in requests:
            for place in range(0, len(one), 7):  # in pieces
                connection.send(one[place : place + 7])
                await asyncio.sleep(0)
        assert [(await connection.answer()).status for _ in requests] == wanted


async def test_a_last_request_is_answered_and_ends_the_connection(
    served: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, client = served
    for version, more in ((b"1.1", ("Connection: close",)), (b"1.0", ())):
        async with raw(client) as connection:
            request = post(deployment.key, action("ann", "point:last"), *more)
            connection.send(request.replace(b"HTTP/1.1", b"HTTP/" + version))
            assert (await connection.answer()).status == 202
            assert await connection.ended()


async def test_who_is_waiting_when_the_process_ends_is_answered_and_told_that_it_was_the_last(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = await deploy(CONFIG)
    entered: list[Any] = []
    enter = GroupCommit.enter
    async with deployment.working(), AsyncExitStack() as stack:
        async with deployment.serving() as client:
            await submit(client, "ann", "win:0")
            monkeypatch.setattr(GroupCommit, "enter", lambda *given, **named: entered.append((given, named)))
            connection = await stack.enter_async_context(raw(client))
            connection.send(post(deployment.key, action("ann", "point:1")))
            while not entered:  # noqa: ASYNC110  the server sets no event
                await asyncio.sleep(0.01)
            monkeypatch.undo()
            late = await stack.enter_async_context(raw(client))

            def go_on() -> None:
                late.send(post(deployment.key, action("ann", "point:2")))
                enter(*entered[0][0], **entered[0][1])

            asyncio.get_running_loop().call_later(0.2, go_on)  # the server is draining by then
        assert (await late.answer()).headers["connection"] == "close"
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await connection.ended()


async def test_who_never_reads_is_not_kept_answers_for(
    served: tuple[Deployment, httpx.AsyncClient], asked: list[str]
) -> None:
    """Once answers pile up the next request goes to the application, which waits until it can be answered."""
    _, client = served
    async with raw(client) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent, many = 0, get("/boards/main") * 100
        while not asked and sent < MOST:
            connection.send(many)
            await asyncio.sleep(0)  # the server's turn
            sent += len(many)
        connection.writer.transport.abort()
        assert sent < MOST


async def test_what_cannot_be_read_takes_no_answer_from_what_came_before(
    served: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, client = served
    async with raw(client) as connection:
        connection.send(post(deployment.key, action("ann", "point:1")) + b"\0\r\n\r\n")
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await connection.ended()
    async with raw(client) as connection:  # a body that breaks has nothing before it
        head = post(deployment.key, b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        connection.send(head + b"no number\r\n")
        assert (await connection.answer()).status == 400
        assert await connection.ended()


async def test_a_stream_behind_a_read_is_not_ended_with_the_idle(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deadlines, "__init__", partialmethod(Deadlines.__init__, pause=0.2, tick=0.02))
    deployment = await deploy(CONFIG)
    async with deployment.running() as client, raw(client) as stream, raw(client) as idle:
        stream.send(get("/boards/main") + get("/boards/main/events"))
        assert (await stream.answer()).status == 200
        assert (await stream.answer()).headers["content-type"].startswith("text/event-stream")
        idle.send(get("/boards/main"))
        assert (await idle.answer()).status == 200
        assert await idle.ended()
        await submit(client, "eve", "point:1")
        await stream.until(b'"eve"')


async def test_many_heads_that_come_in_pieces_are_not_one_long_head(
    served: tuple[Deployment, httpx.AsyncClient],
) -> None:
    _, client = served
    one = get("/boards/main", f"X-Long: {'x' * 4_000}")
    async with raw(client) as connection:
        connection.send(one[:100])
        for _ in range(2 * HEAD_BYTES // len(one)):
            connection.send(one[100:] + one[:100])  # the next one has begun
            assert (await connection.answer()).status == 200
        many = 2 * HEAD_BYTES // len(one)
        connection.send(one[100:] + one * many + one[:100])
        assert [(await connection.answer()).status for _ in range(many + 1)] == [200] * (many + 1)
        connection.send(one[100:])
        assert (await connection.answer()).status == 200


@pytest.mark.parametrize("path", ["/boards/main", "/nothing"])
async def test_more_requests_than_are_taken_at_once_end_the_connection(
    served: tuple[Deployment, httpx.AsyncClient], path: str
) -> None:
    _, client = served
    status = (await client.get(path)).status_code
    async with raw(client) as connection:
        for _ in range(2):
            connection.send(get(path) * AT_ONCE)
            answers = [await connection.answer() for _ in range(AT_ONCE)]
            assert {one.status for one in answers} == {status}
        connection.send(get(path) * (3 * AT_ONCE))
        answers = [await connection.answer() for _ in range(AT_ONCE)]
        assert {one.status for one in answers} == {status}
        if answers[-1].headers.get("connection") != "close":
            assert (await connection.answer()).status == 400
        assert await connection.ended()
