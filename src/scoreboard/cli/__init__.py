"""The ``scoreboard`` command. Each subcommand parses its arguments here; another module does the work.

Exit status: 0 done; 1 it did not work, or ``verify`` found a difference; 2 the command line is wrong; 78 the
configuration is wrong, or a role may not go on with this log or database.
"""

from __future__ import annotations

# In the order in which people need them.
from scoreboard.cli import credentials, dead_letters, keys, moderation, recovery, scores, serve
from scoreboard.cli.command import main

__all__ = ["credentials", "dead_letters", "keys", "main", "moderation", "recovery", "scores", "serve"]
