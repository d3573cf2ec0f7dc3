"""What a role is started with, and what must be so before it accepts or applies anything.

In come settings, and of a role that needs the log the queue and the database; out go the deployment's
secret, and a log that is the database's. No role that accepts or applies may begin with another log, or
without passing the durability gate.
"""

from __future__ import annotations

from msgspec import Struct

from scoreboard import adoption
from scoreboard.config import Config, Environment
from scoreboard.database import Database
from scoreboard.durability import gate
from scoreboard.errors import ConfigurationError, LogMismatch
from scoreboard.queue import Queue


class Settings(Struct, frozen=True, kw_only=True):
    """What a role is started with."""

    config: Config
    environment: Environment
    demo: bool = False


async def ensure_log(queue: Queue, config: Config, database: Database) -> None:
    """Make the log if there is none and the database has read none, once the durability gate is passed.

    Nothing is accepted before the database has said so: an update in another log would be lost.
    """
    await gate(config, queue, database)
    settings = config.queue
    read = await adoption.positions(database)
    state = await queue.ensure(
        partitions=settings.partitions,
        max_bytes=settings.max_bytes,
        replicas=settings.replicas,
        known=read[0].stream if read else None,
    )
    # A worker may have gone on and trimmed in between: what is wrong, is wrong twice.
    if adoption.flaw(read, state) and (wrong := adoption.flaw(await adoption.positions(database), state)):
        raise LogMismatch(wrong)


def secret_of(settings: Settings) -> str:
    """The deployment's secret. Raises ``ConfigurationError`` if it is not set."""
    if settings.environment.secret is None:
        msg = (
            "SCOREBOARD_SECRET is not set; all roles of a deployment need the same one: openssl rand -hex 32"
        )
        raise ConfigurationError(msg)
    return settings.environment.secret
