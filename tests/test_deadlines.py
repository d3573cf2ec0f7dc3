"""Slow clients: half a request does not hold a connection, and one that is being answered is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from deployment import SECONDS
from scoreboard.api.connection import HEAD_BYTES, Http, http
from scoreboard.api.deadlines import Deadlines
from scoreboard.draining import Server
from scoreboard.listening import listen

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
WHOLE = HEAD + b"\r\nbody"
SOON = 0.2


class Application:
    """Reads the request, waits until it may answer, answers."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()
        self.client: Any = None
        self.answer = b"ok"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.client = scope["client"]
        message: dict[str, Any] = {"more_body": scope["path"] != "/unread"}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
        self.asked.set()
        await self.may_answer.wait()
        length = str(len(self.answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": self.answer})


class Client:
    """A socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> bytes:
        """One answer: its head, without the body."""
        async with asyncio.timeout(SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await self.reader.readexactly(int(length.split(b":")[1]))
        return head

    async def until_end(self) -> bytes:
        """What comes until the server ends the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), SECONDS)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Site:
    """A server with an application, and its clients."""

    def __init__(self, application: Application, address: tuple[str, int]) -> None:
        self.application, self.address = application, address
        self.clients: list[Client] = []

    async def connect(self, **options: Any) -> Client:
        where: dict[str, Any] = {} if "sock" in options else {"host": "127.0.0.1", "port": self.address[1]}
        client = Client(*await asyncio.open_connection(**where, **options))
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving(deadlines: Deadlines, host: str = "127.0.0.1") -> AsyncIterator[Site]:
    """A server with these deadlines."""
    application = Application()
    sock = listen(host, 0)
    config = uvicorn.Config(
        application,
        http=http(deadlines),  # type: ignore[arg-type]  # a factory will do
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
    )
    server = Server(config, deadlines)
    site = Site(application, sock.getsockname()[:2])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[sock]))
        try:
            yield site
        finally:
            application.may_answer.set()
            for client in site.clients:
                await client.close()
            server.should_exit = True
            deadlines.close()


def soon(connections: int = 100, pause: float = 3600) -> Deadlines:
    """Deadlines that a test can wait for."""
    return Deadlines(connections, seconds=SOON, taking=SOON, pause=pause, tick=SOON / 10)


@pytest.mark.parametrize("begin", [b"", b"PO", HEAD, HEAD + b"\r\n", HEAD + b"\r\nbod", b"\r\n", WHOLE[:-4]])
@pytest.mark.parametrize("after_a_request", [False, True])
async def test_half_a_request_is_waited_for_until_the_deadline(begin: bytes, after_a_request: bool) -> None:
    begun = begin.strip() != b""  # else it is the pause between two requests that ends
    deadlines = soon() if begun or not after_a_request else soon(pause=SOON)
    async with serving(deadlines) as site:
        client = await site.connect()
        if after_a_request:
            client.send(WHOLE)
            await client.answer()
        client.send(begin)
        assert await client.until_end() == b""
        assert deadlines.connections == 0


@pytest.mark.parametrize(
    ("begin", "drop"),
    [(b"GET / HTTP/1.1\r\n", b"a: b\r\n"), (HEAD.replace(b"4", b"4000") + b"\r\n", b"x"), (b"", b"\r\n")],
)
async def test_a_request_that_drips_gets_no_more_time_for_it(begin: bytes, drop: bytes) -> None:
    async with serving(soon()) as site, asyncio.TaskGroup() as tasks:
        client = await site.connect()
        client.send(begin)

        async def drip() -> None:
            while not client.reader.at_eof() and client.reader.exception() is None:
                client.send(drop)
                await asyncio.sleep(SOON / 20)

        tasks.create_task(drip())
        assert await client.until_end() == b""


async def test_a_body_that_nobody_reads_does_not_hold_the_connection() -> None:
    async with serving(soon()) as site:
        client = await site.connect()
        client.send(HEAD.replace(b"/x", b"/unread") + b"\r\nb")
        assert b" 200 " in await client.answer()
        assert await client.until_end() == b""


async def test_an_answer_may_take_its_time_and_the_connection_stays() -> None:
    deadlines = soon()
    async with serving(deadlines) as site:
        application = site.application
        application.may_answer.clear()
        client = await site.connect()
        # The second is not read on while the first is being answered: that is our delay.
        client.send(WHOLE)
        await asyncio.wait_for(application.asked.wait(), SECONDS)
        client.send(WHOLE[:-4])
        other = await site.connect()
        other.send(HEAD)
        # The other one's end tells that the deadline of everything that was begun by then has passed.
        assert await other.until_end() == b""
        client.send(WHOLE[-4:])
        application.may_answer.set()
        assert b" 200 " in await client.answer()
        assert b" 200 " in await client.answer()
        third = await site.connect()
        assert await third.until_end() == b""
        client.send(WHOLE)
        assert b" 200 " in await client.answer(), "between two requests it is uvicorn's clock that counts"


async def test_who_never_takes_the_answer_is_dropped() -> None:
    deadlines = soon()
    async with serving(deadlines) as site:
        application = site.application
        application.answer = b"x" * (16 << 20)
        receiving = socket.socket()
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiving.connect(site.address)
        client = await site.connect(sock=receiving, limit=1)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(WHOLE)
        async with asyncio.timeout(SECONDS):
            await application.asked.wait()
            while deadlines.connections:  # noqa: ASYNC110  the condition is the server's
                await asyncio.sleep(0.01)


async def test_a_head_without_end_is_refused() -> None:
    async with serving(Deadlines(100)) as site:
        client = await site.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        await client.writer.drain()
        line = b"a: " + b"b" * 8000 + b"\r\n"
        client.send(line * (HEAD_BYTES // len(line)))
        await client.writer.drain()
        client.send(line)
        head = await client.answer()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert await client.until_end() == b""


async def test_connections_are_bounded_and_places_come_back() -> None:
    deadlines = Deadlines(2)
    async with serving(deadlines) as site:
        clients = []
        for _ in range(2):
            client = await site.connect()
            client.send(WHOLE)
            assert b" 200 " in await client.answer()
            clients.append(client)
        refused = await (await site.connect()).until_end()
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in refused
        await clients[0].close()
        async with asyncio.timeout(SECONDS):
            while deadlines.connections == 2:  # noqa: ASYNC110  the condition is the server's
                await asyncio.sleep(0.01)
        again = await site.connect()
        again.send(WHOLE)
        assert b" 200 " in await again.answer()


async def test_an_ipv4_client_is_told_as_such_on_a_socket_for_both_families() -> None:
    async with serving(Deadlines(100), "::") as site:
        application = site.application
        client = await site.connect()
        client.send(WHOLE)
        await client.answer()
        assert application.client[0] == "127.0.0.1"


def reluctant(site: Site) -> socket.socket:
    """A client that has hardly any room for what it is sent, and takes nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(site.address)
    client.setblocking(False)
    return client


async def test_who_asks_once_more_is_not_cut_off_sooner_while_it_takes_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused = asyncio.Event()
    pause = Http.pause_writing

    def noted(self: Http) -> None:
        pause(self)
        paused.set()

    monkeypatch.setattr(Http, "pause_writing", noted)
    deadlines = Deadlines(100, seconds=SOON / 10, taking=SOON, tick=SOON / 100)
    async with serving(deadlines) as site:
        site.application.answer = b"x" * 8_000_000
        loop = asyncio.get_running_loop()
        with reluctant(site) as client:
            await loop.sock_sendall(client, WHOLE)
            async with asyncio.timeout(SECONDS):
                await paused.wait()
            began = loop.time()
            await loop.sock_sendall(client, WHOLE)
            async with asyncio.timeout(SECONDS):
                while deadlines.connections:  # noqa: ASYNC110  the condition is the server's
                    await asyncio.sleep(SOON / 100)
            assert loop.time() - began >= SOON * 0.8


async def test_the_rest_of_a_last_answer_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Http.connection_made

    def narrow(self: Http, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        made(self, transport)

    monkeypatch.setattr(Http, "connection_made", narrow)
    deadlines = soon()
    async with serving(deadlines) as site:
        site.application.answer = b"x" * 50_000  # less than what makes the transport ask for a pause
        with reluctant(site) as client:
            last = WHOLE.replace(b"Host: x", b"Host: x\r\nConnection: close")
            assert last != WHOLE
            await asyncio.get_running_loop().sock_sendall(client, last)
            async with asyncio.timeout(SECONDS):
                await site.application.asked.wait()
                while deadlines.connections:  # noqa: ASYNC110  the condition is the server's
                    await asyncio.sleep(SOON / 10)
