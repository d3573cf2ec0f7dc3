"""Rows of the ledger as PostgreSQL's binary COPY takes them: encoded by us, for this is most of a batch.

In come judged events, out go bytes (PostgreSQL's documentation, "COPY", binary format: a header, of each row
the number of its fields and each field behind its length, -1 for null, and a trailer). The driver's own
encoder looks at each value for its type; ours knows them, and costs the worker a third.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct

from scoreboard.book import Judged
from scoreboard.model import Accepted, Result, Update

COLUMNS = (
    *("event_id", "accept_no", "user_id", "type", "reference", "principal", "at", "points", "boards"),
    *("outcome", "reason", "retry_at"),
)
"""Of the rows that a batch adds to the ledger, in the order in which they are encoded."""

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_TEXT = 25  # the type's number, as each array of texts says it
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of PostgreSQL's times
_MICROSECOND = timedelta(microseconds=1)

_ids = Struct(">hi16siq").pack  # how many fields; event_id, accept_no
_number = Struct(">iq").pack
_length = Struct(">i").pack
_array = Struct(">iiiiii").pack  # length, dimensions, has it nulls, type, elements, index of the first


def rows(events: Iterable[tuple[Accepted, Update, Judged]]) -> bytes:
    """The rows of events that have been judged.

    Raises:
        struct.error, UnicodeEncodeError: a value that the database cannot hold.
    """
    parts = [_HEADER]
    texts: dict[str, bytes] = {}
    worths: dict[tuple[int, tuple[str, ...]], bytes] = {}
    at, of_at = None, b""
    for accepted, entry, judged in events:
        if accepted.at is not at:  # it is one and the same for all that came in an envelope
            at = accepted.at
            of_at = _time(at)
        if (kind := texts.get(entry.type)) is None:
            kind = texts[entry.type] = _text(entry.type)
        if (worth := worths.get((entry.points, entry.boards))) is None:
            worth = _number(8, entry.points) + _texts(entry.boards)
            worths[entry.points, entry.boards] = worth
        user, reference, principal = entry.user.encode(), entry.reference.encode(), entry.principal.encode()
        parts += (
            _ids(len(COLUMNS), 16, entry.event_id, 8, accepted.accept_no),
            *(_length(len(user)), user, kind),
            *(_length(len(reference)), reference, _length(len(principal)), principal),
            *(of_at, worth, _APPLIED if judged.result is Result.APPLIED else _outcome(judged)),
        )
    parts.append(_TRAILER)
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode()
    return _length(len(data)) + data


def _texts(texts: tuple[str, ...]) -> bytes:
    data = b"".join(map(_text, texts))
    if not texts:
        return _length(12) + Struct(">iii").pack(0, 0, _TEXT)
    return _array(20 + len(data), 1, 0, _TEXT, len(texts), 1) + data


def _time(at: datetime) -> bytes:
    return _number(8, (at - _EPOCH) // _MICROSECOND)


def _outcome(judged: Judged) -> bytes:
    reason = _NULL if judged.reason is None else _text(judged.reason)
    retry_at = _NULL if judged.retry_at is None else _time(judged.retry_at)
    return _text(judged.result) + reason + retry_at


_APPLIED = _outcome(Judged(Result.APPLIED, None, 0, ()))
