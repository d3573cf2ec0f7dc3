"""Which pages may write and use what is private: those of our own host, and of ``web.origins``. Pure.

A browser says in ``Origin`` which page asks (RFC 6454). Programs say nothing, and abuse nobody's trust.
"""

from __future__ import annotations

from collections.abc import Iterable


class Origins:
    """The pages that one deployment trusts."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = frozenset(origin.lower() for origin in trusted)

    def trusts(self, origin: str | None, host: str) -> bool:
        """May a page of this origin ask, when the request was sent to ``host`` (the header)?"""
        if origin is None or origin.lower() in self._trusted:
            return True
        # With or without TLS: that is the proxy's business, and there is no cookie to be stolen in between.
        scheme, _, authority = origin.lower().partition("://")
        return scheme in ("http", "https") and authority != "" and authority == host.lower()
