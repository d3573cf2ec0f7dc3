"""For the tests of the straight way: connections on which bytes are sent, and what the application saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment, submit
from scoreboard.api.application import Application
from scoreboard.config import Action, Board, Config

CONFIG = Config(
    actions={"point": Action(points=1, policy="open"), "win": Action(points=10)},
    boards={"main": Board(), "closed": Board(public=False)},
)


class Answer(msgspec.Struct):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> tuple[int, dict[str, str], bytes]:
        """What must be the same whichever way it came."""
        aside = ("date", "x-request-id", "content-length", "content-type" if self.status == 304 else "")
        return self.status, {k: v for k, v in self.headers.items() if k not in aside}, self.body


class Raw:
    """A connection on which bytes are sent, and answers read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Without waiting."""
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next one."""
        async with asyncio.timeout(SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.removesuffix("\r\n\r\n").split("\r\n")
            parts = [line.lower().partition(":") for line in lines[1:]]
            headers = {name: value.strip() for name, _, value in parts}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(lines[0].split()[1]), headers, body)

    async def until(self, word: bytes) -> None:
        """Read on until this has come."""
        async with asyncio.timeout(SECONDS):
            await self._reader.readuntil(word)

    async def ended(self) -> bool:
        """Does the server say nothing more, and end the connection?"""
        async with asyncio.timeout(SECONDS):
            return await self._reader.read() == b""


@asynccontextmanager
async def raw(client: httpx.AsyncClient) -> AsyncIterator[Raw]:
    """A connection to the server."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def post(credentials: str, body: Any, *more: str) -> bytes:
    """An update as bytes."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = ["POST /update-score HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"]
    if credentials:
        lines.append(f"Authorization: Bearer {credentials}")
    if not any(line.lower().startswith("content-type") for line in more):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *more, "", ""]).encode() + data


def action(user: str, action_id: str) -> dict[str, str]:
    """The body of an update."""
    return {"userId": user, "actionId": action_id}


def get(path: str, *more: str) -> bytes:
    """A read as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that came to the application."""
    found: list[str] = []
    answer = Application.__call__

    async def noted(self: Application, scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["path"])
        await answer(self, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", noted)
    return found


@pytest.fixture
async def served(deploy: Deploy, asked: list[str]) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    async with serving(deploy) as found:
        asked.clear()
        yield found


@pytest.fixture(scope="module")
async def shared(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    """One for all who are refused: they leave nothing behind."""
    async with serving(deploy) as found:
        yield found


@asynccontextmanager
async def serving(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    deployment = await deploy(CONFIG)
    async with deployment.running() as client:
        await submit(client, "ann", "win:0")  # the key is known now
        await submit(client, "ann", "point:0", credentials=deployment.token("ann"))
        yield deployment, client
