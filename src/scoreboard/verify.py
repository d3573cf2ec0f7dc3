"""``scoreboard verify`` and ``scoreboard rebuild``: is the picture the truth, and make it so.

In come a deployment's database and board, out go a report and the differences found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scoreboard import refresh
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.engines import Urls
from scoreboard.errors import EngineError
from scoreboard.progress import bar
from scoreboard.supervisor import Options, running

ON_THEIR_WAY_SECONDS = 10.0  # a difference that is only updates on their way is gone by then
AGAIN_SECONDS = 0.25


async def verify(config: Config, options: Options) -> tuple[str, list[str]]:
    """Check ledger = totals = board. Returns a report, and the differences that stay."""
    async with _opened(config, options) as (database, board):
        deadline = time.monotonic() + ON_THEIR_WAY_SECONDS
        while True:
            differences = await differences_of(config, database, board)
            if not differences or time.monotonic() > deadline:
                break
            await asyncio.sleep(AGAIN_SECONDS)
        events, users, points = await database.ledger_size()
    report = f"{events} events, {users} users, {points} points: "
    return report + ("ledger = totals = board" if not differences else "DIFFERENT"), differences


async def differences_of(config: Config, database: Database, board: Board) -> list[str]:
    """What differs right now between ledger and totals, and between database and board, in words."""
    found = [
        f"{row['board']} {row['user_id']!r}: total {row['total']} (reached {row['reached']}),"
        f" ledger {row['ledger']} (reached {row['ledger_reached']})"
        for row in await database.unsummed()
    ]
    for name, settings in config.boards.items():
        rows = database.all_rows(name, ordered=settings.order)
        found.extend(str(difference) for difference in await board.compare(name, rows))
    return found


async def rebuild(config: Config, options: Options) -> list[str]:
    """Build all boards again; a line for each.

    Raises:
        EngineError: somebody else is building one of them.
    """
    lines = []
    async with _opened(config, options) as (database, board):
        for name in config.boards:
            rows = 0

            def progress(written: int) -> None:
                nonlocal rows
                advance(written - rows)
                rows = written

            with bar(f"board {name}", await database.count_rows(name)) as advance:
                if await refresh.rebuild(database, board, name, progress) is None:
                    raise EngineError(f"board {name} is being rebuilt by somebody else right now")
            lines.append(f"board {name}: {rows} rows")
    return lines


@asynccontextmanager
async def _opened(config: Config, options: Options) -> AsyncIterator[tuple[Database, Board]]:
    """The database and the board of a deployment that runs, or is run meanwhile."""
    async with _urls(options) as urls, Database.open(urls.database) as database:
        await database.migrate()
        board = Board(urls.board, config)
        board.database = await database.identity()
        try:
            yield database, board
        finally:
            await board.close()


@asynccontextmanager
async def _urls(options: Options) -> AsyncIterator[Urls]:
    from scoreboard.config import environment

    outer = environment()
    if outer.database_url and outer.board_url:
        yield Urls(outer.database_url, outer.queue_url or "", outer.board_url)
        return
    async with running(options) as system:
        yield system.urls
