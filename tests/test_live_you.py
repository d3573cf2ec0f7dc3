"""``you``: a user who has said who it is sees its own place change, at once for its own actions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection

from conftest import Deploy
from deployment import SECONDS, Deployment, bearer, frame_with, submit, watching
from deployment import frame as message
from deployment import until as until_async
from plain_board import NAME, Valkey, board_on, row, running, told
from scoreboard.board import Board, Standing
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.live import Lines, you
from scoreboard.live.watcher import Watcher
from watching import until

ACTIONS = {"ten": Action(points=10), "one": Action(points=1, policy="open")}


@pytest.fixture
async def client(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    deployment = await deploy(Config(actions=ACTIONS, boards={"main": BoardSettings(top=2)}))
    async with deployment.running() as http:
        yield deployment, http


async def own(socket: ClientConnection) -> dict[str, Any]:
    """The next own line."""
    async with asyncio.timeout(SECONDS):
        while (found := await message(socket))["type"] != "you":
            pass
    return found


def auth(token: str) -> str:
    return msgspec.json.encode({"type": "auth", "token": token}).decode()


async def test_own_lines_in_the_documented_form_on_both_transports(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for user, count in (("ann", 3), ("bob", 2), ("cy", 2), ("dan", 1)):
        for n in range(count):
            await submit(http, user, f"ten:{user}{n}")
    async with watching(http) as socket:
        shown = await frame_with(socket, [("ann", 30), ("bob", 20)])
        await socket.send(auth(deployment.token("dan")))
        expected = {
            "type": "you",
            "board": "main",
            "seq": shown["seq"],
            "rank": 4,
            "score": 10,
            "toNext": 11,
            "above": [
                {"rank": 2, "userId": "bob", "name": "bob", "score": 20},
                {"rank": 3, "userId": "cy", "name": "cy", "score": 20},
            ],
            "below": [],
        }
        assert await own(socket) == expected
        async with http.stream(
            "GET", "/boards/main/events", headers=bearer(deployment.token("dan"))
        ) as stream:
            lines, before = stream.aiter_lines(), ""
            while not (line := await anext(lines)).startswith('data: {"type":"you"'):
                before = line
            assert before == ""  # no id: what a client comes back with is the board's frame
            assert msgspec.json.decode(line.removeprefix("data: ")) == expected


async def test_who_has_no_place_is_told_so_and_then_of_the_first(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    async with watching(http) as socket:
        await socket.send(auth(deployment.token("eve")))
        nothing = await own(socket)
        assert {name: nothing[name] for name in ("rank", "score", "toNext", "above", "below")} == {
            "rank": None, "score": None, "toNext": None, "above": [], "below": [],
        }  # fmt: skip
        await submit(http, "eve", "one:1", credentials=deployment.token("eve"))
        assert (await own(socket))["score"] == 1


async def test_ones_own_action_is_seen_within_100_milliseconds(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for n in range(3):
        await submit(http, f"better{n}", "ten:1")  # so that ann is not in the visible top
    users = ["ann", "bob", "cy"]
    for user in users:
        await submit(http, user, "one:0")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(watching(http)) for _ in users]
        for socket, user in zip(sockets, users, strict=True):
            await socket.send(auth(deployment.token(user)))
            await own(socket)
        taken = []
        for socket, user in zip(sockets, users, strict=True):
            # Others have just moved it: that must not hold up the user's own action.
            await submit(http, f"new-{user}", "ten:1")
            await own(socket)
            began = time.monotonic()
            await submit(http, user, "one:1", wait=0, credentials=deployment.token(user))
            while (await own(socket))["score"] != 2:
                pass
            taken.append(time.monotonic() - began)
        assert sorted(taken)[1] < 0.1


async def test_nobody_hears_more_than_once_a_second_and_the_last_word_is_right(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    async with watching(http) as socket, watching(http) as other:
        for one in (socket, other):
            await one.send(auth(deployment.token("ann")))
            await own(one)
        began = time.monotonic()
        for n in range(40):
            await submit(http, "ann", f"ten:{n}")
        heard = []
        for one in (socket, other):
            scores = [(await own(one))["score"]]
            while scores[-1] < 400:
                scores.append((await own(one))["score"])
            heard.append(scores)
        assert heard[0] == heard[1] == sorted(set(heard[0]))
        assert len(heard[0]) <= 1 + (time.monotonic() - began) / you.SECOND


async def test_the_movements_of_others_are_noticed_and_nothing_is_said_without_one(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for n, user in enumerate(("a", "b", "c", "d", "e", "f")):
        for again in range(6 - n):
            await submit(http, user, f"ten:{again}")
    async with watching(http) as socket:
        await socket.send(auth(deployment.token("f")))
        assert (await own(socket))["rank"] == 6
        await submit(http, "d", "ten:d")  # a neighbour
        said = await own(socket)
        assert [line["score"] for line in said["above"]] == [40, 20]
        await submit(http, "g", "ten:g1")
        await submit(http, "g", "ten:g2")
        assert (await own(socket))["rank"] == 7


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


@pytest.fixture
async def board(valkey: Valkey) -> AsyncIterator[Counted]:
    async with board_on(valkey) as made:
        made.__class__ = Counted
        assert isinstance(made, Counted)
        made.trips = []
        yield made


async def test_all_that_are_due_are_read_in_one_round_trip(board: Counted) -> None:
    users = [f"u{n}" for n in range(500)]
    await told(board, *(row(user, n, n) for n, user in enumerate(users)))
    async with lines_on(board) as lines:
        screens = [join(lines, user) for user in users]
        await until(lambda: all(screen.said for screen in screens))
        assert board.asked == 1
        assert [screen.said[0]["rank"] for screen in screens] == list(range(500, 0, -1))


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
