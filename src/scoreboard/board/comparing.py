"""Comparing a board with the database: two sorted streams, merged as one reads a zip.

Both come best first, in the same total order, so a million rows need memory only for what differs. An entry
that only one side has is kept until the other side's entry of the same user comes by, or the end. Nothing is
locked: what changes meanwhile shows as a difference, and is gone when one looks again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from scoreboard.board import form
from scoreboard.model import Frame, Row

DIFFERENCES = 1_000  # after this many the comparison ends: somebody has to rebuild, not to read on


class Difference(Struct, frozen=True):
    """One thing that the board has otherwise than the database."""

    board: str
    what: Literal["no board", "missing", "extra", "score", "reached", "name", "entry", "rank", "frame"]
    """``entry``: the ranking and the user's own entry disagree; ``rank``: the displayed ranks are wrong;
    ``frame``: the stored frame is not the top."""
    user: str
    """Empty where it is no single user's."""
    database: str
    """What should be there."""
    found: str

    def __str__(self) -> str:
        whose = f" {self.user!r}" if self.user else ""
        return f"{self.board}{whose}: {self.what}: database {self.database}, board {self.found}"


class Walked(Struct, frozen=True):
    """One member of the ranking."""

    key: int
    reached: int
    user: str
    entry: form.Entry | None
    """What the user's own value says; ``None`` without one."""
    chunk_rank: int
    """The displayed rank of the first member of its chunk."""

    @property
    def place(self) -> tuple[int, int, bytes]:
        """What the order goes by."""
        return self.key, self.reached, self.user.encode()


class Comparing:
    """One comparison under way."""

    def __init__(self, spec: form.Spec, walk: AsyncIterator[list[Walked]]) -> None:
        self._spec, self._walk = spec, walk
        self._chunk: list[Walked] = []
        self._next = 0
        self._members = self._distinct = 0
        self._last: Walked | None = None
        self._lacking: dict[str, Row] = {}
        self._surplus: dict[str, Walked] = {}
        self.found: list[Difference] = []
        self.built = False
        """Is there a board?"""

    async def run(self, rows: AsyncIterator[Sequence[Row]]) -> None:
        """Merge the two streams until both end, or there is too much to report."""
        here = await self._step()
        if not self.built:
            self._differs("no board", "", "a board", "none")
            return
        async for chunk in rows:
            for row in chunk:
                if row.score is None:
                    continue
                key = self._spec.key_of(row.score)
                place = (key, row.reached, row.user.encode())
                while here is not None and here.place < place:
                    self._only_here(here)
                    here = await self._step()
                if here is not None and here.place == place:
                    self._same(row, here)
                    here = await self._step()
                else:
                    self._only_there(row)
            if self._full:
                return
        while here is not None and not self._full:
            self._only_here(here)
            here = await self._step()
        for user, row in self._lacking.items():
            self._differs("missing", user, _described(row.score, row.reached), "nothing")
        for user, walked in self._surplus.items():
            self._differs("extra", user, "nothing", self._description(walked))

    async def close(self) -> None:
        """End the walk."""
        if isinstance(self._walk, AsyncGenerator):
            await self._walk.aclose()

    def check_frame(self, frame: Frame | None, page: form.Page | None) -> None:
        """Is the stored frame the top? What is not visible in it (``total``) may lag behind."""
        if frame is None or page is None or frame.top != page.top:
            self._differs("frame", "", str(page.top if page else None), str(frame.top if frame else None))

    @property
    def _full(self) -> bool:
        return len(self.found) + len(self._lacking) + len(self._surplus) >= DIFFERENCES

    async def _step(self) -> Walked | None:
        """The next member of the ranking."""
        while self._next == len(self._chunk):
            try:
                self._chunk = await anext(self._walk)
            except StopAsyncIteration:
                return None
            self.built, self._next = True, 0
            if self._chunk:
                self._check_rank(self._chunk)
        self._next += 1
        return self._chunk[self._next - 1]

    def _check_rank(self, chunk: list[Walked]) -> None:
        """The rank that is displayed for a chunk's first line follows from all that stand before it."""
        first = chunk[0]
        self._members += 1
        if self._last is None or first.key != self._last.key:
            self._distinct += 1
            shared = self._members
        else:
            shared = None  # it began in an earlier chunk; the ranks of that were checked there
        expected = {"ordinal": self._members, "competition": shared, "dense": self._distinct}
        right = expected[self._spec.mode]
        if right is not None and first.chunk_rank != right:
            self._differs("rank", first.user, str(right), str(first.chunk_rank))
        self._distinct += sum(one.key != other.key for one, other in pairwise(chunk))
        self._members += len(chunk) - 1
        self._last = chunk[-1]

    def _same(self, row: Row, walked: Walked) -> None:
        entry = walked.entry
        if entry is None or (entry.score, entry.reached) != (row.score, row.reached):
            own = "nothing" if entry is None else _described(entry.score, entry.reached)
            self._differs("entry", row.user, _described(row.score, row.reached), own)
        elif entry.name != form.shown_name(row):
            self._differs("name", row.user, form.shown_name(row), entry.name)

    def _only_there(self, row: Row) -> None:
        walked = self._surplus.pop(row.user, None)
        if walked is None:
            self._lacking[row.user] = row
        else:
            self._moved(row, walked)

    def _only_here(self, walked: Walked) -> None:
        row = self._lacking.pop(walked.user, None)
        if row is None:
            self._surplus[walked.user] = walked
        else:
            self._moved(row, walked)

    def _moved(self, row: Row, walked: Walked) -> None:
        score = self._spec.key_of(walked.key)
        what: Literal["score", "reached"] = "reached" if score == row.score else "score"
        self._differs(what, row.user, _described(row.score, row.reached), self._description(walked))

    def _description(self, walked: Walked) -> str:
        return _described(self._spec.key_of(walked.key), walked.reached)

    def _differs(
        self,
        what: Literal["no board", "missing", "extra", "score", "reached", "name", "entry", "rank", "frame"],
        user: str,
        database: str,
        found: str,
    ) -> None:
        self.found.append(Difference(self._spec.board, what, user, database, found))


def _described(score: int | None, reached: int) -> str:
    return f"{score} reached by {reached}"
