"""Auth: who is this, and may this user have the points of this action?

``tokens.py`` knows users, ``keys.py`` knows services, ``grants.py`` knows what was permitted, ``policy.py``
decides (pure, no I/O). In comes the text of an ``Authorization`` header, out goes a ``Principal``, or a
``Problem`` that says no more than it must.
"""

from __future__ import annotations

import asyncio

from scoreboard.auth.keyring import UnknownKid, once_more
from scoreboard.auth.keys import KEY_PREFIX, Keys
from scoreboard.auth.tokens import Tokens
from scoreboard.errors import Problem
from scoreboard.model import Principal

__all__ = ["Auth"]


class Auth:
    """Knows users by their tokens and services by their keys."""

    def __init__(self, tokens: Tokens, keys: Keys) -> None:
        self.tokens, self.keys = tokens, keys

    async def principal(self, authorization: str | None) -> Principal:
        """Who stands behind an ``Authorization`` header.

        Raises:
            Problem: ``missing_token``, ``invalid_token``, ``token_expired``; ``unavailable`` when a key that
                is not known here cannot be looked up.
        """
        if authorization is None:
            raise Problem("missing_token")
        scheme, _, credentials = authorization.partition(" ")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            raise Problem("missing_token", "Send it as: Authorization: Bearer <token or key>")
        if credentials.startswith(KEY_PREFIX):
            return await self.keys.principal(credentials)
        try:
            return self.tokens.principal(credentials)
        except UnknownKid as unknown:
            return await once_more(unknown, lambda: self.tokens.principal(credentials), "invalid_token")

    async def run(self) -> None:
        """Notice what becomes of keys, issuers' and services', until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tokens.run(), name="issuers' keys")
            tasks.create_task(self.keys.run(), name="revocations")
