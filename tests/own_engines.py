"""For the tests of the engines: some in a folder of their own, what is written there, and what runs."""

from __future__ import annotations

import asyncio
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
import redis.asyncio

from scoreboard.config import Environment
from scoreboard.engines import Engines, Urls
from scoreboard.engines.process import Process

NOTHING_GIVEN = Environment()
NOBODY = 65534
DEADLINE = 30.0
ENGINES = ("postgresql", "nats", "valkey")


# Starts the engines, says which processes they are, and keeps them until it is killed.
KEEPER = """
import asyncio, json, sys
from pathlib import Path
from scoreboard.config import Environment
from scoreboard.engines import Engines

async def main():
    engines = Engines(Path(sys.argv[1]), Environment())
    urls = await engines.start()
    pids = {server.name: server.process.pid for server in engines._servers}
    print(json.dumps({"pids": pids, "urls": [urls.database, urls.queue, urls.board]}), flush=True)
    await engines.watch()

asyncio.run(main())
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder with a short path, empty."""
    path = Path(tempfile.mkdtemp(prefix="sb-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def started(
    data: Path, environment: Environment = NOTHING_GIVEN
) -> AsyncIterator[tuple[Engines, Urls]]:
    ours = Engines(data, environment)
    urls = await ours.start()
    watching = asyncio.create_task(ours.watch())
    try:
        yield ours, urls
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await ours.stop()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_up(path: Path) -> None:
    path.chmod(0o755)


def open_to_others(data: Path) -> list[Path]:
    """Whatever in the folder is not closed to everybody but its owner."""
    return [path for path in data.rglob("*") if not path.is_symlink() and mode(path) & 0o077]


async def until(condition: Callable[[], object], what: str) -> None:
    """Polls a condition; the time limit is only how long a failure takes."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.01)


async def write(urls: Urls, text: str) -> None:
    """Puts a text where it must survive."""
    connection = await asyncpg.connect(urls.database)
    await connection.execute("CREATE TABLE IF NOT EXISTS t (x text)")
    await connection.execute("INSERT INTO t VALUES ($1)", text)
    await connection.close()
    client = await nats.connect(urls.queue)
    stream = client.jetstream()
    await stream.add_stream(name="T", subjects=["t"])
    await stream.publish("t", text.encode())
    await client.close()
    await answers_board(urls)


async def answers_board(urls: Urls) -> None:
    board = redis.asyncio.from_url(urls.board)
    assert await board.set("t", "x")
    await board.aclose()


async def read(urls: Urls) -> tuple[list[str], int]:
    connection = await asyncpg.connect(urls.database)
    rows = [row["x"] for row in await connection.fetch("SELECT x FROM t")]
    await connection.close()
    client = await nats.connect(urls.queue)
    state = (await client.jetstream().stream_info("T")).state
    await client.close()
    return rows, state.messages


def server_process(ours: Engines, name: str) -> Process:
    process = next(server.process for server in ours._servers if server.name == name)
    assert process is not None
    return process


def family(pids: list[int]) -> list[psutil.Process]:
    """Processes with all that they have started."""
    roots = [psutil.Process(pid) for pid in pids]
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def _ignore(_: Exception) -> None:
    """The error is raised as well."""


async def until_usable(urls: Urls) -> None:
    """The drivers' own waiting: each tries until its server answers."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            connection = await asyncpg.connect(urls.database)
            await connection.close()
            client = await nats.connect(urls.queue, allow_reconnect=False, error_cb=_ignore)
            try:
                await client.jetstream().account_info()
            finally:
                await client.close()
            await answers_board(urls)
        except (OSError, asyncpg.PostgresError, nats.errors.Error, redis.exceptions.RedisError):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        else:
            return
