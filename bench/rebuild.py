"""A board of a million users, built again from the database while updates go on.

``make bench-rebuild`` starts private engines in a folder of its own, fills totals and names by COPY, starts
the real worker, and sends updates at a rate through the log. Then the board's server forgets everything
(``FLUSHALL``): the worker notices by itself and rebuilds. The time is from that moment until the board can be
read again; it holds what the worker needs to notice, too. Afterwards board and database are compared, row by
row. Processor time is that of each process in the same interval. At the end, for a while, nothing is done but
what the worker does by itself: it compares board and database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import psutil
import redis.asyncio
from machine import machine
from msgspec import Struct

from scoreboard.board import Board
from scoreboard.config import Config, Environment
from scoreboard.database import Database
from scoreboard.engines import engines
from scoreboard.envelope import Sealer
from scoreboard.errors import BoardUnavailable
from scoreboard.event_ids import event_id_of_action
from scoreboard.group_commit import GroupCommit
from scoreboard.model import PLACES, Update
from scoreboard.queue import Queue

BOARD = "main"
LOOK_SECONDS = 0.05
REST_SECONDS = 30.0  # at the end, without updates
SECONDS = 120.0  # longest that anything here may take
ROLES = ("worker", "valkey", "postgres", "nats", "bench")


def role_of(line: str) -> str:
    """Which engine or role a command line is."""
    if line.startswith("scoreboard worker"):
        return "worker"
    return next((role for role in ROLES[1:-1] if role in line), "bench")


class Used(Struct, frozen=True):
    """Processor seconds so far, by what used them; memory of the worker."""

    seconds: dict[str, float]
    resident: int

    @classmethod
    def now(cls) -> Used:
        """What this process and all its children have used."""
        own = psutil.Process()
        seconds, resident = dict.fromkeys(ROLES, 0.0), 0
        for process in (own, *own.children(recursive=True)):
            role = "bench" if process == own else role_of(" ".join(process.cmdline()))
            times = process.cpu_times()
            seconds[role] += times.user + times.system
            if role == "worker":
                resident = process.memory_info().rss
        return cls(seconds, resident)


async def fill(url: str, users: int) -> None:
    """Totals and names of so many users; the ledger stays empty, a rebuild does not read it."""
    connection = await asyncpg.connect(url)
    # Reached and changed within the first message of the log: what comes through it is newer.
    numbers = range(1, users + 1)
    scores = ((BOARD, "all", f"user-{n:07}", n * 7919 % 100_000, n % PLACES, n % PLACES) for n in numbers)
    await connection.copy_records_to_table(
        "scores", records=scores, columns=("board", "period", "user_id", "score", "reached", "changed")
    )
    names = ((f"user-{n:07}", f"Player {n}", n % PLACES) for n in numbers)
    await connection.copy_records_to_table("users", records=names, columns=("user_id", "name", "changed"))
    await connection.execute("VACUUM ANALYZE scores, users")
    await connection.close()


async def update(commit: GroupCommit, rate: int, users: int, sent: list[int]) -> None:
    """So many updates a second, of users all over the board."""
    due = time.monotonic()
    while True:
        sent[0] += 1
        user = f"user-{sent[0] * 7919 % users + 1:07}"
        event_id = event_id_of_action(user, f"point:{sent[0]}").bytes
        await commit.accept(Update(event_id, user, "point", str(sent[0]), 1, (BOARD,), "key:bench"))
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def built(board: Board) -> None:
    """Wait until the board can be read."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(BoardUnavailable):
                if await board.page(BOARD, limit=1) is not None:
                    return
            await asyncio.sleep(LOOK_SECONDS)


async def measure(users: int, rate: int, rounds: int) -> None:
    """Print what each round took."""
    config = Config()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scoreboard-bench-")))
        urls = await stack.enter_async_context(engines(folder, Environment()))
        secret = secrets.token_hex(32)
        database = await stack.enter_async_context(Database.open(urls.database))
        await database.migrate()
        await fill(urls.database, users)
        places = {
            "SCOREBOARD_DATABASE_URL": urls.database,
            "SCOREBOARD_QUEUE_URL": urls.queue,
            "SCOREBOARD_BOARD_URL": urls.board,
            "SCOREBOARD_SECRET": secret,
        }
        worker = subprocess.Popen(  # noqa: ASYNC220  it returns at once
            [sys.executable, "-m", "scoreboard.app", "worker"], env=os.environ | places
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        board = Board(urls.board, config)
        stack.push_async_callback(board.close)
        await built(board)
        queue = await stack.enter_async_context(Queue.open(urls.queue, config.namespace, "bench"))
        await queue.ensure(partitions=1, max_bytes=config.queue.max_bytes, replicas=1, known=None)
        commit = GroupCommit(queue, Sealer(secret), partitions=1, catalogue=config.catalogue, inbox="")
        server = redis.asyncio.Redis.from_url(urls.board)
        stack.push_async_callback(server.aclose)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        sent = [0]
        owned = [tasks.create_task(commit.run()), tasks.create_task(update(commit, rate, users, sent))]
        print(f"{machine()}; {users:,} users, {rate:,} updates a second\n")
        print("| seconds | processor seconds: " + " | ".join(ROLES) + " | worker MiB | updates | load |")
        print("| --- " * (len(ROLES) + 4) + "|")
        for _ in range(rounds):
            await asyncio.sleep(2)
            first, before, began = sent[0], Used.now(), time.monotonic()
            await server.flushall(asynchronous=True)
            await built(board)
            took, after = time.monotonic() - began, Used.now()
            used = (f"{after.seconds[role] - before.seconds[role]:.1f}" for role in ROLES)
            told = (f"{took:.1f}", *used, f"{after.resident >> 20}", f"{sent[0] - first:,}")
            print("| " + " | ".join((*told, f"{os.getloadavg()[0]:.1f}")) + " |", flush=True)
        for task in owned:
            task.cancel()
        deadline = time.monotonic() + SECONDS
        while differences := await board.compare(BOARD, database.all_rows(BOARD, ordered="desc")):
            assert time.monotonic() < deadline, differences[:5]  # the last updates were on their way
        print("\nboard = database")
        before = Used.now()
        await asyncio.sleep(REST_SECONDS)
        after = Used.now()
        used = (f"{role} {(after.seconds[role] - before.seconds[role]) / REST_SECONDS:.1%}" for role in ROLES)
        print("of a processor while only boards are compared: " + ", ".join(used))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=200, help="updates a second meanwhile")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(measure(given.users, given.rate, given.rounds))


if __name__ == "__main__":
    main()
