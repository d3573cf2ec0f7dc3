"""What the worker does to the boards: apply, catch up, rebuild."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from msgspec import Struct

from scoreboard.board import form
from scoreboard.board.reading import Reader
from scoreboard.board.server import Argument, BoardBehind
from scoreboard.config import Config
from scoreboard.errors import BoardUnavailable, first_of
from scoreboard.model import Row
from scoreboard.texts import text_of_time

PIECE_ROWS = 4_000  # rows a script call where somebody waits: keeps the server some 20 to 40 ms
CHUNK_ROWS = 1_000  # rows a script call where nobody waits for all at once: keeps the server about 10 ms
LEASE_MILLISECONDS = 15_000  # a rebuild that has not moved for this long is dead; longer than any chunk takes
RENEW_SECONDS = 5.0  # while it waits for rows, a rebuild says this often that it lives

Ranks = dict[str, tuple[int | None, int | None]]
"""For each wanted user the displayed rank before and after; ``None`` without an entry or a board."""


class Batch(Struct, frozen=True):
    """What a worker applied to one board in one transaction of the database."""

    board: str
    rows: Sequence[Row]
    partition: int
    expect: int | None
    """Where the board must be (``upto``) for this batch to be what comes next; ``None``: anywhere."""
    upto: int
    """Where it is then: the ``accept_no`` up to which this partition has been written."""
    wanted: Collection[str] = ()

    def pieces(self) -> list[Batch]:
        """The same in batches that do not keep the server for long; to be applied in this order.

        Rows come in the order in which they last changed, and each piece says how far the board is after it:
        all that last changed up to there is in it or in one before. So the next one misses a piece that is
        lost. What changed together is not parted. A board that has caught up beyond these rows stays there.
        """
        rows = sorted(self.rows, key=attrgetter("changed")) if len(self.rows) > PIECE_ROWS else self.rows
        found: list[Batch] = []
        begin, expect, wanted = 0, self.expect, set(self.wanted)
        while len(rows) - begin > PIECE_ROWS:
            end = begin + PIECE_ROWS
            while end < len(rows) and rows[end].changed == rows[end - 1].changed:
                end += 1
            piece, upto = rows[begin:end], max(rows[end - 1].changed, expect or 0)
            here = wanted.intersection(row.user for row in piece)
            found.append(Batch(self.board, piece, self.partition, expect, upto, here))
            begin, expect, wanted = end, upto, wanted - here
        upto = max(self.upto, expect or 0)
        found.append(Batch(self.board, rows[begin:], self.partition, expect, upto, wanted))
        return found


class Board(Reader):
    """All boards of one deployment.

    Set ``database`` to the identity of the database that they follow before anything is written.
    """

    def __init__(self, url: str, config: Config, database: str = "") -> None:
        super().__init__(url, config)
        self.database = database

    async def position(self, board: str) -> dict[int, int] | None:
        """How far each partition has been written to the board that is shown.

        ``None``: there is none, or it follows another database or has another form. It must be rebuilt; while
        that is under way it stays ``None``, and ``apply`` works.
        """
        spec = self._specs[board]
        meta = await self._server.whole(spec.meta)
        followed = (meta.get("database"), meta.get("shape")) == (self.database.encode(), spec.shape.encode())
        if "generation" not in meta or not followed:
            return None
        with form.readable(board):
            return {
                int(field.removeprefix("upto:")): int(value)
                for field, value in meta.items()
                if field.startswith("upto:")
            }

    async def apply(self, batches: Sequence[Batch]) -> list[Ranks | BoardUnavailable]:
        """Write some batches in one round trip, each all or nothing, in this order.

        Each answers its wanted users' ranks, or why it could not be written: ``BoardBehind`` if its board was
        not where it should be (nothing was changed then), else ``BoardUnavailable`` (it may have been).
        """
        at = _now()
        try:
            answers = await self._server.run_each(
                self._server.apply, [self._batch(batch, at=at) for batch in batches]
            )
        except BoardUnavailable as error:
            return [error] * len(batches)
        return [_ranks(batch, answer) for batch, answer in zip(batches, answers, strict=True)]

    async def catch_up(self, board: str, rows: Sequence[Row], *, partition: int, upto: int) -> None:
        """Write the current rows of all that changed since the board's position; then it is at ``upto``.

        The board gets a new epoch and shows its frame, whether or not anything changed. That and ``upto``
        come with the last chunk, so that an interrupted catching up has promised nothing.

        Raises:
            BoardBehind: there is no board, or the server lost a chunk meanwhile.
        """
        token = secrets.token_hex(4)
        parts = form.chunks(rows, CHUNK_ROWS)
        for n, part in enumerate(parts):
            last = n == len(parts) - 1
            call = self._batch(
                Batch(board, part, partition, None, upto),
                at=_now() if last else "",
                upto=last,
                epoch=_epoch() if last else "",
                have=f"{token}:{n}" if n else "",
                then="" if last else f"{token}:{n + 1}",
            )
            (answer,) = await self._server.run(self._server.apply, [call])
            if answer is None:
                raise BoardBehind

    async def rebuild(
        self,
        board: str,
        *,
        upto: Mapping[int, int],
        rows: AsyncIterator[Sequence[Row]],
        progress: Callable[[int], None] | None = None,
    ) -> int | None:
        """Build the board anew from the database; until it is done the old one stays, if there is one.

        Updates go on meanwhile, to both. None falls between: they are written to what is being built from
        before the snapshot is taken, and by version it does not matter what comes first.

        Args:
            board: its name.
            upto: how far the database had applied each partition, read *before* this call.
            rows: all rows of the board, from one snapshot that is taken at the first step of the iteration.
                Best first they cost the server a third less.
            progress: called with the number of rows written so far.

        Returns:
            How many rows were written; ``None`` if another rebuild of this board is under way.

        Raises:
            BoardBehind: what was being built is no longer there. Begin again.
        """
        spec, generation, count, loaded = self._specs[board], secrets.token_hex(8), 0, 0

        async def step(name: str, *arguments: str | int) -> bool:
            call = self._call(spec, name, generation, *arguments)
            (answer,) = await self._server.run(self._server.rebuild, [call])
            return bool(answer)

        async def load(arguments: Sequence[str]) -> None:
            nonlocal loaded
            try:
                done = await step("load", loaded, LEASE_MILLISECONDS, *arguments)
            except BoardUnavailable:
                # Once more, a million rows are worth it; the script knows whether it was written.
                done = await step("load", loaded, LEASE_MILLISECONDS, *arguments)
            if not done:
                raise BoardBehind
            loaded += 1

        positions = [text for number, at in upto.items() for text in (str(number), form.version(at))]
        try:
            if not await step("begin", self.database, LEASE_MILLISECONDS, *positions):
                return None
            parts: list[_Part] | None = []
            while parts is not None:
                # The next rows are read and prepared while these are written: a core for us, another for the
                # server.
                async with asyncio.TaskGroup() as both:
                    reading = both.create_task(_next(rows))
                    for size, arguments in parts:
                        await load(arguments)
                        count += size
                        if progress is not None:
                            progress(count)
                    while not (await asyncio.wait([reading], timeout=RENEW_SECONDS))[0]:
                        await load(())  # the database sorts, or is slow: the lease is renewed
                parts = reading.result()
            if not await step("swap", loaded, _epoch(), _now(), spec.top, spec.channel):
                raise BoardBehind
        except BaseException as error:
            with suppress(BoardUnavailable):  # else its lease ends by itself
                await step("abandon")
            if isinstance(error, BaseExceptionGroup):
                raise first_of(error) from error
            raise
        finally:
            if isinstance(rows, AsyncGenerator):
                await rows.aclose()
        return count

    async def repair(
        self, board: str, generation: bytes, damaged: Sequence[tuple[str, bytes, str]], rows: Sequence[Row]
    ) -> bool:
        """Forget what is damaged, then write the database's rows of those users, by version as ever.

        Args:
            board: its name.
            generation: in which it was seen; if another is shown now, nothing is done.
            damaged: (user, the value that was seen, a member of the ranking). One whose value has changed
                meanwhile is left alone.
            rows: the database's rows of all these users who have one.
        """
        spec = self._specs[board]
        call = self._call(
            spec,
            self.database,
            spec.channel,
            _now(),
            spec.top,
            generation,
            len(damaged),
            *(part for one in damaged for part in one),
            *form.arguments(rows),
        )
        (answer,) = await self._server.run(self._server.repair, [call])
        return bool(answer)

    def _batch(
        self, batch: Batch, *, at: str, upto: bool = True, epoch: str = "", have: str = "", then: str = ""
    ) -> tuple[str, list[Argument]]:
        """The call of apply.lua, its arguments in its order."""
        spec = self._specs[batch.board]
        return self._call(
            spec,
            self.database,
            spec.channel,
            at,
            spec.top,
            batch.partition,
            "" if batch.expect is None else form.version(batch.expect),
            form.version(batch.upto) if upto else "",
            epoch,
            have,
            then,
            LEASE_MILLISECONDS,
            len(batch.wanted),
            *batch.wanted,
            *form.arguments(batch.rows),
        )


_Part = tuple[int, list[str]]
"""How many rows, and the same as the script takes them."""


async def _next(rows: AsyncIterator[Sequence[Row]]) -> list[_Part] | None:
    chunk = await anext(rows, None)
    if chunk is None:
        return None
    return [(len(part), form.arguments(part)) for part in form.chunks(chunk, CHUNK_ROWS)]


def _ranks(batch: Batch, answer: Any) -> Ranks | BoardUnavailable:
    if isinstance(answer, BoardUnavailable):
        return answer
    if answer is None:
        return BoardBehind()
    pairs = zip(batch.wanted, answer[::2], answer[1::2], strict=True)
    return {user: (before or None, after or None) for user, before, after in pairs}


def _now() -> str:
    return text_of_time(datetime.now(UTC))


def _epoch() -> str:
    return secrets.token_hex(4)
