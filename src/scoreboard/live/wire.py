"""Every form in which something goes out to a watching client: bytes made once, shared by all.

In comes a frame; out come its bytes for each way of watching. It must never make bytes that are meant for one
client where the same would do for all.
"""

from __future__ import annotations

from functools import cache
from typing import Self

import msgspec
from msgspec import Struct
from websockets.frames import Close, Opcode
from websockets.frames import Frame as WebSocketFrame

from scoreboard.model import Frame


class Latest(Struct, frozen=True):
    """The newest frame of a board in every form it goes out in."""

    frame: Frame
    json: bytes
    wire: bytes
    """An unmasked WebSocket text frame around ``json``. All clients can share it: none has an extension."""
    heartbeat: bytes
    """The WebSocket text frame that says: this is still the newest."""

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Encode a frame."""
        json = msgspec.json.encode(frame)
        heartbeat = {"type": "heartbeat", "board": frame.board, "epoch": frame.epoch, "seq": frame.seq}
        return cls(frame, json, _text(json), _text(msgspec.json.encode(heartbeat)))


def bye(code: int, retry_after: int) -> bytes:
    """The text frame before a close: come back in so many milliseconds."""
    return _text(msgspec.json.encode({"type": "bye", "code": code, "retryAfter": retry_after}))


@cache
def close(code: int, reason: str) -> bytes:
    """A close frame."""
    return WebSocketFrame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


def _text(payload: bytes) -> bytes:
    return WebSocketFrame(Opcode.TEXT, payload).serialize(mask=False)
