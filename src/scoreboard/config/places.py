"""Where the engines are, and what is secret: what comes from variables alone, never from the file.

In comes what ``reading.py`` found in the environment; out go URLs that can be ones, and the deployment's
secret, which the data folder keeps if no variable has it. No message may repeat a URL or a secret.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from scoreboard.errors import ConfigurationError
from scoreboard.issuers import SECRET_BYTES

PREFIX = "SCOREBOARD_"


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
URLS = {
    "database_url": (("postgresql", "postgres"), "postgresql://user:password@host/name"),
    "queue_url": (("nats", "tls", "ws", "wss"), "nats://user:password@host:4222"),
    "board_url": (("redis", "rediss", "unix"), "redis://:password@host:6379/0"),
}


def _required(environment: Environment, name: str) -> str:
    value: str | None = getattr(environment, name)
    if not value:
        msg = (
            f"{PREFIX}{name.upper()} is not set. This command uses engines that run elsewhere,"
            f" e.g. {URLS[name][1]}"
        )
        raise ConfigurationError(msg)
    return value


def check_url(name: str, url: str) -> None:
    """Raises ``ConfigurationError`` if this is no URL for that engine; does not repeat it: passwords."""
    schemes, example = URLS[name]
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
