"""Services' API keys: random, 256 bits, kept only as SHA-256 of their whole text, revocable.

A known key costs one dictionary look-up. An unknown one is looked up in the database once (coalesced,
rate-limited, a negative answer kept for a second), so that a key works everywhere as soon as it is made.
Once a second all keys known here are asked for again, so that a revocation works everywhere within two. With
the database away, keys that are known go on working.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from scoreboard.database import Database, hash_of_key
from scoreboard.errors import DatabaseUnavailable, Problem
from scoreboard.model import Principal, Scope

logger = logging.getLogger(__name__)

KEY_PREFIX = "sb_"
KEY_BYTES = 32
REFRESH_SECONDS = 1.0
UNKNOWN_SECONDS = 1.0  # how long a negative answer is kept
KNOWN = 10_000  # keys remembered a process, known and unknown: about 2 MB
LOOKUPS = 100  # look-ups of unknown keys a second and process; the database is not for guessing
_FORM = re.compile(r"sb_[A-Za-z0-9_-]{43}")


class Keys:
    """Knows services by their keys. ``run`` must be running for revocations to be noticed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, Principal] = {}
        self._unknown: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._second, self._lookups = 0, 0

    async def principal(self, key: str) -> Principal:
        """The service whose key this is.

        Raises:
            Problem: ``invalid_token``; ``unavailable`` if the key is not known here and cannot be looked up.
        """
        digest = hash_of_key(key)
        known = self._known.get(digest)
        if known is not None:
            return known
        if not _FORM.fullmatch(key) or self._unknown.get(digest, 0.0) > time.monotonic():
            raise Problem("invalid_token", "There is no such key.")
        asking = self._asking.get(digest)
        if asking is None:
            self._limit()
            asking = asyncio.create_task(self._ask(digest))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._asked(digest, done))
        try:
            found = await asyncio.shield(asking)
        except DatabaseUnavailable as error:
            raise Problem("unavailable", "The key cannot be looked up right now.", retry_after=1) from error
        if found is None:
            raise Problem("invalid_token", "There is no such key.")
        return found

    def _asked(self, digest: bytes, done: asyncio.Task[Principal | None]) -> None:
        del self._asking[digest]
        if not done.cancelled():
            done.exception()  # whoever still waits gets it; if nobody does, it is seen here

    def _limit(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lookups = second, 0
        self._lookups += 1
        if self._lookups > LOOKUPS:
            raise Problem("unavailable", "Too many unknown keys are being tried.", retry_after=1)

    async def _ask(self, digest: bytes) -> Principal | None:
        found = (await self._database.keys([digest])).get(digest)
        for memory in (self._known, self._unknown):
            if len(memory) >= KNOWN:
                memory.pop(next(iter(memory)))  # the oldest
        if found is None:
            self._unknown[digest] = time.monotonic() + UNKNOWN_SECONDS
            return None
        principal = _service(*found)
        self._known[digest] = principal
        return principal

    async def run(self) -> None:
        """Notice revocations until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            asked = list(self._known)
            if not asked:
                continue
            try:
                found = await self._database.keys(asked)
            except DatabaseUnavailable as error:
                logger.warning("revocations are not noticed: %s", error)
                continue
            for digest in asked:
                if digest in found:
                    self._known[digest] = _service(*found[digest])
                else:
                    self._known.pop(digest, None)


def _service(key_id: str, scopes: list[str]) -> Principal:
    return Principal("service", key_id, scopes=frozenset(scopes))


async def create_key(database: Database, name: str, scopes: list[Scope]) -> tuple[str, str]:
    """Make a key: (its id, its text). The text is kept nowhere."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    key_id = "k_" + secrets.token_hex(6)
    await database.insert_key(key_id, hash_of_key(key), name, [scope.value for scope in scopes])
    return key_id, key
