"""A client for programs: report actions, watch boards.

    async with Client("https://scores.example", key) as client:
        receipt = await client.submit("ann", "match-win:8812", wait=2)
        async for frame in client.watch("main"):
            print(frame.top[0].name)

In come a server's address and who asks: a service's key or a user's token. Out go receipts and frames, or
``Refused`` and ``Unreachable``, which say whether the same may be tried again. It must never send an action
under another id than it was given, so that what is sent twice counts once; nor a token in an address.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Literal, Self
from urllib.parse import quote

import msgspec
from msgspec import Struct

from scoreboard.client.asking import Asking, ClientError, Credentials, Patience, Refused, Unreachable
from scoreboard.client.watching import Ear, State, You, newest
from scoreboard.model import BoardChange, Frame

__all__ = [
    "BoardChange",
    "Client",
    "ClientError",
    "Frame",
    "Receipt",
    "Refused",
    "State",
    "Unreachable",
    "You",
]

PATIENCE_SECONDS = 30.0
"""How long a request is tried again before the caller is told."""
MANY = 500
"""Updates in one request: as many as fit into one envelope of the log."""


class Receipt(Struct, frozen=True, rename="camel"):
    """What became of an action: ``accepted`` (on disk, will count or be rejected), or its end state."""

    status: Literal["accepted", "applied", "rejected", "quarantined", "revoked", "dead"]
    event_id: str
    duplicate: bool = False
    """Was it counted before this request?"""
    points: int | None = None
    boards: dict[str, BoardChange] = {}
    reason: str | None = None
    """Why it was rejected."""
    retry_at: str | None = None
    """When a new action of the type can succeed."""


class Client:
    """A server, and who asks it.

    Args:
        url: the server's address, with its path prefix if it has one.
        credentials: a service's key or a user's token; or a function that gives one, perhaps asynchronously,
            called before each request and each connection. ``None`` to watch public boards only.
        patience: for how many seconds what fails for now is tried again.
    """

    def __init__(
        self, url: str, credentials: Credentials = None, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not like https://scores.example")
        self._url = url.rstrip("/")
        self._asking = Asking(self._url, credentials)
        self._patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._asking.close()

    async def submit(self, user: str, action: str, *, wait: int = 0) -> Receipt:
        """Report that a user completed an action.

        Args:
            user: the user's id.
            action: the type and your own id of this one completion, ``type:unique``; or a signed grant.
            wait: answer when it has counted, at most so many seconds later.

        Raises:
            Refused: the server will not take it (``code`` says why), or not for now, and patience ended.
            Unreachable: nobody answered. It may have counted: send the same again.
        """
        body = await self.ask("POST", "/update-score", _update(user, action), wait)
        return msgspec.json.decode(body, type=Receipt)

    async def submit_many(
        self, updates: Iterable[tuple[str, str]], *, wait: int = 0
    ) -> list[Receipt | Refused]:
        """Report (user, action) pairs, in order; for each, in the same order, a receipt or why not.

        Those that may be tried again are, until patience ends. For services only. Raises as ``submit`` does.
        """
        pairs = [_update(user, action) for user, action in updates]
        results: list[Receipt | Refused] = []
        for begin in range(0, len(pairs), MANY):
            results += await self._send(pairs[begin : begin + MANY], wait)
        return results

    async def rename(self, user: str, name: str) -> None:
        """Show a user under this name. Raises as ``submit`` does."""
        await self.ask("PUT", f"/users/{quote(user, safe='')}", {"name": name})

    def watch(self, board: str, on_state: Ear | None = None) -> AsyncGenerator[Frame]:
        """The board now, and the newest again whenever its visible top changes; never an older one.

        Goes on by itself after whatever happens to the connection, and on a public board without a token that
        the server has refused. Whoever is slow finds the newest frame, not a row of old ones.

        Args:
            board: its name.
            on_state: called at once with each change of the connection, also while the consumer is busy.

        Raises:
            Refused: the server will not show it: no such board, or not to you.
        """
        return newest(Frame, self._url, board, self._asking, on_state)

    def watch_you(self, board: str, on_state: Ear | None = None) -> AsyncGenerator[You]:
        """The line of the user whose token this is, now and whenever it changes. Otherwise as ``watch``.

        Raises ``Refused`` also when the token is.
        """
        return newest(You, self._url, board, self._asking, on_state)

    async def ask(
        self, method: str, path: str, body: object, wait: int = 0, patience: Patience | None = None
    ) -> bytes:
        """Any other request that may be sent twice: the JSON of its answer. Raises as ``submit`` does."""
        prefer = {"prefer": f"wait={wait}"} if wait else {}
        return await self._asking.ask(method, path, body, prefer, patience or Patience(self._patience))

    async def _send(self, part: list[dict[str, str]], wait: int) -> list[Receipt | Refused]:
        results: dict[int, Receipt | Refused] = {}
        left = list(range(len(part)))
        patience = Patience(self._patience)
        while left:
            body = await self.ask("POST", "/update-scores", [part[place] for place in left], wait, patience)
            for place, found in zip(left, msgspec.json.decode(body)["results"], strict=True):
                results[place] = Refused.of(found) if "code" in found else msgspec.convert(found, Receipt)
            left = [place for place in left if _may_be_sent_again(results[place])]
            if left and not await patience.pause():
                break
        return [results[place] for place in range(len(part))]


def _update(user: str, action: str) -> dict[str, str]:
    return {"userId": user, "actionId": action}


def _may_be_sent_again(result: Receipt | Refused) -> bool:
    return isinstance(result, Refused) and result.retryable
