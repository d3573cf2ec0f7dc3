"""The problems that a route can answer, as its documentation shows them."""

from __future__ import annotations

from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from scoreboard.errors import PROBLEMS

WHO = ("missing_token", "invalid_token", "token_expired", "rate_limited")
"""Of whatever has to be known who asks for it."""
WRITE = (
    "origin_denied",
    "malformed_json",
    "invalid_field",
    "unknown_field",
    "payload_too_large",
    "unsupported_media_type",
)
"""Of whatever has a body."""


class ProblemBody(Struct, frozen=True, rename="camel"):
    """An error (RFC 9457, `application/problem+json`)."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    """May the same request be sent again?"""
    detail: str | None = None
    event_id: str | None = None


def problems(*codes: str) -> dict[int, ResponseSpec]:
    """The documentation of these problems, by HTTP status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    return {
        status: ResponseSpec(
            ProblemBody,
            generate_examples=False,
            description=", ".join(f"`{code}`" for code in listed),
            media_type="application/problem+json",
        )
        for status, listed in by_status.items()
    }
