"""``python -m scoreboard.app ROLE`` runs one role in the foreground until SIGTERM, then drains and exits 0.

The supervisor starts its children this way. It exits with 78 (``EX_CONFIG``) if starting again would not
help: the configuration is wrong, or the log or the database is not one that it may go on with.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from pathlib import Path

from scoreboard import logs
from scoreboard.app.running import run_role
from scoreboard.app.starting import Settings
from scoreboard.config import Config, environment, load
from scoreboard.errors import EX_CONFIG, HOPELESS, ScoreboardError

logger = logging.getLogger(__name__)


def main() -> None:
    """Run as a child of the supervisor."""
    parser = argparse.ArgumentParser(prog="python -m scoreboard.app")
    parser.add_argument("role", choices=["api+live", "worker", "demo"])
    parser.add_argument("--fd", type=int, help="an inherited listening socket")
    parser.add_argument("--url", default="", help="where the api is (demo)")
    parser.add_argument("--demo", action="store_true")
    arguments = parser.parse_args()
    logs.set_up()
    try:
        outer = environment()
        demo = arguments.demo or arguments.role == "demo"
        config = _demo() if demo else load(Path(outer.config) if outer.config else None)
        settings = Settings(config=config, environment=outer, demo=arguments.demo)
        sock = None if arguments.fd is None else socket.socket(fileno=arguments.fd)
        run_role(arguments.role, settings, sock, arguments.url)
    except HOPELESS as error:
        logger.critical("%s", error)
        sys.exit(EX_CONFIG)
    except ScoreboardError as error:
        logger.error("%s", error)
        sys.exit(1)


def _demo() -> Config:
    from scoreboard.demo import CONFIG  # with it comes an HTTP client

    return CONFIG


if __name__ == "__main__":
    main()
