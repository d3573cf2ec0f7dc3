"""Refresh: after a commit the boards are told, and those who wait for an outcome.

In come the rows and outcomes of committed batches, out go absolute, versioned rows to the boards and outcomes
to their inboxes. A board that is away, empty or behind never holds up the log: what cannot be told now is
dropped here and read again from the database later (everything that changed since the board's own ``upto``),
so what waits in memory is bounded, and a board can be lost at any moment and comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

import msgspec
from msgspec import Struct

from scoreboard import metrics
from scoreboard.board import Batch, Board
from scoreboard.board.writing import Ranks
from scoreboard.book import Applied
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.envelope import Sealer
from scoreboard.errors import BoardUnavailable, Unavailable
from scoreboard.model import PLACES, Accepted, BoardChange, Outcome, Row
from scoreboard.queue import Queue

logger = logging.getLogger(__name__)

WAITING_BATCHES = 32  # batches that may wait for the boards; beyond, the rows are read again later
MESSAGE_OUTCOMES = 100  # some 15 kB; NATS takes 1 MiB
AGAIN_SECONDS = (0.1, 2.0)  # back-off between tries to catch up: first, longest
# A board that no batch touches is told how far the log is this often: one that is lost while nobody scores is
# noticed by it.
ADVANCE_SECONDS = 1.0


class Committed(Struct, frozen=True):
    """What a committed batch means to the boards."""

    upto: int
    accepted_at: datetime | None
    """When its oldest event was accepted."""
    rows: Sequence[Row]
    outcomes: Sequence[tuple[Accepted, Outcome]]


class _Partition:
    """What is known of the boards, for one partition of the log."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Committed] = asyncio.Queue(WAITING_BATCHES)
        self.upto = 0
        """The last accept_no of what has been committed."""
        self.told: dict[str, int | None] = {}
        """How far each board has been told; ``None``: not known, it must catch up, the first one first."""
        self.missed = True
        """Has something been committed that will not come through ``arrived``? Then all must catch up."""
        self.advanced: dict[str, float] = {}
        self.begun = asyncio.Event()
        self.idle = asyncio.Event()
        """Is all told that came through ``arrived``?"""
        self.idle.set()
        self.again = 0.0
        """When boards that are behind may be tried again."""


class Refresher:
    """Tells the boards what was committed. ``run`` must be running."""

    def __init__(
        self, config: Config, database: Database, board: Board, queue: Queue, sealer: Sealer
    ) -> None:
        self.database = database
        self._sealer = sealer
        self.board, self._queue = board, queue
        self._boards = tuple(config.boards)
        self._partitions = [_Partition() for _ in range(config.queue.partitions)]
        self._rebuilding: dict[str, asyncio.Task[None]] = {}

    async def begin(self, partition: int, upto: int) -> None:
        """This worker now applies the partition, which has been applied up to ``upto``."""
        self.board.database = await self.database.identity()
        state = self._partitions[partition]
        state.upto = max(state.upto, upto)
        state.missed = True
        state.begun.set()

    def end(self, partition: int) -> None:
        """This worker no longer applies the partition: another may, and the boards follow that one."""
        self._partitions[partition].begun.clear()

    async def committed(
        self, partition: int, upto: int, applied: Applied, accepted_at: datetime | None
    ) -> None:
        """A batch has been committed. Never waits for a board."""
        state = self._partitions[partition]
        state.upto = upto
        batch = Committed(upto, accepted_at, applied.rows, applied.outcomes)
        try:
            state.arrived.put_nowait(batch)
            state.idle.clear()
        except asyncio.QueueFull:
            state.missed = True
            await self._answer(applied.outcomes, {})

    async def rest(self) -> None:
        """Return when all that was committed is told, as far as the boards take it."""
        for state in self._partitions:
            await state.idle.wait()

    async def run(self) -> None:
        """Keep the boards up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for state, partition in zip(self._partitions, range(len(self._partitions)), strict=True):
                tasks.create_task(self._keep_up(state, partition, tasks))

    async def _keep_up(self, state: _Partition, partition: int, tasks: asyncio.TaskGroup) -> None:
        pause = AGAIN_SECONDS[0]
        while True:
            if state.arrived.empty():
                state.idle.set()
                await state.begun.wait()
            batches = await self._next(state)
            if state.missed:
                state.missed, state.told = False, dict.fromkeys(state.told or self._boards)
            if self._behind(state) and time.monotonic() >= state.again:
                try:
                    await self._catch_up(state, partition, tasks)
                    pause = AGAIN_SECONDS[0]
                except Unavailable as error:
                    logger.warning("a board is behind: %s", error, extra={"partition": partition})
                    pause = min(2 * pause, AGAIN_SECONDS[1])
                state.again = time.monotonic() + pause
            if batches:
                await self._tell(state, partition, batches)

    @staticmethod
    def _behind(state: _Partition) -> bool:
        return state.missed or None in state.told.values()

    async def _next(self, state: _Partition) -> list[Committed]:
        """All that waits; without any, nothing once it is time to catch up, or to tell how far the log is."""
        behind = self._behind(state)
        limit = max(0.0, state.again - time.monotonic()) if behind else ADVANCE_SECONDS
        batches: list[Committed] = []
        try:
            async with asyncio.timeout(limit):
                batches.append(await state.arrived.get())
        except TimeoutError:
            # One may have come in that very moment: then ``upto`` is beyond what has been told.
            if state.arrived.empty():
                return [] if behind else [Committed(state.upto, None, (), ())]
        while not state.arrived.empty():
            batches.append(state.arrived.get_nowait())
        return batches

    async def _tell(self, state: _Partition, partition: int, committed: Sequence[Committed]) -> None:
        """Tell the boards that are up to date about these batches; answer who waits."""
        upto = committed[-1].upto
        rows: dict[str, dict[str, Row]] = {}
        for one in committed:
            for row in one.rows:
                rows.setdefault(row.board, {})[row.user] = row  # the later is the newer
        outcomes = [outcome for one in committed for outcome in one.outcomes]
        wanted: dict[str, set[str]] = {}
        for accepted, outcome in outcomes:
            for board in outcome.boards or ():
                wanted.setdefault(board, set()).add(accepted.entry.user)
        began = time.monotonic()
        batches = [
            Batch(board, list(rows.get(board, {}).values()), partition, expect, upto, wanted.get(board, ()))
            for board, expect in state.told.items()
            if expect is not None
            and (
                board in rows or board in wanted or began - state.advanced.get(board, 0.0) >= ADVANCE_SECONDS
            )
        ]
        ranks: dict[str, Ranks] = {}
        for pieces in zip_longest(*(batch.pieces() for batch in batches)):
            told = [piece for piece in pieces if piece is not None and state.told[piece.board] is not None]
            for piece, result in zip(told, await self.board.apply(told), strict=True):
                if isinstance(result, BoardUnavailable):
                    logger.warning("a board was not told: %s", result, extra={"board": piece.board})
                    state.told[piece.board] = None
                else:
                    ranks.setdefault(piece.board, {}).update(result)
                    state.told[piece.board] = piece.upto
                    state.advanced[piece.board] = began
        if batches:
            metrics.BOARD_SECONDS.observe(time.monotonic() - began)
        if ranks:
            now = datetime.now(UTC)
            for one in committed:
                if one.accepted_at is not None:
                    metrics.BOARD_LAG.observe(max((now - one.accepted_at).total_seconds(), 0.0))
        await self._answer(outcomes, ranks)

    async def _answer(self, outcomes: Sequence[tuple[Accepted, Outcome]], ranks: dict[str, Ranks]) -> None:
        """Send the outcomes to those who wait, with ranks where a board gave them."""
        inboxes: dict[str, list[Outcome]] = {}
        for accepted, outcome in outcomes:
            changes = {}
            for board, change in (outcome.boards or {}).items():
                before, after = ranks.get(board, {}).get(accepted.entry.user, (None, None))
                changes[board] = BoardChange(
                    change.score, after, before if outcome.duplicate is False else after
                )
            answer = outcome if outcome.boards is None else msgspec.structs.replace(outcome, boards=changes)
            inboxes.setdefault(accepted.inbox, []).append(answer)
        for inbox, answers in inboxes.items():
            for begin in range(0, len(answers), MESSAGE_OUTCOMES):
                some = answers[begin : begin + MESSAGE_OUTCOMES]
                try:
                    await self._queue.tell(inbox, self._sealer.seal_outcomes(some))
                except Unavailable as error:
                    logger.warning("outcomes were not sent: %s", error)

    async def _catch_up(self, state: _Partition, partition: int, tasks: asyncio.TaskGroup) -> None:
        """Bring the boards that are behind up to what has been committed.

        Raises:
            Unavailable: board or database do not answer; to be tried again.
        """
        for board, told in list(state.told.items()):
            if told is not None or board in self._rebuilding:
                continue
            state.told[board] = state.told.pop(board)  # the last from now on: if it fails, others come first
            upto = state.upto  # read before the rows: they hold all of it, and perhaps more
            position = await self.board.position(board)
            if board in self._rebuilding:
                continue  # another partition found out first
            if position is None or partition not in position:  # nothing, or a partition that is new, is there
                self._rebuilding[board] = tasks.create_task(self._rebuild(board))
                continue
            if position[partition] != upto:
                rows = await self.database.changed_rows(board, position[partition])
                await self.board.catch_up(board, rows, partition=partition, upto=upto)
                logger.info("board caught up", extra={"board": board, "rows": len(rows)})
            state.told[board] = upto

    async def _rebuild(self, board: str) -> None:
        try:
            built = await rebuild(self.database, self.board, board)
        except Unavailable as error:
            logger.warning("a board could not be rebuilt: %s", error, extra={"board": board})
            built = None
        finally:
            del self._rebuilding[board]
        if built is None:
            return  # or somebody else is at it; whoever is behind looks again after a pause
        for state in self._partitions:
            state.again = 0.0  # what was committed meanwhile is told at once
            with contextlib.suppress(asyncio.QueueFull):
                state.arrived.put_nowait(Committed(state.upto, None, (), ()))


async def rebuild(
    database: Database, board: Board, name: str, progress: Callable[[int], None] | None = None
) -> int | None:
    """Build one board again from the database; how many rows, or ``None`` if somebody else is at it.

    Raises:
        Unavailable: board or database do not answer.
    """
    board.database = await database.identity()
    positions = await database.positions()
    upto = {partition: (last + 1) * PLACES - 1 for partition, last in positions.items()}
    rows = database.all_rows(name, ordered=board.order(name))
    built = await board.rebuild(name, upto=upto, rows=rows, progress=progress)
    if built is not None:
        metrics.BOARD_REBUILDS.inc()
    return built
