"""The words of the flow as values: what is accepted, what becomes of it, what a board shows.

Nothing in here does input or output. All values are frozen.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

# A double, as Redis keeps scores, is exact for whole numbers up to 2^53 (IEEE 754).
SCORE_LIMIT = 2**53 - 1
PLACES = 1024
"""Places in an envelope: ``accept_no`` = stream sequence x PLACES + place."""
PERIOD = "all"
"""The one period there is for now; it is part of every key from the start."""

LOCAL_ISSUER = "scoreboard"
"""The issuer of what we sign ourselves: local tokens, and grants."""
GIVER_ENDS = "."
"""In the id of a grant of ours it ends the id of the key that had it made. Without one there was no key."""


class Scope(StrEnum):
    """What a service key may do."""

    SCORE_WRITE = "score:write"
    GRANT_CREATE = "grant:create"
    ADMIN = "admin"


class Principal(Struct, frozen=True):
    """Who asks: a user with a token, or a service with a key."""

    kind: Literal["user", "service"]
    id: str
    """A user's id, or the id of a service's key."""
    issuer: str = ""
    """Who vouches for a user: the token's ``iss``."""
    name: str | None = None
    scopes: frozenset[str] = frozenset()
    actions: frozenset[str] | None = None
    """The types of action that a service's key is for; ``None``: all."""

    @property
    def label(self) -> str:
        """The principal as the ledger keeps it."""
        return f"key:{self.id}" if self.kind == "service" else f"user:{self.id}@{self.issuer}"


class Update(Struct, frozen=True, array_like=True, tag_field="kind", tag="update"):
    """One accepted update, with all that was decided at the door. Travels in an envelope."""

    event_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    user: str
    type: str
    reference: str
    """The part after the colon of ``type:unique``; of a grant, its issuer and its id."""
    points: int
    boards: tuple[str, ...]
    principal: str
    name: str | None = None


class Rename(Struct, frozen=True, array_like=True, tag_field="kind", tag="rename"):
    """One accepted command: from now on this user is shown under this name."""

    command_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    user: str
    name: str
    principal: str
    audited: bool = False
    """An administrator's act: it goes into the audit, too."""


class Mark(Struct, frozen=True, array_like=True, tag_field="kind", tag="mark"):
    """One accepted command: from now on this user is banned or hidden, or no longer."""

    command_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    user: str
    what: Literal["banned", "hidden"]
    on: bool
    principal: str
    why: str = ""

    @property
    def kind(self) -> str:
        """What was done, as the audit tells it."""
        verbs = {"banned": ("ban", "unban"), "hidden": ("hide", "show")}
        return verbs[self.what][0 if self.on else 1]


class Verdict(StrEnum):
    """What may be done about events that were decided already."""

    REVOKE = "revoke"
    """What counts, or is held back, is undone."""
    RESTORE = "restore"
    """What was revoked is again what it was before."""
    RELEASE = "release"
    """What was held back counts."""
    REJECT = "reject"
    """What was held back does not count."""


class Amend(Struct, frozen=True, array_like=True, tag_field="kind", tag="amend"):
    """One accepted command about earlier events: all that were accepted before it and fit what is given.

    It goes to every partition, and each carries it out for its own users; ``act`` is what they share.
    """

    command_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    act: Annotated[bytes, Meta(min_length=16, max_length=16)]
    verdict: Verdict
    principal: str
    why: str = ""
    event: Annotated[bytes, Meta(min_length=16, max_length=16)] | None = None
    user: str = ""
    key: str = ""
    """The id of the service's key that reported them, or had their grants made."""
    since: datetime | None = None
    """Time of acceptance, from and with."""
    until: datetime | None = None
    """Time of acceptance, before."""
    grant_issuer: str = ""
    """Who signed the grants that they stand for."""


class Settle(Struct, frozen=True, array_like=True, tag_field="kind", tag="settle"):
    """One accepted command: what shall become of a dead letter. It goes to the letter's partition:
    its user's, if it has one."""

    command_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    letter: int
    """The letter's number: its ``accept_no``."""
    what: Literal["retry", "drop"]
    principal: str
    why: str = ""
    user: str = ""


Entry = Update | Rename | Mark | Amend | Settle
"""What the log holds: updates, and every command that changes what a board shows."""


class Accepted(Struct, frozen=True):
    """An entry with its place in the order of acceptance, as the worker reads it from the log."""

    accept_no: int
    at: datetime
    """Time of acceptance: the log's own time stamp."""
    entry: Entry
    inbox: str = ""
    """Where the outcome is awaited (``Prefer: wait``); empty if nobody waits."""


class Result(StrEnum):
    """The end states of an event."""

    APPLIED = "applied"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"
    DEAD = "dead"
    """It could not be applied and is set aside: nothing, unless an operator has it tried again."""


class BoardChange(Struct, frozen=True, rename="camel"):
    """What an update did to its user on one board. A rank is ``None`` while the board is away."""

    score: int
    rank: int | None = None
    previous_rank: int | None = None


class Outcome(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of an event; the answer to ``Prefer: wait``."""

    status: Result
    event_id: str
    duplicate: bool | None = None
    points: int | None = None
    boards: dict[str, BoardChange] | None = None
    reason: str | None = None
    retry_at: str | None = None
    events: int | None = None
    """Of a command: how many events it changed."""
    users: int | None = None
    """Of a command: whose."""


class Row(Struct, frozen=True):
    """One user's place on one board, absolute and versioned, as the board is told it."""

    board: str
    user: str
    score: int | None
    """``None``: the user has no entry, or is hidden."""
    reached: int
    """The ``accept_no`` that gave the current score; the lower comes first among equals."""
    changed: int
    """The ``accept_no`` that last changed anything here; an older row never overwrites a newer."""
    name: str | None = None


class Line(Struct, frozen=True, rename="camel"):
    """One line of a board as everybody sees it."""

    rank: int
    user_id: str
    name: str
    score: int


class Frame(Struct, frozen=True, rename="camel", tag="board", tag_field="type"):
    """The visible top of one board at one moment."""

    board: str
    epoch: str
    seq: int
    at: str
    total: int
    """Visible entries."""
    top: tuple[Line, ...]


class Around(Struct, frozen=True, rename="camel"):
    """One user's line with two neighbours on each side."""

    board: str
    user_id: str
    name: str
    rank: int | None
    score: int | None
    to_next: int | None
    """Points needed to take the next rank; ``None`` at the top."""
    above: tuple[Line, ...]
    below: tuple[Line, ...]
