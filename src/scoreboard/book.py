"""Judging: what each entry of a batch does, in order of acceptance. Pure: state in, state out, no I/O.

The same state and the same entries give the same result, at every replay of the log. Rules that refuse an
event (once, cooldown, limit, quarantine) have their place in ``Book.refusal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from scoreboard.model import SCORE_LIMIT, Accepted, BoardChange, Outcome, Rename, Result, Row, Update


class Applied(Struct, frozen=True):
    """What a batch did: the outcomes that somebody waits for, and the rows that changed."""

    outcomes: Sequence[tuple[Accepted, Outcome]]
    rows: Sequence[Row]
    counts: dict[str, int]
    """How many were applied, rejected (by reason) or seen before, for the metrics."""


class Judged(Struct, frozen=True):
    """What was decided of an event."""

    result: Result
    reason: str | None
    points: int
    boards: Sequence[str]


class Place:
    """Where a user stands on a board, while the batch is judged."""

    __slots__ = ("changed", "exists", "reached", "score", "touched")

    def __init__(self, score: int, reached: int, changed: int, *, exists: bool) -> None:
        self.score, self.reached, self.changed = score, reached, changed
        self.exists = exists
        self.touched = False


class User:
    """What is known of a user, while the batch is judged."""

    __slots__ = ("banned", "changed", "hidden", "name", "renamed")

    def __init__(self) -> None:
        self.name: str | None = None
        self.hidden = self.banned = self.renamed = False
        self.changed = 0


class Book:
    """The state that a batch touches, and what judging the batch does to it."""

    def __init__(self) -> None:
        self.known: dict[bytes, Judged] = {}
        self.commands: set[bytes] = set()
        self.users: dict[str, User] = {}
        self.places: dict[tuple[str, str], Place] = {}
        self.events: list[tuple[Accepted, Update, Judged]] = []
        self.new_commands: list[tuple[Accepted, Rename]] = []
        self.outcomes: list[tuple[Accepted, Outcome]] = []
        self.counts: dict[str, int] = {}

    def judge(self, accepted: Accepted) -> None:
        """Decide one entry, in order of acceptance."""
        entry = accepted.entry
        if isinstance(entry, Rename):
            self._rename(accepted, entry)
            return
        known = self.known.get(entry.event_id)
        duplicate = known is not None
        if known is None:
            reason = self.refusal(entry)
            if reason is None:
                self._count(accepted, entry)
            result = Result.APPLIED if reason is None else Result.REJECTED
            known = self.known[entry.event_id] = Judged(result, reason, entry.points, entry.boards)
            self.events.append((accepted, entry, known))
        label = "duplicate" if duplicate else (known.reason or known.result)
        self.counts[label] = self.counts.get(label, 0) + 1
        if accepted.inbox:
            self.outcomes.append((accepted, self._outcome(entry, known, duplicate=duplicate)))

    def refusal(self, entry: Update) -> str | None:
        """Why a new event does not count, or ``None``."""
        if self.users[entry.user].banned:
            return "banned"
        for board in entry.boards:
            place = self.places.get((board, entry.user))
            if place is not None and abs(place.score + entry.points) > SCORE_LIMIT:
                return "out_of_range"
        return None

    def _count(self, accepted: Accepted, entry: Update) -> None:
        """An event counts: on each board of its type, and its name if it brings a new one."""
        for board in entry.boards:
            place = self.places.get((board, entry.user))
            if place is None:
                place = Place(0, accepted.accept_no, 0, exists=False)
                self.places[board, entry.user] = place
            if entry.points:
                place.score += entry.points
                place.reached = accepted.accept_no
            place.exists = place.touched = True
            place.changed = accepted.accept_no
        if entry.name is not None:
            self._name(entry.user, entry.name, accepted.accept_no)

    def _rename(self, accepted: Accepted, entry: Rename) -> None:
        if entry.command_id in self.commands:
            return
        self.commands.add(entry.command_id)
        self.new_commands.append((accepted, entry))
        self._name(entry.user, entry.name, accepted.accept_no)

    def _name(self, user: str, name: str, accept_no: int) -> None:
        known = self.users[user]
        if known.name != name:
            known.name, known.changed, known.renamed = name, accept_no, True

    def _outcome(self, entry: Update, known: Judged, *, duplicate: bool) -> Outcome:
        event_id = str(UUID(bytes=entry.event_id))
        if known.result is not Result.APPLIED:
            return Outcome(known.result, event_id, reason=known.reason)
        changes = {
            board: BoardChange(score=place.score)
            for board in known.boards
            if (place := self.places.get((board, entry.user))) is not None
        }
        return Outcome(known.result, event_id, duplicate=duplicate, points=known.points, boards=changes)

    def applied(self) -> Applied:
        """What happened, for those who wait and for the boards."""
        rows = []
        for (board, user), place in self.places.items():
            known = self.users[user]
            if place.exists and (place.touched or known.renamed):
                score = None if known.hidden else place.score
                changed = max(place.changed, known.changed)
                rows.append(Row(board, user, score, place.reached, changed, known.name))
        return Applied(self.outcomes, rows, self.counts)
