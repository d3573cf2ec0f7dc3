"""Everything that runs: a real ``scoreboard up``, and an api, a live and a worker as on a second machine.

In: an empty folder. Out: two addresses, the processes by what they are, and the network between the second
machine and the engines. The three single roles are started again when they die, as an init system would. What
is started here ends with this process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import psutil

from scoreboard import config as configuration
from scoreboard.auth.key_acts import create_key
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.engines import Urls, folder
from scoreboard.engines.postgres import SOCKET_PORT
from scoreboard.engines.process import Process
from scoreboard.engines.server import LOOPBACK
from scoreboard.listening import until_ready
from scoreboard.model import Scope
from torture.proxy import Proxy

DISK_BYTES = 1 << 30  # of an engine's file system, in memory: only what is used is taken
ENGINES = ("nats", "postgresql", "valkey")
AGAIN_SECONDS = 0.2  # before a single role is started again
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
FILL_TRIES = 20
CONFIG = """\
[actions.point]
points = 1
[actions.win]
points = 25
[actions.cheer]
points = 3
policy = "open"
[actions.daily]
points = 10
policy = "open"
limit = "3/minute"
[actions.first]
points = 50
policy = "open"
once = true
[actions.probe]
points = 1_000_000

[boards.main]
[boards.wins]
actions = ["win", "first", "daily"]
rank = "dense"
[boards.fewest]
actions = ["cheer", "point"]
order = "asc"
rank = "competition"

[rate_limits]
enabled = false
"""


class Role:
    """A single role, started again whenever it has died."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._argv, self._env, self._log = argv, env, log
        self.process: Process | None = None

    async def keep(self) -> None:
        """Runs until cancelled."""
        while True:
            with self._log.open("ab") as log:
                self.process = await Process.spawn(self._argv, env=self._env, output=log)
            await self.process.wait()
            await asyncio.sleep(AGAIN_SECONDS)


class System:
    """What is tortured. Open it with ``running``."""

    def __init__(self, data: Path, up: Process, url: str, urls: Urls, secret: str, config: Config) -> None:
        self.data, self.url, self.urls, self.secret, self.config = data, url, urls, secret, config
        self._up = up
        self.disks = False
        """Has each engine a small file system of its own?"""
        self.second_url = ""
        """The second machine's api."""
        self.second_live_url = ""
        self.key = ""
        self.roles: dict[str, Role] = {}
        self.network: dict[str, Proxy] = {}
        """By engine, between it and the second machine."""

    def engine(self, name: str) -> psutil.Process:
        """The engine's process."""
        program = {"nats": "nats-server", "postgresql": "postgres", "valkey": "valkey-server"}[name]
        (found,) = self.children(program)
        return found

    def processes(self, role: str) -> list[psutil.Process]:
        """The processes of ``api``, ``live`` or ``worker`` that run now: that of ``up``, the second's."""
        found = self.children("scoreboard worker" if role == "worker" else "scoreboard api+live")
        second = self.roles[role].process
        if second is not None and second.returncode is None:
            found.append(psutil.Process(second.pid))
        return found

    def children(self, name: str) -> list[psutil.Process]:
        """The children of ``up`` that the process list calls so."""
        found = []
        for child in psutil.Process(self._up.pid).children():
            with suppress(psutil.Error):
                line = child.cmdline()
                if line and (line[0] if line[0].startswith("scoreboard") else Path(line[0]).name) == name:
                    found.append(child)
        return found


@asynccontextmanager
async def running(home: Path, command: Sequence[str], *, disks: bool) -> AsyncIterator[System]:
    """Everything, for as long as the block runs.

    Args:
        home: an empty folder.
        command: what starts ``scoreboard``, without its subcommand.
        disks: may each engine have a small file system of its own?
    """
    data, file = home / "data", home / "scoreboard.toml"
    file.write_text(CONFIG)
    secret = configuration.secret_of(configuration.Environment(), data)  # makes the folder, too
    env = {name: value for name, value in os.environ.items() if not name.startswith("SCOREBOARD_")}
    async with AsyncExitStack() as stack:
        if disks:
            stack.enter_context(_disks(home))
        with (home / "up.log").open("ab") as log:
            options = ("--config", str(file), "--data", str(data), "--port", "0")
            up = await Process.spawn([*command, "up", *options], env=env, output=log)
        stack.push_async_callback(up.stop, signal.SIGTERM, STOP_SECONDS)
        url, urls = await _started(data, up)
        system = System(data, up, url, urls, secret, configuration.load(file))
        system.disks = disks
        async with Database.open(urls.database) as database:
            _, system.key = await create_key(database, "torture", [Scope.SCORE_WRITE])
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        keepers = await _second_machine(system, stack, tasks, command, env | {"SCOREBOARD_CONFIG": str(file)})
        try:
            yield system
        finally:
            for keeper in keepers:
                keeper.cancel()
            for role in system.roles.values():
                if role.process is not None:
                    await role.process.stop(signal.SIGTERM, STOP_SECONDS)


@contextmanager
def _disks(home: Path) -> Iterator[None]:
    """A small file system for each engine; their logs stay when it goes."""
    with ExitStack() as stack:
        for engine in ENGINES:
            disk = home / "data" / engine
            disk.mkdir()
            _must("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(disk))
            stack.callback(_must, "umount", str(disk))
            stack.callback(_keep, disk / "log", home / f"{engine}.log")
        yield


def _keep(log: Path, where: Path) -> None:
    with suppress(FileNotFoundError):  # it did not come so far
        shutil.copy(log, where)


def resize(disk: Path, size: int) -> None:
    """Make an engine's file system so large, in bytes."""
    _must("mount", "-o", f"remount,size={size}", str(disk))


def fill(disk: Path) -> None:
    """Make an engine's file system just as large as what is in it."""
    for _ in range(FILL_TRIES):
        with suppress(subprocess.CalledProcessError):  # it has grown meanwhile
            resize(disk, shutil.disk_usage(disk).used)
            return
    raise RuntimeError(f"{disk} grows too fast to be filled")


def _must(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def _started(data: Path, up: Process) -> tuple[str, Urls]:
    while up.returncode is None:
        state = folder.read_state(data)
        if state is not None and state.url is not None and state.urls is not None:
            return state.url, state.urls
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"scoreboard up ended with {up.returncode}; see {data.parent / 'up.log'}")


async def _second_machine(
    system: System,
    stack: AsyncExitStack,
    tasks: asyncio.TaskGroup,
    command: Sequence[str],
    env: dict[str, str],
) -> list[asyncio.Task[None]]:
    for name, url in zip(ENGINES, (system.urls.queue, system.urls.database, system.urls.board), strict=True):
        parts = urlsplit(url)
        proxy = await stack.enter_async_context(Proxy(_place(name, parts)))
        system.network[name] = proxy
        place = f"{parts.username or ''}:{parts.password}@{LOOPBACK}:{proxy.port}"
        variable, path = {
            "nats": ("QUEUE", ""),
            "postgresql": ("DATABASE", f"{parts.path}?sslmode=disable"),
            "valkey": ("BOARD", "/0"),
        }[name]
        scheme = "redis" if name == "valkey" else parts.scheme
        env[f"SCOREBOARD_{variable}_URL"] = f"{scheme}://{place}{path}"
    env["SCOREBOARD_SECRET"] = system.secret
    ports = {role: _free_port() for role in ("api", "live")}
    system.second_url, system.second_live_url = (f"http://{LOOPBACK}:{port}" for port in ports.values())
    keepers = []
    for role in ("worker", "api", "live"):
        where = ("--port", str(ports[role])) if role in ports else ()
        system.roles[role] = one = Role([*command, role, *where], env, system.data.parent / f"{role}.log")
        keepers.append(tasks.create_task(one.keep(), name=f"keep {role}"))
    await until_ready(system.second_url)
    await until_ready(system.second_live_url)
    return keepers


def _place(engine: str, parts: SplitResult) -> str:
    """Where an engine listens: the path of a Unix socket, or a port on loopback."""
    if parts.port is not None:
        return str(parts.port)
    if engine == "postgresql":
        return f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.{SOCKET_PORT}"
    return unquote(parts.path)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])
