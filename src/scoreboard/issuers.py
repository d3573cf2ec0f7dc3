"""Issuers: who may vouch for users or give grants, as the configuration says it.

In comes a table of the file, out goes the same with its secret read and its key files found. What the keys
are worth is judged by ``auth/keyring.py``, which also notices when they change. It never reads the
environment by itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from scoreboard.errors import ConfigurationError

SECRET_BYTES = 32
"""The shortest secret that is taken: 256 bits, as RFC 7518 section 3.2 wants for HS256."""
PEM = "-----BEGIN "
"""What a key begins with that stands in the configuration itself, not in a file."""


class Issuer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose signature counts: the ``iss`` of what it signs, and the keys that verify it."""

    # With a grant's id it becomes the reference of an event, hence the bound.
    issuer: Annotated[str, Meta(min_length=1, max_length=256)]
    audience: Annotated[str, Meta(min_length=1)] = "scoreboard"
    algorithms: tuple[Literal["HS256", "RS256", "ES256", "EdDSA"], ...]
    keys: tuple[str, ...] = ()
    """PEM public keys: files, relative to the configuration file, or the text itself."""
    jwks_url: str | None = None
    """Where the issuer publishes its public keys (RFC 7517)."""
    jwks_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 60
    """How often they are fetched."""
    secret_env: str | None = None
    """The variable that holds the secret, for HS256."""
    secret_file: str | None = None
    """Or the file that holds it, relative to the configuration file; white space at its ends is left out."""
    secret: str | None = field(default=None, name="secret (set through secret_env)")


def resolved(
    issuers: tuple[Issuer, ...], where: str, folder: Path, env: Mapping[str, str]
) -> tuple[Issuer, ...]:
    """The issuers with their secrets read and their files' names made absolute.

    Raises:
        ConfigurationError: one has no keys, or several kinds of them, or stands twice.
    """
    names = [issuer.issuer for issuer in issuers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"{where}: issuer {name}: it stands twice; give it all its keys in one table"
            )
    return tuple(_resolved(issuer, f"{where}: issuer {issuer.issuer}", folder, env) for issuer in issuers)


def _resolved(issuer: Issuer, place: str, folder: Path, env: Mapping[str, str]) -> Issuer:
    if issuer.algorithms == ("HS256",):
        if (issuer.secret_env is None) == (issuer.secret_file is None) or issuer.keys or issuer.jwks_url:
            raise ConfigurationError(f"{place}: HS256 needs secret_env or secret_file, one of the two, alone")
        if issuer.secret_file is not None:
            return msgspec.structs.replace(issuer, secret_file=_file(issuer.secret_file, folder, place))
        assert issuer.secret_env is not None  # noqa: S101  one of the two
        secret = env.get(issuer.secret_env, "")
        if len(secret.encode()) < SECRET_BYTES:
            msg = f"{place}: the variable {issuer.secret_env} must hold {SECRET_BYTES} bytes or more"
            raise ConfigurationError(msg)
        return msgspec.structs.replace(issuer, secret=secret)
    if "HS256" in issuer.algorithms:
        raise ConfigurationError(f"{place}: HS256 may not share an issuer with public keys (RFC 8725, 3.1)")
    if issuer.secret_env or issuer.secret_file or bool(issuer.keys) == (issuer.jwks_url is not None):
        told = ", ".join(issuer.algorithms) or "without algorithms it"
        raise ConfigurationError(f'{place}: {told} needs keys = ["file.pem"] or jwks_url, one of the two')
    if issuer.jwks_url is not None:
        _check_url(issuer.jwks_url, place)
    keys = tuple(key if key.startswith(PEM) else _file(key, folder, place) for key in issuer.keys)
    return msgspec.structs.replace(issuer, keys=keys)


def _file(name: str, folder: Path, place: str) -> str:
    path = (folder / name).absolute()
    if not path.is_file():
        raise ConfigurationError(f"{place}: {path}: No such file")
    return str(path)


def _check_url(url: str, place: str) -> None:
    """Whoever can change what is fetched can make points: nothing but TLS, except on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        fine = bool(host) and parts.username is None and not parts.fragment and parts.port != 0
    except ValueError:
        fine, parts, host = False, urlsplit(""), ""
    if not fine or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        msg = f"{place}: jwks_url must be like https://id.example/jwks.json (http only on this machine)"
        raise ConfigurationError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
