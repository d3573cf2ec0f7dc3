"""Whoever watches the board misses nothing for long; whoever compares it finds what is wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plain_board import (
    NAME,
    SECONDS,
    Plain,
    Valkey,
    board_on,
    chunks,
    configuration,
    row,
    running,
    told,
    until,
)
from scoreboard.board import Board, watching
from scoreboard.errors import BoardUnavailable
from scoreboard.model import Frame


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Watch:
    """The frames that a live process gets."""

    def __init__(self, frames: AsyncIterator[Frame]) -> None:
        self._frames = frames

    async def next(self) -> Frame:
        async with asyncio.timeout(SECONDS):
            return await anext(self._frames)

    async def scores(self) -> list[int]:
        return [line.score for line in (await self.next()).top]


@asynccontextmanager
async def watched(board: Board) -> AsyncIterator[Watch]:
    async with aclosing(board.frames([NAME])) as frames:  # type: ignore[type-var]
        yield Watch(frames)


async def test_the_stored_frame_comes_first_then_each_new_one_at_once(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHECK_SECONDS", 3_600.0)  # what comes now was published, not read
    async with board_on(valkey, top=2) as board:
        await told(board, row("a", 1, 1), row("b", 0, 1))
        async with watched(board) as watch:
            first = await watch.next()
            assert first == await board.frame(NAME)
            for n in range(2, 50):
                await told(board, row("a", n, n))
                frame = await watch.next()
                assert (frame.epoch, frame.seq) == (first.epoch, first.seq + n - 1)
                assert frame.top[0].score == n
            await told(board, row("below", -1, 100), row("lower", -2, 101))
            await told(board, row("a", 99, 102))
            frame = await watch.next()
            assert (frame.top[0].score, frame.total) == (99, 4)
            await board.rebuild(NAME, upto={}, rows=chunks([row("a", 99, 102)]))
            assert (await watch.next()).seq == 1


async def test_a_lost_message_is_repaired_by_reading_and_the_subscription_made_anew(valkey: Valkey) -> None:
    async with board_on(valkey) as board, valkey.client() as client, watched(board) as watch:
        await watch.next()
        (first,) = await client.client_list(_type="pubsub")
        await told(board, row("a", 1, 1))
        assert await watch.scores() == [1]
        await stored_only(client, board)
        assert await watch.scores() == [1]
        coming = asyncio.create_task(watch.scores())

        async def renewed() -> bool:
            return first["id"] not in {one["id"] for one in await client.client_list(_type="pubsub")}

        await until(renewed)
        await told(board, row("a", 2, 2))
        assert await coming == [2]


async def test_a_message_lost_right_after_another_is_repaired_as_soon(valkey: Valkey) -> None:
    async with board_on(valkey) as board, valkey.client() as client, watched(board) as watch:
        await watch.next()
        await told(board, row("a", 1, 1))
        assert await watch.scores() == [1]
        began = time.monotonic()
        await stored_only(client, board)
        assert await watch.scores() == [1]
        assert time.monotonic() - began < 1.5, "a second, and something for a busy machine"


async def stored_only(client: Any, board: Board) -> None:
    """A new frame that is not published, as if its message had been lost."""
    meta = board._specs[NAME].meta
    frame: bytes = await client.hget(meta, "frame")
    epoch, _, rest = frame.split(b"\x1f", 2)
    seq = await client.hincrby(meta, "seq", 1)
    await client.hset(meta, "frame", b"\x1f".join((epoch, str(seq).encode(), rest)))


async def test_a_message_that_was_overtaken_is_dropped(valkey: Valkey) -> None:
    async with board_on(valkey) as board, valkey.client() as client, watched(board) as watch:
        await watch.next()
        meta, channel = board._specs[NAME].meta, board._specs[NAME].channel
        late = await client.hget(meta, "frame")
        await board.catch_up(NAME, [row("a", 1, 1)], partition=0, upto=1)
        assert await watch.scores() == [1]
        await client.publish(channel, late)  # of the epoch that was left
        await told(board, row("a", 2, 2))
        assert await watch.scores() == [2]


async def test_a_message_of_an_epoch_that_reading_skipped_is_dropped(valkey: Valkey) -> None:
    async with board_on(valkey) as board, valkey.client() as client, watched(board) as watch:
        await watch.next()
        meta, channel = board._specs[NAME].meta, board._specs[NAME].channel
        stored: bytes = await client.hget(meta, "frame")
        late = b"skipped" + stored[stored.index(b"\x1f") :]
        await board.catch_up(NAME, [row("a", 1, 1)], partition=0, upto=1)
        assert await watch.scores() == [1]
        await client.publish(channel, late)  # of an epoch between the two
        await told(board, row("a", 2, 2))
        assert await watch.scores() == [2]


async def test_watching_outlives_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as server, board_on(server) as board, watched(board) as watch:
        await watch.next()
        with caplog.at_level(logging.INFO, "scoreboard.board.watching"):
            coming = asyncio.create_task(watch.next())
            await server.kill()

            async def logged() -> bool:
                return bool(caplog.records)

            await until(logged)
            await server.start()
            await board.rebuild(NAME, upto={}, rows=chunks([row("a", 7, 1)]))
            assert [line.score for line in (await coming).top] == [7]
            async with server.client() as client:
                await client.client_kill_filter(_type="pubsub")
            await told(board, row("a", 8, 2))
            assert await watch.scores() == [8]
        said = [record.levelname for record in caplog.records]
        assert said == ["WARNING", "INFO"] * 2  # once an outage, once when it is over


async def test_watching_a_server_that_was_never_there_waits() -> None:
    board = Board("unix:///nowhere", configuration())
    frames = board.frames([NAME])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(frames), 0.3)
    await board.close()


PLANTED = {
    "missing": "redis.call('ZREM', rank, '0000000000000000003c') redis.call('HDEL', users, 'c')",
    "extra": "redis.call('ZADD', rank, -5, '0000000000000000009x')",
    "score": "redis.call('ZADD', rank, -99, '0000000000000000003c')",
    "reached": "redis.call('ZREM', rank, '0000000000000000003c')"
    " redis.call('ZADD', rank, -1, '0000000000000000001c')",
    "entry": "redis.call('HDEL', users, 'c')",
    "name": "local v = redis.call('HGET', users, 'c') redis.call('HSET', users, 'c', v .. 'x')",
    "rank": "redis.call('ZADD', base .. ':steps', -50, '-50')",
    "frame": "redis.call('HSET', KEYS[1], 'frame', 'e\\0311\\031now\\0310')",
    "no board": "redis.call('UNLINK', KEYS[1])",
}


@pytest.mark.parametrize("what", PLANTED)
async def test_comparing_finds_a_planted_error(valkey: Valkey, what: str) -> None:
    async with board_on(valkey, rank="dense") as board, valkey.client() as client:
        rows = [row("a", 3, 1), row("b", 2, 2, name="Ann"), row("hidden", None, 4), row("c", 1, 3)]
        await told(board, *rows)
        assert await board.compare(NAME, chunks(rows[:2], rows[2:])) == []
        head = (
            "local base = string.sub(KEYS[1], 1, -5) .. redis.call('HGET', KEYS[1], 'generation') "
            "local rank, users = base .. ':rank', base .. ':users' "
        )
        await client.eval(head + PLANTED[what], 1, board._specs[NAME].meta)
        found = await board.compare(NAME, chunks(rows[:2], rows[2:]))
        assert what in {difference.what for difference in found}
        assert all(str(difference).startswith(f"{NAME}") for difference in found)


async def test_comparing_a_large_board_reports_each_user_once_and_ends_early(valkey: Valkey) -> None:
    async with board_on(valkey, order="asc", rank="competition") as board:
        plain = Plain("asc", "competition")
        rows = [row(f"u{n}", n % 40, n + 1) for n in range(4_100)]
        plain.apply(rows)
        ordered = [plain.rows[line.user_id] for line in plain.lines()]
        await told(board, *rows)
        parts = [ordered[start : start + 700] for start in range(0, len(ordered), 700)]
        assert await board.compare(NAME, chunks(*parts)) == []
        moved = [row(f"u{n}", 39 - n % 40, n + 1, changed=5_000 + n) for n in range(10)]
        await told(board, *moved)
        found = await board.compare(NAME, chunks(*parts))
        assert sorted(difference.user for difference in found) == sorted(one.user for one in moved)
        assert {difference.what for difference in found} == {"score"}
        assert 1_000 <= len(await board.compare(NAME, chunks())) < 2_100


async def test_a_password_in_the_url_is_not_in_the_error() -> None:
    board = Board("redis://user:hidden@127.0.0.1:1/0", configuration(), "db")
    with pytest.raises(BoardUnavailable) as caught:
        await board.position(NAME)
    assert "hidden" not in str(caught.value)
    await board.close()


async def test_nonsense_that_somebody_publishes_ends_nothing(valkey: Valkey) -> None:
    async with (
        board_on(valkey) as board,
        watched(board) as watch,
        aclosing(board.touched([NAME])) as touched,
        valkey.client() as client,
    ):
        await watch.next()
        first = asyncio.create_task(anext(touched))
        channel = board._specs[NAME].channel

        async def heard() -> bool:
            return bool(await client.publish(f"{channel}:users", b"\xff"))

        await until(heard)
        assert (await first)[0] == NAME
        await client.publish(channel, b"\xff")
        await told(board, row("a", 1, 1))
        assert await watch.scores() == [1]
