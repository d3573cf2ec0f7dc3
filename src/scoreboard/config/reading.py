"""Reading the configuration: the file, the variables above it, and all that must be so between them.

In come a path and the environment; out go a ``Config`` and an ``Environment``, or ``ConfigurationError``.
This is the only module that reads the environment. It must never pass over what it does not know.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from scoreboard.config.places import PREFIX, URLS, Environment, check_url
from scoreboard.config.tables import Action, Auth, Board, Config, Live, Queue, RateLimits, Web
from scoreboard.errors import ConfigurationError
from scoreboard.issuers import SECRET_BYTES, Issuer, resolved
from scoreboard.texts import TYPE_PATTERN, rate_of

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
    for name in URLS:
        if name in found:
            check_url(name, found[name])
    return Environment(**found)


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
