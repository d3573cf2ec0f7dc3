"""The connection to Redis or Valkey: scripts and reads, bounded in number and time.

Everything goes out as a pipeline, so that several boards cost one round trip. Nothing is tried again here:
whoever asked knows whether it may be. Driver exceptions end here, as ``BoardUnavailable``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from scoreboard.errors import BoardUnavailable, ConfigurationError, heed_cancellation

CONNECTIONS = 16  # a process; a script takes well under a millisecond, so these serve thousands a second
CONNECT_SECONDS = 1.0  # a server that does not take a connection in this time is away
ANSWER_SECONDS = 2.0  # the slowest script (a batch of 4,000 rows) takes some 20 ms
WAIT_SECONDS = 2.0  # for one of our own connections, when all are in use

# Scripts are declared as Redis 7 and Valkey want it: one that writes is refused before it begins when the
# server is out of memory or read-only (without this it would stop half-way), one that reads never is.
_WRITES, _READS = "#!lua\n", "#!lua flags=no-writes\n"

Argument = str | int | bytes
"""Of a script."""


class BoardBehind(BoardUnavailable):
    """The board is not where it was believed to be. Read its position and catch up."""


def _script(head: str, *names: str) -> str:
    folder = resources.files("scoreboard.board")
    return head + "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names)


class _Packing:
    """A connection that lets C write the commands with many arguments, the scripts; all others are few."""

    def pack_command(self, *args: Any) -> list[bytes]:
        if args[0] == "EVALSHA":
            return [hiredis.pack_command(args)]
        packed: list[bytes] = super().pack_command(*args)  # type: ignore[misc]
        return packed


class Server:
    """One server, by its URL (``redis://``, ``rediss://``, ``unix://``). Connects when first asked."""

    def __init__(self, url: str) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=WAIT_SECONDS,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # nothing here needs the third, and connecting costs a round trip less
            )
        except ValueError as error:
            raise ConfigurationError(f"SCOREBOARD_BOARD_URL: {error}") from error
        pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
        self._redis = Redis.from_pool(pool)
        self.number = int(pool.connection_kwargs.get("db") or 0)
        """Which of the server's numbered databases."""
        self.apply = self._redis.register_script(_script(_WRITES, "shared", "writing", "apply"))
        self.rebuild = self._redis.register_script(_script(_WRITES, "shared", "writing", "rebuild"))
        self.repair = self._redis.register_script(_script(_WRITES, "shared", "writing", "repair"))
        self.read = self._redis.register_script(_script(_READS, "shared", "read"))

    async def run(self, script: Any, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Run a script once for each (key, arguments), in one round trip and that order.

        Raises:
            BoardUnavailable: any of them failed; which of them happened is not known.
        """
        answers = await self.run_each(script, calls)
        for answer in answers:
            if isinstance(answer, BoardUnavailable):
                raise answer
        return answers

    async def run_each(self, script: Any, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        """Like ``run``, but a call that failed answers its ``BoardUnavailable``.

        Raises:
            BoardUnavailable: the server does not answer.
        """
        with translated():
            answers = await self._send(script, calls)
            forgotten = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if forgotten:  # the server was restarted, or told to forget
                await self._redis.script_load(script.script)
                again = await self._send(script, [calls[n] for n in forgotten])
                for n, answer in zip(forgotten, again, strict=True):
                    answers[n] = answer
        return [_ours(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def _send(self, script: Any, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, arguments in calls:
                pipeline.evalsha(script.sha, 1, key, *arguments)
            return await pipeline.execute(raise_on_error=False)

    async def whole(self, key: str) -> dict[str, bytes]:
        """A hash, all of it; empty if there is none."""
        with translated():
            found: dict[Any, Any] = await self._redis.hgetall(key)
        return {field.decode(): value for field, value in found.items()}

    async def fields(self, keys: Sequence[str], field: str) -> list[bytes | None]:
        """One field of several hashes, in one round trip."""
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hget(key, field)
                return await pipeline.execute()

    @asynccontextmanager
    async def subscribed(self, channels: Sequence[str]) -> AsyncIterator[PubSub]:
        """A subscription for as long as the block runs. What fails inside is translated, too."""
        with translated():
            async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(*channels)
                heed_cancellation()
                yield subscription

    async def close(self) -> None:
        """Close all connections."""
        with translated():
            await self._redis.aclose()


@contextmanager
def translated() -> Iterator[None]:
    """Driver exceptions as ours."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        heed_cancellation()
        raise _ours(error) from error
    heed_cancellation()


def _ours(error: Exception) -> BoardUnavailable:
    return BoardUnavailable(f"The board does not answer: {error!r}")
