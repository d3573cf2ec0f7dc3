"""Load over HTTP: ``wrk`` with load.lua, or this file as a program where wrk is missing; one process.

In: where, what and how long. Out: how many requests were answered, and how quickly. The Python loader takes
more processor time, which what is measured then lacks: its rates are lower, costs are the same.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self, cast

import msgspec
import uvloop
from machine import HERE
from msgspec import Struct

What = Literal["update", "updates", "line", "page"]
MANY = 500  # updates a request of many
CONNECTIONS = 64
GRACE_SECONDS = 30.0  # for an answer, and for a loader to end after its time


class Sent(Struct, frozen=True):
    """What a loader saw."""

    requests: int
    seconds: float
    refused: int
    """Answers of 400 and above."""
    broken: int
    p50: float
    """Milliseconds from a request to its answer."""
    p99: float


class Load(Struct, frozen=True, kw_only=True):
    """What is sent."""

    what: What
    seconds: int
    senders: tuple[tuple[str, str], ...] = (("any", "-"),)
    """Ids and credentials; ``any``: a service, for users from ``user-0`` on."""
    users: int = 1
    connections: int = CONNECTIONS
    rate: float = 0.0
    """Requests a second of all connections; what falls behind is made up for. 0: as many as can be."""
    headers: tuple[tuple[str, str], ...] = ()
    """More of them, for ``page``."""


async def send(url: str, load: Load) -> Sent:
    """Send for as long as is wanted. All must have been answered."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{user} {credentials}\n" for user, credentials in load.senders)
        file.flush()
        word = f"{time.time_ns():x}-"
        values = [load.what, word, str(load.users), str(MANY), file.name, str(load.rate)]
        settings = [load.connections, load.seconds, f"{url}/boards/main"]
        if shutil.which("wrk"):
            headers = itertools.chain(*(("-H", f"{name}: {value}") for name, value in load.headers))
            command = ["wrk", "-t1", "-c", settings[0], "-d", f"{load.seconds}s", *headers, "--timeout"]
            command += [f"{GRACE_SECONDS:.0f}s", "-s", HERE / "load.lua", settings[2], "--", *values]
        else:
            rest = [f"{name}: {value}" for name, value in load.headers]
            command = [sys.executable, __file__, *settings, *values, *rest]
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(load.seconds + GRACE_SECONDS):
            out, _ = await process.communicate()
    line = next(line for line in out.splitlines() if line.startswith(b"{"))
    sent = msgspec.json.decode(line, type=Sent)
    assert sent.requests > sent.refused, sent
    assert not sent.broken, sent
    return sent


class Connection(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self) -> None:
        self._answer = b""
        self._done: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if end and len(body) == length_of(head):
            assert self._done is not None
            self._answer = b""
            self._done.set_result(int(head[9:12]))

    async def send(self, request: bytes) -> int:
        """Send a request; the status of its answer."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done


def length_of(head: bytes) -> int:
    """How long the body after this head is."""
    return int((head.lower() + b"\r\n").partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)


class Poster(Connection):
    """A connection that posts one update at a time."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    @classmethod
    async def open(cls, port: int, key: str) -> Self:
        """Connected."""
        _, made = await asyncio.get_running_loop().create_connection(lambda: cls(key), "127.0.0.1", port)
        return made

    async def post(self, user: str, action: str, prefer: str = "") -> int:
        """Send an update; the status of its answer."""
        return await self.send(post("/update-score", self._key, update(user, action), prefer))


def update(user: str, action: str) -> str:
    """One update."""
    return f'{{"userId":"{user}","actionId":"{action}"}}'


def post(path: str, credentials: str, body: str, prefer: str = "") -> bytes:
    """A whole request."""
    more = f"Prefer: {prefer}\r\n" if prefer else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{more}"
        f"Authorization: Bearer {credentials}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Loader:
    """What wrk does with load.lua."""

    def __init__(self, values: list[str]) -> None:
        self._what, self._word, users, many, file, rate = values[:6]
        self._users, self._many, self._rate = int(users), int(many), float(rate)
        self._start, self._turns = time.monotonic(), itertools.count(1)
        lines = Path(file).read_text().splitlines()
        self._senders = [(line.split()[0], line.split()[1]) for line in lines]
        self._headers = "".join(f"{header}\r\n" for header in values[6:])
        self._numbers = itertools.count(1)
        self.milliseconds: list[float] = []
        self.refused = 0

    async def run(self, port: int, connections: int, seconds: float) -> None:
        """Send from all connections."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(self._keep_sending(port, end))

    async def _keep_sending(self, port: int, end: float) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        while True:
            if self._rate:
                if (turn := self._start + next(self._turns) / self._rate) >= end:
                    return
                await asyncio.sleep(max(0.0, turn - time.monotonic()))
            if (began := time.monotonic()) >= end:
                return
            self.refused += await connection.send(self._request()) >= 400
            self.milliseconds.append((time.monotonic() - began) * 1e3)

    def _request(self) -> bytes:
        user, credentials = random.choice(self._senders)  # noqa: S311 - who sends is no secret
        if self._what == "update":
            return post("/update-score", credentials, self._update(user))
        if self._what == "updates":
            updates = ",".join(self._update("any") for _ in range(self._many))
            return post("/update-scores", credentials, f"[{updates}]")
        path = f"/boards/main/users/{self._anybody()}" if self._what == "line" else "/boards/main"
        return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{self._headers}\r\n".encode()

    def _update(self, user: str) -> str:
        return update(self._anybody() if user == "any" else user, f"step:{self._word}{next(self._numbers)}")

    def _anybody(self) -> str:
        return f"user-{random.randrange(self._users)}"  # noqa: S311


def percentile(values: Iterable[float], part: float) -> float:
    """One of the values, below which this part of them lies; not a number if there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")


def main() -> None:
    """What wrk does: connections, seconds, URL, and the values of load.lua."""
    connections, seconds, url, *values = sys.argv[1:]
    port = int(url.split("/")[2].rpartition(":")[2])
    loader, began = Loader(values), time.monotonic()
    uvloop.run(loader.run(port, int(connections), float(seconds)))
    p50, p99 = (percentile(loader.milliseconds, part) for part in (0.5, 0.99))
    sent = Sent(len(loader.milliseconds), time.monotonic() - began, loader.refused, 0, p50, p99)
    print(msgspec.json.encode(sent).decode())


if __name__ == "__main__":
    main()
