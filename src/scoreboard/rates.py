"""How often one address, one user and one key may ask this process.

In comes who asks, out goes nothing, or ``Problem("rate_limited")`` with the time after which asking again
makes sense. It must never grow with the number of those who ask, forget one because others came, or let one
who sends too much be served because it sends even more.
"""

from __future__ import annotations

import math
from array import array
from socket import AF_INET6, inet_ntoa, inet_pton
from time import monotonic

from scoreboard import metrics
from scoreboard.config import RateLimits
from scoreboard.errors import Problem
from scoreboard.model import Principal
from scoreboard.texts import rate_of

_ROW_BITS = 16
PLACES = 1 << _ROW_BITS
"""Of each of two rows: 1 MiB a limit. While 1,000 others are at their limit, 1 in 4,000 is taken for them."""
_LAST = PLACES - 1
LOOKUPS = "10/s"
"""Unknown keys that one address may have looked up: a tenth of what ``keys.py`` looks up for all."""
_SUBNET_BYTES = 8  # who has one IPv6 address has the 2^64 of its network, too
_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address, written as IPv6


class Limit:
    """So many in a period, all at once or spread (a bucket of tokens, kept as GCRA: one time for each).

    Kept is only when each will have paid for what it has asked: a place in the future, at most one period
    away. The times stand in two rows of fixed length, at two places that a salted hash chooses. Two who meet
    in one of them pay for each other there, so the better of the two counts; nobody can choose whom to meet.
    So there is no table that grows, and none to be pushed out of.
    """

    def __init__(self, rate: str) -> None:
        count, period = rate_of(rate)
        self._each = period / count
        # A little more, so that rounding never takes the last of a burst.
        self._ahead = period - self._each * 0.99
        self._first, self._second = (array("d", bytes(8 * PLACES)) for _ in range(2))

    def take(self, who: str | bytes) -> float:
        """Ask once: 0 if that may be, else in how many seconds it may. What is refused costs nothing."""
        place, now = hash(who), monotonic()
        one, two = place & _LAST, place >> _ROW_BITS & _LAST
        first, second = self._first[one], self._second[two]
        wait = min(first, second) - now - self._ahead
        if wait > 0:
            return wait
        self._first[one] = max(first, now) + self._each
        self._second[two] = max(second, now) + self._each
        return 0.0

    def wait(self, who: str | bytes) -> float:
        """In how many seconds ``take`` would succeed; 0 or less: at once."""
        place = hash(who)
        first, second = self._first[place & _LAST], self._second[place >> _ROW_BITS & _LAST]
        return min(first, second) - monotonic() - self._ahead


class Rates:
    """The limits of one process."""

    def __init__(self, settings: RateLimits) -> None:
        self._enabled = settings.enabled
        self._address = Limit(settings.per_address)
        self._user, self._key = Limit(settings.per_user), Limit(settings.per_key)
        self._lookups = Limit(LOOKUPS)

    def address(self, client: str, *, write: bool) -> None:
        """Before it is known who asks: an address may send so much, and fail to prove itself so often.

        A write counts here, whatever becomes of it; a read only if ``failed`` is called.

        Raises:
            Problem: ``rate_limited``.
        """
        if self._enabled:
            ask = self._address.take if write else self._address.wait
            if (wait := ask(network_of(client))) > 0:
                raise _too_many("address", wait)

    def failed(self, client: str) -> None:
        """A read came with credentials that do not hold."""
        if self._enabled:
            self._address.take(network_of(client))

    def lookup(self, client: str) -> None:
        """A key that is not known is to be looked up. Raises ``Problem``: ``rate_limited``."""
        if self._enabled and (wait := self._lookups.take(network_of(client))) > 0:
            raise _too_many("address", wait)

    def principal(self, principal: Principal) -> None:
        """Once it is known who asks. Raises ``Problem``: ``rate_limited``."""
        if self._enabled:
            limit = self._user if principal.kind == "user" else self._key
            if (wait := limit.take(principal.id)) > 0:
                raise _too_many(principal.kind, wait)


def network_of(address: str) -> str | bytes:
    """Whom an address stands for: itself, or of IPv6 its network of 64 bits."""
    if ":" not in address:
        return address
    try:
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    return inet_ntoa(packed[12:]) if packed.startswith(_MAPPED) else packed[:_SUBNET_BYTES]


def _too_many(who: str, wait: float) -> Problem:
    metrics.RATE_LIMITED.labels(who).inc()
    detail = f"Too many requests from this {'key' if who == 'service' else who}."
    return Problem("rate_limited", detail, retry_after=math.ceil(wait))
