"""A whole deployment to be measured: ``scoreboard up`` in a folder of its own, with all checks on.

In: a folder. Out: where it serves, credentials, when all that was accepted has arrived everywhere, and
whether it adds up. The rates are limited, but far above what is sent, so that their cost is in the figures.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from msgspec import Struct, field

from scoreboard.app.starting import ensure_log
from scoreboard.auth.tokens import local_token
from scoreboard.board import Board
from scoreboard.config import Config, Environment, load, secret_of
from scoreboard.database import Database
from scoreboard.engines import Urls, folder
from scoreboard.model import PLACES
from scoreboard.queue import Queue

COMMAND = str(Path(sys.executable).parent / "scoreboard")
READY_SECONDS = 60
ARRIVE_SECONDS = 900.0  # a board of 10 million is built anew in minutes
LIFETIME_SECONDS = 3600  # of a token: longer than any run
LEAD = 500_000  # points: nobody else comes near; below the moments that clients.c can hold
CONFIG = f"""
[actions.step]
points = 1
policy = "open"
[actions.lead]
points = {LEAD}
[rate_limits]
per_address = "1000000/s"
per_user = "100000/s"
per_key = "1000000/s"
"""


class System(Struct, frozen=True):
    """A deployment that runs."""

    places: list[str]
    """The options that tell a command where it is."""
    data: Path
    url: str
    key: str
    ready_seconds: float
    """From the start of the process until it served."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Those made so far, by user."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def urls(self) -> Urls:
        """Its engines."""
        state = folder.read_state(self.data)
        assert state is not None
        assert state.urls is not None
        return state.urls

    def token(self, user: str) -> str:
        """A user's token: one and the same for all loads, as an app keeps it."""
        if user not in self.tokens:
            secret = secret_of(Environment(), self.data)
            self.tokens[user] = local_token(secret, user, None, LIFETIME_SECONDS)
        return self.tokens[user]

    async def depth(self) -> int:
        """Envelopes that are accepted and not yet applied, as ``/metrics`` says."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.url}/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("scoreboard_queue_messages{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines)

    def verify(self) -> str:
        """``scoreboard verify``: a figure of a run that lost something is not a figure."""
        command = [COMMAND, "verify", *self.places]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()


class Ends:
    """Both ends of the flow: what is in the log, and what has become of it."""

    def __init__(self, database: Database, queue: Queue, board: Board, partitions: int) -> None:
        self.database, self.queue, self._board = database, queue, board
        self._partitions = partitions

    async def events(self) -> int:
        """Rows of the ledger."""
        async with self.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM events"))

    async def arrived(self) -> None:
        """Return once all that is in the log is in the ledger and on the board."""
        async with asyncio.timeout(ARRIVE_SECONDS):
            while not await self._has_arrived():  # noqa: ASYNC110 - other processes set no event here
                await asyncio.sleep(0.02)

    async def _has_arrived(self) -> bool:
        read = await self.database.positions()
        shown = await self._board.position("main") or {}
        for partition in range(self._partitions):
            last = read.get(partition)
            if last is None or await self.queue.oldest(partition, last) is not None:
                return False
            if shown.get(partition) != (last + 1) * PLACES - 1:
                return False
        return True


@contextmanager
def running(home: Path, processes: int = 1, partitions: int = 1) -> Iterator[System]:
    """A whole deployment."""
    config, data = home / "scoreboard.toml", home / "data"
    config.write_text(f"{CONFIG}[queue]\npartitions = {partitions}\n")
    places = ["--config", str(config), "--data", str(data)]
    command = [COMMAND, "up", "--port", "0", "--processes", str(processes), *places]
    began = time.monotonic()
    with (
        (home / "up.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as up,
    ):
        try:
            assert up.stdout is not None
            ready = next((line for line in up.stdout if line.startswith("ready")), "")
            assert ready, (home / "up.log").read_text()
            took = time.monotonic() - began
            url = next(word for word in ready.split() if word.startswith("http")).rstrip("/")
            made = subprocess.run(
                [COMMAND, "key", "create", "--name", "bench", "--scope", "score:write", *places],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            yield System(places, data, url, made.stdout.strip(), took)
        finally:
            up.terminate()
            up.wait(READY_SECONDS)


@asynccontextmanager
async def ends_of(system: System) -> AsyncIterator[Ends]:
    """Both ends of a deployment's flow."""
    async with ends(system.urls, load(system.data.parent / "scoreboard.toml")) as found:
        yield found


@asynccontextmanager
async def ends(urls: Urls, config: Config) -> AsyncIterator[Ends]:
    """The same, by the engines' URLs."""
    async with (
        Database.open(urls.database) as database,
        Queue.open(urls.queue, config.namespace, "bench") as queue,
    ):
        await database.migrate()
        await ensure_log(queue, config, database)
        board = Board(urls.board, config)
        board.database = await database.identity()
        try:
            yield Ends(database, queue, board, config.queue.partitions)
        finally:
            await board.close()
