"""Who of the clients has said who it is, and whether that still holds.

In come tokens and keys, out go principals: private boards open to them, and users get their own lines. Once a
second everybody is asked for again: who may not come in any more may not stay. A known token costs
microseconds, for auth remembers it.

It must never let a client stay whose token has expired or whose key was revoked, and never end one because it
could not be asked for.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Protocol

from scoreboard.auth import Auth
from scoreboard.errors import Problem
from scoreboard.live.watcher import INVALID_TOKEN, SERVER_ERROR, TOKEN_EXPIRED, TOO_MUCH, Watcher
from scoreboard.live.you import Lines
from scoreboard.model import Principal

CHECK_SECONDS = 1.0
"""With auth's own second, a revocation is noticed within two."""
BATCH = 512
"""Members between two yields to the loop: about 2 ms."""

_CODES = {
    "token_expired": (TOKEN_EXPIRED, "token expired"),
    "rate_limited": (TOO_MUCH, "too many tries"),
    "unavailable": (SERVER_ERROR, "cannot be looked up now"),
}

logger = logging.getLogger(__name__)


class Asking(Protocol):
    """A client that has sent its token."""

    def close(self, code: int, reason: str) -> None:
        """End it."""

    def welcome(self, credentials: str, principal: Principal) -> None:
        """It is somebody we know."""


class Member:
    """One token or key, and the clients that have shown it."""

    __slots__ = ("_members", "credentials", "watchers")

    def __init__(self, members: dict[str, Member], credentials: str) -> None:
        self._members, self.credentials = members, credentials
        self.watchers: set[Watcher] = set()

    def leave(self, watcher: Watcher) -> None:
        """A client has gone, or shown another token."""
        self.watchers.discard(watcher)
        if not self.watchers:
            self._members.pop(self.credentials, None)


class Members:
    """All members of one process. ``run`` must be running."""

    def __init__(self, auth: Auth, lines: Lines) -> None:
        self._auth, self._lines = auth, lines
        self._members: dict[str, Member] = {}
        self._asking: set[Asking] = set()
        self._tasks = asyncio.TaskGroup()

    def address(self, peer: str, forwarded: list[str]) -> str:
        """Where a client comes from: who has connected, or whom a trusted proxy names."""
        return self._auth.proxies.client(peer, forwarded)

    def ask(self, client: Asking, token: str, address: str) -> None:
        """Find out whose token this is; the client is told by ``welcome`` or ``close``."""
        if client in self._asking:
            client.close(TOO_MUCH, "one token at a time")
        else:
            self._asking.add(client)
            finding = self._find_out(client, f"Bearer {token}", address)
            self._tasks.create_task(finding, name="ask who somebody is")

    def enter(self, watcher: Watcher, credentials: str, principal: Principal) -> None:
        """A client that watches a board is this principal from now on."""
        watcher.forget()
        member = self._members.get(credentials)
        if member is None:
            member = self._members[credentials] = Member(self._members, credentials)
        member.watchers.add(watcher)
        watcher.member = member
        if principal.kind == "user" and watcher.hub is not None:
            watcher.line = self._lines.line(watcher.hub.board, principal.id)
            watcher.line.join(watcher)

    async def run(self) -> None:
        """Ask for everybody again and again, until cancelled."""
        async with self._tasks:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                await self._check()

    async def _find_out(self, client: Asking, credentials: str, address: str) -> None:
        try:
            principal = await self._auth.known(credentials, address, write=False)
        except Problem as problem:
            client.close(*_CODES.get(problem.code, (INVALID_TOKEN, "invalid token")))
        except Exception:
            logger.exception("A token could not be judged")
            client.close(SERVER_ERROR, "internal")
        else:
            client.welcome(credentials, principal)
        finally:
            self._asking.discard(client)

    async def _check(self) -> None:
        for number, member in enumerate(list(self._members.values()), 1):
            try:
                await self._auth.principal(member.credentials)
            except Problem as problem:
                if problem.status == HTTPStatus.UNAUTHORIZED:
                    for watcher in list(member.watchers):
                        watcher.close(TOKEN_EXPIRED, "token expired")
            if number % BATCH == 0:
                await asyncio.sleep(0)
