"""Own lines, on a board without a server around it: what is read, what is said, and what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployment import until as until_async
from plain_board import NAME, Valkey, board_on, row, running, told
from scoreboard.board import Board, Standing
from scoreboard.live import Lines, you
from scoreboard.live.watcher import Watcher
from watching import until


class Screen:
    """A client of lines that may be unable to take anything."""

    form = 0

    def __init__(self) -> None:
        self.paused = False
        self.said: list[Any] = []

    def write(self, data: bytes) -> None:
        assert not self.paused
        self.said.append(msgspec.json.decode(data[data.index(b"{") :]))


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Counted(Board):
    """A board that counts what is asked of it."""

    asked = 0
    reads = 0
    trips: list[tuple[float, float]]

    async def standings(self, pairs: Sequence[tuple[str, str]]) -> list[Standing | None]:
        self.asked += 1
        self.reads += len(pairs)
        began = time.monotonic()
        found = await super().standings(pairs)
        self.trips.append((began, time.monotonic()))
        return found


@asynccontextmanager
async def lines_on(board: Board) -> AsyncIterator[Lines]:
    lines = Lines(board, [NAME])
    task = asyncio.create_task(lines.run())
    try:
        yield lines
    finally:
        task.cancel()
        await asyncio.wait([task])


def join(lines: Lines, user: str) -> Any:
    screen: Any = Screen()
    lines.line(NAME, user).join(screen)
    return screen


def counted(board: Board) -> Counted:
    board.__class__ = Counted
    assert isinstance(board, Counted)
    board.trips = []
    return board


@pytest.fixture
async def board(valkey: Valkey) -> AsyncIterator[Counted]:
    async with board_on(valkey) as made:
        yield counted(made)


async def test_all_that_are_due_are_read_in_one_round_trip(board: Counted) -> None:
    users = [f"u{n}" for n in range(500)]
    await told(board, *(row(user, n, n) for n, user in enumerate(users)))
    async with lines_on(board) as lines:
        screens = [join(lines, user) for user in users]
        await until(lambda: all(screen.said for screen in screens))
        assert board.asked == 1
        assert [screen.said[0]["rank"] for screen in screens] == list(range(500, 0, -1))


@pytest.mark.parametrize("rank", ["ordinal", "competition"])
async def test_a_line_that_cannot_be_read_keeps_nobody_elses_back(valkey: Valkey, rank: str) -> None:
    async with board_on(valkey, rank=rank) as made, valkey.client() as redis:
        board = counted(made)
        await told(board, *(row(user, 10, n) for n, user in enumerate("abcd")))
        meta = board._specs[NAME].meta
        users = meta.removesuffix("meta") + (await redis.hget(meta, "generation")).decode() + ":users"
        value = await redis.hget(users, "a")
        await redis.hset(users, "a", value.replace(b"10\x1f", b"1o\x1f"))
        async with lines_on(board) as lines:
            screens = [join(lines, user) for user in "abcd"]
            await until(lambda: bool(screens[3].said))
            assert board.asked == 1
            assert not any(screen.said for screen in screens[:3])  # neighbours show the one that is damaged


async def test_while_nothing_changes_nothing_is_read(board: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(you, "SECOND", 0.02)
    await told(board, row("a", 1, 1))
    looks = 0
    async with lines_on(board) as lines:
        look = lines._look

        async def counted() -> None:
            nonlocal looks
            looks += 1
            await look()

        monkeypatch.setattr(lines, "_look", counted)
        screen = join(lines, "a")
        await until(lambda: looks > 10)
        assert board.asked <= 3  # joining, and twice after what was there before
        assert len(screen.said) == 1


async def test_a_line_that_would_say_the_same_is_not_said(
    board: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(you, "SECOND", 0.02)
    await told(board, *(row(user, 9 - n, n) for n, user in enumerate("abcdef")))
    async with lines_on(board) as lines:
        screen = join(lines, "f")
        await until(lambda: bool(screen.said))
        reads = board.reads
        await told(board, row("b", 100, 100))  # far above
        await until(lambda: board.reads >= reads + 2)  # every change is looked at twice
        assert len(screen.said) == 1
        await told(board, row("e", 7, 101))
        await until(lambda: len(screen.said) == 2)
        assert [line["score"] for line in screen.said[1]["above"]] == [7, 6]


async def test_between_looks_at_many_lines_the_board_has_time_for_others(
    board: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"u{n}" for n in range(400)]
    await told(board, *(row(user, n, n) for n, user in enumerate(users)))
    async with lines_on(board) as lines:
        screens = [join(lines, user) for user in users]
        await until(lambda: all(screen.said for screen in screens))
        monkeypatch.setattr(you, "READ", 50)
        for line in lines._lines.values():
            line.then = [0.0, 0.0]  # it may speak at once, and need not be read again for that
        board.trips.clear()
        await told(board, row("best", 1_000, 1_000))  # everybody's rank is another
        await until(lambda: all(len(screen.said) == 2 for screen in screens))
        assert len(board.trips) >= 8
        for (began, ended), (later, _) in pairwise(board.trips):
            assert later - ended >= (ended - began) * 0.9 * (1 / you.SHARE - 1)


async def test_while_nobody_has_said_who_it_is_nothing_is_asked(
    board: Counted, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(you, "SECOND", 0.02)

    async def subscribed() -> int:
        async with valkey.client() as redis:
            return len(await redis.client_list(_type="pubsub"))

    async with lines_on(board) as lines:
        assert await subscribed() == 0
        screen = join(lines, "a")
        await until(lambda: bool(screen.said))
        assert await subscribed() == 1
        lines.line(NAME, "a").leave(screen)
        assert not lines._lines
        await told(board, row("b", 1, 1))

        async def unsubscribed() -> bool:
            return await subscribed() == 0

        await until_async(unsubscribed)
        asked = board.asked
        await told(board, row("b", 2, 2))
        assert board.asked == asked


async def test_a_screen_that_cannot_take_it_gets_the_newest_when_it_can(board: Counted) -> None:
    await told(board, row("a", 1, 1))
    async with lines_on(board) as lines:
        quick, slow = join(lines, "a"), join(lines, "a")
        await until(lambda: bool(quick.said and slow.said))
        slow.paused = True
        line = lines.line(NAME, "a")
        for n in (2, 3):
            line.then = [0.0, 0.0]
            await told(board, row("a", n, n))
            await until(lambda: quick.said[-1]["score"] == n)  # noqa: B023
        slow.paused = False
        line.resumed(slow)
        assert [said["score"] for said in slow.said] == [1, 3]
        line.resumed(slow)
        assert len(slow.said) == 2


async def test_a_hidden_user_has_no_line(board: Counted) -> None:
    await told(board, row("a", 5, 1), row("b", 4, 2))
    async with lines_on(board) as lines:
        screen = join(lines, "a")
        await until(lambda: bool(screen.said))
        lines.line(NAME, "a").then = [0.0, 0.0]
        await told(board, row("a", None, 1, changed=3))
        await until(lambda: len(screen.said) == 2)
        assert (screen.said[1]["rank"], screen.said[1]["score"], screen.said[1]["below"]) == (None, None, [])


async def test_own_lines_outlive_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(you, "AGAIN_SECONDS", 0.02)
    async with running(tmp_path) as server, board_on(server) as board:
        await told(board, row("a", 1, 1))
        async with lines_on(board) as lines:
            screen = join(lines, "a")
            await until(lambda: bool(screen.said))
            await server.kill()
            late = join(lines, "b")
            await server.start()
            await board.rebuild(NAME, upto={0: 0}, rows=rows_of(row("a", 7, 7)))
            await until(lambda: bool(late.said))
            await until(lambda: screen.said[-1]["score"] == 7)


async def rows_of(*rows: Any) -> AsyncIterator[Sequence[Any]]:
    yield rows


async def test_whose_rows_change_is_told_right_after_and_to_whom_it_concerns(valkey: Valkey) -> None:
    async with board_on(valkey) as board, aclosing(board.touched([NAME])) as touched:
        first = asyncio.ensure_future(anext(touched))
        async with valkey.client() as redis:
            await until_async(redis.pubsub_channels)
        await told(board, row("a", 1, 1), row("b", 1, 2))
        assert await first == (NAME, ["a", "b"])
        await told(board, row("a", 1, 1), row("c", 1, 3))  # a is as it was
        assert await anext(touched) == (NAME, ["c"])


def test_a_watcher_has_what_a_line_needs() -> None:
    assert {"paused", "write"} <= set(Watcher.__slots__)
