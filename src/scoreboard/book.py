"""Judging: what each entry of a batch does, in order of acceptance. Pure: state in, state out, no I/O.

The same state and the same entries give the same result, at every replay of the log. Commands about earlier
events (``Amend``) are not for here: they are statements over the ledger (``amending.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from asyncpg.pgproto.pgproto import UUID
from msgspec import Struct

from scoreboard.model import SCORE_LIMIT, Accepted, BoardChange, Mark, Outcome, Rename, Result, Row, Update
from scoreboard.rules import Count, Refusal, Rules
from scoreboard.texts import text_of_time

LOOK_UPS = 100  # batches without an event that was decided before, until none is expected any more
REMEMBERED = 50_000  # users, and places, that an applying session remembers: about 30 MB


class Applied(Struct, frozen=True):
    """What a batch did: the outcomes that somebody waits for, and the rows that changed."""

    outcomes: Sequence[tuple[Accepted, Outcome]]
    rows: Sequence[Row]
    counts: dict[str, int]
    """How many were applied, rejected (by reason) or seen before, for the metrics."""

    @classmethod
    def of(cls, parts: Sequence[Applied]) -> Applied:
        """What several parts did, one after the other."""
        counts: dict[str, int] = {}
        for part in parts:
            for outcome, count in part.counts.items():
                counts[outcome] = counts.get(outcome, 0) + count
        return cls([o for p in parts for o in p.outcomes], [r for p in parts for r in p.rows], counts)


class Judged(Struct, frozen=True):
    """What was decided of an event."""

    result: Result
    reason: str | None
    points: int
    boards: Sequence[str]
    retry_at: datetime | None = None


class Place:
    """Where a user stands on a board, while the batch is judged."""

    __slots__ = ("changed", "reached", "score", "standing", "touched")

    def __init__(self, score: int, reached: int, changed: int, *, standing: bool) -> None:
        self.score, self.reached, self.changed = score, reached, changed
        self.standing = standing
        """Does any counted event stand? Without one there is no entry."""
        self.touched = False


class User:
    """What is known of a user, while the batch is judged."""

    __slots__ = ("banned", "changed", "hidden", "name", "touched")

    def __init__(self) -> None:
        self.name: str | None = None
        self.hidden = self.banned = self.touched = False
        self.changed = 0


class Memory:
    """What one applying session knows of users and places: what it last read or wrote of them.

    It holds for as long as nobody else can write them, that is while the session holds its partition's lock,
    and every transaction in which they were written has been committed. Bounded by emptying it.
    """

    def __init__(self, *, trusting: bool = False) -> None:
        """``trusting``: events are taken for new, until one was not."""
        self.users: dict[str, User] = {}
        self.places: defaultdict[str, dict[str, Place]] = defaultdict(dict)
        """By board and user."""
        self.planted: bool | None = None
        """Are there events that were revoked before they came? ``None``: not known."""
        self._trusting, self._look_ups = trusting, 0

    @property
    def looks_up(self) -> bool:
        """Shall it be looked up which events were decided before?"""
        return self._look_ups > 0 or not self._trusting

    def look_up(self) -> None:
        """From now on, for a while."""
        self._look_ups = LOOK_UPS

    def looked_up(self, *, found: bool) -> None:
        """It was looked up for a part of a batch; was there any?"""
        self._look_ups = LOOK_UPS if found else max(self._look_ups - 1, 0)

    def keep(self, book: Book) -> None:
        """What was written is what is known from now on."""
        if len(self.users) > REMEMBERED or sum(map(len, self.places.values())) > REMEMBERED:
            self.forget()
        for user in book.marked.values():
            user.touched = False
        for _, _, place in book.touched:
            place.touched = False

    def forget(self) -> None:
        """Nothing is known any more: statements have written what they alone know, or it is not committed."""
        self.users.clear()
        self.places.clear()
        self.planted = None


class Book:
    """The state that a batch touches, and what judging the batch does to it."""

    def __init__(self, boards: Sequence[str], rules: Mapping[str, Rules], memory: Memory) -> None:
        self._boards, self._rules = boards, rules
        self.users, self.places = memory.users, memory.places
        """Of all whom the batch touches; and of others, whom the session remembers."""
        self.known: dict[bytes, Judged] = {}
        self.planted: set[bytes] = set()
        """Events that were revoked before they came."""
        self.commands: set[bytes] = set()
        self.counts: dict[tuple[str, str], Count] = {}
        """By user and type, for the types that have rules."""
        self.events: list[tuple[Accepted, Update, Judged]] = []
        self.new_commands: list[tuple[Accepted, Rename | Mark]] = []
        self.touched: list[tuple[str, str, Place]] = []
        """Board, user and place: what the batch has changed."""
        self.marked: dict[str, User] = {}
        """Whose name or marks the batch has changed."""
        self.outcomes: list[tuple[Accepted, Outcome]] = []
        self.tally: dict[str, int] = {}

    def judge(self, accepted: Accepted) -> None:
        """Decide one entry, in order of acceptance."""
        entry = accepted.entry
        if not isinstance(entry, Update):
            self._command(accepted)
            return
        known = self.known.get(entry.event_id)
        duplicate = known is not None
        if known is None:
            known = self.known[entry.event_id] = self._decide(accepted, entry)
            self.events.append((accepted, entry, known))
        label = "duplicate" if duplicate else (known.reason or known.result)
        self.tally[label] = self.tally.get(label, 0) + 1
        if accepted.inbox:
            self.outcomes.append((accepted, self._outcome(entry, known, duplicate=duplicate)))

    def _decide(self, accepted: Accepted, entry: Update) -> Judged:
        """A new event: does it count, is it held back, or neither?"""
        if entry.event_id in self.planted:
            return Judged(Result.REVOKED, None, entry.points, entry.boards)
        rules, count = self._rules.get(entry.type), self.counts.get((entry.user, entry.type))
        refusal = self._refusal(accepted, entry, rules, count)
        if refusal is not None:
            return Judged(
                Result.REJECTED, refusal.reason, entry.points, entry.boards, retry_at=refusal.retry_at
            )
        result = Result.APPLIED
        if rules is not None and count is not None:
            if rules.implausible(count, accepted.at, entry.points):
                result = Result.QUARANTINED
            rules.add(count, accepted.at, entry.points if result is Result.APPLIED else 0)
        if result is Result.APPLIED:
            self._count(accepted, entry)
        return Judged(result, None, entry.points, entry.boards)

    def _refusal(
        self, accepted: Accepted, entry: Update, rules: Rules | None, count: Count | None
    ) -> Refusal | None:
        """Why a new event does not count; the order is DESIGN's: ban, once, cooldown, limit, range."""
        if self.users[entry.user].banned:
            return Refusal("banned")
        if rules is not None and count is not None and (refusal := rules.refusal(count, accepted.at)):
            return refusal
        for board in entry.boards:
            place = self.places[board].get(entry.user)
            if place is not None and abs(place.score + entry.points) > SCORE_LIMIT:
                return Refusal("out_of_range")
        return None

    def _count(self, accepted: Accepted, entry: Update) -> None:
        """An event counts: on each board of its type, and its name if it brings a new one."""
        for board in entry.boards:
            place = self.places[board].get(entry.user)
            if place is None:
                place = self.places[board][entry.user] = Place(0, 0, 0, standing=False)
            if entry.points or not place.standing:
                place.score += entry.points
                place.reached = accepted.accept_no
            place.standing = True
            place.changed = accepted.accept_no
            if not place.touched:
                place.touched = True
                self.touched.append((board, entry.user, place))
        if entry.name is not None:
            self._name(entry.user, entry.name, accepted.accept_no)

    def _command(self, accepted: Accepted) -> None:
        """Names and marks, once each."""
        entry = accepted.entry
        assert isinstance(entry, Rename | Mark)  # noqa: S101  amendments are not for here
        if entry.command_id not in self.commands:
            self.commands.add(entry.command_id)
            self.new_commands.append((accepted, entry))
            if isinstance(entry, Rename):
                self._name(entry.user, entry.name, accepted.accept_no)
            else:
                known = self.users[entry.user]
                if getattr(known, entry.what) != entry.on:
                    setattr(known, entry.what, entry.on)
                    self._mark(entry.user, known, accepted.accept_no)
        if accepted.inbox:
            outcome = Outcome(Result.APPLIED, str(UUID(entry.command_id)), users=1)
            self.outcomes.append((accepted, outcome))

    def _name(self, user: str, name: str, accept_no: int) -> None:
        known = self.users[user]
        if known.name != name:
            known.name = name
            self._mark(user, known, accept_no)

    def _mark(self, user: str, known: User, accept_no: int) -> None:
        known.changed, known.touched = accept_no, True
        self.marked[user] = known

    def _outcome(self, entry: Update, known: Judged, *, duplicate: bool) -> Outcome:
        event_id = str(UUID(entry.event_id))
        if known.result is not Result.APPLIED:
            retry_at = None if known.retry_at is None else text_of_time(known.retry_at)
            return Outcome(known.result, event_id, reason=known.reason, retry_at=retry_at)
        changes = {
            board: BoardChange(score=place.score)
            for board in known.boards
            if (place := self.places[board].get(entry.user)) is not None
        }
        return Outcome(known.result, event_id, duplicate=duplicate, points=known.points, boards=changes)

    def applied(self) -> Applied:
        """What happened, for those who wait and for the boards."""
        rows = []
        changed = self.touched + [
            (board, user, place)
            for user in self.marked
            for board in self._boards
            if (place := self.places[board].get(user)) is not None and not place.touched
        ]
        for board, user, place in changed:
            if place.standing:
                known = self.users[user]
                score = None if known.hidden else place.score
                latest = max(place.changed, known.changed)
                rows.append(Row(board, user, score, place.reached, latest, known.name))
        return Applied(self.outcomes, rows, self.tally)
