"""A role as a process: it runs until SIGTERM or SIGINT, then drains and ends.

In come a role's name and its settings; it returns when the role has ended in order, and raises what ended it
otherwise. It must never end a role that has begun without asking it to stop first.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket

import uvloop
from setproctitle import setproctitle

from scoreboard import demo
from scoreboard.app.serving import serve
from scoreboard.app.starting import Settings
from scoreboard.app.working import work
from scoreboard.errors import first_of

GARBAGE_OBJECTS = 20_000  # new ones between two collections; some 5 MB
WORKER_OBJECTS = 200_000  # about what the largest batch has: while it is applied none of it is garbage


def run_role(role: str, settings: Settings, sock: socket.socket | None = None, url: str = "") -> None:
    """Run one role in this process until SIGTERM or SIGINT."""
    setproctitle(f"scoreboard {role}")

    async def run() -> None:
        stop, started = asyncio.Event(), asyncio.Event()

        async def play() -> None:
            if role == "worker":
                await work(settings, stop, started, sock)
            elif role == "demo":
                await demo.play(settings.environment.database, url, stop)
            else:
                assert sock is not None  # noqa: S101  every caller made it
                await serve(settings, sock, stop, started, api="api" in role, live="live" in role)

        playing = asyncio.create_task(play(), name=role)

        def end() -> None:
            stop.set()
            if not started.is_set():
                playing.cancel()  # it may be waiting for an engine that never comes

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end)
        with contextlib.suppress(asyncio.CancelledError):
            await playing

    # What has been imported stays: it need not be looked through for garbage again and again. The rest need
    # not be at each 700 new objects either: nearly all of them end with their request.
    gc.freeze()
    gc.set_threshold(WORKER_OBJECTS if role == "worker" else GARBAGE_OBJECTS)
    try:
        uvloop.run(run())
    except BaseExceptionGroup as failures:
        raise first_of(failures) from failures
