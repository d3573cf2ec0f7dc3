"""Users' places over HTTP: the same answers both ways, many asked for together, and nobody kept waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from conftest import Deploy
from deployment import SECONDS, Deployment, bearer, submit, until
from scoreboard.api import places
from scoreboard.api.connection import Http
from scoreboard.api.places import Places
from scoreboard.board import Board
from scoreboard.board.form import FIELD
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.database import Database
from scoreboard.errors import BoardDamaged, BoardUnavailable, DatabaseUnavailable, Problem, Unavailable
from scoreboard.model import Around, Scope
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


class Gate:
    """Readings that are held until they are let through, and may fail then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: type, name: str) -> None:
        self.rounds: list[list[tuple[str, str]]] = []
        self.open = asyncio.Event()
        self.fault: Exception | None = None
        read = getattr(source, name)

        async def held(self_: Any, pairs: Sequence[tuple[str, str]]) -> Any:
            self.rounds.append(list(pairs))
            await self.open.wait()
            if self.fault is not None:
                raise self.fault
            return await read(self_, pairs)

        monkeypatch.setattr(source, name, held)

    async def until_held(self, rounds: int = 1) -> None:
        """Wait until so many have begun."""

        async def begun() -> bool:
            return len(self.rounds) >= rounds

        await until(begun)


@asynccontextmanager
async def reading(deployment: Deployment) -> AsyncIterator[Places]:
    """Places of a deployment's boards, being read."""
    board = Board(deployment.environment.board, deployment.config)
    async with Database.open(deployment.database_url) as database, asyncio.TaskGroup() as tasks:
        made = Places(board, database, deployment.config.boards)
        running = tasks.create_task(made.run())
        try:
            yield made
        finally:
            running.cancel()
            await board.close()


async def ends(tasks: Sequence[asyncio.Task[Around]]) -> list[Any]:
    """What becomes of them: an error's type or code, or the user."""
    async with asyncio.timeout(SECONDS):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        one.code if isinstance(one, Problem) else type(one) if isinstance(one, BaseException) else one.user_id
        for one in found
    ]


async def test_who_asks_while_others_are_read_shares_the_next_reading(
    shared: tuple[Deployment, httpx.AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        names = ["nobody", "ann", "nobody", "ann", "else"]
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in names]
        await asyncio.sleep(0)  # they have asked
        tasks[-2].cancel()  # the others do not mind
        gate.open.set()
        assert await ends(tasks) == [
            *("ann", "unknown_user", "ann", "unknown_user", asyncio.CancelledError, "unknown_user")
        ]
    assert gate.rounds == [[("main", "ann")], [("main", "nobody"), ("main", "ann"), ("main", "else")]]
    assert not caplog.records


async def test_a_reading_has_so_many_users_at_most(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "TOGETHER", 2)
    gate = Gate(monkeypatch, Board, "standings")
    gate.open.set()
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", name)) for name in ("ann", "b", "c", "d", "e")]
        assert await ends(tasks) == ["ann", *["unknown_user"] * 4]
    assert [len(one) for one in gate.rounds] == [2, 2, 1]


async def test_when_a_reading_fails_all_who_wait_are_told_and_the_next_ones_are_read(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAITING", 3)
    gate = Gate(monkeypatch, Board, "standings")
    gate.fault = BoardUnavailable("away")
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in ("ann", "bob")]
        await asyncio.sleep(0)  # they have asked
        gate.open.set()
        assert await ends(tasks) == [BoardUnavailable] * 3
        assert len(gate.rounds) == 1
        with pytest.raises(BoardUnavailable):  # there is room again
            await read.around("main", "ann")
        gate.fault = None
        assert (await read.around("main", "ann")).score == 11


async def test_no_more_wait_than_there_is_room_for(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAITING", 3)
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        tasks = [asyncio.create_task(read.around("main", "ann"))]
        await gate.until_held()
        tasks += [asyncio.create_task(read.around("main", name)) for name in ("ann", "ann")]
        await asyncio.sleep(0)  # they have asked
        with pytest.raises(Problem, match="Too many ask"):
            await read.around("main", "ann")
        gate.open.set()
        assert await ends(tasks) == ["ann"] * 3
        assert (await read.around("main", "ann")).user_id == "ann"  # there is room again


async def test_a_board_waits_neither_for_another_nor_for_the_database(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, Database, "known")
    async with reading(shared[0]) as read:
        unknown = asyncio.create_task(read.around("main", "nobody"))
        await gate.until_held()
        with monkeypatch.context() as patch:
            patch.setattr(places, "WAITING", 1)
            with pytest.raises(Problem, match="Too many ask") as full:
                await read.around("main", "somebody")
            assert full.value.retry_after == 1
        async with asyncio.timeout(SECONDS):
            assert (await read.around("main", "ann")).rank == 1
        held = Gate(monkeypatch, Board, "standings")
        kept = asyncio.create_task(read.around("main", "ann"))
        await held.until_held()
        other = asyncio.create_task(read.around("closed", "ann"))
        await held.until_held(2)
        held.open.set()
        assert await ends([kept, other]) == ["ann", "ann"]
        assert held.rounds == [[("main", "ann")], [("closed", "ann")]]
        gate.fault = DatabaseUnavailable("away")
        gate.open.set()
        assert await ends([unknown]) == [DatabaseUnavailable]


@pytest.mark.parametrize("rank", ["ordinal", "competition", "dense"])
async def test_a_line_that_cannot_be_read_keeps_nobody_elses_back(deploy: Deploy, rank: Any) -> None:
    config = Config(actions={"win": Action(points=10)}, boards={"main": BoardSettings(rank=rank)})
    deployment = await deploy(config)
    async with deployment.running() as client:
        for user in ("a", "b", "c", "d"):
            await submit(client, user, "win:1")
    redis: Any = Redis.from_url(deployment.environment.board)
    meta = f"{deployment.name}:{{main:all}}:meta"
    users = meta.removesuffix("meta") + (await redis.hget(meta, "generation")).decode() + ":users"
    value = await redis.hget(users, "a")
    await redis.hset(users, "a", value.replace(b"10" + FIELD.encode(), b"1o" + FIELD.encode()))
    await redis.aclose()
    async with reading(deployment) as read:
        tasks = [asyncio.create_task(read.around("main", user)) for user in ("a", "b", "c", "d")]
        assert await ends(tasks) == [BoardDamaged, BoardDamaged, BoardDamaged, "d"]  # neighbours show it, too


async def test_a_reading_that_does_not_end_is_left_behind(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "READ_SECONDS", 0.01)
    gate = Gate(monkeypatch, Board, "standings")
    async with reading(shared[0]) as read:
        with pytest.raises(Unavailable, match="does not end"):
            await read.around("main", "ann")
        gate.open.set()
        monkeypatch.setattr(places, "READ_SECONDS", SECONDS)
        assert (await read.around("main", "ann")).user_id == "ann"


async def test_a_reading_that_is_cancelled_by_its_driver_has_failed(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    async with reading(shared[0]) as read:
        with monkeypatch.context() as patch:
            patch.setattr(Board, "standings", cancelled)
            with pytest.raises(Unavailable):
                await read.around("main", "ann")
        assert (await read.around("main", "ann")).user_id == "ann"


async def test_many_are_told_a_few_at_a_time(
    shared: tuple[Deployment, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SAID", 2)
    gate = Gate(monkeypatch, Board, "standings")
    turns: list[int] = []
    async with reading(shared[0]) as read:
        read.ask("main", "ann", lambda _: None)
        await gate.until_held()
        told: list[object] = []
        for _ in range(6):
            read.ask("main", "ann", told.append)
        gate.open.set()
        async with asyncio.timeout(SECONDS):
            while len(told) < 6:
                turns.append(len(told))
                await asyncio.sleep(0)
    assert {2, 4} <= set(turns)


async def test_one_who_cannot_be_told_keeps_nobody_else_from_it(
    shared: tuple[Deployment, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("broken")

    async with reading(shared[0]) as read:
        read.ask("main", "ann", broken)
        assert (await read.around("main", "ann")).user_id == "ann"
    assert "could not be told" in caplog.text


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
