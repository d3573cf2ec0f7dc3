"""Envelopes: what travels in the log, sealed so that reaching the broker is not enough to mint points.

In go entries that the door accepted; out come the same entries, or a word on why this is no envelope of
ours. An envelope is 32 bytes of HMAC-SHA256 over the rest, and the rest: msgpack of ``Envelope``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from scoreboard.model import Entry, Outcome

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
    """This is no envelope that was sealed with one of our keys."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode
_outcomes = msgspec.msgpack.Decoder(list[Outcome])


def encode_entry(entry: Entry) -> msgspec.Raw:
    """One entry in the form in which it will lie in an envelope."""
    return msgspec.Raw(_encode(entry))


class Sealer:
    """Seals and opens envelopes with the keys of a deployment."""

    def __init__(self, secret: str, previous: str | None = None) -> None:
        """``previous``: a secret that is being replaced; it opens, and no longer seals."""
        self._keys = [purpose_key(s, "envelopes") for s in (secret, previous) if s is not None]

    def seal(
        self, catalogue: str, inbox: str, wanted: Sequence[int], entries: Sequence[msgspec.Raw]
    ) -> bytes:
        """An envelope around these entries."""
        body = _encode(_Sealed(catalogue, inbox, wanted, entries))
        return hmac.digest(self._keys[0], body, hashlib.sha256) + body

    def open(self, message: bytes) -> Envelope:
        """What is in a message of the log.

        Raises:
            NotOurs: it was not sealed with one of our keys, or holds what no envelope of ours may hold.
        """
        seal, body = message[:SEAL_BYTES], message[SEAL_BYTES:]
        if not any(hmac.compare_digest(seal, hmac.digest(key, body, hashlib.sha256)) for key in self._keys):
            raise NotOurs("the seal is not ours")
        try:
            envelope = _decode(body)
        except msgspec.DecodeError as error:
            raise NotOurs(f"sealed by us, but not readable by this version: {error}") from error
        if len(envelope.entries) > ENTRIES:
            raise NotOurs(f"more than {ENTRIES} entries")
        return envelope


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Outcomes on their way to those who wait."""
    return _encode(outcomes)


def decode_outcomes(message: bytes) -> list[Outcome]:
    """Outcomes as they arrive. Raises ``msgspec.DecodeError``."""
    return _outcomes.decode(message)
