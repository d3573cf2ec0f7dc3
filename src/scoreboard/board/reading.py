"""What is shown of a board: frames, pages, one user's surroundings, ranks. Never writes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from scoreboard.board import form
from scoreboard.board.comparing import Comparing, Difference, Walked
from scoreboard.board.server import Argument, Server
from scoreboard.board.watching import touched, watch
from scoreboard.config import Config
from scoreboard.model import Frame, Row

logger = logging.getLogger(__name__)

PAGE_LINES = 1_000  # lines a page at most: one bulk command's bound in the script, and a few ms of the server
NEIGHBOURS = 2  # lines above and below one's own
RANKS_USERS = 1_000  # users a script call: about 3 ms of the server, so that no call keeps it long
STANDINGS_USERS = 200  # the same, with their neighbours


class Reader:
    """All boards of one deployment, to be read.

    A board that has not been built, or was built in another form, reads as ``None`` until it is rebuilt; its
    last frame stays. All methods raise ``BoardUnavailable`` when the server does not answer, ``BoardDamaged``
    when nobody can read what it answers, ``KeyError`` for a board that the configuration does not have.
    """

    def __init__(self, url: str, config: Config) -> None:
        self._server = Server(url)
        self._specs = form.specs(config, self._server.number)

    async def close(self) -> None:
        """Close all connections."""
        await self._server.close()

    def order(self, board: str) -> str:
        """``"desc"``: the highest score is the best; or ``"asc"``."""
        return self._specs[board].order

    async def frame(self, board: str) -> Frame | None:
        """The newest frame, the same for all who ask until the visible top changes."""
        spec = self._specs[board]
        (raw,) = await self._server.fields([spec.meta], "frame")
        return None if raw is None else form.frame(spec, raw)

    def frames(
        self, boards: Iterable[str], contact: Callable[[str, bool], None] = lambda _board, _there: None
    ) -> AsyncIterator[Frame]:
        """The newest frame of each board, then each new one, for ever; silent while the server is away.

        What pub/sub loses is read a second later. Close the iterator (``aclosing``) to end it.

        Args:
            boards: their names.
            contact: called with a board's name, and whether it can be followed now: the server answers and
                has a frame of it. Called with the same again and again, too.
        """
        return watch(self._server, [self._specs[board] for board in boards], contact)

    def touched(self, boards: Iterable[str]) -> AsyncGenerator[tuple[str, list[str]]]:
        """(board, users whose rows changed), right after each change, for as long as the server answers.

        What is published while nobody listens is not told later.
        """
        return touched(self._server, [self._specs[board] for board in boards])

    async def changes(self, boards: Sequence[str]) -> list[bytes | None]:
        """For each board something that is another after anything on it has changed.

        Not if that was within the same millisecond: what was read in between is old, and looks new.
        """
        return await self._server.fields([self._specs[board].meta for board in boards], "at")

    async def page(self, board: str, *, limit: int, after: str | None = None) -> form.Page | None:
        """Up to ``limit`` (1 to ``PAGE_LINES``) lines as they are now, best first.

        ``after`` is the ``next`` of an earlier page. It stands for a place in the order, not for a number of
        lines, so that nobody is skipped or shown twice because somebody else moved.

        Raises:
            ValueError: the cursor is malformed or another board's, or the limit out of range.
        """
        if not 1 <= limit <= PAGE_LINES:
            raise ValueError(f"the limit must be 1 to {PAGE_LINES}")
        spec = self._specs[board]
        answer = await self._page(spec, limit, None if after is None else form.place_of(board, after))
        if answer is None:
            return None
        with form.readable(board):
            epoch, seq, at, total, before, rank, scored, values = answer
            entries = form.entries(scored[::2], values)
            shown = form.lines(spec.mode, entries, before=before, rank=rank)
            last = entries[-1] if entries and before + len(entries) < total else None
            return form.Page(
                board=board,
                epoch=epoch.decode(),
                seq=int(seq),
                at=at.decode(),
                total=total,
                top=shown,
                next=None if last is None else form.cursor(board, last),
            )

    async def standings(self, pairs: Sequence[tuple[str, str]]) -> list[form.Standing | None]:
        """Where each (board, user) stands, in one round trip; ``None`` while there is no board.

        A line and its two neighbours on each side are of one moment; ``to_next`` is explained at
        ``form.to_next``.
        """
        parts = _parts(pairs, STANDINGS_USERS)
        answers = await self._server.run(
            self._server.read,
            [
                self._call(self._specs[board], "lines", NEIGHBOURS, *(pairs[n][1] for n in numbers))
                for board, numbers in parts
            ],
        )
        found: list[form.Standing | None] = [None] * len(pairs)
        for (board, numbers), answer in zip(parts, answers, strict=True):
            if answer is None:
                continue
            with form.readable(board):
                seq = int(answer[0])
            for n, text in zip(numbers, answer[1:], strict=True):
                if text is None:
                    logger.error("a board is damaged; `scoreboard verify` says how", extra={"board": board})
                else:
                    found[n] = form.Standing(self._specs[board], pairs[n][1], seq, text)
        return found

    async def ranks(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[int | None, int | None]]:
        """(score, displayed rank) for each (board, user), in one round trip; ``None`` without an entry."""
        parts = _parts(pairs, RANKS_USERS)
        answers = await self._server.run(
            self._server.read,
            [
                self._call(self._specs[board], "ranks", *(pairs[n][1] for n in numbers))
                for board, numbers in parts
            ],
        )
        found: list[tuple[int | None, int | None]] = [(None, None)] * len(pairs)
        for (_, numbers), answer in zip(parts, answers, strict=True):
            for n, value, rank in zip(numbers, answer[::2], answer[1::2], strict=True) if answer else ():
                one = form.entry(pairs[n][1], value)
                if one is not None:
                    found[n] = (one.score, rank or None)
        return found

    async def states(self, board: str, pairs: Sequence[tuple[str, str]]) -> form.States | None:
        """What is held of (user, member of the ranking), at one moment; ``None`` while there is no board."""
        spec = self._specs[board]
        answer = await self._read(spec, "states", *(text for pair in pairs for text in pair))
        if answer is None:
            return None
        generation, positions, *found = answer
        with form.readable(board):
            upto = {int(n): int(at) for n, at in zip(positions[::2], positions[1::2], strict=True)}
            keys = (int(float(key)) if key else None for key in found[1::2])
            return form.States(generation, upto, list(zip(found[::2], keys, strict=True)))

    async def members(
        self, board: str, limit: int, after: tuple[int, str] | None = None
    ) -> list[tuple[int, str]]:
        """(score, member) of up to ``PAGE_LINES`` members of the ranking, best first, after one of them."""
        spec = self._specs[board]
        answer = await self._page(spec, limit, after)
        scored = answer[-2] if answer is not None else []
        with form.readable(board):
            return [
                (spec.key_of(int(float(key))), member.decode())
                for member, key in zip(scored[::2], scored[1::2], strict=True)
            ]

    async def compare(self, board: str, rows: AsyncIterator[Sequence[Row]]) -> list[Difference]:
        """What differs between the board and all rows of the database; ``DIFFERENCES`` or so at most.

        Args:
            board: its name.
            rows: all of the board's rows, best first. Hidden users come with ``score`` ``None`` or not at
                all: either way they may have no entry.
        """
        spec = self._specs[board]
        comparing = Comparing(spec, self._walk(spec))
        try:
            await comparing.run(rows)
        finally:
            await comparing.close()
        if comparing.built:
            comparing.check_frame(await self.frame(board), await self.page(board, limit=spec.top))
        return comparing.found

    async def _walk(self, spec: form.Spec) -> AsyncIterator[list[Walked]]:
        """All entries, best first, in chunks. An empty board gives one chunk of nothing, no board none."""
        place: tuple[int, str] | None = None
        while (answer := await self._page(spec, PAGE_LINES, place)) is not None:
            rank, scored, values = answer[-3:]
            chunk = []
            with form.readable(spec.board):
                for member, score, value in zip(scored[::2], scored[1::2], values, strict=True):
                    user = form.user_of(member)
                    key = int(float(score))  # a double may be printed as 1e+15
                    chunk.append(Walked(key, int(member[: form.WIDTH]), user, form.entry(user, value), rank))
            yield chunk
            if len(chunk) < PAGE_LINES:
                return
            place = spec.key_of(chunk[-1].key), form.member_of(chunk[-1].reached, chunk[-1].user)

    async def _page(self, spec: form.Spec, limit: int, place: tuple[int, str] | None) -> Any:
        score, member = ("", "") if place is None else place
        return await self._read(spec, "page", limit, score, member)

    async def _read(self, spec: form.Spec, question: str, *arguments: str | int) -> Any:
        (answer,) = await self._server.run(self._server.read, [self._call(spec, question, *arguments)])
        return answer

    @staticmethod
    def _call(spec: form.Spec, *arguments: Argument) -> tuple[str, list[Argument]]:
        """A script's key and arguments; all scripts begin alike."""
        return spec.meta, [spec.shape, spec.mode, *arguments]


def _parts(pairs: Sequence[tuple[str, str]], size: int) -> list[tuple[str, list[int]]]:
    """The places of (board, user) pairs by board, at most ``size`` in a part."""
    places: dict[str, list[int]] = {}
    for n, (board, _) in enumerate(pairs):
        places.setdefault(board, []).append(n)
    return [
        (board, numbers[start : start + size])
        for board, numbers in places.items()
        for start in range(0, len(numbers), size)
    ]
