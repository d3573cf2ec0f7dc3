"""A worker: what applies the log, tells the boards, and tells at a port of its own how it is.

In come settings and perhaps a listening socket; out goes a worker that runs until it is told to stop, and has
then told whoever waits what it applied. It must never begin with a log that is not the database's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

from scoreboard.app.starting import Settings, ensure_log, secret_of
from scoreboard.board import Board
from scoreboard.database import Database
from scoreboard.engine_states import EngineStates
from scoreboard.envelope import Sealer
from scoreboard.queue import Queue
from scoreboard.refresh import Refresher
from scoreboard.worker import Worker

REST_SECONDS = 5.0  # for the batch that a worker has at hand; what is cut off is applied by the next one


async def work(
    settings: Settings, stop: asyncio.Event, started: asyncio.Event, sock: socket.socket | None = None
) -> None:
    """Apply the log, until ``stop``; a log that is not the database's ends it (``LogMismatch``, grouped).

    With a listening socket it tells there how it is.
    """
    config = settings.config
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(settings.environment.database))
        queue = await stack.enter_async_context(
            Queue.open(settings.environment.queue, config.namespace, "worker", patient=True)
        )
        await database.migrate()
        await ensure_log(queue, config, database)
        board = Board(settings.environment.board, config)
        stack.push_async_callback(board.close)
        sealer = Sealer(secret_of(settings), settings.environment.secret_previous)
        refresher = Refresher(config, database, board, queue, sealer)
        worker = Worker(config, settings.environment.database, queue, sealer, refresher)
        engines = EngineStates(config, database, board, queue, ("database", "queue"))

        async with asyncio.TaskGroup() as tasks:
            applying = [
                tasks.create_task(refresher.run(), name="refresh the boards"),
                tasks.create_task(worker.run(), name="apply the log"),
                tasks.create_task(engines.run(), name="engines"),
            ]
            server = None
            if sock is not None:  # under `up` there is none, and nobody waits for the framework's import
                from scoreboard.app.serving import telling

                server = telling(config, engines, stack)
                tasks.create_task(server.serve(sockets=[sock]), name="tell how it is")
            started.set()
            await stop.wait()
            # What is applied is told, too: who waits for its outcome gets it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_SECONDS):
                    await worker.rest()
                    await refresher.rest()
            if server is not None:
                server.should_exit = True
            for task in applying:
                task.cancel()
