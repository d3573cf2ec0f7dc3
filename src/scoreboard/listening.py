"""The listening socket of ``scoreboard up``, and when something behind it answers.

In: a host and a port. Out: one socket that is handed to the server processes, its URL, and the moment from
which a client is served. It must never accept a connection itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket

from scoreboard.errors import ConfigurationError, EngineError
from scoreboard.sockets import tune

logger = logging.getLogger(__name__)

BACKLOG = 4096  # connections that wait while all processes are busy; the kernel's own bound (somaxconn)
READY_SECONDS = 60.0  # from the engines' start to the first answer; a cold machine needs a few
ANSWER_SECONDS = 5.0  # for one answer of the health page
POLL = 0.05  # seconds between two looks at the health page
STATUS_OK = b" 200 "
WITHOUT_FRAME, AWAY = b'"boardsWithoutFrame"', b'"away"'  # in its body


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, for any number of processes to accept from. Port 0: any free one.

    Raises:
        ConfigurationError: the port is taken, or the address is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tune(listening)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is in use; choose another with --port, or 0 for any free one"
        else:
            msg = f"cannot listen on {host}, port {port}: {error}; see --host and --port"
        raise ConfigurationError(msg) from error
    return listening


def listen_near(host: str, port: int) -> socket.socket:
    """As ``listen``; if the port is taken, at any free one."""
    try:
        return listen(host, port)
    except ConfigurationError:
        return listen(host, 0)


def base_url(host: str, listening: socket.socket) -> str:
    """The URL under which this machine reaches it."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a comparison
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}"


async def until_ready(url: str) -> None:
    """Returns when ``/health/ready`` answers 200.

    Raises:
        EngineError: it does not in ``READY_SECONDS``, though no board is being built; with the last answer.
    """
    status, body, building = b"none", b"", False
    try:
        async with asyncio.timeout(READY_SECONDS) as limit:
            while STATUS_OK not in status:
                await asyncio.sleep(POLL)
                with contextlib.suppress(OSError, EOFError, TimeoutError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        status, body = await _answer(url)
                if WITHOUT_FRAME in body and AWAY not in body:
                    # A board of millions is built from the database in minutes; updates are taken meanwhile.
                    if not building:
                        logger.info("updates are taken; waiting for the boards to be built")
                    building = True
                    limit.reschedule(asyncio.get_running_loop().time() + READY_SECONDS)
    except TimeoutError:
        last = status.decode(errors="replace").strip()
        msg = f"not ready after {READY_SECONDS:.0f} s; the last answer of {url}/health/ready was: {last}"
        raise EngineError(msg) from None


async def _answer(url: str) -> tuple[bytes, bytes]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(
            f"GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        return await reader.readline(), await reader.read()
    finally:
        writer.close()
