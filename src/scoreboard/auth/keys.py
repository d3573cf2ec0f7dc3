"""Services' API keys: random, 256 bits, kept only as SHA-256 of their whole text, revocable.

A known key costs one dictionary look-up. An unknown one is looked up in the database once (coalesced,
rate-limited, a negative answer kept for a second), so that a key works everywhere as soon as it is made.
Once a second all keys known here are asked for again, so that a revocation works everywhere within two. With
the database away, keys that are known go on working, until they expire. When a key was last used is noted by
the same task, at most once a minute, and never by a request.
"""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING

from msgspec import Struct

from scoreboard.database import Database, hash_of_key
from scoreboard.errors import DatabaseUnavailable, Problem
from scoreboard.model import Principal
from scoreboard.rates import Rates

if TYPE_CHECKING:
    import asyncpg

logger = logging.getLogger(__name__)

KEY_PREFIX = "sb_"
REFRESH_SECONDS = 1.0
UNKNOWN_SECONDS = 1.0  # how long a negative answer is kept
KNOWN = 10_000  # keys remembered a process, known and unknown: about 2 MB
NOTE_SECONDS = 60.0  # between two notes that a key has been used
LOOKUPS = 100  # look-ups of unknown keys a second and process; the database is not for guessing
_FORM = re.compile(r"sb_[A-Za-z0-9_-]{43}")


class _Known(Struct, frozen=True):
    """A key that opens something."""

    principal: Principal
    ends: float
    """When it expires, on this machine's monotonic clock."""


class Keys:
    """Knows services by their keys. ``run`` must be running for revocations to be noticed."""

    def __init__(self, database: Database, rates: Rates) -> None:
        self._database, self._rates = database, rates
        self._known: dict[bytes, _Known] = {}
        self._used: set[str] = set()  # ids, since it was last noted; of known keys, so as bounded as they are
        self._noted: dict[str, float] = {}
        self._unknown: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._second, self._lookups = 0, 0

    async def principal(self, key: str, address: str | None = None) -> Principal:
        """The service whose key this is. ``address``: who shall answer for it if it has to be looked up.

        Raises:
            Problem: ``invalid_token``; if the key is not known here, ``rate_limited`` when the address had
                too many looked up, ``unavailable`` when it cannot be looked up.
        """
        digest = hash_of_key(key)
        known = self._known.get(digest)
        if known is not None and known.ends > monotonic():
            self._used.add(known.principal.id)
            return known.principal
        if not _FORM.fullmatch(key) or self._unknown.get(digest, 0.0) > monotonic():
            raise Problem("invalid_token", "There is no such key.")
        asking = self._asking.get(digest)
        if asking is None:
            self._limit(address)
            asking = asyncio.create_task(self._ask(digest))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._asked(digest, done))
        try:
            found = await asyncio.shield(asking)
        except DatabaseUnavailable as error:
            raise Problem("unavailable", "The key cannot be looked up right now.", retry_after=1) from error
        if found is None:
            raise Problem("invalid_token", "There is no such key.")
        self._used.add(found.principal.id)
        return found.principal

    def _asked(self, digest: bytes, done: asyncio.Task[_Known | None]) -> None:
        del self._asking[digest]
        if not done.cancelled():
            done.exception()  # whoever still waits gets it; if nobody does, it is seen here

    def _limit(self, address: str | None) -> None:
        if address is not None:
            self._rates.lookup(address)
        second = int(monotonic())
        if second != self._second:
            self._second, self._lookups = second, 0
        self._lookups += 1
        if self._lookups > LOOKUPS:
            raise Problem("unavailable", "Too many unknown keys are being tried.", retry_after=1)

    async def _ask(self, digest: bytes) -> _Known | None:
        found = (await self._database.keys([digest])).get(digest)
        for memory in (self._known, self._unknown):
            if len(memory) >= KNOWN:
                memory.pop(next(iter(memory)))  # the oldest
        if found is None:
            self._known.pop(digest, None)
            self._unknown[digest] = monotonic() + UNKNOWN_SECONDS
            return None
        known = self._known[digest] = _known(found)
        return known

    async def run(self) -> None:
        """Notice revocations, and note which keys are used, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            asked = list(self._known)
            if not asked:
                continue
            try:
                found = await self._database.keys(asked)
                for digest in asked:
                    if digest in found:
                        self._known[digest] = _known(found[digest])
                    else:
                        self._known.pop(digest, None)
                await self._note()
            except DatabaseUnavailable as error:
                logger.warning("revocations are not noticed: %s", error)

    async def _note(self) -> None:
        now = monotonic()
        self._noted = {key: at for key, at in self._noted.items() if now - at < NOTE_SECONDS}
        if due := self._used - self._noted.keys():
            await self._database.use_keys(due)
            self._noted |= dict.fromkeys(due, now)
            self._used -= due


def _known(row: asyncpg.Record) -> _Known:
    _, key_id, scopes, actions, seconds = row
    principal = Principal(
        "service",
        key_id,
        scopes=frozenset(scopes),
        actions=None if actions is None else frozenset(actions),
    )
    return _Known(principal, float("inf") if seconds is None else monotonic() + seconds)
