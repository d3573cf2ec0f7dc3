"""Who may read a board: everybody, or, if it is private, whoever has a valid token or key.

In comes a request for a board, out go the principal that it proves and the headers that tell other pages
whether they may read the answer. It must never answer about a private board before it knows who asks.
"""

from __future__ import annotations

from typing import Any

from litestar import Request

from scoreboard.auth import Auth
from scoreboard.auth.origins import Origins
from scoreboard.config import Config
from scoreboard.errors import Problem
from scoreboard.model import Principal

_EXPOSED = {"access-control-expose-headers": "ETag, Retry-After, Scoreboard-Stale"}
# Of an answer about a public board.
PUBLIC = {"access-control-allow-origin": "*", "cache-control": "no-cache"} | _EXPOSED


class Readers:
    """Decides on reads of boards."""

    def __init__(self, config: Config, auth: Auth) -> None:
        self._boards, self._auth = config.boards, auth
        self._origins = Origins(config.web.origins)

    async def who(self, request: Request[Any, Any, Any]) -> Principal | None:
        """Who asks; ``None`` if it does not say. Raises ``Problem`` if what it says does not hold."""
        return await self._auth.who(request.scope) if "authorization" in request.headers else None

    async def may_read(self, request: Request[Any, Any, Any], board: str) -> Principal | None:
        """Who asks for this board; ``None`` if it does not say and need not.

        Raises:
            Problem: ``unknown_board``; ``origin_denied``, ``missing_token`` and the like if it is private.
        """
        found = self._boards.get(board)
        if found is None:
            raise Problem("unknown_board")
        if found.public:
            return None
        headers = self.headers(request, board)
        # For whatever goes wrong from here on.
        request.scope["private"] = {name: headers[name] for name in headers if name != "cache-control"}  # type: ignore[typeddict-unknown-key]
        if not self._origins.trusts(request.headers.get("origin"), request.headers.get("host", "")):
            raise Problem("origin_denied", "This board is private, and this page is not one that may use it.")
        return await self._auth.who(request.scope)

    def headers(self, request: Request[Any, Any, Any], board: str | None = None) -> dict[str, str]:
        """For an answer about a board, or all.

        Anyone may read a public board from any page: there are no cookies that a foreign page could use.
        """
        if board is None or board not in self._boards or self._boards[board].public:
            return dict(PUBLIC)
        headers = {"cache-control": "private, no-cache", "vary": "Origin"}
        origin = request.headers.get("origin")
        if origin is not None and self._origins.trusts(origin, request.headers.get("host", "")):
            headers |= {"access-control-allow-origin": origin} | _EXPOSED
        return headers
