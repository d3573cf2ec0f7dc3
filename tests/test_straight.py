"""The straight way: the same answers as by way of the application, in the same order on the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partialmethod
from typing import Any

import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment, submit, until
from scoreboard.api.application import Application
from scoreboard.api.deadlines import Deadlines
from scoreboard.config import Action, Board, Config, RateLimits
from scoreboard.errors import Unavailable
from scoreboard.group_commit import GroupCommit
from scoreboard.model import Scope

CONFIG = Config(
    actions={"point": Action(points=1, policy="open"), "win": Action(points=10)},
    boards={"main": Board(), "closed": Board(public=False)},
)
MOST = 1 << 24
"""Bytes of requests: their answers are far more than kernel and server may keep for one client."""


class Answer(msgspec.Struct):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> tuple[int, dict[str, str], bytes]:
        """What must be the same whichever way it came."""
        aside = ("date", "x-request-id", "content-length", "content-type" if self.status == 304 else "")
        return self.status, {k: v for k, v in self.headers.items() if k not in aside}, self.body


class Raw:
    """A connection on which bytes are sent, and answers read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Without waiting."""
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next one."""
        async with asyncio.timeout(SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.removesuffix("\r\n\r\n").split("\r\n")
            parts = [line.lower().partition(":") for line in lines[1:]]
            headers = {name: value.strip() for name, _, value in parts}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(lines[0].split()[1]), headers, body)

    async def until(self, word: bytes) -> None:
        """Read on until this has come."""
        async with asyncio.timeout(SECONDS):
            await self._reader.readuntil(word)

    async def ended(self) -> bool:
        """Does the server say nothing more, and end the connection?"""
        async with asyncio.timeout(SECONDS):
            return await self._reader.read() == b""


@asynccontextmanager
async def raw(client: httpx.AsyncClient) -> AsyncIterator[Raw]:
    """A connection to the server."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def post(credentials: str, body: Any, *more: str) -> bytes:
    """An update as bytes."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = ["POST /update-score HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"]
    if credentials:
        lines.append(f"Authorization: Bearer {credentials}")
    if not any(line.lower().startswith("content-type") for line in more):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *more, "", ""]).encode() + data


def action(user: str, action_id: str) -> dict[str, str]:
    """The body of an update."""
    return {"userId": user, "actionId": action_id}


def get(path: str, *more: str) -> bytes:
    """A read as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that came to the application."""
    found: list[str] = []
    answer = Application.__call__

    async def noted(self: Application, scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["path"])
        await answer(self, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", noted)
    return found


@pytest.fixture
async def served(deploy: Deploy, asked: list[str]) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    async with serving(deploy) as found:
        asked.clear()
        yield found


@pytest.fixture(scope="module")
async def shared(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    """One for all who are refused: they leave nothing behind."""
    async with serving(deploy) as found:
        yield found


@asynccontextmanager
async def serving(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    deployment = await deploy(CONFIG)
    async with deployment.running() as client:
        await submit(client, "ann", "win:0")  # the key is known now
        await submit(client, "ann", "point:0", credentials=deployment.token("ann"))
        yield deployment, client


async def test_who_is_known_goes_straight_and_who_is_not_does_not(
    served: tuple[Deployment, httpx.AsyncClient], asked: list[str]
) -> None:
    deployment, client = served
    token = deployment.token("bob")
    async with raw(client) as connection:
        for credentials, user, straight in (
            (deployment.key, "ann", True),
            (token, "bob", False),
            (token, "bob", True),
        ):
            asked.clear()
            connection.send(post(credentials, action(user, f"point:{user}{straight}")))
            assert (await connection.answer()).status == 202
            assert asked == ([] if straight else ["/update-score"])
        asked.clear()
        connection.send(get("/boards/main"))
        assert (await connection.answer()).status == 200
        assert asked == []
        connection.send(post(token, action("bob", "a.grant.perhaps")))
        assert (await connection.answer()).status == 422
        assert asked == ["/update-score"]

    async def counted() -> bool:
        board = (await client.get("/boards/main")).json()
        return [(row["userId"], row["score"]) for row in board["top"]] == [("ann", 12), ("bob", 2)]

    await until(counted)


REFUSED = {
    "unknown": action("ann", "nothing:1"),
    "form": action("ann", "point"),
    "no user": {"actionId": "point:1"},
    "user": action("a\u202e", "point:1"),
    "more": {**action("ann", "point:1"), "points": 9},
    "not json": b"{",
    "not text": b'{"userId":"ann","actionId":"point:\xff"}',
    "twice": b'{"userId":"bob","userId":"ann","actionId":"point:1"}',
    "list": [],
    "empty": b"",
    "large": b" " * 4097,
    "grant": action("ann", "a.b.c"),
    "long": action("ann", "point:" + "x" * 300),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_wrong_is_refused_in_the_same_words(
    shared: tuple[Deployment, httpx.AsyncClient], name: str
) -> None:
    deployment, client = shared
    async with raw(client) as connection:
        for credentials in (deployment.key, deployment.token("ann")):
            connection.send(post(credentials, REFUSED[name]))
            straight = await connection.answer()
            connection.send(post(credentials, REFUSED[name], "X-Request-Id: roundabout"))
            roundabout = await connection.answer()
            assert straight.status >= 400
            assert straight.form == roundabout.form


@pytest.mark.parametrize(
    ("credentials", "more"),
    [
        ("", ()),
        ("nobody", ()),
        ("sb_unknown", ()),
        ("", ("Authorization: Basic YTpi",)),
        ("{key}", ("Authorization: Bearer {key}",)),
        ("{key}", ("Content-Type: text/plain",)),
        ("{key}", ("Content-Type: application/json; charset=utf-8",)),
        ("{key}", ("Content-Encoding: gzip",)),
        ("{read}", ()),
        ("{other}", ()),
    ],
)
async def test_other_headers_are_judged_alike(
    shared: tuple[Deployment, httpx.AsyncClient], credentials: str, more: tuple[str, ...]
) -> None:
    deployment, client = shared
    words = {"key": deployment.key, "other": deployment.token("bob")}
    words["read"] = await deployment.make_key(Scope.ADMIN)
    async with raw(client) as connection:
        answers = []
        for extra in ((), (), ("X-Request-Id: roundabout",)):
            lines = [one.format(**words) for one in more]
            connection.send(post(credentials.format(**words), action("ann", "point:same"), *lines, *extra))
            answers.append((await connection.answer()).form)
    assert answers[0] == answers[1] == answers[2]


async def test_a_board_is_read_alike_with_and_without_what_is_known(
    served: tuple[Deployment, httpx.AsyncClient], asked: list[str]
) -> None:
    _, client = served
    async with raw(client) as connection:
        connection.send(get("/boards/main"))
        first = await connection.answer()
        etag = first.headers["etag"]
        for known, status in (
            ((), 200),
            ((f"If-None-Match: {etag}",), 304),
            ((f"If-None-Match: W/{etag}",), 304),
            ((f'If-None-Match: "1", {etag}',), 304),
            (('If-None-Match: "1"',), 200),
            (("If-None-Match: *",), 304),
            (("Authorization: Bearer nobody",), 200),
        ):
            connection.send(get("/boards/main", *known))
            straight = await connection.answer()
            connection.send(get("/boards/main", *known, "X-Request-Id: roundabout"))
            roundabout = await connection.answer()
            assert (straight.status, straight.form) == (status, roundabout.form)
        asked.clear()
        for path, status in (
            ("/boards/closed", 401),
            ("/boards/main?limit=1", 200),
            ("/boards/none", 404),
            ("/boards/%6dain", 200),
        ):
            connection.send(get(path))
            assert (await connection.answer()).status == status
        assert len(asked) == 4


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


async def test_a_log_that_is_away_is_told_with_the_id_of_the_event(
    served: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, client = served

    async def publish(*_: Any) -> int:
        raise Unavailable("away")

    monkeypatch.setattr("scoreboard.queue.Queue.publish", publish)
    async with raw(client) as connection:
        answers = []
        for more in ((), ("X-Request-Id: roundabout",)):
            connection.send(post(deployment.key, action("ann", "point:away"), *more))
            answers.append(await connection.answer())
    assert answers[0].form == answers[1].form
    assert answers[0].status == 503
    assert msgspec.json.decode(answers[0].body)["eventId"]


async def test_a_fault_of_ours_is_told_with_an_id_of_its_own_each_time(
    served: tuple[Deployment, httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deployment, client = served

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(GroupCommit, "enter", broken)
    ids = []
    async with raw(client) as connection:
        for _ in range(2):
            connection.send(post(deployment.key, action("ann", "point:1")))
            answer = await connection.answer()
            assert answer.status == 500
            ids.append(answer.headers["x-request-id"])
    assert len(set(ids)) == 2
    assert sum("a request failed" in record.message for record in caplog.records) == 2


async def test_the_limits_of_rates_hold_on_both_ways_together(deploy: Deploy) -> None:
    limits = RateLimits(per_address="1000/s", per_user="10/h", per_key="10/h")
    deployment = await deploy(msgspec.structs.replace(CONFIG, rate_limits=limits))
    async with deployment.running() as client, raw(client) as connection:
        statuses = []
        for number in range(12):
            more = ("X-Request-Id: roundabout",) if number % 2 else ()
            connection.send(post(deployment.key, action("ann", f"point:{number}"), *more))
            statuses.append((await connection.answer()).status)
    assert statuses == [202] * 10 + [429] * 2


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
