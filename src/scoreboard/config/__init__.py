"""The configuration: ``scoreboard.toml`` with ``SCOREBOARD_*`` variables above it. Strict.

What comes out is one frozen ``Config``; whatever is wrong raises ``ConfigurationError`` that names the place,
and for an unknown key the nearest known one.

``tables.py`` is what may be set, ``places.py`` where the engines are and what is secret, ``reading.py`` reads
file and variables. That is the only module that reads the environment.
"""

from scoreboard.config.places import Environment, secret_of
from scoreboard.config.reading import environment, load
from scoreboard.config.tables import Action, Auth, Board, Config, Live, Quarantine, Queue, RateLimits, Web

__all__ = [
    "Action",
    "Auth",
    "Board",
    "Config",
    "Environment",
    "Live",
    "Quarantine",
    "Queue",
    "RateLimits",
    "Web",
    "environment",
    "load",
    "secret_of",
]
