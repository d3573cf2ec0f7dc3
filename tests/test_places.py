"""Users' places over HTTP: the same answers whichever way they go."""

from __future__ import annotations

import httpx
import pytest

from conftest import Deploy
from deployment import Deployment, bearer, submit, until
from held_readings import Gate
from scoreboard.api.connection import Http
from scoreboard.board import Board
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.errors import BoardUnavailable
from scoreboard.model import Scope
from straight_way import action, asked, get, post, raw, served, shared

__all__ = ["asked", "served", "shared"]


async def test_it_is_answered_alike_whichever_way_it_goes(
    shared: tuple[Deployment, httpx.AsyncClient], asked: list[str]
) -> None:
    deployment, client = shared
    renamed = await client.put("/users/named", json={"name": "No points"})
    assert renamed.status_code == 202

    async def is_known() -> bool:
        return (await client.get("/boards/main/users/named")).status_code == 200

    await until(is_known)
    async with raw(client) as connection:
        for path, more, status, straight in (
            ("/boards/main/users/ann", (), 200, True),
            ("/boards/main/users/ann", (f"Authorization: Bearer {deployment.key}",), 200, True),
            ("/boards/main/users/ann", ("If-None-Match: *",), 200, True),
            ("/boards/main/users/named", (), 200, True),
            ("/boards/main/users/nobody", (), 404, True),
            ("/boards/main/users/" + "n" * 128, (), 404, True),
            ("/boards/main/users/..", (), 404, True),
            ("/boards/main/users/" + "n" * 129, (), 404, False),
            ("/boards/main/users/an%6e", (), 200, False),
            ("/boards/main/users/a%00n", (), 404, False),
            ("/boards/main/users/a%ffn", (), 400, False),
            ("/boards/main/users/ann?x", (), 200, False),
            ("/boards/main/users/ann/", (), 404, False),
            ("/boards/main/users/", (), 404, False),
            ("/boards/none/users/ann", (), 404, False),
            ("/boards/closed/users/ann", (), 401, False),
            ("/boards/closed/users/ann", (f"Authorization: Bearer {deployment.key}",), 200, False),
        ):
            asked.clear()
            connection.send(get(path, *more))
            first = await connection.answer()
            assert (first.status, asked == []) == (status, straight), path
            connection.send(get(path, *more, "X-Request-Id: roundabout"))
            assert first.form == (await connection.answer()).form, path
    ann = (await client.get("/boards/main/users/ann")).json()
    assert (ann["userId"], ann["rank"], ann["score"]) == ("ann", 1, 11)
    named = (await client.get("/boards/main/users/named")).json()
    assert (named["name"], named["rank"], named["above"]) == ("No points", None, [])


async def test_what_is_known_of_a_user_without_an_entry(deploy: Deploy) -> None:
    boards = {"main": BoardSettings(actions=("point",)), "other": BoardSettings(actions=("win",))}
    deployment = await deploy(
        Config(actions={"point": Action(points=1), "win": Action(points=10)}, boards=boards)
    )
    async with deployment.running() as client:
        await submit(client, "there", "win:1")
        for user in ("named", "hidden"):
            await client.put(f"/users/{user}", json={"name": f"Name of {user}"})
        await submit(client, "hidden", "point:1")
        admin = bearer(await deployment.make_key(Scope.ADMIN))
        for user in ("hidden", "marked"):
            act = {"userId": user, "reason": "test"}
            assert (await client.post("/admin/hide", json=act, headers=admin)).status_code == 200

        async def told(board: str, user: str) -> tuple[int, str | None]:
            straight = await client.get(f"/boards/{board}/users/{user}")
            roundabout = await client.get(
                f"/boards/{board}/users/{user}", headers={"x-request-id": "roundabout"}
            )
            assert (straight.status_code, straight.content) == (roundabout.status_code, roundabout.content)
            return straight.status_code, straight.json().get("name")

        assert await told("main", "named") == (200, "Name of named")
        assert await told("main", "hidden") == (200, "hidden")
        assert await told("main", "marked") == (404, None)
        assert await told("main", "there") == (404, None)
        assert await told("other", "there") == (200, "there")


async def test_a_body_and_other_methods_are_the_applications(
    shared: tuple[Deployment, httpx.AsyncClient], asked: list[str]
) -> None:
    _, client = shared
    async with raw(client) as connection:
        asked.clear()
        connection.send(get("/boards/main/users/ann", "Content-Length: 1") + b"x")
        assert (await connection.answer()).status == 200
        assert len(asked) == 1
    assert (await client.post("/boards/main/users/ann")).status_code == 405
    head = await client.head("/boards/main/users/ann")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_board_that_is_away_is_told_alike_both_ways(
    served: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, Board, "standings")
    gate.open.set()
    async with raw(served[1]) as connection:
        faults = (BoardUnavailable("away"), RuntimeError("broken"), RuntimeError("broken"))
        ids = []
        for fault, status in zip(faults, (503, 500, 500), strict=True):
            gate.fault = fault
            answers = []
            for more in ((), ("X-Request-Id: roundabout",)):
                connection.send(get("/boards/main/users/ann", *more))
                answers.append(await connection.answer())
            assert answers[0].form == answers[1].form
            assert answers[0].status == status
            ids.append(answers[0].headers.get("x-request-id"))
        assert ids[0] is None
        assert len(set(ids)) == 3  # each fault of ours has its own


async def test_heads_of_readers_do_not_push_out_those_of_updates(
    served: tuple[Deployment, httpx.AsyncClient], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, client = served
    monkeypatch.setattr("scoreboard.api.straight.HEADS", 2)
    seen: list[bytes] = []
    parsed = Http.on_url

    def noted(self: Http, url: bytes) -> None:
        seen.append(url)
        parsed(self, url)

    monkeypatch.setattr(Http, "on_url", noted)
    async with raw(client) as connection:
        for number in range(2):
            connection.send(post(deployment.key, action("ann", f"point:kept{number}")))
            assert (await connection.answer()).status == 202
            for user in ("ann", "b", "c"):
                connection.send(get(f"/boards/main/users/{user}"))
                await connection.answer()
    assert seen.count(b"/update-score") <= 1
    assert asked == []
