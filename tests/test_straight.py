"""The straight way: the same answers as by way of the application, and the same limits."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import Deployment, until
from scoreboard.config import RateLimits
from scoreboard.errors import Unavailable
from scoreboard.group_commit import GroupCommit
from scoreboard.model import Scope
from straight_way import CONFIG, action, asked, get, post, raw, served, shared

__all__ = ["asked", "served", "shared"]


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
