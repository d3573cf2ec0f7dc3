"""Drift: what a board has otherwise than the database, found and mended while all goes on.

In come a board's entries and the database's rows, a few at a time; out go repairs. Whoever applies the first
partition runs the checker. Each step looks at the stored frame and the top of one board (what all see), and
goes on with a sweep: the database's rows by user, which finds what is missing or wrong, and the ranking from
the top, which finds what is too much. A small board rests between two sweeps. So every entry is compared
again and again, and the cost of a step is bounded whatever the size of the board.

Updates that are on their way are no drift, and telling them apart needs no waiting. A suspect is read from
the board, from the database, and from the board again. If its value is the same both times, then:

- an equal version with another content is drift: one version has one content;
- a newer version than the database's is drift: the board was written after the commit, and read before it;
- an older one is drift if the board has been written up to the row's version (``upto``), else on its way.

What is mended is first forgotten, if it still is what was seen, and then written as by a refresh: absolute,
by version. Where most of a step is wrong, or something cannot even be read, the board is rebuilt. A board
that is empty, or another database's, has no position; the refresher (refresh.py) rebuilds it.

It must never hold up the log, change the database, or touch an entry that has changed since it was seen.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence

from scoreboard import metrics
from scoreboard.board import Board
from scoreboard.board.form import WIDTH, States, entry, member_of, value_of
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.errors import BoardDamaged, Unavailable
from scoreboard.group_commit import partition_of
from scoreboard.model import Row
from scoreboard.refresh import rebuild

logger = logging.getLogger(__name__)

STEP_SECONDS = (
    1.0  # between two steps: up to 2,100 entries are compared in each, some 25 ms of processor time
)
HURRY_SECONDS = 0.05  # the same, from where drift was found to the end of the next sweep
SWEEP_SECONDS = 10.0  # from one sweep of a board to the next, unless the last found something
ROWS = 1_000  # of the database a step, and as many of the ranking
TOP_ROWS = 100  # of the top, each step: more than any frame shows
REBUILD_SHARE = 0.5  # of a step that is wrong; beyond it repairing costs more than rebuilding
REBUILD_ROWS = 200  # wrong in a step at least; below it repairing is always cheaper

Pair = tuple[str, str]
"""A user, and a member of the ranking that is the user's or should be."""


class _Sweep:
    """How far a board has been compared."""

    def __init__(self, found_before: int = 0) -> None:
        self.user = ""
        self.place: tuple[int, str] | None = None
        self.rows_done = self.members_done = False
        self.began = time.monotonic()
        self.found = 0
        self.found_before = found_before
        """In the sweep before this one."""

    @property
    def done(self) -> bool:
        """Has all of the board been compared? From then on only its top is, until the next sweep."""
        return self.rows_done and self.members_done


class Checker:
    """Compares all boards of a deployment with its database, and mends them."""

    def __init__(self, config: Config, database: Database, board: Board) -> None:
        self._database, self._board = database, board
        self._partitions = config.queue.partitions
        self._specs = {
            name: (one.top, -1 if one.order == "desc" else 1) for name, one in config.boards.items()
        }

    async def run(self) -> None:
        """Compare until cancelled, one board after the other, a step of each."""
        sweeps = {name: _Sweep() for name in self._specs}
        for name in itertools.cycle(sweeps):
            sweep = sweeps[name]
            if sweep.done and (sweep.found or time.monotonic() - sweep.began >= SWEEP_SECONDS):
                sweep = sweeps[name] = _Sweep(sweep.found)
            was_done = sweep.done
            hurrying = not was_done and (sweep.found or sweep.found_before)
            await asyncio.sleep(HURRY_SECONDS if hurrying else STEP_SECONDS)
            try:
                await self._step(name, sweep)
            except Unavailable as error:
                logger.debug("a board is not compared: %s", error, extra={"board": name})
            except Exception:  # a fault of ours: the log, which the same worker applies, must go on
                logger.exception("a board is not compared", extra={"board": name})
            if sweep.done and not was_done:
                metrics.DRIFT_SWEEPS.inc()

    async def _step(self, board: str, sweep: _Sweep) -> None:
        try:
            await self._compare(board, sweep)
        except BoardDamaged as error:
            logger.error("a board is rebuilt: %s", error, extra={"board": board})
            metrics.DRIFT.labels("unreadable").inc()
            await rebuild(self._database, self._board, board)

    async def _compare(self, board: str, sweep: _Sweep) -> None:
        if await self._board.position(board) is None:
            return  # the refresher rebuilds it
        pairs = await self._pairs(board, sweep)
        suspects, seen = await self._suspects(board, pairs)
        metrics.DRIFT_CHECKED.inc(len(pairs))
        if suspects and seen is not None:
            sweep.found += await self._mend(board, suspects, seen, len(pairs))
        await self._check_frame(board)

    async def _check_frame(self, board: str) -> None:
        """A frame that is stored is the top, at any moment."""
        try:
            frame = await self._board.frame(board)
        except BoardDamaged:
            frame = None  # it is made again from what stands beside it
        page = await self._board.page(board, limit=self._specs[board][0])
        if page is None or (frame is not None and (frame.epoch, frame.seq) != (page.epoch, page.seq)):
            return
        if frame is None or frame.top != page.top:
            states = await self._board.states(board, [])
            if states is not None and await self._board.repair(board, states.generation, [], []):
                self._tell(board, "frame", "")

    async def _pairs(self, board: str, sweep: _Sweep) -> list[Pair]:
        """What this step looks at; the sweep goes on."""
        members = await self._board.members(board, TOP_ROWS)
        if not sweep.members_done:
            more = await self._board.members(board, ROWS, sweep.place)
            members += more
            sweep.members_done = len(more) < ROWS
            sweep.place = more[-1] if more else sweep.place
        pairs = {(member[WIDTH:], member): None for _, member in members}
        if not sweep.rows_done:
            rows = await self._database.rows_after(board, sweep.user, ROWS)
            pairs |= {
                (row.user, member_of(row.reached, row.user)): None for row in rows if row.score is not None
            }
            sweep.rows_done = len(rows) < ROWS
            sweep.user = rows[-1].user if rows else sweep.user
        return list(pairs)

    async def _suspects(self, board: str, pairs: Sequence[Pair]) -> tuple[list[Pair], States | None]:
        """The pairs that do not look as the database has them, with what was seen of them."""
        rows = await self._database.rows_of(board, {user for user, _ in pairs})
        states = await self._board.states(board, pairs)
        if states is None:
            return [], None
        wrong = [
            n
            for n, pair in enumerate(pairs)
            if self._wrong(board, pair, rows.get(pair[0]), *states.found[n]) is not None
        ]
        seen = States(states.generation, states.upto, [states.found[n] for n in wrong])
        return [pairs[n] for n in wrong], seen

    async def _mend(self, board: str, suspects: Sequence[Pair], seen: States, of: int) -> int:
        """Look again at the suspects, and mend those that have drifted; how many."""
        rows = await self._database.rows_of(board, {user for user, _ in suspects})
        states = await self._board.states(board, suspects)
        if states is None or states.generation != seen.generation:
            return 0
        damaged: list[tuple[str, bytes, str]] = []
        for pair, before, now in zip(suspects, seen.found, states.found, strict=True):
            row = rows.get(pair[0])
            what = self._wrong(board, pair, row, *now)
            if what is None or before[0] != now[0] or self._on_its_way(row, now[0], states.upto):
                continue
            damaged.append((pair[0], now[0], pair[1]))
            self._tell(board, what, pair[0])
        if len(damaged) > max(REBUILD_ROWS, REBUILD_SHARE * of):
            logger.error("a board is rebuilt, most of it has drifted", extra={"board": board})
            await rebuild(self._database, self._board, board)
        elif damaged:
            mended = {user: rows[user] for user, _, _ in damaged if user in rows}
            await self._board.repair(board, states.generation, damaged, list(mended.values()))
        return len(damaged)

    def _wrong(self, board: str, pair: Pair, row: Row | None, value: bytes, key: int | None) -> str | None:
        """What differs between a row and what the board has; ``None`` if nothing does."""
        user, member = pair
        if row is None or row.score is None:
            return "extra" if len(value) > WIDTH or key is not None else None
        wanted = self._specs[board][1] * row.score if member == member_of(row.reached, user) else None
        if value != value_of(row).encode():
            there = entry(user, value)
            if there is None:
                return "missing"
            return (
                "reached"
                if there.reached != row.reached
                else "score"
                if there.score != row.score
                else "entry"
            )
        if key == wanted:
            return None
        return "missing" if key is None else "extra" if wanted is None else "score"

    def _on_its_way(self, row: Row | None, value: bytes, upto: dict[int, int]) -> bool:
        """Will a row that is newer than what the board has still be written to it?"""
        version = value[:WIDTH]
        if row is None or (version and not version.isdigit()):
            return False
        written = max(int(version or 0), upto.get(partition_of(row.user, self._partitions), -1))
        return row.changed > written

    def _tell(self, board: str, what: str, user: str) -> None:
        metrics.DRIFT.labels(what).inc()
        logger.error("a board has drifted and is mended", extra={"board": board, "what": what, "user": user})
