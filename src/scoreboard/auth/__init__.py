"""Auth: who is this, and may this user have the points of this action?

``tokens.py`` knows users, ``keys.py`` knows services, ``grants.py`` knows what was permitted, ``policy.py``
decides (pure, no I/O). In comes a request, or the text of an ``Authorization`` header, out goes a
``Principal``, or a ``Problem`` that says no more than it must.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from scoreboard.auth.keyring import NotYetKnown, once_more
from scoreboard.auth.keys import KEY_PREFIX, Keys
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens, digest_of
from scoreboard.database import hash_of_key
from scoreboard.errors import Problem
from scoreboard.model import Principal
from scoreboard.rates import Rates

__all__ = ["Auth", "Known"]


Known: TypeAlias = Callable[[], Principal | None]
"""Who it is, if that is known here at this moment."""


class Auth:
    """Knows users by their tokens and services by their keys."""

    def __init__(self, tokens: Tokens, keys: Keys, rates: Rates, proxies: Proxies) -> None:
        self.tokens, self.keys, self.proxies = tokens, keys, proxies
        self._rates = rates

    async def who(self, scope: Mapping[str, Any]) -> Principal:
        """Who sends a request (its ASGI scope), if neither its address nor it itself sends too many.

        Raises:
            Problem: ``rate_limited``, or as ``known``.
        """
        authorization = _values(scope["headers"], b"authorization")
        if len(authorization) > 1:
            self.anyone(scope)
            raise Problem("invalid_token", "Authorization is given twice.")  # others may judge by another
        return await self.known(
            authorization[0] if authorization else None,
            self._address(scope),
            write=scope["method"] != "GET",
        )

    def anyone(self, scope: Mapping[str, Any]) -> None:
        """A request of nobody that is known counts for its address. Raises ``Problem``: ``rate_limited``."""
        self._rates.address(self._address(scope), write=True)

    async def known(self, authorization: str | None, address: str, *, write: bool) -> Principal:
        """The principal behind an ``Authorization`` header that came from this address, within the limits.

        Raises:
            Problem: ``rate_limited``, or as ``principal``.
        """
        self._rates.address(address, write=write)
        try:
            principal = await self.principal(authorization, address)
        except Problem:
            if not write:
                self._rates.failed(address)
            raise
        self._rates.principal(principal)
        return principal

    async def principal(self, authorization: str | None, address: str | None = None) -> Principal:
        """Who stands behind an ``Authorization`` header. Only the look-up of an unknown key is counted.

        Raises:
            Problem: ``missing_token``, ``invalid_token``, ``token_expired``; when a key that is not known
                here cannot be looked up ``unavailable``, or ``rate_limited`` if its address asked too often.
        """
        if authorization is None:
            raise Problem("missing_token")
        scheme, _, credentials = authorization.partition(" ")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            raise Problem("missing_token", "A token or key is sent as: Authorization: Bearer <token or key>")
        if credentials.startswith(KEY_PREFIX):
            return await self.keys.principal(credentials, address)
        try:
            return self.tokens.principal(credentials)
        except NotYetKnown as unknown:
            return await once_more(unknown, lambda: self.tokens.principal(credentials), "invalid_token")

    def knowing(self, authorization: str) -> Known | None:
        """Where to look who has these credentials; ``None``: they are none. It keeps nothing but a digest."""
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        credentials = rest.strip()
        if credentials.startswith(KEY_PREFIX):
            return partial(self.keys.remembered, hash_of_key(credentials))
        return partial(self.tokens.remembered, digest_of(credentials))

    def within_limits(self, principal: Principal, peer: str, forwarded: Sequence[str]) -> None:
        """A write of this principal, that came in this way. Raises ``Problem``: ``rate_limited``."""
        self._rates.address(self.proxies.client(peer, forwarded), write=True)
        self._rates.principal(principal)

    async def run(self) -> None:
        """Notice what becomes of keys, issuers' and services', until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tokens.run(), name="issuers' keys")
            tasks.create_task(self.keys.run(), name="revocations")

    def _address(self, scope: Mapping[str, Any]) -> str:
        client = scope["client"]
        return self.proxies.client(client[0] if client else "", _values(scope["headers"], b"x-forwarded-for"))


def _values(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]
