"""A process that serves: HTTP (``api``), WebSockets (``live``), or both on one port.

In come settings and a listening socket; out goes a server that answers until it is told to stop. Without
``api`` it must never accept an update, and with it none before the log is known to be the database's.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import uvicorn
from litestar import Litestar

from scoreboard.api import health
from scoreboard.api.application import Application
from scoreboard.api.connection import http
from scoreboard.api.deadlines import Deadlines
from scoreboard.api.outcomes import Outcomes
from scoreboard.api.places import Places
from scoreboard.api.services import Services
from scoreboard.api.straight import Straight
from scoreboard.api.update_score import UpdateScore
from scoreboard.app.starting import Settings, ensure_log, secret_of
from scoreboard.auth import Auth
from scoreboard.auth.grants import Grants
from scoreboard.auth.keys import Keys
from scoreboard.auth.policy import Policy
from scoreboard.auth.proxies import Proxies
from scoreboard.auth.tokens import Tokens
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.draining import Server
from scoreboard.durability import HEADERS as RELAXED
from scoreboard.engine_states import EngineStates
from scoreboard.envelope import Sealer
from scoreboard.group_commit import GroupCommit
from scoreboard.live import Hubs, Lines, Members, protocol
from scoreboard.queue import Queue
from scoreboard.rates import Rates
from scoreboard.sockets import raise_file_limit

# On every answer. What a page may load is said with the page.
HEADERS = [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
TELLING_CONNECTIONS = 100  # at a worker's own port: probes and Prometheus


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
            places=Places(board, database, config.boards),
            auth=auth,
            engines=EngineStates(config, database, board, None, ()),
            live=live,
            demo=settings.demo,
        )
        if api:
            services = await _accepting(settings, services, stack, tasks, owned)
        owned.append(tasks.create_task(services.engines.run(), name="engines"))
        owned.append(tasks.create_task(services.places.run(), name="places"))
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


def telling(config: Config, engines: EngineStates, stack: AsyncExitStack) -> Server:
    """What tells at a worker's own port how it is."""
    told = Litestar(health.routes(config, engines), openapi_config=None, logging_config=None)
    deadlines = Deadlines(TELLING_CONNECTIONS)
    stack.callback(deadlines.close)
    return http_server(config, told, deadlines)


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
    queue = await stack.enter_async_context(
        Queue.open(settings.environment.queue, config.namespace, "api", patient=True)
    )
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
        places=services.places,
        auth=services.auth,
        engines=EngineStates(config, database, services.board, queue, ("queue",)),
        live=services.live,
        door=UpdateScore(services.auth, policy, commit, outcomes),
        policy=policy,
        commit=commit,
        outcomes=outcomes,
        secret=secret,
        demo=settings.demo,
    )
