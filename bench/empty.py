"""The least that an ASGI application can answer, on uvicorn as ours is set: what serving alone costs."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from servers import serve_app

from scoreboard.api.deadlines import PAUSE_SECONDS
from scoreboard.app.serving import HEADERS
from scoreboard.listening import listen


async def answer(_: Any, receive: Any, send: Any) -> None:
    """200 and nothing, whatever is asked."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def run() -> None:
    """Serve until killed."""
    sock = listen("127.0.0.1", 0)
    await serve_app(
        answer,
        sock,
        ws="none",
        headers=HEADERS,
        server_header=False,
        timeout_keep_alive=int(PAUSE_SECONDS),
        proxy_headers=False,
    )
    print(sock.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run())
