"""The board: the fast ranking in Redis or Valkey. It follows the database and is never the truth.

In come absolute, versioned rows (``Row``); out go frames, pages, ranks. Driver exceptions leave this package
as ``BoardUnavailable`` only. It must never cache what could be stale, and never decide about points.

What lies in the server, for a board and its period, all under the hash tag ``{board:period}``, in one slot
(the configuration's ``namespace`` before it)::

    …:meta           hash: what the board is. database, shape (order and form of the data), generation (the
                     one that is shown), building with lease and loaded (the one that is being built, until
                     when its builder has it, how many chunks it has), epoch, seq, frame, at (the last change
                     of anything), upto:<partition>, chain:<partition> (a catching up that has not ended)
    …:<gen>:rank     sorted set: key -> member
    …:<gen>:users    hash: user -> changed, reached, score, name; changed alone is a tombstone
    …:<gen>:steps    sorted set of the distinct keys, for boards whose rank is dense

Why both ``rank`` and ``users``, as in a sorted set itself: the sorted set answers "who is n-th" and "which
place is this" in O(log n), but finds nobody by name; the hash finds a user's entry in O(1), so that the old
member can be taken out, and holds the version, which must stay when the entry goes. The score stands in both,
as a number that sorts and as the text it came as: no digit passes through a double on its way out.

The order. A sorted set sorts by score, then by the member's bytes. Key and member are made so that its own
order is the board's, on every board: the key is the score, negated where higher is better (exact, as scores
lie within 2^53), so the best is the lowest; the member is ``reached`` in 19 digits, then the user id, so
among equals comes first who got there first, then the lower id. ``steps`` makes a dense rank O(log n), too.

Idempotent and commutative. A row says what is, not what to add, and carries ``changed``, which grows with
every change of its user. A row is taken only if its version is greater than the stored one, else skipped; a
removal is a row like any other and leaves its version as a tombstone. So of each user the newest row that
ever came stands, whatever came before, after, twice, or late: the same set of rows gives the same board.

``upto:<partition>`` promises: every row that the log changed up to there has been written to the generation
that is shown, and will be in the one being built when it is shown. ``apply`` moves it on only from where its
caller believes it to be; what a server forgot (it came back with what it had some seconds ago) shows as a
difference, raises ``BoardBehind``, and the caller catches up. Several calls that are one (catching up, a
rebuild) are chained by a counter in ``meta``, so that they notice, too.

What each failure does:

- The server is away or hangs: every call raises ``BoardUnavailable`` within seconds. Whether a call that was
  under way happened is not known and need not be: repeat it, or catch up.
- It lost its last seconds: ``BoardBehind``; after catching up there is a new ``epoch``, so that no screen
  waits for an old ``seq`` to be reached again.
- It lost everything (``FLUSHALL``, no persistence): ``position`` is ``None``; rebuild.
- A worker dies in the middle: a script happens wholly or not at all; ``upto`` tells its successor.
- A rebuild dies: its lease ends in seconds, its keys expire, the shown generation was never touched.
- The server is out of memory, or read-only: scripts that write are refused before their first write.
- A key is evicted or deleted by hand, or an entry is changed: the checker (``drift.py``) finds and mends it.
  Surplus ``steps`` of a dense board only ``compare`` finds, and a rebuild mends. Run with ``noeviction``.

``writing.py`` is what the worker does, ``reading.py`` what is shown, ``watching.py`` follows the frames,
``comparing.py`` checks a board against the database, ``form.py`` is the form of the data, ``server.py`` the
connection. The scripts lie beside them.
"""

from scoreboard.board.comparing import Difference
from scoreboard.board.form import Page, Standing
from scoreboard.board.server import BoardBehind
from scoreboard.board.writing import Batch, Board, Ranks

__all__ = ["Batch", "Board", "BoardBehind", "Difference", "Page", "Ranks", "Standing"]
