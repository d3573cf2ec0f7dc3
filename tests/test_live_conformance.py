"""RFC 6455 rule by rule: what a client may send and what it may not, whole and in pieces."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from by_hand import Raw, client_frame
from scoreboard.live import hubs
from watching import Serving, frame, serving, until

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
AUTH = b'{"type":"auth","token":"none"}'
MESSAGE = 4_096  # bytes that a message may have


def close(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


def masked(opcode: int, payload: bytes, key: bytes) -> bytes:
    return (
        bytes([0x80 | opcode, 0x80 | len(payload)])
        + key
        + bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
    )


# What breaks a rule: the rule's section and name, what is sent, the close code that answers.
BROKEN = {
    "5.1 a client masks: text": (client_frame(TEXT, AUTH, masked=False), 1002),
    "5.1 a client masks: ping": (client_frame(PING, masked=False), 1002),
    "5.1 a client masks: close": (client_frame(CLOSE, b"\x03\xe8", masked=False), 1002),
    "5.2 reserved bit 1 without an extension": (client_frame(TEXT, AUTH, rsv1=True), 1002),
    "5.2 reserved bit 2": (bytes([0x80 | 0x20 | PING, 0x80]) + bytes(4), 1002),
    "5.2 reserved bit 3": (bytes([0x80 | 0x10 | PING, 0x80]) + bytes(4), 1002),
    **{f"5.2 opcode {opcode} is reserved": (client_frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7)},
    **{f"5.2 opcode {opcode} is reserved": (client_frame(opcode), 1002) for opcode in range(11, 16)},
    "5.2 a length of 64 bits has no highest bit": (bytes([0x81, 0xFF]) + b"\xff" * 8 + bytes(4), 1009),
    "5.4 a continuation continues something": (client_frame(CONT, b"x"), 1002),
    "5.4 a continuation continues something: the last": (client_frame(CONT, b"x", fin=False), 1002),
    "5.4 messages do not interleave: text": (
        client_frame(TEXT, b"a", fin=False) + client_frame(TEXT, b"b"),
        1002,
    ),
    "5.4 messages do not interleave: binary": (
        client_frame(TEXT, b"a", fin=False) + client_frame(BINARY, b"b"),
        1002,
    ),
    "5.5 a ping is not fragmented": (client_frame(PING, fin=False), 1002),
    "5.5 a pong is not fragmented": (client_frame(PONG, fin=False), 1002),
    "5.5 a close is not fragmented": (client_frame(CLOSE, fin=False), 1002),
    "5.5 a ping has 125 bytes at most": (client_frame(PING, b"x" * 126), 1002),
    "5.5 a pong has 125 bytes at most": (client_frame(PONG, b"x" * 126), 1002),
    "5.5 a close has 125 bytes at most": (close(1000, b"x" * 124), 1002),
    "5.5.1 a close code has two bytes": (client_frame(CLOSE, b"\x03"), 1002),
    "5.5.1 a reason is UTF-8": (close(1000, b"\xff"), 1007),
    **{
        f"7.4 {code} is no code to send": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "8.1 text is UTF-8: a lone byte": (client_frame(TEXT, b"\xff"), 1007),
    "8.1 text is UTF-8: overlong": (client_frame(TEXT, b"\xc0\xaf"), 1007),
    "8.1 text is UTF-8: a surrogate": (client_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "8.1 text is UTF-8: beyond Unicode": (client_frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "8.1 text is UTF-8: cut off": (client_frame(TEXT, "é".encode()[:1]), 1007),
    "8.1 text is UTF-8: across fragments": (
        client_frame(TEXT, "é".encode()[:1], fin=False) + client_frame(CONT, b"!"),
        1007,
    ),
    "10.4 a message has a limit": (client_frame(TEXT, b"x" * (MESSAGE + 1)), 1009),
    "10.4 a message has a limit: much more": (client_frame(TEXT, b"x" * 100_000), 1009),
    "10.4 a message has a limit: its header is enough": (
        bytes([0x81, 0xFF]) + struct.pack("!Q", 2**62),
        1009,
    ),
    "10.4 a message has a limit: in fragments": (
        client_frame(TEXT, b"x" * 4_000, fin=False) + client_frame(CONT, b"x" * 97),
        1009,
    ),
    "ours: binary is no message": (client_frame(BINARY, b"\xff"), 4400),
    "ours: the beginning of a binary one is enough": (client_frame(BINARY, fin=False), 4400),
    "ours: nothing is no message": (client_frame(TEXT), 4400),
    "ours: the longest message is understood": (client_frame(TEXT, b"x" * MESSAGE), 4400),
    "ours: a message in fragments is one": (
        client_frame(TEXT, b"{", fin=False) + client_frame(PING) + client_frame(CONT, b"}"),
        4400,
    ),
}

# What keeps all rules: what is sent, and what comes back.
KEPT = {
    "5.3 any mask": (
        masked(PING, b"hello", b"\x00\x00\x00\x00") + masked(PING, b"hello", b"\xff\x01\x80\x7f"),
        [
            (PONG, b"hello"),
            (PONG, b"hello"),
        ],
    ),
    "5.4 a control frame may come between fragments": (
        client_frame(TEXT, AUTH[:9], fin=False)
        + client_frame(PING, b"between")
        + client_frame(CONT, fin=False)
        + client_frame(CONT, AUTH[9:]),
        [(PONG, b"between"), (CLOSE, b"\x11\x31invalid token")],
    ),
    "5.4 a character may be cut by fragments": (
        client_frame(TEXT, b'{"type":"auth","token":"' + "é".encode()[:1], fin=False)
        + client_frame(CONT, "é".encode()[1:] + b'"}'),
        [(CLOSE, b"\x11\x31invalid token")],
    ),
    "5.5.2 a ping of 125 bytes": (client_frame(PING, b"x" * 125), [(PONG, b"x" * 125)]),
    "5.5.2 an empty ping": (client_frame(PING), [(PONG, b"")]),
    "5.5.2 pings are answered in order": (
        client_frame(PING, b"1") + client_frame(PING, b"2"),
        [(PONG, b"1"), (PONG, b"2")],
    ),
    "5.5.3 an unasked pong is nothing": (client_frame(PONG, b"unasked") + client_frame(PING), [(PONG, b"")]),
    "5.5.1 a close without a code": (client_frame(CLOSE), [(CLOSE, b"")]),
    "5.5.1 a close with a reason": (close(1001, b"going away"), [(CLOSE, b"\x03\xe9going away")]),
    "5.5.1 a close of 125 bytes": (close(1000, b"x" * 123), [(CLOSE, b"\x03\xe8" + b"x" * 123)]),
    "5.5.1 nothing is heard after a close": (
        close(1000) + client_frame(PING) + client_frame(TEXT, masked=False),
        [(CLOSE, b"\x03\xe8")],
    ),
    **{
        f"7.4 {code} is a code": (close(code), [(CLOSE, struct.pack("!H", code))])
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def client(server: Serving) -> AsyncIterator[Raw]:
    server.hub.publish(frame(1, epoch=str(uuid4())))
    async with await Raw.watch(server) as raw:
        assert (await raw.message())["seq"] == 1
        yield raw
    await until(lambda: server.hubs.connections == 0)
    assert len(server.hub) == 0


async def send(client: Raw, data: bytes, *, pieces: bool) -> None:
    size = 1 + len(data) // 20 if pieces else len(data)
    for start in range(0, len(data), size):
        await client.send_bytes(data[start : start + size])
        await asyncio.sleep(0)


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("rule", BROKEN)
async def test_who_breaks_a_rule_is_told_its_code_and_ended(client: Raw, rule: str, pieces: bool) -> None:
    data, code = BROKEN[rule]
    await send(client, data, pieces=pieces)
    got, _ = await client.closed()
    assert got == code
    await client.send_bytes(close(1000))
    await client.ended()


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("rule", KEPT)
async def test_who_keeps_the_rules_is_answered(
    client: Raw, rule: str, pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "CLOSE_SECONDS", 0.0)  # a client that does not close is not waited for
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.05)
    data, answers = KEPT[rule]
    await send(client, data, pieces=pieces)
    for answer in answers:
        assert await client.receive() == answer
    if answers[-1][0] == CLOSE:
        await client.ended()  # the server closes first (7.1.1)
