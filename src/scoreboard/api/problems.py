"""How every error is answered: ``application/problem+json`` (RFC 9457), with a stable ``code``.

In comes a ``Problem`` or whatever else was raised, out go status, headers and body. It must never tell a
client what went wrong inside; that goes to the log.
"""

from __future__ import annotations

import contextvars
import logging
import secrets
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from scoreboard.errors import Problem, QueueFull, Unavailable
from scoreboard.logs import REQUEST

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1  # when an engine is away: the supervisor brings it back within about a second
# What the framework raises, as ours; what is not here is a fault of the request's shape.
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}


ANYONE = {"access-control-allow-origin": "*", "access-control-expose-headers": "Retry-After"}
"""Of what is answered about boards: a page elsewhere may read them, and why it cannot."""


def problem_apart(error: Exception, event_id: str | None = None) -> Problem:
    """As ``problem_of``, outside of any request's own task: each fault of ours gets an id of its own."""
    return contextvars.copy_context().run(problem_of, error, event_id)


def problem_of(error: Exception, event_id: str | None = None) -> Problem:
    """The problem that stands for an exception, of an event if it is one's."""
    problem = _problem_of(error, event_id)
    problem.event_id = event_id or problem.event_id
    return problem


def _problem_of(error: Exception, event_id: str | None) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFull):
        return Problem("queue_full", str(error), retry_after=error.retry_after or RETRY_SECONDS)
    if isinstance(error, Unavailable):
        return Problem("unavailable", retry_after=RETRY_SECONDS)
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = _CODES.get(error.status_code, "invalid_field")
        return Problem(code, _flaws(error) if code == "invalid_field" else None)
    problem = Problem("internal")
    if not REQUEST.get():
        # Only now does somebody need it: to find this line with what the client was told.
        problem.request_id = secrets.token_hex(8)
        REQUEST.set(problem.request_id)
    logger.error("a request failed", exc_info=error, extra={"event": event_id} if event_id else None)
    return problem


def _flaws(error: HTTPException) -> str:
    """What the framework says of parameters: which, and why."""
    flaws = error.extra if isinstance(error.extra, list) else []
    told = [f"{flaw.get('key', '')}: {flaw.get('message', '')}" for flaw in flaws if isinstance(flaw, dict)]
    return "; ".join(told) or error.detail


def headers_of(problem: Problem) -> dict[str, str]:
    """The headers that belong to a problem: how to authenticate, when to come back."""
    headers = {"cache-control": "no-store"}
    if problem.status == 401:
        # RFC 6750 section 3: no error code when no token was sent.
        error = "" if problem.code == "missing_token" else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="scoreboard"{error}'
    elif problem.code == "insufficient_scope":
        scope = problem.extra.get("scope", "")
        headers["www-authenticate"] = (
            f'Bearer realm="scoreboard", error="insufficient_scope", scope="{scope}"'
        )
    if problem.request_id is not None:
        headers["x-request-id"] = problem.request_id
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    return headers


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The framework's exception handler for everything."""
    problem = problem_of(error)
    headers = headers_of(problem)
    if request.method == "GET" and request.scope["path"].startswith("/boards"):
        # Of a private one only if readers.py says so.
        headers |= request.scope.get("private", ANYONE)  # type: ignore[call-overload]
    if isinstance(error, HTTPException) and error.headers and "allow" in {h.lower() for h in error.headers}:
        headers |= {name.lower(): value for name, value in error.headers.items()}
    return Response(
        msgspec.json.encode(problem.body()),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )
