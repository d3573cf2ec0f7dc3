"""The durability gate: does each engine that keeps what was accepted have it on disk when it says so?

In come the log and the database of a role that accepts or applies, as it starts. If one of them does not
sync, or does not tell, the role must not start, unless the operator has said that this is known
(``durability = "relaxed"``). What an engine says is believed; a disk that lies is not found out. Of a cluster
of NATS the first server that answers is believed, for all.
"""

from __future__ import annotations

import logging

from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.errors import ConfigurationError
from scoreboard.queue import Queue

logger = logging.getLogger(__name__)

HEADERS = [("scoreboard-durability", "relaxed")]
"""On every answer of a process that was told so."""


async def gate(config: Config, queue: Queue, database: Database) -> None:
    """Ask both engines whether they sync.

    Raises:
        ConfigurationError: one does not, or does not tell, and nobody has said that this is known.
        Unavailable: one does not answer.
    """
    flaws = [*await _of_queue(queue), *await _of_database(database)]
    if flaws and config.durability == "full":
        msg = (
            f"what is accepted may be lost with the power: {'; '.join(flaws)}. Change that "
            '(docs/operations.md, "Durability"), or accept it: durability = "relaxed" in the file, or '
            "SCOREBOARD_DURABILITY=relaxed"
        )
        raise ConfigurationError(msg)
    if config.durability == "relaxed":
        found = "; ".join(flaws) or "though both engines say that they sync"
        logger.warning("durability is relaxed: what is accepted may be lost with the power (%s)", found)


async def _of_queue(queue: Queue) -> list[str]:
    syncs = await queue.syncs()
    if syncs is None:
        return ["NATS does not tell whether it syncs"]
    return [] if syncs else ["NATS answers before it has synced (it needs sync_interval: always)"]


async def _of_database(database: Database) -> list[str]:
    found = await database.durability()
    return [f"PostgreSQL has {name} = off" for name, setting in sorted(found.items()) if setting == "off"]
