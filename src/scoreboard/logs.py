"""Logs: one line an event, to standard error; JSON for machines, words for a terminal. Never a secret.

What a record carries beside its message (``extra={...}``) becomes members of the line; so does the id of the
request that it belongs to, if the client gave one or one was made.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

import msgspec

# What every record has; the rest is what the caller added.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is being answered; empty: it has none."""


def _name_request(record: logging.LogRecord) -> bool:
    if request := REQUEST.get():
        record.request = request
    return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line. JSON escapes control characters, so that no message can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


class TextFormatter(logging.Formatter):
    """One readable line, for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        extra = " ".join(f"{k}={v!r}" for k, v in vars(record).items() if k not in _OWN)
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = f"{at} {record.levelname.lower():7} {record.name}: {record.getMessage()} {extra}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(level: int = logging.INFO) -> None:
    """Send all logs of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_name_request)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These say for each request or retry what nobody asked for.
    for name in ("httpx", "httpcore", "nats"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of each request that is not HTTP: a line for whoever sends one.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
