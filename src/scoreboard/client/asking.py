"""One request to a server, sent again with the same body until it is answered for good or patience ends."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import httpx
import msgspec

from scoreboard.errors import ScoreboardError

FIRST_PAUSE_SECONDS = 0.2
MOST_PAUSE_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0
"""A request may be held back for up to 10 s by ``Prefer: wait``; beyond this nobody is there."""

Credentials = str | None | Callable[[], str | Awaitable[str]]
"""A key or a token, or what gives one."""


class ClientError(ScoreboardError):
    """A request that did not succeed."""

    code: str
    """Stable: the protocol's table of errors, or ``unreachable``."""
    retryable: bool
    """May the same be sent again?"""
    retry_after: float = 0
    """Seconds after which that makes sense."""


class Refused(ClientError):
    """The server answered with a problem."""

    def __init__(self, code: str, text: str, *, retryable: bool = False, event_id: str | None = None) -> None:
        self.code, self.retryable, self.event_id = code, retryable, event_id
        super().__init__(text)

    @classmethod
    def of(cls, problem: Mapping[str, Any]) -> Self:
        """From a problem's members (RFC 9457)."""
        code = problem["code"]
        text = problem.get("detail") or problem.get("title", code)  # the first says all that the second does
        return cls(code, text, retryable=problem.get("retryable", False), event_id=problem.get("eventId"))


class Unreachable(ClientError):
    """The server did not answer. What was sent may have counted: send the same again, it counts once."""

    code = "unreachable"
    retryable = True


class Patience:
    """Pauses between tries: at random, longer each time, until so many seconds are over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._tries = 0

    async def pause(self, least: float = 0) -> bool:
        """Wait before the next try, at least so many seconds. ``False``, at once: patience ends before it."""
        seconds = least + backoff(self._tries, FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
        self._tries += 1
        if time.monotonic() + seconds > self._end:
            return False
        await asyncio.sleep(seconds)
        return True


def backoff(tries: int, first: float, most: float) -> float:
    """Seconds to wait after so many failed tries: evenly spread from 0 to ``first`` x 2^tries, or ``most``.

    The whole span is left to chance, so that many clients of a server that comes back do not come at once.
    """
    return random.uniform(0, min(most, first * 2.0 ** min(tries, 30)))  # noqa: S311  spreads load, keeps no secret


class Asking:
    """Requests in the name of one principal."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._credentials = credentials
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS)

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    @property
    def renewable(self) -> bool:
        """Will there be another token when this one has expired?"""
        return callable(self._credentials)

    async def credentials(self) -> str | None:
        """The key or the token as it is now."""
        given = self._credentials() if callable(self._credentials) else self._credentials
        return await given if inspect.isawaitable(given) else given

    async def ask(
        self, method: str, path: str, body: object, headers: Mapping[str, str], patience: Patience
    ) -> bytes:
        """The body of the answer. Raises ``Refused`` or ``Unreachable``."""
        while True:
            try:
                return await self._try(method, path, body, headers)
            except ClientError as error:
                if not error.retryable or not await patience.pause(error.retry_after):
                    raise

    async def _try(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> bytes:
        credentials = await self.credentials()
        who = {"authorization": f"Bearer {credentials}"} if credentials else {}
        try:
            answer = await self._http.request(method, path, json=body, headers={**headers, **who})
        except httpx.TransportError as error:
            raise Unreachable(f"{self._http.base_url} does not answer: {error!r}") from error
        if answer.is_success:
            return answer.content
        try:
            refused = Refused.of(msgspec.json.decode(answer.content))
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            # Not the server's own word: something between us and it.
            unreachable = Unreachable(f"{self._http.base_url}: something answers {answer.status_code}")
            unreachable.retryable = answer.is_server_error
            raise unreachable from error
        refused.retryable |= refused.code == "token_expired" and self.renewable
        after = answer.headers.get("retry-after", "")
        refused.retry_after = float(after) if after.isdecimal() else 0
        raise refused
