"""What the three engines have in common: a program that is started, becomes ready, is kept alive, is stopped.

In: a data folder. Out: one server on an address that stays the same for as long as the object lives. It must
never report ready before a client could use it, and never leave its process behind.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import random
import secrets
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from scoreboard.engines.folder import Kept
from scoreboard.engines.identity import ENVIRONMENT
from scoreboard.engines.process import Backoff, Leftovers, Process
from scoreboard.errors import EngineError

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
SOCKET_BYTES = 107  # of a Unix socket's path: sun_path (unix(7)) without its final zero
# Below Linux' range for outgoing connections (32768 and up), so that none takes the port of an engine that
# is just being started again.
PORTS = range(20_000, 32_768)
PORT_TRIES = 100
READY_SECONDS = 120.0  # for a start: PostgreSQL may have to replay a gigabyte of its log after a power cut
RETRY_SECONDS = 6.0  # PostgreSQL kills what is left of a dead server after 5 s; until then a start may fail
RETRY_PAUSE = 0.1  # seconds between two such tries
POLL = 0.01  # seconds between two looks whether it is ready
STOP_SECONDS = 10.0  # for an orderly end; each engine survives SIGKILL, so longer waiting gains nothing
PASSWORD_BYTES = 32  # 256 bits
LOG_BYTES = 4 << 20  # of a log at start; a longer one becomes the old log, the old one goes
TAIL_BYTES = 1_500  # of a log in an error: the last few lines
INSTALL = "make install in a checkout, or pip install '.[engines]'"


class Server(ABC):
    """One engine of ours. ``settle`` first, then ``start``; ``watch`` while it is needed; ``stop``."""

    name: str
    title: str
    variable: str
    major: str
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    identity = "same"
    processors = 0
    """On how many it runs; 0: on all."""
    environment: Mapping[str, str] = ENVIRONMENT

    def __init__(self, data: Path, leftovers: Leftovers) -> None:
        self.folder = data / self.name
        self.process: Process | None = None
        self._leftovers = leftovers
        self._log = self.folder / "log"
        self._log_begin = 0
        """Where in the log this start begins."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client finds it, with credentials."""

    @abstractmethod
    def settle(self, kept: Kept) -> None:
        """Decides on version, address and password, as kept or anew, and notes them in ``kept``."""

    @abstractmethod
    async def prepare(self) -> Sequence[str]:
        """Brings its files in order and gives the command that starts it."""

    @abstractmethod
    async def is_ready(self, process: Process) -> bool:
        """Could a client use it now?"""

    async def start(self) -> None:
        """Starts it and returns when it is ready.

        Raises:
            EngineError: it ends again and again, or does not become ready; with the end of its log.
        """
        begin = time.monotonic()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self.folder / "log.old")
        self._log_begin = self._log.stat().st_size if self._log.exists() else 0
        argv = await self.prepare()
        while True:
            self.process = process = await self.run(argv)
            self._leftovers.remember(self.name, process.pid)
            while process.returncode is None:
                if await self.is_ready(process):
                    logger.info("%s is ready after %.2f s", self.title, time.monotonic() - begin)
                    return
                if time.monotonic() - begin > READY_SECONDS:
                    raise self.failure(f"is not ready after {READY_SECONDS:.0f} s")
                await asyncio.sleep(POLL)
            if time.monotonic() - begin > RETRY_SECONDS:
                raise self.failure(f"ended at its start ({outcome(process.returncode)})")
            await asyncio.sleep(RETRY_PAUSE)

    async def watch(self) -> None:
        """Starts it again, on the same address, whenever it has died. Runs until cancelled."""
        backoff = Backoff()
        while True:
            assert self.process is not None, "started before watched"  # noqa: S101
            code = await self.process.wait()
            delay = backoff.after(self.process.age)
            logger.error("%s has died (%s); starting again in %.1f s", self.title, outcome(code), delay)
            await asyncio.sleep(delay)
            try:
                await self.start()
            except (EngineError, OSError) as error:
                logger.error("%s", error)
                self.kill()

    async def stop(self) -> None:
        """Ends it in good order, or after ``STOP_SECONDS`` by force."""
        if self.process is not None and not await self.process.stop(self.stop_signal, STOP_SECONDS):
            logger.warning("%s had to be killed after %.0f s", self.title, STOP_SECONDS)

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.send(signal.SIGKILL)

    async def run(self, argv: Sequence[str], stdin: int | None = None) -> Process:
        """Starts a program of this engine, with its output in the engine's log."""
        with os.fdopen(_open_log(self._log), "ab") as log:
            return await Process.spawn(
                argv,
                env=self.environment,
                stdin=stdin,
                output=log,
                identity=self.identity,
                processors=self.processors,
                death_signal=self.death_signal,
            )

    def failure(self, what: str) -> EngineError:
        """The error that says what went wrong, with the end of the log and the way round."""
        try:
            tail = self._log.read_bytes()[self._log_begin :][-TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            tail = ""
        return EngineError(
            f"{self.title} {what}. A server of your own can be given in {self.variable}. "
            f"The end of {self._log}:\n{tail}"
        )

    def check_major(self, kept: Kept, remedy: str) -> None:
        """Refuses files that another major version has written."""
        found = kept.majors.setdefault(self.name, self.major)
        if found != self.major:
            msg = f"{self.folder} was written by {self.title} {found}, and this is {self.major}; {remedy}"
            raise EngineError(msg)


def outcome(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"status {code}"


def file_of(package: str, ending: str) -> tuple[Path, str]:
    """The file of an installed package whose path ends so, wherever it was installed, and the version.

    Raises:
        EngineError: the package is not installed, or has no such file.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineError(f"the package {package} is not installed: {INSTALL}, or give URLs") from error
    for file in distribution.files or ():
        if file.as_posix().endswith(ending):
            path = Path(str(distribution.locate_file(file))).resolve()
            if path.exists():
                return path, distribution.version
    raise EngineError(f"the package {package} {distribution.version} holds no {ending} for this system")


def password(kept: Kept, name: str) -> str:
    """The kept password of an engine, else a new one. It needs no quoting anywhere."""
    return kept.passwords.setdefault(name, secrets.token_urlsafe(PASSWORD_BYTES))


def port(kept: Kept, name: str) -> int:
    """The kept port if it is still free, else another free one."""
    for candidate in (kept.ports.get(name, 0), *random.sample(PORTS, PORT_TRIES)):
        if candidate and _is_free(candidate):
            kept.ports[name] = candidate
            return candidate
    raise EngineError(f"no free port found for {name} in {PORT_TRIES} tries on {LOOPBACK}")


def fits(path: Path) -> bool:
    """Can this be a Unix socket's path, for every client? (asyncpg takes a comma for a list of hosts.)"""
    return len(os.fsencode(path)) <= SOCKET_BYTES and "," not in str(path)


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        # As the engines do; or a connection that has just been closed would look like a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, number))
        except OSError:
            return False
    return True


def _open_log(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
