"""Every error that this package raises on purpose: one small tree.

::

    ScoreboardError
    ├── ConfigurationError      a file, a variable or a flag is wrong; says which and what would be right
    ├── EngineError             an engine could not be started, or is not what it should be
    ├── Unavailable             an engine does not answer; nothing is known to be lost
    │   ├── QueueFull           the log is at its bound
    │   ├── DatabaseUnavailable
    │   └── BoardUnavailable
    │       └── BoardDamaged    somebody else wrote to it; it must be rebuilt
    ├── BadData                 what was to be written breaks a rule of the database
    ├── Fenced                  another worker is ahead; what was tried did not happen
    ├── LogMismatch             the log is not the one that the database has been reading
    ├── SchemaTooNew            this version is too old for the database's schema
    ├── BadBackup               a file is not a whole backup, or the database may not take it
    └── Problem                 an answer to an HTTP client (RFC 9457)

The docstring of a class is its default message. Driver exceptions are translated in the module that owns
the driver and nowhere else.
"""

from __future__ import annotations

import asyncio
from typing import Any

EX_CONFIG = 78
"""Exit status of a role or command whose configuration is wrong (sysexits.h): trying again does not help.

A role exits with it after each of ``HOPELESS``.
"""


class ScoreboardError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(ScoreboardError):
    """The configuration is wrong."""


class EngineError(ScoreboardError):
    """An engine could not be started."""


class Unavailable(ScoreboardError):
    """A part that is needed does not answer. Try again."""


class QueueFull(Unavailable):
    """The queue is full. Try again later."""

    retry_after: int | None = None
    """Seconds after which there should be room, where that is known."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer. Try again."""


class BoardUnavailable(Unavailable):
    """The board does not answer. Try again."""


class BoardDamaged(BoardUnavailable):
    """The board holds what nobody can read. It must be rebuilt."""


class BadData(ScoreboardError):
    """What was to be written breaks a rule of the database."""


class Fenced(ScoreboardError):
    """Another worker has moved the cursor; this one stands back."""


class LogMismatch(ScoreboardError):
    """The log is not the one that the database has been reading."""

    def __init__(self, message: str, how: str = "`scoreboard adopt --dry-run` says how to go on.") -> None:
        super().__init__(f"{message} Nothing is skipped by itself: {how}")


class SchemaTooNew(ScoreboardError):
    """This version is too old for the database's schema."""


HOPELESS = (ConfigurationError, LogMismatch, SchemaTooNew)
"""What a role cannot run with, however often it is started: somebody has to decide first."""


class BadBackup(ScoreboardError):
    """The file is not a whole backup of this program."""


def heed_cancellation() -> None:
    """End this task if it was cancelled and that was not passed on: else it would go on for ever.

    The client of NATS swallows a cancellation while it flushes, that of Redis writes under
    ``asyncio.wait_for``, which before Python 3.12 swallows one that comes together with its result. A
    ``TaskGroup`` swallows one if a child fails in that moment.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error worth telling of those that ended a group of tasks: ours, if there is one."""
    error: BaseException = failures.subgroup(ScoreboardError) or failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


# code: (HTTP status, may the same request be sent again?, title)
PROBLEMS: dict[str, tuple[int, bool, str]] = {
    "malformed_request": (400, False, "This is not a request that can be read."),
    "malformed_json": (400, False, "The body is not valid JSON."),
    "invalid_field": (400, False, "A field has a wrong type or value."),
    "unknown_field": (400, False, "There is no such field."),
    "missing_token": (401, False, "A bearer token is required."),
    "invalid_token": (401, False, "The token is not valid."),
    "token_expired": (401, False, "The token has expired."),
    "insufficient_scope": (403, False, "The key does not have the scope that this needs."),
    "user_mismatch": (403, False, "A user may act for itself only."),
    "action_not_allowed": (403, False, "This action may not be submitted this way."),
    "origin_denied": (403, False, "A page of this origin may not do this."),
    "not_found": (404, False, "There is nothing at this address."),
    "unknown_board": (404, False, "There is no such board."),
    "unknown_event": (404, True, "No such event is known here (yet)."),
    "unknown_user": (404, False, "There is no such user."),
    "method_not_allowed": (405, False, "This address does not take that method."),
    "grant_expired": (410, False, "The grant has expired."),
    "payload_too_large": (413, False, "The body is too large."),
    "unsupported_media_type": (415, False, "The body must be application/json."),
    "unknown_action": (422, False, "There is no such action in the catalogue."),
    "invalid_grant": (422, False, "The grant is not valid."),
    "upgrade_required": (426, False, "A WebSocket of version 13 is spoken here."),
    "rate_limited": (429, True, "Too many requests."),
    "internal": (500, True, "Something broke here. It has been logged."),
    "queue_full": (503, True, "The queue is full."),
    # Of an update it says: not known to be accepted. Sending it again with the same actionId is safe.
    "unavailable": (503, True, "Not available right now; try again."),
}


class Problem(ScoreboardError):
    """An error that is answered to the client as ``application/problem+json`` (RFC 9457).

    Args:
        code: the stable name, a key of ``PROBLEMS``, which gives status and title.
        detail: what exactly is wrong, in a whole sentence: people are shown it instead of the title.
        event_id: the event's UUID in text, wherever it is known.
        retry_after: seconds after which trying again makes sense (``Retry-After``).
        extra: further members of the problem, by name.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        event_id: str | None = None,
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.code = code
        self.status, self.retryable, self.title = PROBLEMS[code]
        self.detail = detail
        self.event_id = event_id
        self.retry_after = retry_after
        self.request_id: str | None = None
        """Made for this answer, so that its line in the log can be found."""
        self.extra = extra or {}
        super().__init__(f"{code}: {detail or self.title}")

    def body(self) -> dict[str, Any]:
        """The problem's members, ready for JSON."""
        body: dict[str, Any] = {
            "type": f"urn:scoreboard:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.detail is not None:
            body["detail"] = self.detail
        if self.event_id is not None:
            body["eventId"] = self.event_id
        return body | self.extra
