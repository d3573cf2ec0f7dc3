"""Clients that nobody wants, for ``latency.py``: some never read, ever new ones shake hands and go.

Takes a port; runs until it is ended. Prints "there" once those that never read are connected.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys

STUCK = 500
VANISHING = 200  # a second
READ_BUFFER = 4_096  # bytes, so that the server soon feels that nobody reads
REQUEST = (
    b"GET /boards/main/live HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def connected(port: int) -> socket.socket:
    """A socket that has asked for a board and reads nothing."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BUFFER)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, REQUEST)
    return sock


async def main(port: int) -> None:
    """Be a nuisance until ended. Those that the server drops for reading nothing come again."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stuck = [await connected(port) for _ in range(STUCK)]
    print("there", flush=True)
    number = 0
    while True:
        (await connected(port)).close()
        number += 1
        if number % VANISHING == 0:
            stuck[number // VANISHING % STUCK].close()
            stuck[number // VANISHING % STUCK] = await connected(port)
        await asyncio.sleep(1 / VANISHING)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
