"""Texts as people and programs write them: user ids, names, reasons, durations, rates, times.

In comes a text; out goes what is wrong with it, in words, or what it means. Pure. It must never change a
text: what is well-formed is taken as it is.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

USER_ID_CHARACTERS = 128
USER_ID_BYTES = 256
NAME_CHARACTERS = 64

KEY_ID_PATTERN = "k_[0-9a-f]{12}"
TYPE_PATTERN = "[a-z0-9][a-z0-9_-]{0,63}"
UNIQUE_PATTERN = "[!-~]{1,256}"

_DURATION = re.compile(r"0*([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"0*([1-9][0-9]{0,8})/([smh])")

_PLAIN = re.compile(f"[!-~]{{1,{USER_ID_CHARACTERS}}}")
# Unicode general categories: control, format (bidirectional marks, zero width), surrogate.
_FORBIDDEN = frozenset(("Cc", "Cf", "Cs"))
# What shows nothing in other categories: joiners, fillers, the Braille pattern of no dot.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_SEEN = frozenset("LNPS")  # first letters of categories: letters, numbers, punctuation, symbols
_LINE_ENDS = frozenset(("Zl", "Zp"))  # beside those among the control characters


def flaw_of_user_id(user_id: str) -> str | None:
    """What is wrong with a user id, in words, or ``None`` if it is well-formed.

    A user id is 1-128 characters and at most 256 bytes of UTF-8, none of them control, format or surrogate
    characters, with no white space at either end. It is taken as it is and never normalised.
    """
    if not user_id:
        return "must not be empty"
    if _PLAIN.fullmatch(user_id):
        return None  # nearly all ids; spares the loop below
    if len(user_id) > USER_ID_CHARACTERS:
        return f"must be at most {USER_ID_CHARACTERS} characters"
    if user_id[0].isspace() or user_id[-1].isspace():
        return "must not begin or end with white space"
    if any(unicodedata.category(c) in _FORBIDDEN for c in user_id):
        return "must not hold control or invisible formatting characters"
    if len(user_id.encode()) > USER_ID_BYTES:
        return f"must be at most {USER_ID_BYTES} bytes of UTF-8"
    return None


def flaw_of_name(name: str) -> str | None:
    """What is wrong with a display name, in words, or ``None``: 1-64 characters, NFC, none invisible.

    Marks are for letters to wear (variants of emoji, too); alone they show nothing.
    """
    if not name or name[0].isspace() or name[-1].isspace():
        return "must not be empty, nor begin or end with white space"
    if len(name) > NAME_CHARACTERS:
        return f"must be at most {NAME_CHARACTERS} characters"
    categories = [unicodedata.category(c) for c in name]
    if not _FORBIDDEN.isdisjoint(categories) or not _BLANK.isdisjoint(name):
        return "must not hold control or invisible formatting characters"
    if not any(category[0] in _SEEN for category in categories):
        return "must hold a character that can be seen"
    if not unicodedata.is_normalized("NFC", name):
        return "must be in Unicode normalisation form C"
    return None


def flaw_of_line(text: str) -> str | None:
    """What is wrong with an operator's words (a reason, what a key is for), or ``None``: one line of text."""
    if any(unicodedata.category(c) in _FORBIDDEN | _LINE_ENDS for c in text):
        return "must not hold control or invisible formatting characters, nor line ends"
    return None


def text_of_time(at: datetime) -> str:
    """A time as all answers give it: RFC 3339, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> int | None:
    """A duration such as 90s, 15m, 1h or 7d, in seconds; ``None`` if it is not one."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def rate_of(text: str) -> tuple[int, int]:
    """A rate such as 20/s, 600/m or 5000/h: how many, in how many seconds. Raises ``ValueError``."""
    found = _RATE.fullmatch(text)
    if found is None:
        msg = f"{text!r} is not of the form 20/s, 600/m or 5000/h"
        raise ValueError(msg)
    return int(found[1]), _UNITS[found[2]]
