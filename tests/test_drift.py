"""What a board has otherwise than the database is found, told and mended."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from conftest import Deploy
from deployment import frame, is_ready, submit, until, watching
from drifting import MENDED_SECONDS, USERS, Broken, broken, restless, surplus_user, told
from scoreboard import drift
from scoreboard.board import Board, form
from scoreboard.database import Database
from scoreboard.refresh import rebuild

__all__ = ["restless"]


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


async def test_an_older_state_at_the_same_position_is_mended(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, step = asyncio.Event(), drift.Checker._step

    async def gated(checker: drift.Checker, *args: Any) -> None:
        await may.wait()
        await step(checker, *args)

    monkeypatch.setattr(drift.Checker, "_step", gated)
    async with broken(deploy) as it, Database.open(it.deployment.database_url) as database:
        right = (await it.client.get("/boards/main")).json()["top"]
        for way in (surplus_user, wrong_score, missing_wholly, wrong_name):
            await way(it)
        every = it.meta.removesuffix("meta") + "*"
        older = {key: await it.redis.dump(key) for key in await it.redis.keys(every)}
        upto = await it.redis.hget(it.meta, "upto:0")
        assert await rebuild(database, it.board, "main") == USERS
        await it.redis.delete(*await it.redis.keys(every))
        for key, value in older.items():
            await it.redis.restore(key, 0, value)
        assert await it.redis.hget(it.meta, "upto:0") == upto
        # It takes what comes next: its position is right.
        assert (await submit(it.client, "u3", "point:after")).json()["boards"]["main"]["rank"] is not None
        assert len(await it.board.compare("main", database.all_rows("main"))) >= 3
        may.set()
        await it.mended()

        async def shown() -> bool:
            return bool((await it.client.get("/boards/main")).json()["top"] == right)

        await until(shown)


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
