"""What may be set: the tables of ``scoreboard.toml`` as frozen values, each setting with its default.

In comes what the file and the variables say, out goes a ``Config``; its bounds are in the types, and what no
type can say is checked in ``reading.py``. It must never hold the place of an engine, or the
deployment's secret.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from scoreboard.issuers import Issuer
from scoreboard.model import SCORE_LIMIT

Positive = Annotated[int, Meta(ge=1)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; an unknown key is an error."""


class Quarantine(Strict, frozen=True, kw_only=True):
    """What is implausible is held back until it is released or rejected."""

    points_per_hour: Positive
    """Points of one user by this action in a clock hour; an event that would pass them is held back."""


class Action(Strict, frozen=True, kw_only=True):
    """One type of action: what it is worth, who may submit it, and how often it may count."""

    points: Annotated[int, Meta(ge=-SCORE_LIMIT, le=SCORE_LIMIT)]
    policy: Literal["service", "grant", "open"] = "service"
    cooldown: str | None = None
    """From the last counted one of the same user: ``30s``, ``15m``, ``1h``, ``7d``."""
    limit: str | None = None
    """Of one user in a calendar window: ``20/day``; minute, hour, day or week."""
    once: bool = False
    """Counts once a user, for ever."""
    quarantine: Quarantine | None = None


class Board(Strict, frozen=True, kw_only=True):
    """One board: which actions count, how it is ordered and shown."""

    title: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    top: Annotated[int, Meta(ge=1, le=100)] = 10
    rank: Literal["ordinal", "competition", "dense"] = "ordinal"
    order: Literal["desc", "asc"] = "desc"
    public: bool = True
    """May anyone watch and read it? Else whoever has a valid token or key."""
    actions: tuple[str, ...] | None = None
    """Types that count here; ``None``: all."""


class Auth(Strict, frozen=True, kw_only=True):
    """Who may vouch for users, and who may give grants."""

    local: bool | None = None
    """Accept tokens of ``scoreboard token``? By default only while no issuer is configured."""
    issuers: tuple[Issuer, ...] = ()
    grant_issuers: tuple[Issuer, ...] = ()
    """Backends that sign grants themselves. A set apart: neither's keys count for the other."""

    @property
    def local_tokens(self) -> bool:
        """Are tokens of ``scoreboard token`` accepted?"""
        return not self.issuers if self.local is None else self.local


class Queue(Strict, frozen=True, kw_only=True):
    """The log."""

    partitions: Annotated[int, Meta(ge=1, le=64)] = 1
    max_bytes: Annotated[int, Meta(ge=1 << 20)] = 4 << 30
    """The log's bound on disk; at the bound updates are refused with ``queue_full``."""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1


class Live(Strict, frozen=True, kw_only=True):
    """The WebSocket side."""

    connections: Positive = 20_000
    """Watching clients a process."""
    handshakes: str = "5000/s"
    """New clients a process, as a rate."""


class Web(Strict, frozen=True, kw_only=True):
    """Pages on other hosts."""

    origins: tuple[str, ...] = ()
    """Origins (``https://host``) of other hosts' pages that may use private boards."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` is believed."""


class RateLimits(Strict, frozen=True, kw_only=True):
    """How often who may ask one process, as ``20/s``, ``600/m`` or ``5000/h``."""

    enabled: bool = True
    per_address: str = "200/s"
    """What writes, and what fails to prove who it is."""
    per_user: str = "20/s"
    per_key: str = "5000/s"


class Config(Strict, frozen=True, kw_only=True):
    """All settings of one deployment."""

    timezone: str = "UTC"
    namespace: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}$")] = "scoreboard"
    """Names the log and begins the board's keys: deployments that share a NATS or a Redis differ in it."""
    durability: Literal["full", "relaxed"] = "full"
    """``relaxed``: run on engines that may lose with the power what they said is on disk, and say so."""
    actions: dict[str, Action] = field(default_factory=lambda: {"point": Action(points=1)})
    boards: dict[str, Board] = field(default_factory=lambda: {"main": Board()})
    auth: Auth = field(default_factory=Auth)
    queue: Queue = field(default_factory=Queue)
    live: Live = field(default_factory=Live)
    web: Web = field(default_factory=Web)
    rate_limits: RateLimits = field(default_factory=RateLimits)

    def boards_of(self, action: str) -> tuple[str, ...]:
        """The boards on which an action of this type counts, by name."""
        return tuple(
            name for name, board in self.boards.items() if board.actions is None or action in board.actions
        )

    @property
    def catalogue(self) -> str:
        """A short hash of actions and boards: roles that show different ones were configured differently."""
        data = msgspec.json.encode([self.timezone, self.actions, self.boards], order="sorted")
        return hashlib.sha256(data).hexdigest()[:12]
