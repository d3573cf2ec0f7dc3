"""The configuration: ``scoreboard.toml`` with ``SCOREBOARD_*`` variables above it. Strict.

This is the only module that reads the environment. What comes out is one frozen ``Config``; whatever is
wrong raises ``ConfigurationError`` that names the place, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct, field

from scoreboard.errors import ConfigurationError
from scoreboard.issuers import SECRET_BYTES, Issuer, resolved
from scoreboard.model import SCORE_LIMIT, TYPE_PATTERN, rate_of

PREFIX = "SCOREBOARD_"
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


class Environment(Struct, frozen=True, kw_only=True):
    """What comes from the environment alone: where things are, and secrets."""

    database_url: str | None = None
    queue_url: str | None = None
    board_url: str | None = None
    key: str | None = None
    """A service's key, for the commands that report actions elsewhere."""
    secret: str | None = None
    secret_previous: str | None = None
    config: str | None = None
    data: str | None = None

    @property
    def database(self) -> str:
        """The database's URL. Raises ``ConfigurationError`` if there is none."""
        return _required(self, "database_url")

    @property
    def queue(self) -> str:
        """The queue's URL. Raises ``ConfigurationError`` if there is none."""
        return _required(self, "queue_url")

    @property
    def board(self) -> str:
        """The board's URL. Raises ``ConfigurationError`` if there is none."""
        return _required(self, "board_url")


# Each engine's URL: what it may begin with, and an example.
_URLS = {
    "database_url": (("postgresql", "postgres"), "postgresql://user:password@host/name"),
    "queue_url": (("nats", "tls", "ws", "wss"), "nats://user:password@host:4222"),
    "board_url": (("redis", "rediss", "unix"), "redis://:password@host:6379/0"),
}


def _required(environment: Environment, name: str) -> str:
    value: str | None = getattr(environment, name)
    if not value:
        msg = (
            f"{PREFIX}{name.upper()} is not set. This command uses engines that run elsewhere,"
            f" e.g. {_URLS[name][1]}"
        )
        raise ConfigurationError(msg)
    return value


def _check_url(name: str, url: str) -> None:
    """Raises ``ConfigurationError`` if this is no URL for that engine; does not repeat it: passwords."""
    schemes, example = _URLS[name]
    try:
        parts = urlsplit(url)
        if "," not in parts.netloc:  # several hosts, as PostgreSQL takes them
            parts.port  # noqa: B018  raises if it is no number
    except ValueError:
        sound = False
    else:
        # PostgreSQL and a Unix socket have their place in what comes after the host.
        sound = parts.scheme in schemes and bool(parts.hostname or (parts.path and name != "queue_url"))
    if not sound or any(letter.isspace() for letter in url):
        msg = (
            f"{PREFIX}{name.upper()} is not a URL like {example}"
            " (what is not a letter or a digit in the password is written as %XX)"
        )
        raise ConfigurationError(msg)


_TABLES = ("auth", "queue", "live", "web", "rate_limits")
_TYPE = re.compile(TYPE_PATTERN)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


def environment(environ: Mapping[str, str] | None = None) -> Environment:
    """What the ``SCOREBOARD_*`` variables say of places and secrets.

    Raises:
        ConfigurationError: a variable with our prefix that means nothing, a secret too short, no URL.
    """
    environ = os.environ if environ is None else environ
    places = {PREFIX + name.upper(): name for name in Environment.__struct_fields__}
    known = [*places, *_settings()]
    issuer_secrets = re.compile(rf"{PREFIX}(ISSUER|GRANT)_\w+")
    for name in environ:
        if name.startswith(PREFIX) and name not in known and not issuer_secrets.fullmatch(name):
            raise ConfigurationError(f"the variable {name} means nothing here{_nearest(name, known)}")
    found = {name: environ[variable] for variable, name in places.items() if environ.get(variable)}
    for name in ("secret", "secret_previous"):
        if name in found and len(found[name].encode()) < SECRET_BYTES:
            msg = f"{PREFIX}{name.upper()} must be at least {SECRET_BYTES} bytes: openssl rand -hex 32"
            raise ConfigurationError(msg)
    for name in _URLS:
        if name in found:
            _check_url(name, found[name])
    return Environment(**found)


def secret_of(environment: Environment, data: Path) -> str:
    """The deployment's secret: the variable's, else the data folder's, made there (mode 0600) when missing.

    Raises:
        ConfigurationError: the file cannot be read or made, or others may read it.
    """
    if environment.secret is not None:
        return environment.secret
    path = data / "secret"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Made beside and linked: whoever finds the file finds it whole, and the first one's stands.
            made = data / f"secret.{secrets.token_hex(4)}"
            with os.fdopen(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(made)
            made.unlink()
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path} may be read by others; chmod 600 {path}")
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if len(secret) < SECRET_BYTES:
        raise ConfigurationError(f"{path} must hold {SECRET_BYTES} bytes or more")
    return secret


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration from the file at ``path`` (``None`` or missing default: built-in) and variables.

    Raises:
        ConfigurationError: whatever is wrong, with the place and, for an unknown key, the nearest known one.
    """
    environ = os.environ if environ is None else environ
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = msgspec.toml.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
    for variable, (section, key, kind) in _settings().items():
        if variable in environ:
            target = table.setdefault(section, {}) if section else table
            target[key] = _value(variable, environ[variable], kind)
    if not table.get("boards"):
        table.pop("boards", None)
    where = str(path) if path else "configuration"
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {_explained(str(error), table)}") from error
    return _checked(config, where, path.parent if path else Path(), environ)


def _checked(config: Config, where: str, folder: Path, environ: Mapping[str, str]) -> Config:
    try:
        ZoneInfo(config.timezone)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"{where}: timezone {config.timezone!r} is not known") from error
    for kind, names in (("action", config.actions), ("board", config.boards)):
        for name in names:
            if not _TYPE.fullmatch(name):
                msg = f"{where}: the {kind} name {name!r} is not of the form {TYPE_PATTERN}"
                raise ConfigurationError(msg)
    from scoreboard.rules import rules_of  # it reads our types

    try:
        rules_of(config.actions, config.timezone)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{where}: {error}") from error
    for name, board in config.boards.items():
        for action in board.actions or ():
            if action not in config.actions:
                msg = f"{where}: board {name} counts the action {action!r}, which is not in [actions]"
                raise ConfigurationError(msg + _nearest(action, list(config.actions)))
    _check_web(config, where)
    auth = msgspec.structs.replace(
        config.auth,
        issuers=resolved(config.auth.issuers, where, folder, environ),
        grant_issuers=resolved(config.auth.grant_issuers, where, folder, environ),
    )
    return msgspec.structs.replace(config, auth=auth)


def _check_web(config: Config, where: str) -> None:
    for origin in config.web.origins:
        if not _ORIGIN.fullmatch(origin):
            msg = f"{where}: {origin!r} in web.origins is not of the form https://host[:port]"
            raise ConfigurationError(msg)
    for proxy in config.web.trusted_proxies:
        try:
            ip_network(proxy)
        except ValueError as error:
            # Whoever may say what its address is has no limit: no names, no `*`.
            msg = f"{where}: {proxy!r} in web.trusted_proxies is not an address or a network: {error}"
            raise ConfigurationError(msg) from error
    limits = config.rate_limits
    for name, rate in (
        ("rate_limits.per_address", limits.per_address),
        ("rate_limits.per_user", limits.per_user),
        ("rate_limits.per_key", limits.per_key),
        ("live.handshakes", config.live.handshakes),
    ):
        try:
            rate_of(rate)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {name} = {error}") from error


def _settings() -> dict[str, tuple[str, str, Any]]:
    """Variable: (section, key, type), for every setting that is a value or a list of values."""
    found = {}
    for item in msgspec.structs.fields(Config):
        if item.name in ("timezone", "namespace", "durability"):
            found[f"{PREFIX}{item.name}".upper()] = ("", item.name, item.type)
        elif item.name in _TABLES:
            for one in msgspec.structs.fields(item.type):
                if one.name not in ("issuers", "grant_issuers"):
                    found[f"{PREFIX}{item.name}_{one.name}".upper()] = (item.name, one.name, one.type)
    return found


def _value(variable: str, text: str, kind: Any) -> Any:
    """A variable's text as what the setting takes; of a list, the parts between commas."""
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if "tuple" in str(kind) else text
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{variable}={text!r}: {error}") from error


def _explained(message: str, table: dict[str, Any]) -> str:
    """The decoder's message with the nearest known key added where an unknown one is the fault."""
    found = re.search(r"unknown field `(.+?)`(?: - at `\$(.*)`)?", message)
    if found is None:
        return message
    key, path = found[1], (found[2] or "").strip(".")
    top = path.split(".")[0].split("[")[0]
    kinds: dict[str, type[Struct]] = {
        "": Config, "actions": Action, "boards": Board, "auth": Issuer if "issuers" in path else Auth,
        "queue": Queue, "live": Live, "web": Web, "rate_limits": RateLimits,
    }  # fmt: skip
    known = list(kinds.get(top, Config).__struct_encode_fields__)
    if "..." in path:  # a table of tables: say in which one
        owners = [
            name for name, value in table.get(top, {}).items() if isinstance(value, dict) and key in value
        ]
        path = f"{top}.{owners[0]}" if owners else top
    return f"unknown key {key!r}{f' in [{path}]' if path else ''}{_nearest(key, known)}"


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
