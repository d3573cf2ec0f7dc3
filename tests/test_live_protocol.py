"""Live: handshakes, and what a client may not do to us. The rest of RFC 6455: test_live_conformance.py."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from by_hand import Raw, client_frame
from scoreboard.live import Connection, connection, hub
from watching import PATIENCE, Serving, frame, serving, until

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def live(server: Serving) -> AsyncIterator[Serving]:
    """The server as if it were new: nobody there, and the first frame of an epoch on show."""
    server.hub.publish(frame(1, epoch=str(uuid4())))
    yield server
    await until(lambda: server.hubs.connections == 0)


@pytest.fixture
async def client(live: Serving) -> AsyncIterator[Raw]:
    async with await Raw.watch(live) as raw:
        assert (await raw.message())["seq"] == 1
        yield raw


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["other", "scoreboard.v1"], "scoreboard.v1"), (["other"], None), (None, None)]
)
async def test_our_subprotocol_is_chosen_if_it_is_offered(
    live: Serving, offered: list[Subprotocol] | None, chosen: str | None
) -> None:
    async with connect(live.url(), subprotocols=offered, proxy=None) as client:
        assert client.subprotocol == chosen
        assert client.protocol.extensions == []


@pytest.mark.parametrize(
    "path", ["/", "/boards/main", "/boards/main/live/", "/boards/a/b/live", "//boards/main/live"]
)
async def test_another_address_is_answered_404(live: Serving, path: str) -> None:
    async with await Raw.connect(live) as client:
        status, headers = await client.ask(path)
        assert (status, headers["content-type"]) == (404, "application/problem+json")
        assert msgspec.json.decode(await client.rest())["code"] == "not_found"
    await until(lambda: live.hubs.connections == 0)


@pytest.mark.parametrize("board", ["other", "", "m%61in%2F", "%00", "MAIN"])
async def test_an_unknown_board_is_told_by_a_close_code(live: Serving, board: str) -> None:
    async with connect(live.url(f"/boards/{board}/live"), proxy=None) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4404, "unknown board")
    await until(lambda: live.hubs.connections == 0)


UPGRADE = (
    b"GET /nowhere HTTP/1.1\r\nHost: board\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed", 426: "upgrade_required"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /boards/main/live HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (UPGRADE.replace(b"GET", b"POST"), 405),
        (UPGRADE.replace(b"Host: board", b"Host: board\r\nHost: other"), 400),
        (UPGRADE.replace(b"Host: board\r\n", b""), 400),
        (UPGRADE.replace(b"Version: 13", b"Version: 12"), 426),
        (UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b""), 426),
        (UPGRADE.replace(b"Key: MDEyMzQ1Njc4OWFiY2RlZg==", b"Key: short"), 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 9\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (UPGRADE, 404),
    ],
)
async def test_a_bad_handshake_is_refused(live: Serving, request_bytes: bytes, status: int) -> None:
    async with await Raw.connect(live) as client:
        await client.send_bytes(request_bytes)
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        told = msgspec.json.decode(body)
        assert int(head.split()[1]) == told["status"] == status
        assert told["code"] == CODES[status]
        if status == 426:
            assert b"sec-websocket-version: 13" in head.lower().split(b"\r\n")
        for header in (
            b"content-type: application/problem+json",
            b"x-content-type-options: nosniff",
            b"referrer-policy: no-referrer",
            b"connection: close",
        ):
            assert header in head.lower().split(b"\r\n"), header
        assert (b"\r\nAllow: GET" in head) is (status == 405)
    await until(lambda: live.hubs.connections == 0)


async def test_http_is_served_beside(live: Serving) -> None:
    async with await Raw.connect(live) as client:
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 200 ")


WATCH = (
    b"GET /boards/main/live HTTP/1.%d\r\nHost: board\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: " + Raw.KEY.encode() + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_an_upgrade_does_not_overtake_the_answers_before_it(live: Serving) -> None:
    async with await Raw.connect(live) as client:
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: board\r\n\r\n" + WATCH % 1)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1
    async with await Raw.connect(live) as client:
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: board\r\n\r\n")
        while b"</html>" not in client.buffer:
            client.buffer += await asyncio.get_running_loop().sock_recv(client.sock, 65_536)
        client.buffer = b""
        assert (await client.ask())[0] == 101, "behind an answer it is as welcome as at first"


async def test_a_websocket_begins_with_http_1_1(live: Serving) -> None:
    async with await Raw.connect(live) as client:
        await client.send_bytes(WATCH % 0)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_stream_has_nothing_behind_it(live: Serving) -> None:
    async with await Raw.connect(live) as client:
        stream, other = (
            f"GET {path} HTTP/1.1\r\nHost: board\r\n\r\n".encode() for path in ("/boards/main/events", "/")
        )
        await client.send_bytes(stream + other)
        while b'"seq":2' not in client.buffer:
            client.buffer += await asyncio.get_running_loop().sock_recv(client.sock, 65_536)
            if b'"seq":1' in client.buffer:
                live.hub.publish(frame(2, epoch="e2"))
        assert client.buffer.count(b"HTTP/1.1 ") == 1


async def test_ping_is_answered_in_any_pieces_and_leaves_nothing_behind(live: Serving, client: Raw) -> None:
    (server_side,) = live.connections()
    await client.send(PING, b"hello")
    assert await client.receive() == (PONG, b"hello")
    await until(lambda: server_side._ear is None)
    data = client_frame(PING, b"x" * 125) + client_frame(PING) + client_frame(PONG, b"unasked")
    for at in range(len(data)):
        await client.send_bytes(data[at : at + 1])
        await asyncio.sleep(0)
    assert await client.receive() == (PONG, b"x" * 125)
    assert await client.receive() == (PONG, b"")
    await until(lambda: server_side._ear is None)
    live.hub.publish(frame(2))
    assert (await client.message())["seq"] == 2


async def test_a_wasteful_length_keeps_the_parser_and_nothing_breaks(live: Serving, client: Raw) -> None:
    wasteful = bytes([0x80 | PING, 0x80 | 126, 0, 1]) + bytes(4) + b"a"
    await client.send_bytes(wasteful + wasteful[:3])
    assert await client.receive() == (PONG, b"a")
    await client.send_bytes(wasteful[3:])
    assert await client.receive() == (PONG, b"a")
    assert live.connections()[0]._ear is not None


async def test_a_message_in_fragments_outlives_pauses(client: Raw) -> None:
    await client.send(TEXT, b"{", fin=False)
    await client.send(PING)
    assert await client.receive() == (PONG, b"")
    await client.send(CONT, b"}")
    assert await client.closed() == (4400, "bad message")
    await client.send(CLOSE)


async def test_who_floods_is_closed_and_costs_little(client: Raw) -> None:
    await client.send_bytes(client_frame(PING) * 5_000)
    pongs = 0
    while (got := await client.receive())[0] == PONG:
        pongs += 1
    assert got == (CLOSE, b"\x0f\xbdtoo many messages")
    # A second's share, or two if a second ended meanwhile; the rest was not even parsed.
    assert pongs <= 2 * connection.INBOUND_BYTES // len(client_frame(PING))


async def fill(live: Serving, server_side: Connection) -> int:
    """Publish until a client that does not read can take no more; the last seq."""
    seq = 1
    while not server_side.paused:
        seq += 1
        live.hub.publish(frame(seq, rows=100))
        await until(lambda: live.hub._merging is None)
    return seq


async def test_who_pings_and_does_not_read_is_not_listened_to(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    async with await Raw.watch(live, receive_buffer=4_096) as deaf:
        (server_side,) = live.connections()
        seq = await fill(live, server_side)
        waiting = server_side._transport.get_write_buffer_size()
        await deaf.send(PING, b"1")
        await until(lambda: not server_side._transport.is_reading())
        await deaf.send(PING, b"2")
        await deaf.send(PING, b"3")
        assert server_side._transport.get_write_buffer_size() == waiting
        seq += 1
        live.hub.publish(frame(seq, top=-1))
        # It reads at last: whole frames, the newest at the end, no pong inside one, and it is heard again.
        pongs = []
        last = 0
        while b"3" not in pongs or last < seq:
            opcode, payload = await deaf.receive()
            if opcode == PONG:
                pongs.append(payload)
            else:
                last = msgspec.json.decode(payload)["seq"]
        assert pongs == [b"2", b"3"]
        assert server_side._transport.is_reading()


async def test_who_closes_without_having_read_is_let_go(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    async with await Raw.watch(live, receive_buffer=4_096) as slow:
        await fill(live, live.connections()[0])
        await slow.send(CLOSE, b"\x03\xe8")
        await until(lambda: len(live.hub) == 0)
        assert (await slow.closed())[0] == 1000
        await slow.ended()
        await until(lambda: live.hubs.connections == 0)


async def test_who_vanishes_while_stalled_leaves_nothing(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    async with await Raw.watch(live, receive_buffer=4_096) as stalled:
        await fill(live, live.connections()[0])
        assert len(live.hubs._stuck) == 1
    await until(lambda: live.hubs.connections == 0)
    assert not live.hubs._stuck
    assert stalled.sock.fileno() == -1


@pytest.mark.parametrize("reset", [False, True])
async def test_clients_that_connect_and_vanish_leave_nothing(live: Serving, reset: bool) -> None:
    for _ in range(50):
        client = await Raw.watch(live)
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
        client.sock.close()
    await until(lambda: live.hubs.connections == 0)
    assert len(live.hub) == 0
    assert not [other for other in live.server.server_state.connections if isinstance(other, Connection)]
    assert not live.hubs._stuck
    assert not live.hubs._closing


async def test_a_half_close_ends_the_connection(live: Serving, client: Raw) -> None:
    client.sock.shutdown(socket.SHUT_WR)
    await client.ended()
    await until(lambda: live.hubs.connections == 0)


async def test_a_client_keeps_the_connection_alive_by_itself(live: Serving) -> None:
    async with connect(live.url(), ping_interval=0.01, ping_timeout=PATIENCE, proxy=None) as client:
        for seq in range(2, 8):
            live.hub.publish(frame(seq))
        while msgspec.json.decode(await client.recv())["seq"] < 7:
            pass
        async with asyncio.timeout(PATIENCE):
            await (await client.ping())
