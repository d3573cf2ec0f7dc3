"""``python -m scoreboard.cli``: the same as ``scoreboard``."""

from __future__ import annotations

from scoreboard.cli import main

main()
