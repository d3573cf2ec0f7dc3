"""A worker that is killed at a chosen point: ``python crashing.py POINT``. It is the real worker until then.

The point is reached by wrapping one of its steps; there is nothing in the product for it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from scoreboard import ledger
from scoreboard.board import Board
from scoreboard.cli import main
from scoreboard.refresh import Refresher

STEPS: dict[str, tuple[Any, str, bool]] = {
    # point: (where, what, is the step done before the end?)
    "with a batch read": (ledger, "apply", False),
    "in the transaction, all written": (ledger, "_write", True),
    "committed": (ledger, "apply", True),
    "about to tell the boards": (Board, "apply", False),
    "the boards told": (Board, "apply", True),
    "about to answer": (Refresher, "_answer", False),
}


def arm(point: str) -> None:
    """Make this process end at the point, as ``kill -9`` ends it."""
    owner, name, after = STEPS[point]
    step = getattr(owner, name)

    async def crash(*args: Any, **kwargs: Any) -> Any:
        if after:
            await step(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, crash)


if __name__ == "__main__":
    arm(sys.argv[1])
    main(["worker"])
