"""Clients of live by hand: they send what they are told, and read when they are told."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from typing import Any, Self

import msgspec

from watching import PATIENCE, Serving


class Stream:
    """A client of Server-Sent Events, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    @classmethod
    async def ask(
        cls, address: tuple[str, int], path: str = "/boards/main/events", method: str = "GET", **headers: str
    ) -> Self:
        """Send a request and read the head of its answer."""
        client = cls(*await asyncio.open_connection(*address))
        lines = [f"{method} {path} HTTP/1.1", "Host: board"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        client.writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            first, *rest = (await client.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        client.status = int(first.split()[1])
        client.headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in rest if x)}
        return client

    async def event(self) -> dict[str, str]:
        """The next event, its fields as they are."""
        async with asyncio.timeout(PATIENCE):
            text = (await self.reader.readuntil(b"\n\n")).decode()
        pairs = (line.partition(": ") for line in text.splitlines() if line)
        return {name: value for name, _, value in pairs}

    async def message(self) -> Any:
        """The data of the next event that has any."""
        while "data" not in (event := await self.event()):
            pass
        return msgspec.json.decode(event["data"])

    async def rest(self) -> bytes:
        """Everything until the end."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


class Raw:
    """A WebSocket client by hand: it sends any bytes, and takes bytes off its socket only when told."""

    KEY = "dGhlIHNhbXBsZSBub25jZQ=="

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    @classmethod
    async def connect(cls, serving: Serving, *, receive_buffer: int | None = None) -> Self:
        """Connect without a handshake."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, serving.address)
        return cls(sock)

    @classmethod
    async def watch(cls, serving: Serving, path: str = "/boards/main/live", **options: Any) -> Self:
        """Connect and shake hands."""
        client = await cls.connect(serving, **options)
        status, _ = await client.ask(path)
        assert status == 101
        return client

    async def ask(
        self, path: str = "/boards/main/live", *, connection: str = "Upgrade", **headers: str
    ) -> tuple[int, dict[str, str]]:
        """Send an upgrade request; the answer's status and headers."""
        lines = [f"GET {path} HTTP/1.1", "Host: board", f"Connection: {connection}", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Key: {self.KEY}", "Sec-WebSocket-Version: 13"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send_bytes("\r\n".join([*lines, "", ""]).encode())
        first, *rest = (await self._take_until(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in rest if line)
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}

    async def send_bytes(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send(self, opcode: int, payload: bytes = b"", **how: bool) -> None:
        await self.send_bytes(client_frame(opcode, payload, **how))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Never masked, fragmented or with reserved bits."""
        first, length = await self._take(2)
        assert first & 0xF0 == 0x80
        if length == 126:
            (length,) = struct.unpack("!H", await self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._take(8))
        return first & 0x0F, await self._take(length)

    async def message(self) -> Any:
        """The next frame, which is a text frame, as JSON."""
        opcode, payload = await self.receive()
        assert opcode == 1, (opcode, payload)
        return msgspec.json.decode(payload)

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame, passing over text frames and pongs before it."""
        opcode = 0
        payload = b""
        while opcode != 8:
            opcode, payload = await self.receive()
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def ended(self) -> None:
        """Wait for the end of the stream, passing over what comes before it."""
        async with asyncio.timeout(PATIENCE):
            while await asyncio.get_running_loop().sock_recv(self.sock, 65_536):
                pass

    async def rest(self) -> bytes:
        """Everything until the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            while data := await asyncio.get_running_loop().sock_recv(self.sock, 65_536):
                self.buffer += data
        return self.buffer

    async def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self._more(size - len(self.buffer))
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def _take_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            await self._more(65_536)
        taken, _, self.buffer = self.buffer.partition(mark)
        return taken

    async def _more(self, size: int) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.sock, size)
        assert data, "the server has ended the connection"
        self.buffer += data


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv1: bool = False
) -> bytes:
    """A frame as a client sends it, or as it should not."""
    head = bytes([opcode | fin << 7 | rsv1 << 6])
    size, bit = len(payload), masked << 7
    if size < 126:
        head += bytes([size | bit])
    elif size < 65_536:
        head += struct.pack("!BH", 126 | bit, size)
    else:
        head += struct.pack("!BQ", 127 | bit, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
