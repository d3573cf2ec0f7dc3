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
from collections.abc import Callable, Coroutine
from functools import partial

import uvloop
from setproctitle import setproctitle

from scoreboard.app.starting import Settings
from scoreboard.errors import first_of

Play = Callable[[asyncio.Event, asyncio.Event], Coroutine[None, None, None]]
"""A role's work, from the events that stop it and say that it has begun."""

GARBAGE_OBJECTS = 20_000  # new ones between two collections; some 5 MB
WORKER_OBJECTS = 200_000  # about what the largest batch has: while it is applied none of it is garbage


def run_role(role: str, settings: Settings, sock: socket.socket | None = None, url: str = "") -> None:
    """Run one role in this process until SIGTERM or SIGINT."""
    setproctitle(f"scoreboard {role}")
    play = _play(role, settings, sock, url)

    async def run() -> None:
        stop, started = asyncio.Event(), asyncio.Event()
        playing = asyncio.create_task(play(stop, started), name=role)

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


def _play(role: str, settings: Settings, sock: socket.socket | None, url: str) -> Play:
    """What this role does. Imported here: the framework alone takes as long as all that a worker needs."""
    if role == "worker":
        from scoreboard.app.working import work

        return lambda stop, started: work(settings, stop, started, sock)
    if role == "demo":
        from scoreboard import demo

        return lambda stop, _: demo.play(settings.environment.database, url, stop)
    from scoreboard.app.serving import serve

    assert sock is not None  # noqa: S101  every caller made it
    return partial(serve, settings, sock, api="api" in role, live="live" in role)
