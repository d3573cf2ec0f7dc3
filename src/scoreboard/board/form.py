"""The form of a board's data in the server: keys, rows, frames, cursors, ranks. Pure; no input or output."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from scoreboard.config import Config
from scoreboard.errors import BoardDamaged
from scoreboard.model import PERIOD, SCORE_LIMIT, Around, Frame, Line, Row

FORM = 1
"""Raised when the form of the data changes: boards of another form are rebuilt."""
WIDTH = 19
"""Digits of an ``accept_no``, which is below 2^63. Of one width, they sort as text."""
FIELD, LINE = "\x1f", "\x1e"
"""Between fields, before lines. User ids and names hold no control characters."""
USERS = ":users"

_MEMBER = re.compile(r"\d{19}.{1,128}", re.ASCII | re.DOTALL)


class Page(Struct, frozen=True, rename="camel", tag="board", tag_field="type"):
    """Some lines of a board at one moment; like a ``Frame``, but it may begin anywhere."""

    board: str
    epoch: str
    seq: int
    at: str
    """When anything on the board last changed, visible in the frame or not."""
    total: int
    top: tuple[Line, ...]
    next: str | None
    """The cursor of the page that follows; ``None`` at the end."""


class Entry(Struct, frozen=True):
    """What the server holds of one user who has an entry."""

    user: str
    reached: int
    score: int
    name: str
    """Empty: the id is shown."""


class States(Struct, frozen=True):
    """What the server holds of some users, all of one moment, unread."""

    generation: bytes
    upto: dict[int, int]
    """How far each partition has been written."""
    found: list[tuple[bytes, int | None]]
    """For each pair of user and member: the user's value, empty without one; the member's key."""


class Spec(Struct, frozen=True):
    """What the configuration of a board means for its data."""

    board: str
    meta: str
    """The key from which the scripts make all others."""
    channel: str
    """Where frames are published; with ``USERS`` after it, whose rows changed."""
    shape: str
    """What the server must hold to be read as this board; another order needs another ranking."""
    mode: str
    """``rank`` of the configuration: ordinal, competition, dense."""
    order: str
    top: int

    def key_of(self, score: int) -> int:
        """The score as the ranking keeps it: the best is the lowest. Its own inverse."""
        return score if self.order == "asc" else -score


class Standing(Struct, frozen=True):
    """Where a user stands on a board, as the script tells it. Unread, for it is mostly only compared."""

    spec: Spec
    user: str
    seq: int
    """Of the frame that was shown at that moment."""
    text: bytes
    """Equal if nothing in it has changed."""

    def around(self) -> Around | None:
        """The user's line with its neighbours; ``None`` without an entry. Raises ``BoardDamaged``."""
        if not self.text:
            return None
        spec = self.spec
        with readable(spec.board):
            head, *rest = self.text.decode().split(LINE)
            place, first, rank, nearest = head.split(FIELD)
            shown = lines(spec.mode, _told(rest), before=int(first), rank=int(rank))
            own = int(place) - int(first)
            line, above, below = shown[own], shown[:own], shown[own + 1 :]
            missing = to_next(
                spec, line.score, above[-1].score if above else None, int(nearest) if nearest else None
            )
        return Around(spec.board, self.user, line.name, line.rank, line.score, missing, above, below)


@contextmanager
def readable(board: str) -> Iterator[None]:
    """What is read inside has the form that the scripts give it; else ``BoardDamaged``."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise BoardDamaged(f"The board {board} holds what nobody can read: {error!r}") from error


def specs(config: Config, number: int) -> dict[str, Spec]:
    """All boards of a configuration, in one of the server's numbered databases.

    Channels do not belong to a numbered database, so their names hold its number.
    """
    found = {}
    for name, board in config.boards.items():
        base = f"{config.namespace}:{{{name}:{PERIOD}}}"
        shape = f"{FORM}:{board.order}:{'steps' if board.rank == 'dense' else 'plain'}"
        found[name] = Spec(
            name, f"{base}:meta", f"{base}:frames:{number}", shape, board.rank, board.order, board.top
        )
    return found


def version(accept_no: int) -> str:
    """An ``accept_no`` as text that sorts."""
    return f"{accept_no:0{WIDTH}d}"


def arguments(rows: Iterable[Row]) -> list[str]:
    """Rows as the scripts take them: user, value, ...; of each user only the newest."""
    newest: dict[str, Row] = {}
    for row in rows:
        known = newest.get(row.user)
        if known is None or row.changed > known.changed:
            newest[row.user] = row
    return [text for user, row in newest.items() for text in (user, value_of(row))]


def value_of(row: Row) -> str:
    """What is kept of a row, in its user's value; a tombstone if it has no score."""
    if row.score is None:
        return version(row.changed)
    return f"{row.changed:019d}{row.reached:019d}{row.score}{FIELD}{shown_name(row)}"


def shown_name(row: Row) -> str:
    """The name as it is kept: empty where the id itself is shown."""
    return "" if row.name is None or row.name == row.user else row.name


def entry(user: str, value: bytes | None) -> Entry | None:
    """A stored value; ``None`` for a tombstone, none at all, or what was damaged by hand."""
    if value is None or len(value) <= WIDTH:
        return None
    try:
        reached, rest = value[WIDTH : 2 * WIDTH], value[2 * WIDTH :].decode()
        score, _, name = rest.partition(FIELD)
        return Entry(user, int(reached), int(score), name)
    except ValueError:
        return None


def entries(members: Sequence[bytes], values: Sequence[bytes | None]) -> list[Entry | None]:
    """Members of the ranking with their users' values."""
    return [entry(user_of(member), value) for member, value in zip(members, values, strict=True)]


def user_of(member: bytes) -> str:
    """Whose member of the ranking this is."""
    return member[WIDTH:].decode()


def member_of(reached: int, user: str) -> str:
    """What stands in the ranking for a user."""
    return version(reached) + user


def lines(mode: str, entries: Iterable[Entry | None], *, before: int = 0, rank: int = 1) -> tuple[Line, ...]:
    """Entries as they are shown.

    Args:
        mode: the board's ``rank``.
        entries: in board order; ``None`` where the server lacks one (``compare`` will say so).
        before: how many entries stand before the first.
        rank: the displayed rank of the first.
    """
    found: list[Line] = []
    last: int | None = None
    for place, one in enumerate(entries, before + 1):
        if one is None:
            continue
        if last is not None and (mode == "ordinal" or one.score != last):
            rank = rank + 1 if mode == "dense" else place
        last = one.score
        found.append(Line(rank, one.user, one.name or one.user, one.score))
    return tuple(found)


def frame(spec: Spec, raw: bytes) -> Frame:
    """A frame as the script stores and publishes it. Raises ``BoardDamaged``."""
    with readable(spec.board):
        head, *rest = raw.decode().split(LINE)
        epoch, seq, at, total = head.split(FIELD)
        return Frame(spec.board, epoch, int(seq), at, int(total), lines(spec.mode, _told(rest)))


def _told(lines: Iterable[str]) -> list[Entry]:
    """Lines as the scripts write them: user, name, score."""
    parts = (line.split(FIELD) for line in lines)
    return [Entry(user, 0, int(score), name) for user, name, score in parts]


def cursor(board: str, last: Entry) -> str:
    """Where the next page begins: after this entry's place, wherever the entry itself may go."""
    data = msgspec.msgpack.encode((board, last.score, member_of(last.reached, last.user)))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def place_of(board: str, text: str) -> tuple[int, str]:
    """The (score, member) of a cursor.

    Raises:
        ValueError: it is none, or another board's.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        owner, score, member = msgspec.msgpack.decode(data, type=tuple[str, int, str])
    except (binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise ValueError("the cursor is malformed") from error
    if owner != board:
        raise ValueError("the cursor is another board's")
    if abs(score) > SCORE_LIMIT or not _MEMBER.fullmatch(member):
        raise ValueError("the cursor is malformed")
    return score, member


def to_next(spec: Spec, own: int, above: int | None, better: int | None) -> int | None:
    """Points that are missing to the next displayed rank, in the board's better direction; so never negative.

    On an ``ordinal`` board the next rank is the place of the entry directly above. Among equals the first to
    get there leads, so reaching its score is not enough: it takes one point more. Where equals share a rank
    (``competition``, ``dense``) the next rank is that of the nearest strictly better score, and reaching that
    score is enough. On an ``asc`` board the points are those to lose.

    Args:
        spec: the board.
        own: the user's score.
        above: the score directly above; ``None`` at the top.
        better: the nearest strictly better score; ``None`` without one.
    """
    if spec.mode == "ordinal":
        return None if above is None else spec.key_of(own) - spec.key_of(above) + 1
    return None if better is None else spec.key_of(own) - spec.key_of(better)


def chunks(items: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """The items in slices of at most ``size``; one empty slice if there are none."""
    return [items[start : start + size] for start in range(0, len(items), size)] or [items]
