"""One server for ``fanout.py``, in a process of its own: ours, ``websockets.broadcast``, or the plain way.

Prints its port; a line "COUNT MICROSECONDS" on standard input has it send so many frames at that distance,
and is answered with "done". The end of standard input is its end.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvicorn
import uvloop
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from scoreboard.app.serving import following
from scoreboard.auth import Auth
from scoreboard.auth.proxies import Proxies
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.listening import listen
from scoreboard.live import protocol
from scoreboard.model import Frame, Line
from scoreboard.sockets import raise_file_limit
from scoreboard.texts import text_of_time

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Ken", "Radia", "Tony", "Leslie")
TOP = tuple(Line(n, f"user-{n:04}", f"{name} of the board", 10_000 - n) for n, name in enumerate(NAMES, 1))

Publish = Callable[[Frame], Awaitable[None]]


def frame(seq: int) -> Frame:
    """A frame like a board's; ``total`` is when it was published, in nanoseconds of the machine's clock."""
    top = (msgspec.structs.replace(TOP[0], score=10_000 + seq), *TOP[1:])
    return Frame("main", "e", seq, text_of_time(datetime.now(UTC)), time.monotonic_ns(), top)


async def serve_app(app: Any, sock: socket.socket, **settings: Any) -> None:
    """Start uvicorn; returns once it serves."""
    options = {"http": "httptools", "loop": "none", "lifespan": "off", "log_config": None} | settings
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, **options))
    server.config.load()
    task = asyncio.create_task(server.serve(sockets=[sock]))
    task.add_done_callback(lambda _: None)
    while not server.started:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0.01)


async def ours(sock: socket.socket) -> Publish:
    """The hub of a live process, with all that belongs to it; only the bus is left out."""
    config = Config()
    board = Board("redis://127.0.0.1:1/0", config)
    nobody: Any = None  # no client here says who it is
    owned: list[asyncio.Task[None]] = []
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    hubs = following(config, board, Auth(nobody, nobody, nobody, Proxies(())), tasks, owned)
    owned[0].cancel()  # no bus is followed
    await serve_app(None, sock, ws=protocol(hubs))
    hub = hubs.get("main")
    assert hub is not None

    async def publish(one: Frame) -> None:
        hub.publish(one)

    return publish


async def broadcast(sock: socket.socket) -> Publish:
    """The library ``websockets`` with its own fan-out."""
    clients: set[websockets.ServerConnection] = set()

    async def watch(client: websockets.ServerConnection) -> None:
        clients.add(client)
        await client.wait_closed()

    await websockets.serve(watch, sock=sock, compression=None, ping_interval=None)

    async def publish(one: Frame) -> None:
        websockets.broadcast(clients, msgspec.json.encode(one).decode())

    return publish


async def plain(sock: socket.socket) -> Publish:
    """As the documentation of a framework shows it: wait for each client in turn."""
    clients: list[WebSocket] = []

    async def watch(client: WebSocket) -> None:
        await client.accept()
        clients.append(client)
        try:
            await client.receive_text()
        except WebSocketDisconnect:
            clients.remove(client)

    app = Starlette(routes=[WebSocketRoute("/boards/main/live", watch)])
    await serve_app(app, sock, ws_per_message_deflate=False, ws_ping_interval=None)

    async def publish(one: Frame) -> None:
        text = msgspec.json.encode(one).decode()
        for client in clients:
            await client.send_text(text)

    return publish


async def run(kind: str) -> None:
    """Serve until standard input ends."""
    raise_file_limit()
    sock = listen("127.0.0.1", 0)
    publish = await {"ours": ours, "broadcast": broadcast, "plain": plain}[kind](sock)
    print(sock.getsockname()[1], flush=True)
    seq = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, microseconds = map(int, line.split())
        due = time.monotonic()
        for _ in range(count):
            seq += 1
            await publish(frame(seq))
            due += microseconds / 1e6
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        print("done", flush=True)


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1]))
