"""Envelopes: what travels through the broker, sealed so that reaching it is not enough to mint points.

In go entries that the door accepted; out come the same entries, or a word on why this is no envelope of
ours. An envelope is 32 bytes of HMAC-SHA256 over the rest, and the rest: msgpack of ``Envelope``. Outcomes on
their way back are sealed alike, with a key of their own: nobody else can tell a client that it scored.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from scoreboard.model import Entry, Outcome

T = TypeVar("T")

SEAL_BYTES = 32
ENTRIES = 500
"""Entries an envelope at most; below ``model.PLACES``."""
ENTRY_BYTES = 256 * 1024
"""Bytes of entries an envelope at most; NATS takes messages up to 1 MiB."""


def purpose_key(secret: str, purpose: str) -> bytes:
    """A key for one purpose, derived from the deployment's secret by HKDF-SHA256 (RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=f"scoreboard {purpose}".encode()).derive(secret.encode())


class _Sealed(Struct, frozen=True, array_like=True):
    """An envelope as the door writes it: its entries are encoded already."""

    catalogue: str
    inbox: str
    wanted: Sequence[int]
    entries: Sequence[msgspec.Raw]


class Envelope(Struct, frozen=True, array_like=True):
    """An envelope as the worker reads it."""

    catalogue: str
    """The hash of the catalogue under which the entries were accepted."""
    inbox: str
    """Where outcomes are awaited (a core NATS subject); empty if nobody waits."""
    wanted: Sequence[int]
    """Places whose outcome somebody waits for."""
    entries: list[Entry]


class NotOurs(ValueError):
    """This was not sealed with one of our keys."""


_encode = msgspec.msgpack.Encoder().encode
encode_entry: Callable[[Entry], bytes] = _encode
"""One entry in the form in which it will lie in an envelope."""
_decode = msgspec.msgpack.Decoder(Envelope).decode
_decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


def decode_entry(data: bytes) -> Entry:
    """One entry out of that form. Raises ``msgspec.DecodeError``."""
    entry: Entry = _decode_entry(data)
    return entry


class Sealer:
    """Seals and opens with the keys of a deployment."""

    def __init__(self, secret: str, previous: str | None = None) -> None:
        """``previous``: a secret that is being replaced; it opens, and no longer seals."""
        secrets = [s for s in (secret, previous) if s is not None]
        self._envelopes = [purpose_key(s, "envelopes") for s in secrets]
        self._outcomes = [purpose_key(s, "outcomes") for s in secrets]

    def seal(self, catalogue: str, inbox: str, wanted: Sequence[int], entries: Sequence[bytes]) -> bytes:
        """An envelope around these entries."""
        raw = [msgspec.Raw(entry) for entry in entries]
        return _sealed(self._envelopes, _encode(_Sealed(catalogue, inbox, wanted, raw)))

    def open(self, message: bytes) -> Envelope:
        """What is in a message of the log.

        Raises:
            NotOurs: it was not sealed with one of our keys, or holds what no envelope of ours may hold.
        """
        envelope = _opened(self._envelopes, message, _decode)
        if len(envelope.entries) > ENTRIES:
            raise NotOurs(f"more than {ENTRIES} entries")
        return envelope

    def seal_outcomes(self, outcomes: Sequence[Outcome]) -> bytes:
        """Outcomes on their way to those who wait."""
        return _sealed(self._outcomes, _encode(outcomes))

    def open_outcomes(self, message: bytes) -> list[Outcome]:
        """Outcomes as they arrive. Raises ``NotOurs``."""
        return _opened(self._outcomes, message, _decode_outcomes)


def _sealed(keys: Sequence[bytes], body: bytes) -> bytes:
    return hmac.digest(keys[0], body, hashlib.sha256) + body


def _opened(keys: Sequence[bytes], message: bytes, decode: Callable[[bytes], T]) -> T:
    seal, body = message[:SEAL_BYTES], message[SEAL_BYTES:]
    if not any(hmac.compare_digest(seal, hmac.digest(key, body, hashlib.sha256)) for key in keys):
        raise NotOurs("the seal is not ours")
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        raise NotOurs(f"sealed by us, but not readable by this version: {error}") from error
