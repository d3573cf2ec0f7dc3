"""The auditor: what clients were told, the ledger, the totals, the board and the screens, held together.

In come what clients were told and a deployment at rest (no request is open); out go the promises that were
broken, in words. It trusts nothing that it can count itself. That totals are the sum of the ledger and the
board is the database, with the order of ties, is asked of ``scoreboard verify``'s own comparison, which reads
both whole. It must never change anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from scoreboard.board import Board
from scoreboard.config import Action, Config
from scoreboard.database import Database
from scoreboard.errors import Unavailable
from scoreboard.verify import differences_of
from torture.told import Flaw, Screen, Sent, Told

SETTLE_SECONDS = 10.0  # what is accepted is applied and shown within this, or something is wrong
AGAIN_SECONDS = 0.1
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}  # windows of the calendar in UTC

_LEDGER = """
SELECT event_id, accept_no, user_id, type, reference, points, boards, at, outcome, reason
FROM events WHERE amends IS NULL ORDER BY accept_no
"""


class Row(Struct, frozen=True):
    """One event of the ledger."""

    event_id: UUID
    accept_no: int
    user: str
    type: str
    reference: str
    points: int
    boards: Sequence[str]
    at: datetime
    outcome: str
    reason: str | None


class Auditor:
    """Audits one deployment, again and again; a broken promise is told once.

    Args:
        config: what the deployment runs with.
        database: its database, asked directly.
        board: its board, asked directly.
        told: what its clients were told.
        settle: for how many seconds what differs may only be on its way.
    """

    def __init__(
        self, config: Config, database: Database, board: Board, told: Told, settle: float = SETTLE_SECONDS
    ) -> None:
        self._config, self._database, self._board, self._told = config, database, board, told
        self._settle = settle
        self._known: set[Flaw] = set()

    async def audit(self, screens: Iterable[Screen], watched: str = "main") -> list[Flaw]:
        """The promises that were found broken since the last audit. What is on its way is waited for.

        Args:
            screens: clients that are connected and watch ``watched``.
            watched: a board.
        """
        flaws = await self._settled(list(screens), watched)
        flaws += self._told.flaws
        self._told.flaws.clear()
        self._told.shown.clear()
        fresh = [flaw for flaw in dict.fromkeys(flaws) if flaw not in self._known]
        self._known.update(fresh)
        return fresh

    async def _settled(self, screens: Sequence[Screen], watched: str) -> list[Flaw]:
        deadline = time.monotonic() + self._settle
        while True:
            try:
                flaws = await self._look(screens, watched)
            except Unavailable as error:
                flaws = [Flaw("healing", f"nothing to audit: {error}")]
            if not flaws or time.monotonic() > deadline:
                return flaws
            await asyncio.sleep(AGAIN_SECONDS)

    async def _look(self, screens: Sequence[Screen], watched: str) -> list[Flaw]:
        rows = await self._ledger()
        told = self._told
        flaws = [
            *_presence(told.sent, rows),
            *_answers(told.sent, rows, self._config.actions),
            *_rules(rows, self._config.actions),
            *_shown(told.shown, rows, watched),
        ]
        differences = await differences_of(self._config, self._database, self._board)
        flaws += [Flaw("drift", text) for text in differences]
        frame = await self._board.frame(watched)
        flaws += [
            Flaw("frame", f"{screen.name}: the last frame is not the board's")
            for screen in screens
            if screen.newest != frame
        ]
        return flaws

    async def _ledger(self) -> list[Row]:
        async with self._database.connection() as connection:
            return [Row(*record) for record in await connection.fetch(_LEDGER, timeout=60)]


def _presence(sent: Mapping[UUID, Sent], rows: Sequence[Row]) -> Iterator[Flaw]:
    """Every promise has its row, every row was sent, every (user, action) has one row."""
    known = {row.event_id for row in rows}
    for event_id, one in sent.items():
        if one.statuses and event_id not in known:
            yield Flaw("lost", f"{one.user} {one.type}:{one.reference} was {'/'.join(sorted(one.statuses))}")
    actions = Counter((row.user, row.type, row.reference) for row in rows)
    for (user, kind, reference), count in actions.items():
        if count > 1:
            yield Flaw("doubled", f"{user} {kind}:{reference} is {count} times in the ledger")
    for row in rows:
        if row.event_id not in sent:
            yield Flaw("doubled", f"{row.user} {row.type}:{row.reference} was never sent")


def _answers(sent: Mapping[UUID, Sent], rows: Sequence[Row], actions: Mapping[str, Action]) -> Iterator[Flaw]:
    """What a 200 said is what the ledger says: state, points, and the score at that place in the order."""
    scores: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        name = f"{row.user} {row.type}:{row.reference}"
        if row.points != actions[row.type].points:
            yield Flaw("answer", f"{name} has {row.points} points, the catalogue {actions[row.type].points}")
        if row.outcome == "applied":
            for board in row.boards:
                scores[board, row.user] += row.points
        one = sent.get(row.event_id)
        if one is None:
            continue
        if wrong := one.statuses - {"accepted", row.outcome}:
            yield Flaw("answer", f"{name} is {row.outcome}, a client was told {', '.join(sorted(wrong))}")
        if one.counted > 1:
            yield Flaw("doubled", f"{name}: {one.counted} clients were told that theirs counted")
        if one.counted and one.points != row.points:
            yield Flaw("answer", f"{name} has {row.points} points, a client was told {one.points}")
        for board, score in one.scores.items():
            if score != scores[board, row.user]:
                right = scores[board, row.user]
                yield Flaw("answer", f"{name}: {score} on {board}, by the ledger it was {right}")


def _rules(rows: Sequence[Row], actions: Mapping[str, Action]) -> Iterator[Flaw]:
    """Limits and ``once``, counted by hand; and time of acceptance never goes back."""
    counted: Counter[tuple[str, str, int]] = Counter()
    before: datetime | None = None
    for row in rows:
        action = actions[row.type]
        if before is not None and row.at < before:
            yield Flaw("limit", f"{row.accept_no} was accepted at {row.at}, the one before at {before}")
        before = row.at
        if action.once:
            most, window = 1, 0
        elif action.limit is not None:
            number, _, unit = action.limit.partition("/")
            most, window = int(number), int(row.at.timestamp()) // _UNITS[unit]
        else:
            most, window = len(rows), 0
        place = row.user, row.type, window
        if row.outcome == "applied":
            counted[place] += 1
            if counted[place] > most:
                yield Flaw("limit", f"{row.user}: {row.type} counts {counted[place]} times, not {most}")
        elif row.reason not in ("limit", "once") or counted[place] < most:
            yield Flaw("limit", f"{row.user} {row.type}:{row.reference}: {row.outcome}, {row.reason}")


def _shown(shown: Iterable[tuple[str, int]], rows: Sequence[Row], board: str) -> Iterator[Flaw]:
    """No screen ever showed a score that was never so."""
    scores: defaultdict[str, int] = defaultdict(int)
    ever = set()
    for row in rows:
        if row.outcome == "applied" and board in row.boards:
            scores[row.user] += row.points
            ever.add((row.user, scores[row.user]))
    for user, score in sorted(set(shown) - ever):
        yield Flaw("frame", f"{user} was shown with {score}, which it never had")
