"""A deployment in the test's own event loop: the real roles, wired by ``app/``, on the real engines."""

from __future__ import annotations

import asyncio
import copy
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

from scoreboard.app.serving import serve
from scoreboard.app.starting import Settings
from scoreboard.app.working import work
from scoreboard.auth.key_acts import create_key
from scoreboard.auth.tokens import local_token
from scoreboard.board import Board
from scoreboard.config import Config, Environment, RateLimits
from scoreboard.database import Database
from scoreboard.engines import Urls
from scoreboard.listening import listen
from scoreboard.model import Scope

SECONDS = 20.0  # how long a test waits for what must happen; it happens within milliseconds


class Deployment:
    """Engines' names, settings and roles of one test."""

    def __init__(self, urls: Urls, config: Config, name: str) -> None:
        self.name = name
        if config.rate_limits == RateLimits():
            # All tests come from one address; those about rates say which they want.
            config = msgspec.structs.replace(config, rate_limits=RateLimits(enabled=False))
        self.config = msgspec.structs.replace(config, namespace=name)
        self.database_url = _with_path(urls.database, name)
        self.admin_url = urls.database
        self.environment = Environment(
            database_url=self.database_url,
            queue_url=urls.queue,
            board_url=urls.board,
            secret=secrets.token_hex(32),
        )
        self.settings = Settings(config=self.config, environment=self.environment)
        self.key = ""

    async def prepare(self) -> None:
        """Make the database, and a service's key."""
        await self._administer(f'CREATE DATABASE "{self.name}"')
        async with Database.open(self.database_url) as database:
            await database.migrate()
            self.key = await self.make_key(Scope.SCORE_WRITE)

    async def make_key(self, *scopes: Scope) -> str:
        """A service's key."""
        async with Database.open(self.database_url) as database:
            _, key = await create_key(database, "test", list(scopes))
        return key

    def token(self, user: str, name: str | None = None, lifetime: int = 600) -> str:
        """A user's token."""
        assert self.environment.secret is not None
        return local_token(self.environment.secret, user, name, lifetime)

    @asynccontextmanager
    async def serving(self, *, api: bool = True, live: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """A server process's work, in this loop; a client with the service's key."""
        sock = listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with (
            _running(lambda stop: serve(self.settings, sock, stop, asyncio.Event(), api=api, live=live)),
            httpx.AsyncClient(base_url=url, headers=bearer(self.key), timeout=SECONDS) as client,
        ):
            await until(lambda: is_live(client))
            yield client

    @asynccontextmanager
    async def working(self, *, built: bool = True) -> AsyncIterator[None]:
        """A worker's work, in this loop. ``built``: boards, too; no outcome waits for that."""
        async with _running(lambda stop: work(self.settings, stop, asyncio.Event())):
            if built:
                await self.boards_are_built()
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        """Worker and server together, ready."""
        async with self.working(), self.serving() as client:
            await until(lambda: is_ready(client))
            yield client

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of the test's own, to look and to break things."""
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def lose_database(self) -> None:
        """In place of the database there is a new, empty one."""
        await self.close()
        await self._administer(f'CREATE DATABASE "{self.name}"')

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Deployment]:
        """The same log and boards, with another database, which there is while the block runs."""
        other = copy.copy(self)
        name = f"{self.name}_beside"
        other.database_url = _with_path(self.admin_url, name)
        other.environment = msgspec.structs.replace(self.environment, database_url=other.database_url)
        other.settings = Settings(config=self.config, environment=other.environment)
        await self._administer(f'CREATE DATABASE "{name}"')
        try:
            async with Database.open(other.database_url) as database:
                await database.migrate()
            other.key = await other.make_key(Scope.SCORE_WRITE)
            yield other
        finally:
            await self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def with_config(self, config: Config) -> Deployment:
        """The same engines and names, with another configuration."""
        other = copy.copy(self)
        other.config = config
        other.settings = Settings(config=config, environment=self.environment)
        return other

    async def ledger_holds(self, count: int) -> None:
        """Wait until it holds so many events."""
        async with self.database() as connection:

            async def all_there() -> bool:
                return bool(await connection.fetchval("SELECT count(*) FROM events") == count)

            await until(all_there)

    async def boards_are_built(self) -> None:
        """Wait until a worker has built all boards."""
        async with Database.open(self.database_url) as database, AsyncExitStack() as stack:
            board = Board(self.environment.board, self.config, await database.identity())
            stack.push_async_callback(board.close)
            for name in self.config.boards:
                await until(partial(self._is_built, board, name))

    @staticmethod
    async def _is_built(board: Board, name: str) -> bool:
        return await board.position(name) is not None

    async def close(self) -> None:
        """Remove the database."""
        await self._administer(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def bearer(credentials: str) -> dict[str, str]:
    """The header that says who asks."""
    return {"authorization": f"Bearer {credentials}"}


def watching(client: httpx.AsyncClient, board: str = "main", query: str = "") -> connect:
    """A WebSocket on a board, as an ``async with`` block."""
    url = str(client.base_url).replace("http", "ws", 1).rstrip("/")
    return connect(f"{url}/boards/{board}/live{query}", subprotocols=["scoreboard.v1"], compression=None)  # type: ignore[list-item]


async def frame(socket: ClientConnection) -> dict[str, Any]:
    """The next frame."""
    async with asyncio.timeout(SECONDS):
        found: dict[str, Any] = msgspec.json.decode(await socket.recv())
    return found


async def frame_with(socket: ClientConnection, top: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The first frame whose top is this: (user, score) in order."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = await frame(socket)
            if found["type"] == "board" and [(r["userId"], r["score"]) for r in found["top"]] == list(top):
                return found


async def submit(
    client: httpx.AsyncClient, user: str, action: str, *, wait: int = 10, credentials: str = ""
) -> httpx.Response:
    """Report an action, as the client's service or with other credentials; wait for its outcome."""
    headers = {"prefer": f"wait={wait}"} if wait else {}
    if credentials:
        headers |= bearer(credentials)
    body = {"userId": user, "actionId": action}
    return await client.post("/update-score", json=body, headers=headers)


async def at_once(
    urls: Sequence[str], headers: Mapping[str, str], bodies: Sequence[dict[str, str]]
) -> list[httpx.Response]:
    """Post all the bodies at once, in groups of 50 with ten connections each, to several apis in turn.

    In groups, because a client of httpx goes through all that wait and all connections at each step: with
    hundreds of them it takes seconds between connecting and asking, and who takes ten is cut off by the api.
    """
    limits = httpx.Limits(max_connections=10)

    async def group(number: int) -> list[httpx.Response]:
        url = urls[number % len(urls)]
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=SECONDS) as client:
            several = bodies[number * 50 : (number + 1) * 50]
            return await asyncio.gather(*(client.post(url, json=body) for body in several))

    groups = await asyncio.gather(*(group(number) for number in range(-(-len(bodies) // 50))))
    return list(chain.from_iterable(groups))


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code, once the form of the problem has been checked (RFC 9457)."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["title"]
    assert isinstance(body["retryable"], bool)
    return response.status_code, body["code"]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until an asynchronous condition holds: looks again each 20 ms, gives up after ``SECONDS``."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110  the condition is another process's
            await asyncio.sleep(0.02)


async def is_ready(client: httpx.AsyncClient) -> bool:
    """Is the process ready?"""
    return (await client.get("/health/ready")).status_code == 200


async def is_live(client: httpx.AsyncClient) -> bool:
    """Does the process answer?"""
    try:
        return (await client.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def _running(role: Callable[[asyncio.Event], Any]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(role(stop))
        try:
            yield
        finally:
            stop.set()
            if not (await asyncio.wait([task], timeout=SECONDS))[0]:
                for one in asyncio.all_tasks():
                    one.print_stack(file=sys.stderr)
                pytest.fail("A role does not end.")


def _with_path(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
