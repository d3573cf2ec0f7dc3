"""For the tests of live: a real server on a real socket, and frames."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection

from scoreboard import board as ranking
from scoreboard.api.application import Application
from scoreboard.api.connection import http
from scoreboard.api.deadlines import Deadlines
from scoreboard.api.places import Places
from scoreboard.api.services import Services
from scoreboard.auth import Auth
from scoreboard.auth.keys import Keys
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens, local_token
from scoreboard.config import Board, Config, Environment, Live, Web
from scoreboard.database import Database
from scoreboard.engine_states import EngineStates
from scoreboard.live import Connection, Hub, Hubs, Lines, Members, protocol
from scoreboard.model import Frame, Line
from scoreboard.rates import Rates
from scoreboard.sockets import tune

NOWHERE = "127.0.0.1:1"
"""Where no engine listens: what these tests watch is published by themselves."""
SECRET = "s" * 32
TRUSTED = "https://pages.example"
"""A host whose pages may use private boards."""

PATIENCE = 20.0
"""Seconds until a test gives up waiting for what it knows must come."""


def frame(
    seq: int, *, epoch: str = "e1", board: str = "main", top: int | None = None, rows: int = 3
) -> Frame:
    """A frame whose top is told from others' by ``top`` (default: its seq)."""
    score = seq if top is None else top
    lines = tuple(Line(rank, f"u{rank}", f"Name {rank} " + "n" * 50, score) for rank in range(1, rows + 1))
    return Frame(board, epoch, seq, "2026-11-23T20:15:00.123Z", 58213, lines)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


class Serving:
    """A server with its hubs."""

    def __init__(self, hubs: Hubs, server: uvicorn.Server, address: tuple[str, int]) -> None:
        self.hubs = hubs
        self.server = server
        self.address = address

    @property
    def hub(self) -> Hub:
        """The hub of the board ``main``."""
        hub = self.hubs.get("main")
        assert hub is not None
        return hub

    def url(self, path: str = "/boards/main/live") -> str:
        return f"ws://{self.address[0]}:{self.address[1]}{path}"

    def connections(self) -> list[Connection]:
        return [cast("Connection", client) for client in self.hub.clients()]


@asynccontextmanager
async def serving(
    *,
    connections: int = 20_000,
    handshakes: str = "5000/s",
    boards: tuple[str, ...] = ("main",),
    private: tuple[str, ...] = (),
    patience: float = 10.0,
) -> AsyncIterator[Serving]:
    """A server process without engines, on a tuned socket. It waits ``patience`` seconds for a request."""
    config = Config(
        boards=dict.fromkeys(boards, Board()) | dict.fromkeys(private, Board(public=False)),
        live=Live(connections=connections, handshakes=handshakes),
        web=Web(origins=(TRUSTED,)),
    )
    board = ranking.Board(f"redis://{NOWHERE}/0", config)
    async with Database.open(f"postgresql://{NOWHERE}/none") as database, asyncio.TaskGroup() as tasks:
        tokens = Tokens(config, Environment(secret=SECRET))
        rates = Rates(config.rate_limits)
        auth = Auth(tokens, Keys(database, rates), rates, Proxies(()))
        members = Members(auth, Lines(board, list(config.boards)))
        running = tasks.create_task(members.run())
        hubs = Hubs(config, members)
        deadlines = Deadlines(connections, patience, tick=patience / 10)
        engines = EngineStates(config, database, board, None, ())
        app = Application(
            Services(
                config=config,
                database=database,
                board=board,
                hubs=hubs,
                places=Places(board, database, config.boards),
                auth=auth,
                engines=engines,
            )
        )
        settings = {"ws": protocol(hubs), "http": http(deadlines), "lifespan": "off", "log_config": None}
        server = uvicorn.Server(uvicorn.Config(app, **settings))  # type: ignore[arg-type]
        with socket.create_server(("127.0.0.1", 0)) as sock:
            tune(sock)
            address = sock.getsockname()
            task = tasks.create_task(server.serve(sockets=[sock]))
            try:
                await until(lambda: server.started)
                yield Serving(hubs, server, address)
            finally:
                hubs.close()
                deadlines.close()
                server.should_exit = True
                async with asyncio.timeout(PATIENCE):
                    await task
                running.cancel()
                await board.close()


@pytest.fixture
async def live() -> AsyncIterator[Serving]:
    async with serving() as server:
        yield server


async def received(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return msgspec.json.decode(await client.recv())


def token(user: str = "ann", seconds: int = 600) -> str:
    """A user's token."""
    return local_token(SECRET, user, None, seconds)
