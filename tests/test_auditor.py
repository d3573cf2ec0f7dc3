"""The auditor of ``torture/`` is told on itself: every kind of error is planted, and it sees each."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from torture.auditor import Auditor
from torture.load import watch
from torture.system import CONFIG
from torture.told import Screen, Sent, Told

from deployment import SECONDS, Deployment, submit, until
from scoreboard import refresh
from scoreboard.board import Batch, Board
from scoreboard.config import Config, load
from scoreboard.database import Database
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Frame

SERVICE = [("ann", "win:1"), ("bob", "win:2"), ("cy", "point:3"), ("ann", "point:4"), ("cy", "probe:5")]
OWN = [("ann", f"daily:{n}") for n in range(4)] + [("bob", "first:1"), ("bob", "first:2")]
TABLES = ("events", "scores")
RESTORE = "TRUNCATE {0}; INSERT INTO {0} SELECT * FROM saved_{0}"
COPY = """
INSERT INTO events (event_id, accept_no, user_id, type, reference, points, boards, principal, at, outcome)
SELECT gen_random_uuid(), accept_no + 1, user_id, type, '{0}', points, boards, principal, at, outcome
FROM events WHERE reference = '3'
"""


class Scene:
    """A deployment at rest, what its clients were told, and one who watches. Plants break it."""

    def __init__(self, deployment: Deployment, connection: Any, database: Database, board: Board) -> None:
        self.deployment, self.sql, self.database, self.board = deployment, connection, database, board
        self.told = Told()
        self.screen = Screen("screen", self.told)

    @property
    def newest(self) -> Frame:
        """What the screen shows."""
        assert self.screen.newest is not None
        return self.screen.newest

    def copied(self) -> Scene:
        """The same deployment; what was told may be changed. Its screen stands still."""
        scene = Scene(self.deployment, self.sql, self.database, self.board)
        scene.told = copy.deepcopy(self.told)
        scene.screen = Screen("screen", scene.told)
        scene.screen.newest = self.screen.newest
        return scene

    async def audit(self, settle: float = 0) -> list[str]:
        """What the auditor finds broken."""
        auditor = Auditor(self.deployment.config, self.database, self.board, self.told, settle)
        return [f"{flaw.kind}: {flaw.text}" for flaw in await auditor.audit([self.screen])]

    async def up_to_date(self) -> None:
        """Wait until the screen shows the board."""

        async def shown() -> bool:
            return self.screen.newest is not None and self.screen.newest == await self.board.frame("main")

        await until(shown)

    async def restore(self) -> None:
        """Undo what was planted."""
        for table in TABLES:
            await self.sql.execute(RESTORE.format(table))
        for name in self.deployment.config.boards:
            await refresh.rebuild(self.database, self.board, name)
        await self.up_to_date()
        self.told.shown.clear()  # what the screen showed meanwhile was planted
        self.told.flaws.clear()


def configured(file: Path) -> Config:
    file.write_text(CONFIG.replace("3/minute", "3/day"))
    return load(file)


@pytest.fixture(scope="module")
async def scene(deploy: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    deployment = await deploy(configured(tmp_path_factory.mktemp("auditor") / "scoreboard.toml"))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(deployment.running())
        sql = await stack.enter_async_context(deployment.database())
        database = await stack.enter_async_context(Database.open(deployment.database_url))
        board = Board(deployment.environment.board, deployment.config, await database.identity())
        stack.push_async_callback(board.close)
        made = Scene(deployment, sql, database, board)
        for user, action in [*SERVICE, *OWN, *SERVICE[:2]]:
            event_id = made.told.send(user, action)
            made.told.answered(event_id, (await submit(client, user, action)).json())
        watching = asyncio.create_task(watch(made.screen, str(client.base_url).rstrip("/")))
        await made.up_to_date()
        await sql.execute("SET session_replication_role = replica")  # the ledger's triggers refuse changes
        for table in TABLES:
            await sql.execute(f"CREATE TABLE saved_{table} AS TABLE {table}")
        yield made
        watching.cancel()


async def change(scene: Scene, statement: str) -> None:
    assert not (await scene.sql.execute(statement)).endswith(" 0"), "something was planted"


async def tell_board(scene: Scene, user: str, **changes: Any) -> None:
    """Tell the board something else of a user than the database has, in a version that it takes."""
    (row,) = [row async for rows in scene.database.all_rows("main") for row in rows if row.user == user]
    row = replace(row, **changes | {"changed": row.changed + 1})
    (answer,) = await scene.board.apply([Batch("main", [row], 0, None, row.changed)])
    assert answer == {}


Plant = Callable[[Scene], Awaitable[None]]


def sql(statement: str) -> Plant:
    return lambda scene: change(scene, statement)


def on_board(user: str, **changes: Any) -> Plant:
    return lambda scene: tell_board(scene, user, **changes)


def told(plant: Callable[[Told, Sent], object]) -> Plant:
    """Something else was told about ann's ``win:1``."""

    async def planted(scene: Scene) -> None:
        plant(scene.told, scene.told.sent[WIN])

    return planted


def frames(*changes: dict[str, Any]) -> Plant:
    """A connection that brings the newest frame, with these changes one after the other."""

    async def planted(scene: Scene) -> None:
        newest = scene.newest
        scene.screen.connected()
        for some in changes:
            scene.screen.take(replace(newest, **some))
        scene.screen.newest = newest

    return planted


async def late_screen(scene: Scene) -> None:
    scene.screen.newest = replace(scene.newest, seq=scene.newest.seq - 1)


async def wrong_score_shown(scene: Scene) -> None:
    first, *rest = scene.newest.top
    await frames({"seq": 10**9, "top": (replace(first, score=first.score - 1), *rest)})(scene)


async def no_board(scene: Scene) -> None:
    redis = scene.board._server._redis
    await redis.delete(*[key async for key in redis.scan_iter(f"{scene.deployment.name}:*")])


async def off_ranking(scene: Scene) -> None:
    redis = scene.board._server._redis
    (ranking,) = [key async for key in redis.scan_iter(f"{scene.deployment.name}:{{main:all}}*:rank")]
    assert await redis.zpopmax(ranking)


WIN = event_id_of_action("ann", "win:1")
COUNTED = {"eventId": str(WIN), "status": "applied", "duplicate": False, "points": 25}
# What is planted: how, and what the auditor says.
PLANTED: dict[str, tuple[Plant, str]] = {
    "an event is lost": (sql("DELETE FROM events WHERE reference = '3'"), "lost: cy point:3 was applied"),
    "an event counts twice": (sql(COPY.format("3")), "doubled: cy point:3 is 2 times in the ledger"),
    "an event was never sent": (sql(COPY.format("x")), "doubled: cy point:x was never sent"),
    "two clients are told that theirs counted": (
        told(lambda all_, _: all_.answered(WIN, COUNTED | {"boards": {"main": {"score": 25}}})),
        "doubled: ann win:1: 2 clients were told",
    ),
    "a total is higher": (
        sql("UPDATE scores SET score = score + 1 WHERE user_id = 'cy'"),
        "'cy': total",
    ),
    "a total is missing": (sql("DELETE FROM scores WHERE user_id = 'cy'"), "drift: main 'cy': total None"),
    "a total was reached at another time": (
        sql("UPDATE scores SET reached = reached + 1"),
        "'cy': total",
    ),
    "the board has another score": (on_board("cy", score=7), "drift: main 'cy': score"),
    "the board has another order of a tie": (on_board("bob", reached=1), "drift: main 'bob': reached"),
    "the board has another name": (on_board("bob", name="Eve"), "drift: main 'bob': name"),
    "the board lacks an entry": (on_board("cy", score=None), "drift: main 'cy': missing"),
    "the ranking lacks an entry": (off_ranking, "drift: main 'ann': missing"),
    "there is no board": (no_board, "drift: main: no board"),
    "the last frame is not the board": (late_screen, "frame: screen: the last frame is not the board's"),
    "a frame comes twice": (frames({}, {}), "came again"),
    "a frame goes back": (frames({}, {"seq": 0}), "came after"),
    "an epoch comes back": (frames({}, {"epoch": "other"}, {"seq": 10**9}), "came back"),
    "a frame is not the same for all": (frames({"total": 0}), "is not the same for all who watch"),
    "a score is shown that never was": (wrong_score_shown, "which it never had"),
    "a client was told another state": (
        told(lambda _, sent: sent.statuses.add("rejected")),
        "a client was told rejected",
    ),
    "a client was told other points": (
        told(lambda _, sent: setattr(sent, "points", 24)),
        "a client was told 24",
    ),
    "a client was told another score": (
        told(lambda _, sent: sent.scores.update(main=24)),
        "24 on main, by the ledger it was 25",
    ),
    "a client was told another event": (
        told(lambda all_, _: all_.answered(WIN, {"eventId": "other", "status": "accepted"})),
        "it is called other",
    ),
    "a client was refused for good": (
        told(lambda all_, _: all_.refused("unknown_action", retryable=False)),
        "answer: refused for good: unknown_action",
    ),
    "an event has other points": (
        sql("UPDATE events SET points = 2 WHERE reference = '3'"),
        "2 points, the catalogue 1",
    ),
    "a limit is exceeded": (
        sql("UPDATE events SET outcome = 'applied', reason = NULL WHERE reason = 'limit'"),
        "limit: ann: daily counts 4 times, not 3",
    ),
    "what counts once counts twice": (
        sql("UPDATE events SET outcome = 'applied', reason = NULL WHERE reason = 'once'"),
        "limit: bob: first counts 2 times, not 1",
    ),
    "a limit is kept where there is none": (
        sql("UPDATE events SET outcome = 'rejected', reason = 'limit' WHERE reference = '3'"),
        "limit: cy point:3: rejected, limit",
    ),
    "time of acceptance goes back": (
        sql("UPDATE events SET at = at - interval '1 minute' WHERE reference = '4'"),
        "the one before at",
    ),
}


async def test_it_finds_nothing_where_nothing_is_wrong(scene: Scene) -> None:
    assert await scene.audit(settle=SECONDS) == []
    assert {one.type for one in scene.told.sent.values()} == {"win", "point", "probe", "daily", "first"}


@pytest.mark.parametrize("name", PLANTED)
async def test_it_finds_each_kind_of_error(scene: Scene, name: str) -> None:
    plant, text = PLANTED[name]
    copied = scene.copied()
    try:
        await plant(copied)
        assert any(text in flaw for flaw in await copied.audit())
    finally:
        await scene.restore()
    # Of the scene itself: its screen follows the board, which the worker may build once more, after us.
    assert await scene.audit(settle=SECONDS) == [], "and nothing else was wrong"


async def test_what_is_broken_is_told_once(scene: Scene) -> None:
    copied = scene.copied()
    copied.told.refused("unknown_action", retryable=False)
    auditor = Auditor(scene.deployment.config, scene.database, scene.board, copied.told, 0)
    assert len(await auditor.audit([])) == 1
    assert await auditor.audit([]) == []
