"""The wiring: which stages one process runs, and how they are put together. The only such place.

``python -m scoreboard.app ROLE`` runs one role in the foreground until SIGTERM, then drains and exits 0; the
supervisor starts its children this way. It exits with 78 (``EX_CONFIG``) if starting again would not help:
the configuration is wrong, or the log or the database is not one that it may go on with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from litestar import Litestar
from msgspec import Struct
from setproctitle import setproctitle

from scoreboard import adoption, demo, logs
from scoreboard.api import (
    health,
)
from scoreboard.api.application import Application
from scoreboard.api.connection import http
from scoreboard.api.deadlines import Deadlines
from scoreboard.api.outcomes import Outcomes
from scoreboard.api.services import Services
from scoreboard.api.straight import Straight
from scoreboard.api.update_score import UpdateScore
from scoreboard.auth import Auth
from scoreboard.auth.grants import Grants
from scoreboard.auth.keys import Keys
from scoreboard.auth.policy import Policy
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens
from scoreboard.board import Board
from scoreboard.config import Config, Environment, environment, load
from scoreboard.database import Database
from scoreboard.draining import Server
from scoreboard.durability import HEADERS as RELAXED
from scoreboard.durability import gate
from scoreboard.envelope import Sealer
from scoreboard.errors import (
    EX_CONFIG,
    HOPELESS,
    ConfigurationError,
    LogMismatch,
    ScoreboardError,
    first_of,
)
from scoreboard.group_commit import GroupCommit
from scoreboard.live import Hubs, Lines, Members, protocol, raise_file_limit
from scoreboard.queue import Queue
from scoreboard.rates import Rates
from scoreboard.refresh import Refresher
from scoreboard.worker import Worker

logger = logging.getLogger(__name__)

GARBAGE_OBJECTS = 20_000  # new ones between two collections; some 5 MB
REST_SECONDS = 5.0  # for the batch that a worker has at hand; what is cut off is applied by the next one
TELLING_CONNECTIONS = 100  # at a worker's own port: probes and Prometheus
# On every answer. What a page may load is said with the page.
HEADERS = [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]


class Settings(Struct, frozen=True, kw_only=True):
    """What a role is started with."""

    config: Config
    environment: Environment
    demo: bool = False


async def serve(
    settings: Settings,
    sock: socket.socket,
    stop: asyncio.Event,
    started: asyncio.Event,
    *,
    api: bool = True,
    live: bool = True,
) -> None:
    """Serve HTTP (``api``) or WebSockets (``live``) or both on a listening socket, until ``stop``."""
    config = settings.config
    raise_file_limit()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(settings.environment.database))
        board = Board(settings.environment.board, config)
        stack.push_async_callback(board.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        owned: list[asyncio.Task[None]] = []
        auth = authenticating(settings, database, tasks, owned)
        hubs = following(config, board, auth, tasks, owned)
        services = Services(
            config=config,
            database=database,
            board=board,
            hubs=hubs,
            auth=auth,
            engines=health.EngineStates(config, database, board, None, ()),
            live=live,
            demo=settings.demo,
        )
        if api:
            services = await _accepting(settings, services, stack, tasks, owned)
        owned.append(tasks.create_task(services.engines.run(), name="engines"))
        deadlines = Deadlines(config.live.connections)
        stack.callback(deadlines.close)
        application = Application(services)
        server = http_server(
            config,
            application,
            deadlines,
            straight=application.straight,
            live=hubs if live else None,
            outcomes=services.outcomes,
        )

        async def end() -> None:
            await stop.wait()
            server.should_exit = True

        owned.append(tasks.create_task(end(), name="end"))
        started.set()
        await server.serve(sockets=[sock])
        # No request is open any more. What was accepted has been answered; the rest may go.
        if services.commit is not None:
            await services.commit.drain()
        for task in owned:
            task.cancel()
        hubs.close()


def http_server(
    config: Config,
    application: Any,
    deadlines: Deadlines,
    *,
    straight: Straight | None = None,
    live: Hubs | None = None,
    outcomes: Outcomes | None = None,
) -> Server:
    """uvicorn, with our deadlines, our end, and our WebSockets if there are any."""
    return Server(
        uvicorn.Config(
            application,
            ws="none" if live is None else protocol(live),  # type: ignore[arg-type]  # a factory will do
            http=http(deadlines, straight),  # type: ignore[arg-type]  # a factory will do
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=HEADERS + (RELAXED if config.durability == "relaxed" else []),
            proxy_headers=False,  # auth/proxies.py knows, for WebSockets too
        ),
        deadlines,
        live,
        outcomes,
    )


def authenticating(
    settings: Settings, database: Database, tasks: asyncio.TaskGroup, owned: list[asyncio.Task[None]]
) -> Auth:
    """Who asks, for a process that wants to know; with the tasks that notice new and revoked keys."""
    config = settings.config
    rates = Rates(config.rate_limits)
    auth = Auth(
        Tokens(config, settings.environment),
        Keys(database, rates),
        rates,
        Proxies(config.web.trusted_proxies),
    )
    owned.append(tasks.create_task(auth.run(), name="keys"))
    return auth


def following(
    config: Config, board: Board, auth: Auth, tasks: asyncio.TaskGroup, owned: list[asyncio.Task[None]]
) -> Hubs:
    """The hubs of all boards, with the tasks that follow the boards and the own lines of those who watch."""
    names = list(config.boards)
    lines = Lines(board, names)
    members = Members(auth, lines)
    hubs = Hubs(config, members)
    owned += [
        tasks.create_task(hubs.follow(board.frames(names, hubs.contact)), name="follow the boards"),
        tasks.create_task(members.run(), name="members"),
        tasks.create_task(lines.run(), name="own lines"),
    ]
    return hubs


async def _accepting(
    settings: Settings,
    services: Services,
    stack: AsyncExitStack,
    tasks: asyncio.TaskGroup,
    owned: list[asyncio.Task[None]],
) -> Services:
    """The services of a process that also accepts updates."""
    config, database = settings.config, services.database
    secret = secret_of(settings)
    queue = await stack.enter_async_context(Queue.open(settings.environment.queue, config.namespace, "api"))
    await database.migrate()
    await ensure_log(queue, config, database)
    sealer = Sealer(secret, settings.environment.secret_previous)
    outcomes = Outcomes(sealer)
    commit = GroupCommit(
        queue,
        sealer,
        partitions=config.queue.partitions,
        catalogue=config.catalogue,
        inbox=await queue.listen(outcomes.take),
    )
    grants = Grants(config, settings.environment)
    policy = Policy(config, grants, services.auth.keys)
    owned.append(tasks.create_task(commit.run(), name="group commit"))
    owned.append(tasks.create_task(grants.run(), name="grant issuers' keys"))
    return Services(
        config=config,
        database=database,
        board=services.board,
        hubs=services.hubs,
        auth=services.auth,
        engines=health.EngineStates(config, database, services.board, queue, ("queue",)),
        live=services.live,
        door=UpdateScore(services.auth, policy, commit, outcomes),
        policy=policy,
        commit=commit,
        outcomes=outcomes,
        secret=secret,
        demo=settings.demo,
    )


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
            Queue.open(settings.environment.queue, config.namespace, "worker")
        )
        await database.migrate()
        await ensure_log(queue, config, database)
        board = Board(settings.environment.board, config)
        stack.push_async_callback(board.close)
        sealer = Sealer(secret_of(settings), settings.environment.secret_previous)
        refresher = Refresher(config, database, board, queue, sealer)
        worker = Worker(config, settings.environment.database, queue, sealer, refresher)
        engines = health.EngineStates(config, database, board, queue, ("database", "queue"))
        told = Litestar(health.routes(config, engines), openapi_config=None, logging_config=None)
        deadlines = Deadlines(TELLING_CONNECTIONS)
        stack.callback(deadlines.close)
        server = http_server(config, told, deadlines)

        async with asyncio.TaskGroup() as tasks:
            applying = [
                tasks.create_task(refresher.run(), name="refresh the boards"),
                tasks.create_task(worker.run(), name="apply the log"),
                tasks.create_task(engines.run(), name="engines"),
            ]
            if sock is not None:
                tasks.create_task(server.serve(sockets=[sock]), name="tell how it is")
            started.set()
            await stop.wait()
            # What is applied is told, too: who waits for its outcome gets it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_SECONDS):
                    await worker.rest()
                    await refresher.rest()
            server.should_exit = True
            for task in applying:
                task.cancel()


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
    gc.set_threshold(GARBAGE_OBJECTS)
    try:
        uvloop.run(run())
    except BaseExceptionGroup as failures:
        raise first_of(failures) from failures


def main() -> None:
    """Run as a child of the supervisor."""
    parser = argparse.ArgumentParser(prog="python -m scoreboard.app")
    parser.add_argument("role", choices=["api+live", "worker", "demo"])
    parser.add_argument("--fd", type=int, help="an inherited listening socket")
    parser.add_argument("--url", default="", help="where the api is (demo)")
    parser.add_argument("--demo", action="store_true")
    arguments = parser.parse_args()
    logs.set_up()
    try:
        outer = environment()
        config = demo.CONFIG if arguments.demo or arguments.role == "demo" else load(_path(outer))
        settings = Settings(config=config, environment=outer, demo=arguments.demo)
        sock = None if arguments.fd is None else socket.socket(fileno=arguments.fd)
        run_role(arguments.role, settings, sock, arguments.url)
    except HOPELESS as error:
        logger.critical("%s", error)
        sys.exit(EX_CONFIG)
    except ScoreboardError as error:
        logger.error("%s", error)
        sys.exit(1)


def _path(outer: Environment) -> Path | None:
    return Path(outer.config) if outer.config else None


if __name__ == "__main__":
    main()
