"""Keyrings: the keys that an issuer has right now, each bound to one algorithm.

In comes an issuer of the configuration; out goes its keyring, whose ``keys`` is replaced as a whole when they
change. A secret of the environment stands for as long as the process. Files, of PEM keys or with a secret,
are looked at every second, so that a key that is taken away stops counting within seconds in every process;
``jwks.py`` follows a URL in the same way. A key must never be used with another algorithm than its own,
whatever a token says (RFC 8725 section 3.1).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Struct

from scoreboard.errors import ConfigurationError, Problem
from scoreboard.issuers import PEM, SECRET_BYTES, Issuer

logger = logging.getLogger(__name__)

T = TypeVar("T")
LOOK_SECONDS = 1.0  # how often the files are looked at
RSA_BITS = 2048  # RFC 7518 section 3.3
PEM_BYTES = 64 * 1024


class Key(Struct, frozen=True):
    """What verifies a signature, and the one algorithm it is used with."""

    algorithm: str
    material: Any
    kid: str | None = None


class Keyring:
    """The keys of one issuer. As it stands here they never change."""

    def __init__(self, name: str, audience: str, keys: Sequence[Key] | None) -> None:
        self.name, self.audience = name, audience
        self.keys = None if keys is None else tuple(keys)
        """``None``: not known yet. Another object whenever one has changed."""

    def fitting(self, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed what names this ``kid``; a key without one fits every time.

        Raises:
            NotYetKnown: there is none of that name, nor one without; asking the issuer again may help.
        """
        fit = [key for key in self.keys or () if kid is None or key.kid is None or key.kid == kid]
        if not fit:
            raise NotYetKnown("The issuer has no key of that kid.", partial(self.refresh, kid))
        return fit

    async def refresh(self, kid: str | None) -> None:
        """Ask the issuer for its keys, since it may have one of this ``kid`` by now.

        Raises:
            Problem: ``unavailable``: it may have, but cannot be asked right now.
        """

    async def run(self) -> None:
        """Follow the issuer's keys until cancelled."""


class NotYetKnown(Exception):
    """What was signed depends on what is not known here (yet); ``ask`` may bring it."""

    def __init__(self, detail: str, ask: Callable[[], Awaitable[object]]) -> None:
        self.detail, self.ask = detail, ask
        super().__init__(detail)


async def once_more(unknown: NotYetKnown, judge: Callable[[], T], code: str) -> T:
    """What ``judge`` decides once what was not known has been asked for.

    Raises:
        Problem: ``code`` if that did not help; ``unavailable`` if it cannot be asked for right now.
    """
    await unknown.ask()
    try:
        return judge()
    except NotYetKnown as still:
        raise Problem(code, still.detail) from still


class FileKeyring(Keyring):
    """Public keys as PEM, files that may change and text that stays; or a secret in a file."""

    def __init__(self, issuer: Issuer) -> None:
        """Raises ``ConfigurationError`` if one is not a public key of one of the issuer's algorithms.

        Or if the secret is too short, or others may read its file.
        """
        self._issuer = issuer
        self._sources = issuer.keys if issuer.secret_file is None else (issuer.secret_file,)
        self._seen: dict[str, tuple[int, ...]] = {}
        self._good: dict[str, Key] = {}
        for source in self._sources:
            try:
                self._look(source)
            except (ValueError, OSError) as error:
                raise ConfigurationError(f"issuer {issuer.issuer}: {error}") from error
        super().__init__(issuer.issuer, issuer.audience, list(self._good.values()))

    async def run(self) -> None:
        """Look at the files until cancelled."""
        files = [source for source in self._sources if not source.startswith(PEM)]
        while files:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self._changed, files):
                self.keys = tuple(self._good.values())
                logger.info("keys of %s have changed", self.name, extra={"keys": len(self.keys)})

    def _changed(self, files: Iterable[str]) -> bool:
        before = dict(self._good)
        for file in files:
            try:
                self._look(file)
            except FileNotFoundError:
                # A file is replaced in one step; one that is gone has been taken away, and so is its key.
                if self._good.pop(file, None) is not None:
                    logger.error("issuer %s: %s is gone; its key does not count any more", self.name, file)
                self._seen.pop(file, None)
            except (ValueError, OSError) as error:
                logger.error("issuer %s: %s; the key before it stays", self.name, error)
        return before != self._good

    def _look(self, source: str) -> None:
        """Read one source if it has changed since it was last seen."""
        if source.startswith(PEM):
            self._good[source] = _public_key(source, self._issuer)
            return
        found = Path(source).stat()
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
        if self._seen.get(source) == stamp:
            return
        self._seen[source] = stamp
        secret = self._issuer.secret_file is not None
        with Path(source).open(encoding="utf-8" if secret else "ascii") as file:
            text = file.read(PEM_BYTES)
        try:
            self._good[source] = _secret(text, found.st_mode) if secret else _public_key(text, self._issuer)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _public_key(pem: str, issuer: Issuer) -> Key:
    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a PEM public key: {error}") from error
    algorithm = algorithm_of(public)
    if algorithm not in issuer.algorithms:
        raise ValueError(f"a key is for {algorithm}, which is not among its algorithms")
    return Key(algorithm, public)


def _secret(text: str, mode: int) -> Key:
    if mode & 0o077:
        raise ValueError("it may be read by others; chmod 600")
    secret = text.strip().encode()
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"it must hold {SECRET_BYTES} bytes or more")
    return Key("HS256", secret)


def algorithm_of(public: object) -> str:
    """The one algorithm that a public key is used with."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(public, rsa.RSAPublicKey):
        return "RS256" if public.key_size >= RSA_BITS else f"RSA with less than {RSA_BITS} bits"
    return "an unsupported algorithm"


def keyring_of(issuer: Issuer) -> Keyring:
    """The keyring of a configured issuer. Raises ``ConfigurationError`` if a key is not what it should be."""
    if issuer.secret is not None:
        return Keyring(issuer.issuer, issuer.audience, [Key("HS256", issuer.secret.encode())])
    if issuer.jwks_url is not None:
        from scoreboard.auth.jwks import JwksKeyring  # its HTTP client is slow to import

        return JwksKeyring(issuer, issuer.jwks_url)
    return FileKeyring(issuer)


def keyrings(issuers: Iterable[Issuer], local: Keyring | None) -> dict[str, Keyring]:
    """The keyrings of these issuers and of our own, by name. Raises ``ConfigurationError``."""
    found = {issuer.issuer: keyring_of(issuer) for issuer in issuers}
    if local is not None:
        if local.name in found:
            raise ConfigurationError(f"issuer {local.name}: that is the name of our own; choose another")
        found[local.name] = local
    return found


def check_apart(tokens: Iterable[Issuer], grants: Iterable[Issuer]) -> None:
    """Raise ``ConfigurationError`` if what vouches for users would give grants, too."""
    ours = {fact: issuer for issuer in tokens for fact in _facts(issuer)}
    for issuer in grants:
        for fact in _facts(issuer):
            if fact in ours:
                msg = f"grant issuer {issuer.issuer} has a key of issuer {ours[fact].issuer}"
                raise ConfigurationError(f"{msg}: keys for grants are a set apart from keys for tokens")


def _facts(issuer: Issuer) -> Iterable[Any]:
    """What two issuers must not share."""
    if issuer.jwks_url is not None:
        return [issuer.jwks_url]
    keys = keyring_of(issuer).keys or ()
    return [
        key.material
        if key.algorithm == "HS256"
        else key.material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for key in keys
    ]


async def follow(rings: Iterable[Keyring]) -> None:
    """Follow the keys of all these issuers until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for ring in rings:
            tasks.create_task(ring.run(), name=f"keys of {ring.name}")
