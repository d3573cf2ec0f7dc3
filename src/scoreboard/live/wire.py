"""Every form in which something goes out to a watching client: bytes made once, shared by all.

In comes a value; out come its bytes for each way of watching, around the same JSON. It must never make bytes
that are meant for one client where the same would do for all.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import msgspec
from msgspec import Struct
from websockets.frames import Close, Opcode
from websockets.frames import Frame as WebSocketFrame

from scoreboard.model import Around, Frame

WEBSOCKET, EVENTS = 0, 1
"""Places in ``Forms``: an unmasked WebSocket text frame, and a Server-Sent Event. All clients of a form can
share them: none has an extension, none an encoding."""
TRANSPORTS = ("websocket", "events")
"""What the metrics call them."""

Forms = tuple[bytes, bytes]


def forms(json: bytes, event_id: str = "", retry: int | None = None) -> Forms:
    """One message in every form. ``event_id`` is what a client comes back with, ``retry`` when (ms)."""
    event = b"" if retry is None else b"retry: %d\n" % retry
    event += f"id: {event_id}\n".encode() if event_id else b""
    return WebSocketFrame(Opcode.TEXT, json).serialize(mask=False), event + b"data: " + json + b"\n\n"


class Latest(Struct, frozen=True):
    """The newest frame of a board in every form."""

    frame: Frame
    json: bytes
    forms: Forms

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Encode a frame."""
        json = msgspec.json.encode(frame)
        return cls(frame, json, forms(json, event_id(frame)))


def heartbeat(name: str, frame: Frame | None, *, stale: bool) -> Forms:
    """This is still the newest frame of the board; ``stale``: and there may be newer ones out of reach."""
    said: dict[str, Any] = {
        "type": "heartbeat",
        "board": name,
        "epoch": frame.epoch if frame else "",
        "seq": frame.seq if frame else 0,
    }
    if stale:
        said["stale"] = True
    return forms(msgspec.json.encode(said), event_id(frame) if frame else "")


def you(name: str, seq: int, around: Around | None) -> Forms:
    """A user's own line, for all its screens."""
    said: dict[str, Any] = {
        "type": "you",
        "board": name,
        "seq": seq,
        "rank": around and around.rank,
        "score": around and around.score,
        "toNext": around and around.to_next,
        "above": around.above if around else (),
        "below": around.below if around else (),
    }
    return forms(msgspec.json.encode(said))


def bye(code: int, retry_after: int) -> Forms:
    """The last message: why it ends, and in how many milliseconds to come back."""
    said = {"type": "bye", "code": code, "retryAfter": retry_after}
    return forms(msgspec.json.encode(said), retry=retry_after)


@cache
def close(code: int, reason: str) -> bytes:
    """A WebSocket close frame."""
    return WebSocketFrame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


def event_id(frame: Frame) -> str:
    """A frame's epoch and seq as the id of its event."""
    return f"{frame.epoch}:{frame.seq}"
