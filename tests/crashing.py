"""A worker that is killed at a chosen point: ``python crashing.py POINT``. It is the real worker until then.

The point is reached by wrapping one of its steps; there is nothing in the product for it.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

from scoreboard import bookkeeping, dead_letters, ledger
from scoreboard.board import Board
from scoreboard.cli import main
from scoreboard.refresh import Refresher

Step = tuple[Any, str, bool]
STEPS: dict[str, Step] = {
    # point: (where, what, is the step done before the end?)
    "with a batch read": (ledger, "apply", False),
    "in the transaction, all written": (bookkeeping, "write", True),
    "committed": (ledger, "apply", True),
    "about to tell the boards": (Board, "apply", False),
    "the boards told": (Board, "apply", True),
    "about to answer": (Refresher, "_answer", False),
}
# The same, with how often the step is taken before that.
ISOLATING: dict[str, tuple[Step, int]] = {
    "about to isolate": ((dead_letters, "isolate", False), 0),
    "in the middle of the isolation": ((dead_letters, "isolate", False), 12),
    "isolated, the letters written": ((dead_letters, "write", True), 0),
}


def arm(point: str) -> None:
    """Make this process end at the point, as ``kill -9`` ends it."""
    (owner, name, after), before = ISOLATING[point] if point in ISOLATING else (STEPS[point], 0)
    step = getattr(owner, name)
    calls = itertools.count()

    async def crash(*args: Any, **kwargs: Any) -> Any:
        if not after:
            end()
        done = await step(*args, **kwargs)
        if after:  # and not if it failed
            end()
        return done

    def end() -> None:
        if next(calls) == before:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, crash)


if __name__ == "__main__":
    arm(sys.argv[1])
    main(["worker"])
