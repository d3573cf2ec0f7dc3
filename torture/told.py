"""What clients sent and were told: every answer to an update, every frame on a screen.

In come requests, answers and frames as they happen; out goes what the auditor asks for. What can be judged
without the ledger is judged here at once (``flaws``): frames that go back, answers that must not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Frame

Kind = Literal["lost", "doubled", "drift", "limit", "answer", "frame", "healing"]


class Flaw(Struct, frozen=True):
    """A promise that was broken."""

    kind: Kind
    """``lost``: promised and not in the ledger; ``doubled``: counted twice, or never sent; ``drift``: totals
    or board are not the ledger; ``limit``: a rule was not kept, or kept where it did not apply; ``answer``: a
    client was told what is not so; ``frame``: a screen was; ``healing``: not well in time."""
    text: str


class Sent(Struct):
    """One action of a user, however often it was sent."""

    user: str
    type: str
    reference: str
    statuses: set[str] = set()
    """Of all answers that promise something: ``accepted`` (202), or an end state (200)."""
    counted: int = 0
    """How many answers said that it was they who counted it (``applied``, not ``duplicate``)."""
    points: int | None = None
    scores: dict[str, int] = {}
    """By board, as told by the answer that counted it."""


class Told:
    """Everything that clients were told, in this run."""

    def __init__(self) -> None:
        self.sent: dict[UUID, Sent] = {}
        self.promised = 0
        """Actions that were promised to reach an end state."""
        self.refusals: Counter[str] = Counter()
        """Answers that promise nothing, by code; ``none`` where there was no answer."""
        self.flaws: list[Flaw] = []
        self._frames: dict[tuple[str, int], int] = {}
        self.shown: set[tuple[str, int]] = set()
        """(user, score) as any screen showed them, since the last audit."""

    def send(self, user: str, action: str) -> UUID:
        """This action is about to be sent."""
        event_id = event_id_of_action(user, action)
        if event_id not in self.sent:
            kind, _, reference = action.partition(":")
            self.sent[event_id] = Sent(user, kind, reference)
        return event_id

    def answered(self, event_id: UUID, answer: Mapping[str, Any]) -> None:
        """The body of a 202 or 200 for this action."""
        sent, status = self.sent[event_id], answer["status"]
        if answer["eventId"] != str(event_id):
            self.flaws.append(
                Flaw("answer", f"{sent.user} {sent.reference}: it is called {answer['eventId']}")
            )
        if not sent.statuses:
            self.promised += 1
        sent.statuses.add(status)
        if status == "applied" and not answer["duplicate"]:
            sent.counted += 1
            sent.points = answer["points"]
            sent.scores = {board: change["score"] for board, change in answer["boards"].items()}

    def refused(self, code: str, *, retryable: bool) -> None:
        """An answer, or none, that promises nothing. What is sent is in order: it may only be late."""
        self.refusals[code] += 1
        if not retryable:
            self.flaws.append(Flaw("answer", f"refused for good: {code}"))

    def frame(self, frame: Frame) -> None:
        """Some screen got this frame: the same epoch and seq must be the same frame for all."""
        content = hash((frame.total, frame.at, frame.top))
        if self._frames.setdefault((frame.epoch, frame.seq), content) != content:
            self.flaws.append(Flaw("frame", f"{frame.epoch}:{frame.seq} is not the same for all who watch"))
        self.shown.update((line.user_id, line.score) for line in frame.top)


class Screen:
    """What one watching client sees of one board."""

    def __init__(self, name: str, told: Told) -> None:
        self.name, self._told = name, told
        self.newest: Frame | None = None
        self._epochs: list[str] = []
        self._seq = 0

    def connected(self) -> None:
        """A new connection: another process may be behind the one before."""
        self._epochs, self._seq = [], 0

    def take(self, frame: Frame) -> None:
        """A frame came. Within a connection ``seq`` grows, and an epoch that was left does not come back."""
        if self._epochs and self._epochs[-1] == frame.epoch:
            if frame.seq <= self._seq:
                what = "again" if frame.seq == self._seq else f"after {self._seq}"
                self._told.flaws.append(Flaw("frame", f"{self.name}: {frame.epoch}:{frame.seq} came {what}"))
        else:
            if frame.epoch in self._epochs:
                self._told.flaws.append(Flaw("frame", f"{self.name}: the epoch {frame.epoch} came back"))
            self._epochs.append(frame.epoch)
        self._seq = frame.seq
        self._told.frame(frame)
        newest = self.newest
        if newest is None or frame.epoch != newest.epoch or frame.seq > newest.seq:
            self.newest = frame  # as docs/protocol.md tells clients to do
