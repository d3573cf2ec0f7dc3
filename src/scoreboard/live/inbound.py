"""What one client says: bytes in, messages and ready-made answers out. No input or output of its own.

``websockets`` parses and judges (framing, masks, sizes, closes). An ``Ear`` exists only while there is
something unfinished in it, for nearly all clients are silent nearly always, and a parser takes more memory
than all the rest of a connection. It must never hold more than one message of the longest kind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

MESSAGE_BYTES = 4_096
"""The longest message that is taken. What a client may have to say is a token, and they are refused above."""

INVALID_UTF8 = 1007
BAD_MESSAGE = 4400

quiet = logging.getLogger("scoreboard.live.websockets")
"""For the library, which logs every connection that opens or closes."""
quiet.setLevel(logging.WARNING)


class Heard(Struct):
    """What came of some bytes."""

    messages: list[str]
    """Complete text messages."""
    fault: tuple[int, str] | None
    """Close code and reason for what is sound WebSocket and still no message for us."""
    replies: list[bytes]
    """What the library answers by itself: pongs, the echo of a close, the close frame after an error. If
    ``closed`` or ``failed``, the last is that close frame."""
    closed: bool
    """The client has sent its close frame."""
    failed: bool
    """The client broke the protocol."""
    complete: bool
    """Nothing unfinished is left; the ear is not needed any more."""


class _Auth(Struct, tag="auth", tag_field="type", forbid_unknown_fields=True):
    """The one message that a client may send: a user's token, or a service's key."""

    token: str


_decoder = msgspec.json.Decoder(_Auth)


def token_in(message: str) -> str | None:
    """The token that a message brings; ``None`` if it is no message of ours."""
    try:
        return _decoder.decode(message).token
    except msgspec.DecodeError:
        return None


class Ear:
    """Parses what one client sends, in whatever pieces it comes."""

    __slots__ = ("_parser", "_text", "_unparsed")

    def __init__(self) -> None:
        self._parser = Protocol(SERVER, state=OPEN, max_size=MESSAGE_BYTES, logger=quiet)
        self._unparsed = 0
        self._text = bytearray()

    def hear(self, data: bytes) -> Heard:
        """Take some bytes. Not to be called again after ``closed`` or ``failed``."""
        parser = self._parser
        parser.receive_data(data)
        frames = [event for event in parser.events_received() if isinstance(event, Frame)]
        messages, fault = self._messages(frames)
        self._unparsed += len(data) - sum(map(_least_size, frames))
        failed = parser.parser_exc is not None
        return Heard(
            messages=messages,
            fault=fault,
            replies=[reply for reply in parser.data_to_send() if reply],
            closed=parser.eof_sent and not failed,
            failed=failed,
            complete=self._unparsed == 0 and parser.current_size is None,
        )

    def _messages(self, frames: Sequence[Frame]) -> tuple[list[str], tuple[int, str] | None]:
        messages: list[str] = []
        for frame in frames:
            if frame.opcode is Opcode.BINARY:
                return messages, (BAD_MESSAGE, "bad message")
            if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
                continue
            self._text += frame.data
            if frame.fin:
                text, self._text = self._text, bytearray()
                try:
                    messages.append(text.decode())
                except UnicodeDecodeError:
                    return messages, (INVALID_UTF8, "not UTF-8")
        return messages, None


def _least_size(frame: Frame) -> int:
    """The fewest bytes in which a client can have sent this frame: header, mask, payload.

    A client may have wasted some; then the sum stays below what was received, and the ear is kept although it
    is done. It is never the other way round.
    """
    size = len(frame.data)
    return 6 + size if size < 126 else 8 + size
