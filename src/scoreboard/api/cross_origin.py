"""Pages of other hosts: whether they may write, and read what they are answered (Fetch standard, CORS).

In comes a request that a browser sends for a page, which it says in ``Origin``; out goes the answer with
the headers that let the page read it, or 403 ``origin_denied``. Pages of our own host and of ``web.origins``
may do what their users' tokens may. Reading a board is decided elsewhere (``readers.py``).

There are no cookies, so a foreign page has nobody's authority. It is refused all the same: a token that was
tricked out of a user should not be worth anything in the page that did it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scoreboard.api.bodies import respond
from scoreboard.api.problems import MEDIA_TYPE, headers_of
from scoreboard.auth.origins import Origins
from scoreboard.errors import Problem

READS = ("GET", "HEAD", "OPTIONS")
EXPOSED = b"Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id"
# What a page may send, and for how long (s) its browser need not ask again.
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, Prefer, X-Request-Id"),
    (b"access-control-max-age", b"7200"),
]


class CrossOrigin:
    """Decides on requests that carry an ``Origin``."""

    def __init__(self, answer: Callable[[Any, Any, Any], Awaitable[None]], origins: Origins) -> None:
        """``answer`` is the ASGI application for all requests that may be answered."""
        self._answer, self._origins = answer, origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["method"] in READS and scope["path"].startswith("/boards"):
            await self._answer(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        asking = [value for name, value in scope["headers"] if name == b"origin"]
        trusted = all(self._origins.trusts(origin.decode("latin-1"), host) for origin in asking)
        preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if not trusted and (preflight or scope["method"] not in READS):
            problem = Problem("origin_denied")
            extra = [(name.encode(), value.encode()) for name, value in headers_of(problem).items()]
            await respond(send, problem.status, problem.body(), MEDIA_TYPE.encode(), extra)
            return
        allowed = [(b"vary", b"Origin")]
        if trusted:
            allowed += [
                (b"access-control-allow-origin", asking[0]),
                (b"access-control-expose-headers", EXPOSED),
            ]
        if preflight:
            await send({"type": "http.response.start", "status": 204, "headers": allowed + PREFLIGHT})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_cors(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                if b"access-control-allow-origin" not in given:  # else the answer is for everybody
                    message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await self._answer(scope, receive, with_cors)
