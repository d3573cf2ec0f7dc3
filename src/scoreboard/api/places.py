"""Where users stand: ``GET /boards/{board}/users/{userId}``, read for all who ask at one moment together.

In comes who is asked for, out goes the user's line with its neighbours, or what went wrong. One reading of
a board is under way at a time; those who ask meanwhile gather, and the next one is theirs. So alone nobody
waits, and under load many share a round trip. What is told has been read after it was asked for. When a
reading fails or takes too long, all who wait are told so: nobody waits behind a server that may never
answer.

A user without an entry is looked up in the database, by a reading of its own. No board must ever wait for
another, or for the database.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from scoreboard.api.problems import ANYONE, problem_apart
from scoreboard.api.readers import PUBLIC
from scoreboard.api.straight import Request, answer_of, head_of
from scoreboard.board import Board, Standing
from scoreboard.board.reading import STANDINGS_USERS
from scoreboard.database import Database
from scoreboard.errors import BoardDamaged, Problem, Unavailable
from scoreboard.model import Around
from scoreboard.texts import USER_ID_CHARACTERS

logger = logging.getLogger(__name__)

TOGETHER = STANDINGS_USERS  # users a reading: one call of the board's script, some 20 ms of its server
READ_SECONDS = 3.0  # a reading that takes longer has failed: who waits is told so before a stop cuts it off
WAITING = 10_000  # questions that may wait, about one board or to the database: some 5 MB
SAID = 100  # answers between two turns of the loop: some 5 ms
_HEAD = head_of(200, [*PUBLIC.items(), ("content-type", "application/json")])
# The id of a user, where it stands in a path as it is.
_PLAIN = re.compile(rb"[A-Za-z0-9._~-]{1,%d}" % USER_ID_CHARACTERS)
_encode = msgspec.json.Encoder().encode

Pair = tuple[str, str]
"""A board and a user."""
Found = Around | Exception | None
"""Of one question; ``None``: it is not here, and the next one is to be asked."""
Told = Callable[[Around | Exception], None]
Asked = TypeVar("Asked", bound=Hashable)


class Places:
    """Where users stand on the boards. ``run`` must be running for anybody to be answered."""

    def __init__(self, board: Board, database: Database, names: Iterable[str]) -> None:
        self._board, self._database = board, database
        self._boards = {
            name: _Gathering(partial(self._listed, name), partial(self._not_listed, name)) for name in names
        }
        self._known = _Gathering(self._not_on_boards, _nobody)

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for gathering in (*self._boards.values(), self._known):
                tasks.create_task(gathering.run())

    def ask(self, board: str, user: str, told: Told) -> None:
        """Have ``told`` called with where a user stands, or with what went wrong, once."""
        self._boards[board].ask(user, told)

    async def around(self, board: str, user: str) -> Around:
        """Where a user stands; without a rank if it has no entry.

        Raises:
            Problem: ``unknown_user``; ``unavailable`` if too many ask.
            Unavailable: the board cannot be read, or the database.
        """
        if len(user) > USER_ID_CHARACTERS:
            raise Problem("unknown_user")  # nobody's, and too much to send along with others
        place: asyncio.Future[Around] = asyncio.get_running_loop().create_future()
        self.ask(board, user, partial(_settle, place))
        return await place

    async def _listed(self, board: str, users: Sequence[str]) -> list[Found]:
        return [_around(one) for one in await self._board.standings([(board, user) for user in users])]

    def _not_listed(self, board: str, user: str, told: Told) -> None:
        self._known.ask((board, user), told)

    async def _not_on_boards(self, pairs: Sequence[Pair]) -> list[Found]:
        known = await self._database.known(pairs)
        return [
            Around(board, user, known[board, user], None, None, None, (), ())
            if (board, user) in known
            else None
            for board, user in pairs
        ]


class _Gathering(Generic[Asked]):
    """Questions of one kind: while one reading is under way, the next ones gather."""

    def __init__(
        self,
        read: Callable[[Sequence[Asked]], Awaitable[Sequence[Found]]],
        unless_found: Callable[[Asked, Told], None],
    ) -> None:
        """``read`` finds what is asked for; who asked for what it does not find is for ``unless_found``."""
        self._read, self._unless_found = read, unless_found
        self._waiting: dict[Asked, list[Told]] = {}
        self._count = 0
        self._wake = asyncio.Event()

    def ask(self, what: Asked, told: Told) -> None:
        """Have ``told`` called when it has been read."""
        if self._count >= WAITING:
            told(Problem("unavailable", "Too many ask for users' places.", retry_after=1))
            return
        self._waiting.setdefault(what, []).append(told)
        self._count += 1
        self._wake.set()

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as readings:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    asked = list(islice(self._waiting, TOGETHER))
                    waiting = [(what, self._waiting.pop(what)) for what in asked]
                    # In a task of its own: one that does not end is left behind, for its driver to end
                    # within 15 s; so there are never more than a few.
                    reading = readings.create_task(self._reading(asked))
                    await asyncio.wait([reading], timeout=READ_SECONDS)
                    found: Sequence[Found] | Exception = Unavailable("A reading does not end.")
                    if reading.done() and not reading.cancelled():
                        found = reading.result()
                    if isinstance(found, Exception):
                        waiting += self._waiting.items()
                        self._waiting.clear()
                        found = [found] * len(waiting)
                    await self._tell(waiting, found)

    async def _reading(self, asked: Sequence[Asked]) -> Sequence[Found] | Exception:
        try:
            found = await self._read(asked)
            assert len(found) == len(asked)  # noqa: S101  else somebody would never be told
        except Exception as error:
            return error
        return found

    async def _tell(self, waiting: Sequence[tuple[Asked, list[Told]]], found: Sequence[Found]) -> None:
        self._count -= sum(len(each) for _, each in waiting)
        said = 0
        for (what, each), one in zip(waiting, found, strict=True):
            for told in each:
                try:
                    if one is None:
                        self._unless_found(what, told)
                    else:
                        told(one)
                except Exception:  # the others are to be told all the same
                    logger.exception("who asked for a user's place could not be told")
                said += 1
                if said % SAID == 0:
                    await asyncio.sleep(0)


def _around(standing: Standing | None) -> Found:
    try:
        return None if standing is None else standing.around()
    except BoardDamaged as error:  # this user's line, or a neighbour's: the others can be read
        return error


def _nobody(_: Pair, told: Told) -> None:
    told(Problem("unknown_user"))


def _settle(place: asyncio.Future[Around], found: Around | Exception) -> None:
    if place.done():
        return  # its request was cancelled
    if isinstance(found, Exception):
        place.set_exception(found)
    else:
        place.set_result(found)


class Place:
    """The handler of the places on one public board, on the straight way."""

    keeps = False  # each user has a head of its own: they would push out those of the updates

    def __init__(self, places: Places, board: str) -> None:
        self._places, self._board = places, board

    def read(self, target: bytes, _: Mapping[bytes, bytes], /) -> str | None:
        """The user, if its id stands in the target as it is."""
        user = target[target.rindex(b"/") + 1 :]
        return user.decode() if _PLAIN.fullmatch(user) else None

    def __call__(self, request: Request) -> bool:
        """Answer when the user's place has been read."""
        if request.body:
            return False
        self._places.ask(self._board, request.said, partial(_answer, request))
        return True


def _answer(request: Request, found: Around | Exception) -> None:
    if isinstance(found, Exception):
        head, body = answer_of(problem_apart(found), ANYONE)
    else:
        body = _encode(found)
        head = _HEAD + b"content-length: %d\r\n" % len(body)
    request.answer(head, body)
