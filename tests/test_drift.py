"""What a board has otherwise than the database is found, told and mended; what is on its way is not drift."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from conftest import Deploy
from deployment import Deployment, frame, is_ready, submit, until, watching
from scoreboard import config, drift, metrics
from scoreboard.board import Board, form
from scoreboard.database import Database
from scoreboard.model import Scope

USERS = 40
KINDS = ("missing", "extra", "score", "reached", "name", "entry", "frame", "unreadable")
MENDED_SECONDS = 5.0  # a small board is compared whole each second, for there is no rest between sweeps here


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep follows the other."""
    monkeypatch.setattr(drift, "SWEEP_SECONDS", 0.0)


def told() -> dict[str, float]:
    """What has been reported so far."""
    return {kind: metrics.DRIFT.labels(kind)._value.get() for kind in KINDS}


class Broken:
    """A deployment with something on its board, and a hand in the board's server."""

    def __init__(self, deployment: Deployment, client: httpx.AsyncClient, redis: Any, board: Board) -> None:
        self.deployment, self.client, self.redis, self.board = deployment, client, redis, board
        self.meta = f"{deployment.name}:{{main:all}}:meta"

    async def keys(self) -> tuple[str, str, str]:
        """Ranking, users, steps."""
        generation = (await self.redis.hget(self.meta, "generation")).decode()
        base = self.meta.removesuffix("meta") + generation
        return f"{base}:rank", f"{base}:users", f"{base}:steps"

    async def entry(self, user: str) -> tuple[bytes, form.Entry, str]:
        """A user's value, what it says, and its member."""
        value = await self.redis.hget((await self.keys())[1], user)
        found = form.entry(user, value)
        assert found is not None
        return value, found, form.member_of(found.reached, user)

    async def mended(self) -> None:
        """Wait until board and database are the same, in the bounded time."""
        async with Database.open(self.deployment.database_url) as database:

            async def same() -> bool:
                order = self.deployment.config.boards["main"].order
                return not await self.board.compare("main", database.all_rows("main", ordered=order))

            async with asyncio.timeout(MENDED_SECONDS):
                await until(same)


@asynccontextmanager
async def broken(deploy: Deploy, **settings: Any) -> AsyncIterator[Broken]:
    boards = {"main": config.Board(**settings)}
    deployment = await deploy(config.Config(boards=boards, actions={"point": config.Action(points=1)}))
    board = Board(deployment.environment.board, deployment.config)
    redis = Redis.from_url(deployment.environment.board)
    async with deployment.running() as client:
        updates = [
            {"userId": f"u{n}", "actionId": f"point:{m}"} for n in range(USERS) for m in range(n % 7 + 1)
        ]
        results = await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
        assert {one["status"] for one in results.json()["results"]} == {"applied"}
        yield Broken(deployment, client, redis, board)
    await board.close()
    await redis.aclose()


async def wrong_score(it: Broken) -> None:
    rank, users, _ = await it.keys()
    value, found, member = await it.entry("u5")
    await it.redis.hset(users, "u5", value.replace(b"%d\x1f" % found.score, b"99\x1f"))
    await it.redis.zadd(rank, {member: -99})


async def score_in_the_ranking_alone(it: Broken) -> None:
    rank, _, _ = await it.keys()
    _, _, member = await it.entry("u6")
    await it.redis.zadd(rank, {member: -50})


async def wrong_reached(it: Broken) -> None:
    rank, users, _ = await it.keys()
    value, found, member = await it.entry("u8")
    await it.redis.hset(users, "u8", value[:19] + form.version(7).encode() + value[38:])
    await it.redis.zrem(rank, member)
    await it.redis.zadd(rank, {form.member_of(7, "u8"): -found.score})


async def missing_member(it: Broken) -> None:
    _, _, member = await it.entry("u9")
    await it.redis.zrem((await it.keys())[0], member)


async def missing_value(it: Broken) -> None:
    await it.redis.hdel((await it.keys())[1], "u10")


async def missing_wholly(it: Broken) -> None:
    _, _, member = await it.entry("u11")
    await missing_value(it)
    await it.redis.hdel((await it.keys())[1], "u11")
    await it.redis.zrem((await it.keys())[0], member)


async def surplus_member(it: Broken) -> None:
    await it.redis.zadd(
        (await it.keys())[0], {form.member_of(3, "nobody"): -77, form.member_of(9, "u12"): -1}
    )


async def surplus_user(it: Broken) -> None:
    rank, users, _ = await it.keys()
    await it.redis.hset(users, "ghost", form.version(5) + form.version(5) + "1000\x1fGhost")
    await it.redis.zadd(rank, {form.member_of(5, "ghost"): -1000})


async def wrong_name(it: Broken) -> None:
    value, _, _ = await it.entry("u13")
    await it.redis.hset((await it.keys())[1], "u13", value + b"Somebody")


async def from_the_future(it: Broken) -> None:
    value, _, _ = await it.entry("u14")
    await it.redis.hset((await it.keys())[1], "u14", form.version(2**62).encode() + value[19:])


async def from_the_past(it: Broken) -> None:
    value, _, _ = await it.entry("u15")
    await it.redis.hset((await it.keys())[1], "u15", form.version(1).encode() + value[19:])


async def nonsense(it: Broken) -> None:
    await it.redis.hset((await it.keys())[1], mapping={"u16": "nonsense", "u27": "x" * 60})


async def stored_frame(it: Broken) -> None:
    raw = await it.redis.hget(it.meta, "frame")
    await it.redis.hset(it.meta, "frame", raw.replace(b"\x1f7", b"\x1f8"))


async def unreadable_frame(it: Broken) -> None:
    await it.redis.hset(it.meta, "frame", "nonsense")


WAYS: dict[Callable[[Broken], Any], set[str]] = {
    wrong_score: {"score"},
    score_in_the_ranking_alone: {"score"},
    wrong_reached: {"reached", "extra"},
    missing_member: {"missing"},
    missing_value: {"missing"},
    missing_wholly: {"missing"},
    surplus_member: {"extra"},
    surplus_user: {"extra"},
    wrong_name: {"name", "entry"},
    from_the_future: {"entry"},
    from_the_past: {"entry"},
    nonsense: {"missing"},
    stored_frame: {"frame"},
    unreadable_frame: {"frame"},
}


async def without_end(it: Broken) -> None:
    await it.redis.zadd((await it.keys())[0], {(await it.entry("u17"))[2]: "inf"})


async def without_end_below_the_top(it: Broken) -> None:
    await it.redis.zadd((await it.keys())[0], {form.member_of(3, "last"): "inf"})


async def no_text(it: Broken) -> None:
    await it.redis.zadd((await it.keys())[0], {b"\xff" * 30: 5})


async def position_in_words(it: Broken) -> None:
    await it.redis.hset(it.meta, "upto:0", "soon")


async def position_of_no_partition(it: Broken) -> None:
    await it.redis.hset(it.meta, "upto:x", form.version(7))


async def uncounted(it: Broken) -> None:
    await it.redis.hset(it.meta, "seq", "many")


async def lost_count(it: Broken) -> None:
    await it.redis.hdel(it.meta, "seq", "epoch")


UNREADABLE = (
    without_end,
    without_end_below_the_top,
    no_text,
    position_in_words,
    position_of_no_partition,
    uncounted,
    lost_count,
)


@pytest.fixture(scope="module")
async def board(deploy: Deploy) -> AsyncIterator[Broken]:
    async with broken(deploy, rank="dense") as it:
        yield it


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_is_wrong_by_hand_is_mended_within_seconds_and_told(board: Broken, way: Any) -> None:
    await board.mended()
    before, epoch = told(), await board.redis.hget(board.meta, "epoch")
    await way(board)

    async def found() -> set[str]:
        return {kind for kind, count in told().items() if count > before[kind]}

    async with asyncio.timeout(MENDED_SECONDS):
        await until(found)
    await board.mended()
    assert await found() <= WAYS[way] | {"frame"}
    assert await board.redis.hget(board.meta, "epoch") == epoch  # mended, not rebuilt


@pytest.mark.parametrize("way", UNREADABLE, ids=lambda way: way.__name__)
async def test_what_cannot_even_be_read_is_rebuilt_and_the_log_goes_on(board: Broken, way: Any) -> None:
    await board.mended()
    before, frame = told()["unreadable"], await board.board.frame("main")
    await way(board)

    async def rebuilt() -> bool:
        assert frame is not None
        return await board.redis.hget(board.meta, "epoch") not in (frame.epoch.encode(), None)

    async with asyncio.timeout(MENDED_SECONDS):
        await until(rebuilt)
    await board.mended()
    assert told()["unreadable"] > before
    assert (await submit(board.client, "u1", f"point:{way.__name__}")).json()["status"] == "applied"


async def test_a_comparison_that_breaks_does_not_hold_up_the_log(
    board: Broken, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken_read(*_: Any) -> Any:
        raise RuntimeError("planted")

    async def tried() -> bool:
        return "planted" in caplog.text

    monkeypatch.setattr(Board, "members", broken_read)
    await until(tried)
    assert (await submit(board.client, "u1", "point:broken")).json()["status"] == "applied"
    monkeypatch.undo()
    await surplus_user(board)
    await board.mended()


async def test_screens_see_what_is_mended(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    may, step = asyncio.Event(), drift.Checker._step

    async def gated(checker: drift.Checker, *args: Any) -> None:
        await may.wait()
        await step(checker, *args)

    monkeypatch.setattr(drift.Checker, "_step", gated)
    async with broken(deploy) as it, watching(it.client) as socket:
        first = await frame(socket)
        await surplus_user(it)
        await submit(it.client, "u0", "point:more")
        async with asyncio.timeout(MENDED_SECONDS):
            while (await frame(socket)).get("top", first["top"])[0]["userId"] != "ghost":
                pass
            may.set()
            while (again := await frame(socket)).get("top", [{"userId": "ghost"}])[0]["userId"] == "ghost":
                pass
        assert again["top"] == first["top"]


async def test_a_commit_that_the_board_has_not_been_told_is_no_drift(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, apply = asyncio.Event(), Board.apply

    async def held(board: Board, batches: Any) -> Any:
        await may.wait()
        return await apply(board, batches)

    may.set()
    async with broken(deploy) as it, it.deployment.database() as connection:
        monkeypatch.setattr(Board, "apply", held)
        monkeypatch.setattr(drift, "STEP_SECONDS", 0.05)
        may.clear()
        before = told()
        updates = [{"userId": f"u{n}", "actionId": "point:late"} for n in range(USERS + 10)]
        await it.client.post("/update-scores", json=updates)

        async def committed() -> bool:
            late = "SELECT count(*) FROM events WHERE reference = 'late'"
            return bool(await connection.fetchval(late) == len(updates))

        await until(committed)
        swept = metrics.DRIFT_SWEEPS._value.get()

        async def swept_twice() -> bool:
            return bool(metrics.DRIFT_SWEEPS._value.get() >= swept + 3)

        await until(swept_twice)
        may.set()
        await it.mended()
        assert told() == before


async def test_updates_on_their_way_are_no_drift(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(drift, "ROWS", 7)  # many steps
    actions = {"point": config.Action(points=1), "little": config.Action(points=0)}
    boards = {"main": config.Board(), "dense": config.Board(rank="dense", order="asc")}
    deployment = await deploy(config.Config(actions=actions, boards=boards, queue=config.Queue(partitions=2)))
    admin = {"authorization": f"Bearer {await deployment.make_key(Scope.ADMIN)}"}
    async with deployment.running() as client:
        before, swept = told(), metrics.DRIFT_SWEEPS._value.get()
        numbers = itertools.count()

        async def load(part: int) -> None:
            for n in itertools.islice(numbers, 60):
                updates = [
                    {"userId": f"u{(n * 13 + m) % 50}", "actionId": f"point:{n}.{m}"} for m in range(20)
                ]
                await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
                user = f"u{n % 50}"
                await client.put(f"/users/{user}", json={"name": f"Name {n % 3}"})
                if part == 0:
                    act, body = [
                        ("hide", {"userId": user}), ("show", {"userId": user}), ("revoke", {"userId": user}),
                        ("restore", {"userId": user}),
                    ][n % 4]  # fmt: skip
                    assert (await client.post(f"/admin/{act}", json=body, headers=admin)).status_code in (
                        200,
                        202,
                    )

        await asyncio.gather(*map(load, range(3)))
        assert metrics.DRIFT_SWEEPS._value.get() - swept > 10
        assert told() == before


async def test_what_has_changed_since_it_was_seen_is_left_alone(deploy: Deploy) -> None:
    async with broken(deploy) as it, Database.open(it.deployment.database_url) as database:
        it.board.database = await database.identity()
        seen, _, member = await it.entry("u5")
        generation = await it.redis.hget(it.meta, "generation")
        assert (await submit(it.client, "u5", "point:more")).json()["status"] == "applied"
        now, _, member_now = await it.entry("u5")
        assert not await it.board.repair("main", b"another", [("u5", now, member_now)], [])
        assert await it.board.repair("main", generation, [("u5", seen, member_now), ("u5", seen, member)], [])
        assert (await it.entry("u5"))[0] == now
        assert await it.redis.zscore((await it.keys())[0], member_now) is not None


async def test_a_board_whose_keys_are_gone_is_rebuilt(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "REBUILD_ROWS", 10)
    async with broken(deploy) as it:
        epoch = await it.redis.hget(it.meta, "epoch")
        await it.redis.delete((await it.keys())[0])
        await it.mended()
        assert await it.redis.hget(it.meta, "epoch") != epoch


async def test_a_board_of_another_database_is_rebuilt_and_its_last_frame_stays_until_then(
    deploy: Deploy,
) -> None:
    async with broken(deploy) as it:
        before = (await it.client.get("/boards/main")).json()
        await it.redis.hset(it.meta, "database", str(uuid.uuid4()))
        assert (await it.client.get("/boards/main")).json()["top"] == before["top"]

        async def rebuilt() -> bool:
            after = (await it.client.get("/boards/main")).json()
            assert after["top"] == before["top"]
            return bool(after["epoch"] != before["epoch"])

        async with asyncio.timeout(MENDED_SECONDS):
            await until(rebuilt)
        await it.mended()
        assert await is_ready(it.client)
        assert (await submit(it.client, "u1", "point:new")).json()["boards"]["main"]["rank"] is not None


async def test_between_two_sweeps_of_a_board_only_its_top_is_compared(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "STEP_SECONDS", 0.01)
    monkeypatch.setattr(drift, "SWEEP_SECONDS", 3600.0)
    monkeypatch.setattr(drift, "TOP_ROWS", 3)
    ours: list[drift.Checker] = []
    steps: list[int] = []
    make, pairs = drift.Checker.__init__, drift.Checker._pairs

    def made(self: drift.Checker, *args: Any) -> None:
        make(self, *args)
        ours.append(self)

    async def compared(self: drift.Checker, *args: Any) -> list[drift.Pair]:
        found = await pairs(self, *args)
        if self in ours:  # another deployment's may be running
            steps.append(len(found))
        return found

    monkeypatch.setattr(drift.Checker, "__init__", made)
    monkeypatch.setattr(drift.Checker, "_pairs", compared)

    async def several() -> bool:
        return len(steps) >= 20

    async with deployment.running() as client:
        for user in range(USERS):
            assert (await submit(client, f"u{user}", "point:1", wait=5)).status_code == 200
        steps.clear()
        await until(several)
        assert steps[1:] == [3] * (len(steps) - 1)  # the first may have been under way
        monkeypatch.setattr(drift, "SWEEP_SECONDS", 0.0)
        steps.clear()
        await until(several)
        assert USERS in steps
