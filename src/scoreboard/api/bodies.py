"""Bodies of requests and answers on the hot routes: read within bounds, parsed strictly, sent at once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeVar

import msgspec

from scoreboard.errors import Problem

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


def parse_strictly(decode: Callable[[bytes], T], body: bytes, quotes: int) -> T:
    """A flat object, by a decoder that refuses unknown fields. ``quotes``: those of its keys and texts."""
    found = parsed(decode, body)
    refuse_duplicate_keys(body, quotes)
    return found


def parsed(decode: Callable[[bytes], T], body: bytes) -> T:
    """What a decoder reads, or a ``Problem``: ``malformed_json``, ``unknown_field`` or ``invalid_field``."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        code = "unknown_field" if "unknown field" in str(error) else "invalid_field"
        raise Problem(code, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("malformed_json", str(error)) from error


def refuse_duplicate_keys(body: bytes, quotes: int) -> None:
    """The decoder keeps the last of duplicate keys; another reader may have judged by the first.

    Two keys and two values of text have eight quotes; a body with just these and no escape cannot hold more.
    """
    if body.count(b'"') == quotes and b"\\" not in body:
        return

    def refuse(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise Problem("invalid_field", "A key is given twice.")

    json.loads(body, object_pairs_hook=refuse)


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body. Raises ``Problem``: ``unsupported_media_type`` or ``payload_too_large``."""
    media_type, _, parameter = headers.get(b"content-type", b"").partition(b";")
    if media_type.strip().lower() != b"application/json" or (
        parameter and parameter.strip().lower().replace(b'"', b"") != b"charset=utf-8"
    ):
        raise Problem("unsupported_media_type")
    if b"content-encoding" in headers:
        raise Problem("unsupported_media_type", "The body must not be compressed.")
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise Problem("payload_too_large", f"The body may have {limit} bytes at most.")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("malformed_json", "The request ended early.")
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > limit:
            raise Problem("payload_too_large", f"The body may have {limit} bytes at most.")
        if not message.get("more_body"):
            return body


async def respond(
    send: Send, status: int, body: Any, media_type: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a JSON body."""
    data = _encode(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type),
                (b"content-length", b"%d" % len(data)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": data})
