"""Each user's own line, on the screens of those who said who they are.

In come users who watch, and from the board whose rows changed (``touched``); out go ``you`` messages: at once
when a user's own row changed, within about a second when others moved it, and none if it would say the same.
Of what others do it tells at most once a second, of the user's own actions too: neither waits for the other.
All lines that are due are read in one round trip.

It must never cost anything for those who have not said who they are: while nobody has, nothing is read,
nothing subscribed, and no timer runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import count, islice
from typing import Protocol

from scoreboard.board import Standing
from scoreboard.errors import BoardDamaged, BoardUnavailable
from scoreboard.live import wire
from scoreboard.live.watcher import Watcher

SECOND = 1.0
"""The least time between two messages of a kind to a user, and how often the movements of others are looked
for."""
AGAIN_SECONDS = 0.5
"""After the board did not answer."""
READ = 1_000
"""Lines a round trip: some 40 ms of the board's server, so that nobody's own action waits long behind a look
at all lines."""
SHARE = 0.25
"""Of the time the board's server may be asked where others have moved somebody: a look at 10,000 lines takes
it up to half a second, and it has other work to do."""
SAID = 100
"""Lines between two yields to the loop: making and writing one takes some 30 us."""

logger = logging.getLogger(__name__)


class Source(Protocol):
    """What is asked of the board."""

    async def standings(self, pairs: Sequence[tuple[str, str]]) -> list[Standing | None]:
        """Where each user stands on a board, in one round trip."""

    async def changes(self, boards: Sequence[str]) -> list[bytes | None]:
        """For each board something that differs after a change."""

    def touched(self, boards: Iterable[str]) -> AsyncGenerator[tuple[str, list[str]]]:
        """Whose rows change, as they do."""


class Line:
    """One user's own line on one board, and the screens that show it."""

    __slots__ = ("_lines", "_missed", "_watchers", "board", "forms", "later", "standing", "then", "user")

    def __init__(self, lines: Lines, board: str, user: str) -> None:
        self._lines = lines
        self.board, self.user = board, user
        self.standing: Standing | None = None
        """What it said last; ``None`` before."""
        self.forms: wire.Forms | None = None
        # By "own": of what others do (False), and of the user's own actions (True).
        self.then = [0.0, 0.0]
        """When it may speak again."""
        self.later = [False, False]
        """Is it waiting for that?"""
        self._watchers: set[Watcher] = set()
        self._missed: set[Watcher] = set()

    def __len__(self) -> int:
        """Screens."""
        return len(self._watchers)

    def join(self, watcher: Watcher) -> None:
        """Show the line on one more screen, soon."""
        self._watchers.add(watcher)
        if self.forms is None:
            self._lines.read(self, own=False)
        else:
            self._offer(watcher)

    def leave(self, watcher: Watcher) -> None:
        """Show it there no more."""
        self._watchers.discard(watcher)
        self._missed.discard(watcher)
        if not self._watchers:
            self._lines.forget(self)

    def resumed(self, watcher: Watcher) -> None:
        """A screen can take messages again."""
        if watcher in self._missed:
            self._missed.discard(watcher)
            self._offer(watcher)

    def say(self, standing: Standing, now: float, *, own: bool) -> None:
        """Tell all its screens where the user stands."""
        self.standing, self.then[False] = standing, now + SECOND
        if own:
            self.then[True] = now + SECOND
        self.forms = wire.you(self.board, standing.seq, standing.around())
        for watcher in self._watchers:
            self._offer(watcher)

    def _offer(self, watcher: Watcher) -> None:
        if watcher.paused:
            self._missed.add(watcher)
        elif self.forms is not None:
            watcher.write(self.forms[watcher.form])


class Lines:
    """All own lines that somebody watches in this process. ``run`` must be running."""

    def __init__(self, source: Source, boards: Sequence[str]) -> None:
        self._source, self._boards = source, boards
        self._lines: dict[tuple[str, str], Line] = {}
        self._due: dict[Line, bool] = {}
        """To be read now, in this order; is it for the user's own action?"""
        self._looked: dict[Line, None] = {}
        """To be read when nothing is due: perhaps others have moved them."""
        self._later: list[tuple[float, int, Line, bool]] = []
        """A heap of those that have something to say and must not yet: when, a number, the line, own."""
        self._numbers = count()
        self._rested = 0.0
        """When the board's server has had its rest from looks."""
        self._seen: dict[str, tuple[bytes | None, bool]] = {}
        """Of each board what ``changes`` said, and whether it had said the same before."""
        self._somebody = asyncio.Event()
        self._wake = asyncio.Event()

    def line(self, board: str, user: str) -> Line:
        """The line of a user on a board; somebody is about to join it."""
        line = self._lines.get((board, user))
        if line is None:
            line = self._lines[board, user] = Line(self, board, user)
            self._somebody.set()
        return line

    def read(self, line: Line, *, own: bool) -> None:
        """Read a line as soon as it may speak."""
        if line.then[own] <= asyncio.get_running_loop().time():
            self._due[line] = own or self._due.get(line, False)
            self._wake.set()
        elif not line.later[own]:
            line.later[own] = True
            heapq.heappush(self._later, (line.then[own], next(self._numbers), line, own))
            self._wake.set()

    def forget(self, line: Line) -> None:
        """Nobody watches it any more."""
        if self._lines.get((line.board, line.user)) is line:
            del self._lines[line.board, line.user]
            self._due.pop(line, None)
            self._looked.pop(line, None)
            if not self._lines:
                self._somebody.clear()

    async def run(self) -> None:
        """Keep all lines up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="whose rows change")
            tasks.create_task(self._keep_reading(), name="own lines")

    async def _listen(self) -> None:
        """Read the lines of those whose rows change, while there are lines."""
        while True:
            await self._somebody.wait()
            try:
                async with aclosing(self._source.touched(self._boards)) as touched:
                    async for board, users in touched:
                        for user in users:
                            line = self._lines.get((board, user))
                            if line is not None:
                                self.read(line, own=True)
                        if not self._lines:
                            break
            except BoardUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _keep_reading(self) -> None:
        loop = asyncio.get_running_loop()
        look = loop.time()
        while True:
            if not self._lines:
                self._later.clear()
                self._seen.clear()
                await self._somebody.wait()
                look = loop.time() + SECOND
            await self._pause(look)
            try:
                self._come_to_their_time()
                if loop.time() >= look:
                    look = loop.time() + SECOND
                    await self._look()
                await self._read()
            except BoardUnavailable:
                self._seen.clear()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _pause(self, look: float) -> None:
        """Until something is to be done."""
        loop = asyncio.get_running_loop()
        while not self._due:
            moments = [look]
            if self._later:
                moments.append(self._later[0][0])
            if self._looked:
                moments.append(self._rested)
            if min(moments) <= loop.time():
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(moments)):
                    await self._wake.wait()

    def _come_to_their_time(self) -> None:
        """Those who had to wait and need no more are due."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            _, _, line, own = heapq.heappop(self._later)
            line.later[own] = False
            if len(line):
                self.read(line, own=own)

    async def _look(self) -> None:
        """Have all lines read of those boards on which anything has changed."""
        boards = list({board for board, _ in self._lines})
        changed = set()
        for board, mark in zip(boards, await self._source.changes(boards), strict=True):
            same, again = self._seen.get(board, (b"", False))
            # Once more after the last change: a mark does not tell two within a millisecond.
            if mark != same or not again:
                changed.add(board)
            self._seen[board] = (mark, mark == same)
        self._looked |= {line: None for line in self._lines.values() if line.board in changed}

    async def _read(self) -> None:
        """Read what is due, and as much as there is room for of what is only looked at; say what is new."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        lines = list(islice(self._due, READ))
        due = len(lines)
        if began >= self._rested:
            lines += islice((line for line in self._looked if line not in self._due), READ - due)
        if not lines:
            return
        # Taken out before: whoever changes while they are read is due again.
        owns = [self._due.pop(line, False) for line in lines]
        for line in lines:
            self._looked.pop(line, None)
        try:
            standings = await self._source.standings([(line.board, line.user) for line in lines])
        except BoardUnavailable:
            self._due |= {line: own for line, own in zip(lines, owns, strict=True) if len(line)}
            raise
        now = loop.time()
        if len(lines) > due:
            self._rested = now + (now - began) * (1 / SHARE - 1)
        for number, (line, own, standing) in enumerate(zip(lines, owns, standings, strict=True), 1):
            if standing is None or not len(line):
                continue  # there is no board now; once there is, its mark is another
            if line.standing is None or standing.text != line.standing.text:
                if line.then[own] <= now:
                    with contextlib.suppress(BoardDamaged):  # once it can be read, it is another one
                        line.say(standing, now, own=own)
                else:
                    self.read(line, own=own)
            if number % SAID == 0:
                await asyncio.sleep(0)
