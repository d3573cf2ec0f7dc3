"""Services' API keys: random, 256 bits, kept only as SHA-256 of their whole text, revocable.

A known key costs one dictionary look-up. An unknown one is looked up in the database once (coalesced,
rate-limited, a negative answer kept for a second), so that a key works everywhere as soon as it is made.
Once a second all keys known here are asked for again, so that a revocation works everywhere within two. With
the database away, keys that are known go on working, until they expire. When a key was last used is noted by
the same task, at most once a minute, and never by a request.

A key that had grants made is known by its id in the same way, so that they end with its revocation. Such ids
come out of what we have signed: nobody can have invented ones looked up.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from scoreboard.auth.keyring import NotYetKnown
from scoreboard.database import Database, hash_of_key
from scoreboard.errors import DatabaseUnavailable, Problem
from scoreboard.model import Principal
from scoreboard.rates import Rates

if TYPE_CHECKING:
    import asyncpg

logger = logging.getLogger(__name__)

What = TypeVar("What", bound=Hashable)
Found = TypeVar("Found")
KEY_PREFIX = "sb_"
REFRESH_SECONDS = 1.0
UNKNOWN_SECONDS = 1.0  # how long a negative answer is kept
KNOWN = 10_000  # keys remembered a process, of each sort (known, unknown, givers): about 2 MB
NOTE_SECONDS = 60.0  # between two notes that a key has been used
LOOKUPS = 100  # look-ups of unknown keys a second and process; the database is not for guessing
_FORM = re.compile(r"sb_[A-Za-z0-9_-]{43}")


class _Known(Struct, frozen=True):
    """A key that opens something."""

    principal: Principal
    ends: float
    """When it expires, on this machine's monotonic clock."""


class _LookUp(Generic[What, Found]):
    """Asks the database for one thing once, however many wait for it."""

    def __init__(self, ask: Callable[[What], Coroutine[Any, Any, Found]]) -> None:
        self._ask = ask
        self._asking: dict[What, asyncio.Task[Found]] = {}

    def __contains__(self, what: What) -> bool:
        return what in self._asking

    async def __call__(self, what: What) -> Found:
        """What was found. Raises ``Problem``: ``unavailable``."""
        asking = self._asking.get(what)
        if asking is None:
            asking = self._asking[what] = asyncio.create_task(self._ask(what))
            asking.add_done_callback(partial(self._asked, what))
        try:
            return await asyncio.shield(asking)
        except DatabaseUnavailable as error:
            raise Problem("unavailable", "The key cannot be looked up right now.", retry_after=1) from error

    def _asked(self, what: What, done: asyncio.Task[Found]) -> None:
        del self._asking[what]
        if not done.cancelled():
            done.exception()  # whoever still waits gets it; if nobody does, it is seen here


class Keys:
    """Knows services by their keys. ``run`` must be running for revocations to be noticed."""

    def __init__(self, database: Database, rates: Rates) -> None:
        self._database, self._rates = database, rates
        self._known: dict[bytes, _Known] = {}
        self._used: set[str] = set()  # ids, since it was last noted; of known keys, so as bounded as they are
        self._noted: dict[str, float] = {}
        self._unknown: dict[bytes, float] = {}
        self._givers: dict[str, bool] = {}  # keys that had grants made: do they stand?
        self._look_up, self._look_up_giver = _LookUp(self._ask), _LookUp(self._ask_giver)
        self._second, self._lookups = 0, 0

    async def principal(self, key: str, address: str | None = None) -> Principal:
        """The service whose key this is. ``address``: who shall answer for it if it has to be looked up.

        Raises:
            Problem: ``invalid_token``; if the key is not known here, ``rate_limited`` when the address had
                too many looked up, ``unavailable`` when it cannot be looked up.
        """
        digest = hash_of_key(key)
        if (remembered := self.remembered(digest)) is not None:
            return remembered
        if not _FORM.fullmatch(key) or self._unknown.get(digest, 0.0) > monotonic():
            raise Problem("invalid_token", "There is no such key.")
        if digest not in self._look_up:
            self._limit(address)
        found = await self._look_up(digest)
        if found is None:
            raise Problem("invalid_token", "There is no such key.")
        self._used.add(found.principal.id)
        return found.principal

    def remembered(self, digest: bytes) -> Principal | None:
        """The service whose key has this hash, if that is known here."""
        known = self._known.get(digest)
        if known is None or known.ends <= monotonic():
            return None
        self._used.add(known.principal.id)
        return known.principal

    def stands(self, key_id: str) -> bool:
        """Do the grants stand that this key had made? They do when it has ended, but not when it was revoked.

        Raises:
            NotYetKnown: it has not been looked up here.
        """
        standing = self._givers.get(key_id)
        if standing is None:
            msg = "It is not known which key had the grant made."
            raise NotYetKnown(msg, partial(self._look_up_giver, key_id))
        return standing

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
        _make_room(self._known)
        _make_room(self._unknown)
        if found is None:
            self._known.pop(digest, None)
            self._unknown[digest] = monotonic() + UNKNOWN_SECONDS
            return None
        known = self._known[digest] = _known(found)
        return known

    async def _ask_giver(self, key_id: str) -> None:
        standing = await self._database.standing_keys([key_id])
        _make_room(self._givers)
        self._givers[key_id] = key_id in standing

    async def run(self) -> None:
        """Notice revocations, and note which keys are used, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
                await self._note()
            except DatabaseUnavailable as error:
                logger.warning("revocations are not noticed: %s", error)

    async def _refresh(self) -> None:
        if asked := list(self._known):
            found = await self._database.keys(asked)
            for digest in asked:
                if digest in found:
                    self._known[digest] = _known(found[digest])
                else:
                    self._known.pop(digest, None)
        if givers := list(self._givers):
            standing = await self._database.standing_keys(givers)
            self._givers |= {key_id: key_id in standing for key_id in givers}

    async def _note(self) -> None:
        now = monotonic()
        self._noted = {key: at for key, at in self._noted.items() if now - at < NOTE_SECONDS}
        if due := self._used - self._noted.keys():
            await self._database.use_keys(due)
            self._noted |= dict.fromkeys(due, now)
            self._used -= due


def _make_room(memory: dict[Any, Any]) -> None:
    if len(memory) >= KNOWN:
        memory.pop(next(iter(memory)))  # the oldest


def _known(row: asyncpg.Record) -> _Known:
    _, key_id, scopes, actions, seconds = row
    principal = Principal(
        "service",
        key_id,
        scopes=frozenset(scopes),
        actions=None if actions is None else frozenset(actions),
    )
    return _Known(principal, float("inf") if seconds is None else monotonic() + seconds)
