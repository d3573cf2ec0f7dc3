"""Clients that mean no good: what they cost is bounded, and those beside them miss nothing."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from by_hand import Raw, Stream, client_frame
from scoreboard.live import Connection, hub, hubs
from scoreboard.sockets import SEND_BUFFER_BYTES
from watching import PATIENCE, Serving, frame, serving, until

ROWS = 100
FRAME = len(msgspec.json.encode(frame(1, rows=ROWS))) + 100
"""Bytes of a large frame with all that is around it."""
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
PATIENCE_WITH_REQUESTS = 0.3


@pytest.fixture
async def live(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    async with serving() as server:
        server.hub.publish(frame(0, rows=ROWS))
        yield server


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    """It soon cuts off half a request; clients that shall get in may take longer on a busy machine."""
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    async with serving(patience=PATIENCE_WITH_REQUESTS) as server:
        server.hub.publish(frame(0, rows=ROWS))
        yield server


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def beside(live: Serving) -> AsyncIterator[list[int]]:
    """Someone who watches meanwhile. Each frame is published when it has got the one before, so that it
    must see every single one: a frame that it misses is waited for in vain.
    """
    seen: list[int] = []

    async def watch() -> None:
        async with await Raw.watch(live) as client, await Stream.ask(live.address) as stream:
            assert (await client.message())["seq"] == (await stream.message())["seq"]
            for seq in count(1):
                live.hub.publish(frame(seq, rows=ROWS))
                while (await client.message())["seq"] != seq:
                    pass
                while (await stream.message())["seq"] != seq:
                    pass
                seen.append(seq)

    task = asyncio.create_task(watch())
    try:
        await until(lambda: bool(seen) or task.done())
        yield seen
        more = len(seen) + 3
        await until(lambda: len(seen) >= more or task.done())
        assert not task.done()
        assert seen == list(range(1, len(seen) + 1))
    finally:
        task.cancel()
        await asyncio.wait([task])


def hoarded(clients: Iterable[Connection]) -> int:
    """The most that waits for one client, in our memory and in the kernel's."""
    most = 0
    for client in clients:
        ours = client._transport.get_write_buffer_size()
        sock = client._transport.get_extra_info("socket")
        (kernels,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        assert ours <= FRAME
        most = max(most, ours + kernels)
    return most


async def test_clients_that_never_read_hoard_little_and_are_dropped(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    before = descriptors()
    async with beside(live) as seen:
        sockets = [await Raw.watch(live, receive_buffer=4_096) for _ in range(50)]
        stalled = [c for c in live.hub.clients() if isinstance(c, Connection)][1:]
        await until(lambda: all(client.paused for client in stalled))
        enough = len(seen) + 100
        await until(lambda: len(seen) > enough)
        # 100 frames of 9 KB have passed them by.
        assert hoarded(stalled) <= FRAME + 2 * SEND_BUFFER_BYTES
        monkeypatch.setattr(hubs, "STUCK_SECONDS", 0.05)
        await until(lambda: live.hubs.connections == 2)
        assert not live.hubs._stuck
        for client in sockets:
            client.sock.close()
    await until(lambda: live.hubs.connections == 0)
    assert descriptors() <= before + 2  # an event loop's own, at most


async def test_a_client_that_reads_a_byte_now_and_then_is_not_waited_for(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    async with beside(live) as seen, await Raw.watch(live, receive_buffer=4_096) as slow:
        (client,) = [c for c in live.hub.clients() if isinstance(c, Connection)][1:]
        await until(lambda: client.paused)
        monkeypatch.setattr(hubs, "STUCK_SECONDS", 0.5)
        read = 0
        while live.hubs.connections == 3:
            assert client._transport.get_write_buffer_size() <= FRAME
            read += len(await loop.sock_recv(slow.sock, 1))
            now = len(seen)
            await until(lambda: len(seen) > now)  # noqa: B023
        assert read < FRAME


@pytest.mark.parametrize("path", ["/boards/main/live", "/boards/main/events"])
async def test_two_thousand_that_connect_and_vanish_leave_nothing(live: Serving, path: str) -> None:
    before = descriptors()
    request = f"GET {path} HTTP/1.1\r\nHost: board\r\n".encode()
    if path.endswith("live"):
        request += f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {Raw.KEY}\r\n".encode()
        request += b"Sec-WebSocket-Version: 13\r\n"
    async with beside(live):
        for number in range(20):
            clients = [await Raw.connect(live) for _ in range(100)]
            for client in clients:
                await client.send_bytes(request + b"\r\n")
            if number % 2:  # some leave when they are in, some while they are being let in
                await until(lambda: live.hubs.connections == 102)
            for place, client in enumerate(clients):
                if place % 2:
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.sock.close()
            await until(lambda: live.hubs.connections == 2)
        assert len(live.hub) == 2
        assert len(live.hubs._closing) == len(live.hubs._stuck) == 0
    await until(lambda: live.hubs.connections == 0)
    await until(lambda: not live.server.server_state.connections)
    assert descriptors() <= before + 2


@pytest.mark.parametrize(
    "data",
    [
        client_frame(1, b"x" * 1_000_000),
        client_frame(1, b"x", masked=False) * 1_000,
        client_frame(9, b"ping") * 4_000,
        bytes([0x81, 0xFF]) + b"\x7f" + b"\xff" * 7 + bytes(100_000),
        b"\x00" * 100_000,
    ],
    ids=["oversized", "unmasked", "pings", "a length beyond all bounds", "nothing"],
)
async def test_a_hundred_that_send_rubbish_are_ended(live: Serving, data: bytes) -> None:
    async def attack() -> None:
        async with await Raw.watch(live) as client:
            with suppress(ConnectionError, AssertionError):  # it ended while we were still sending
                await client.send_bytes(data)
                await client.closed()

    async with beside(live):
        await asyncio.gather(*(attack() for _ in range(100)))
        await until(lambda: live.hubs.connections == 2)
    await until(lambda: live.hubs.connections == 0)
    assert not live.hubs._closing


@pytest.mark.parametrize(
    "beginning", [b"", b"GET", b"GET /boards/main/live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgr"]
)
async def test_half_open_handshakes_are_cut_off(impatient: Serving, beginning: bytes) -> None:
    before = descriptors()
    async with beside(impatient):
        clients = [await Raw.connect(impatient) for _ in range(300)]
        for client in clients:
            await client.send_bytes(beginning)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(ended(client) for client in clients))
        for client in clients:
            client.sock.close()
        assert impatient.hubs.connections == 2
    await until(lambda: not impatient.server.server_state.connections)
    assert descriptors() <= before + 2


async def ended(client: Raw) -> None:
    with suppress(ConnectionError):
        await client.ended()
