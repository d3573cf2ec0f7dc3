"""What a delivered frame costs: a bare loop of send(), nchan, ours, ``websockets.broadcast``, the plain way.

``make bench-fanout`` prints a table. Every server sends the same frames, as long and as often, to the same
clients (clients.c), pinned to one core, with the clients on another. A server's cost is the processor time of
its process, as the system counts it, divided by the frames that the clients received. On loopback the kernel
charges the sender for most of the receiver's work, too: compare the rows, not this with a network.

It takes a C compiler, 10,000 open files (``ulimit -n``) twice, and for the row nchan ``nginx`` with
``libnginx-mod-nchan``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
from machine import HERE, ended, free_port, machine, start, until_open
from msgspec import Struct
from servers import frame

KINDS = ("send() in C", "nchan", "ours", "websockets.broadcast", "plain Starlette")
PEERS = ("nchan", "plain Starlette")
COLUMNS = (
    "clients", "server", "µs a frame", "by nchan", "by plain", "frames/s a core", "sweep p50", "p99",
    "KiB a client", "delivered",
)  # fmt: skip
CLIENTS = (1_000, 5_000, 10_000)
FRAMES = 30  # a round
ROUNDS = 3  # the median counts
DISTANCE = 30  # microseconds a client between two frames: nobody here needs more, so nobody is saturated
LEAST = 60_000  # microseconds between two frames; ours would merge what comes within 50 ms
SETTLE_SECONDS = 1.0
SERVER_CORE, CLIENT_CORE = 0, 1
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

NCHAN = """
load_module %(module)s;
daemon off; master_process off; user root; pid %(folder)s/pid; error_log %(folder)s/log crit;
worker_rlimit_nofile 20000;
events { worker_connections 19000; }
http {
  access_log off; nchan_shared_memory_size 64m; client_body_temp_path %(folder)s/b;
  proxy_temp_path %(folder)s/p; fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u;
  scgi_temp_path %(folder)s/s;
  server {
    listen 127.0.0.1:%(port)d backlog=4096 so_keepalive=off;
    location = /watch { nchan_subscriber websocket; nchan_channel_id board; nchan_websocket_ping_interval 0; }
    location = /publish { nchan_publisher http; nchan_channel_id board; nchan_message_buffer_length 1; }
  }
}
"""


class Round(Struct, frozen=True):
    """What one round showed."""

    microseconds: float
    """Of the server's processor, a delivered frame."""
    sweeps: list[float]
    """Milliseconds from publishing a frame to the last client that has it."""
    delivered: float
    """Of the frames that were published to each client, the part that came."""


class Row(Struct, frozen=True):
    """One server with so many clients."""

    kind: str
    clients: int
    rounds: list[Round]
    kib: float
    """Memory of the server's process, an idle client."""

    @property
    def microseconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(one.microseconds for one in self.rounds)


class Server:
    """A server under test: a process, its port, and how it is told to publish."""

    path = "/boards/main/live"

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.info = psutil.Process(process.pid)

    def publish(self, count: int, microseconds: int) -> None:
        """Send so many frames; returns when the last is sent."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(count, microseconds, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self.info.cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Bytes that are this process's alone."""
        return int(self.info.memory_full_info().uss)


class Clients:
    """The process of the clients, once all are connected."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        assert self._out.readline() == "connected\n"

    def told(self) -> dict[str, Any]:
        """What they have seen since this was asked before."""
        print(file=self._in, flush=True)
        found: dict[str, Any] = json.loads(self._out.readline())
        return found


class Nchan(Server):
    """nginx; it is published to over HTTP."""

    path = "/watch"

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        super().__init__(process, port)
        self.seq = 0
        self.http = http.client.HTTPConnection("127.0.0.1", port)

    def publish(self, count: int, microseconds: int) -> None:
        """The same as the others."""
        due = time.monotonic()
        for _ in range(count):
            self.seq += 1
            self.http.request("POST", "/publish", msgspec.json.encode(frame(self.seq)))
            self.http.getresponse().read()
            due += microseconds / 1e6
            time.sleep(max(0.0, due - time.monotonic()))


def rest_of_frame() -> str:
    """A frame's text after ``total``, for the server that makes no JSON."""
    return msgspec.json.encode(frame(0)).decode().partition('"total":')[2].partition(",")[2]


@contextmanager
def server(kind: str, folder: Path) -> Iterator[Server]:
    """A server of a kind."""
    if kind == "nchan":
        port = free_port()
        values = {"module": NCHAN_MODULE, "folder": folder, "port": port}
        (folder / "nginx.conf").write_text(NCHAN % values)
        with ended(start(SERVER_CORE, "nginx", "-c", folder / "nginx.conf", "-p", folder)) as process:
            until_open(port)
            yield Nchan(process, port)
        return
    command: tuple[str | Path, ...] = (folder / "floor", rest_of_frame())
    if kind != "send() in C":
        ours = {"ours": "ours", "websockets.broadcast": "broadcast", "plain Starlette": "plain"}[kind]
        command = (sys.executable, HERE / "servers.py", ours)
    with ended(start(SERVER_CORE, *command)) as process:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))


def measure(kind: str, count: int, folder: Path) -> Row:
    """One row: connect, look at the memory, publish in rounds."""
    with server(kind, folder) as one:
        if kind == "nchan":
            one.publish(1, 0)  # a channel is made by its first message
        time.sleep(SETTLE_SECONDS)
        empty = one.memory()
        command = (folder / "clients", str(one.port), one.path, str(count))
        with ended(start(CLIENT_CORE, *command)) as process:
            clients = Clients(process)
            time.sleep(SETTLE_SECONDS)
            idle = one.memory()
            rounds = []
            distance = max(LEAST, count * DISTANCE)
            one.publish(3, distance)  # warm
            time.sleep(SETTLE_SECONDS)
            for _ in range(ROUNDS):
                clients.told()
                before = one.cpu()
                one.publish(FRAMES, distance)
                time.sleep(SETTLE_SECONDS)
                rounds.append(shown(clients.told(), one.cpu() - before, count))
    return Row(kind, count, rounds, (idle - empty) / count / 1024)


def shown(found: dict[str, Any], used: float, count: int) -> Round:
    """A round, from what the clients tell and the processor's time."""
    whole = sorted(since / 1e3 for _, times, since, _ in found["seqs"] if times == count)
    return Round(used * 1e6 / max(1, found["frames"]), whole, found["frames"] / count / FRAMES)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for row in rows:
        beside = {other.kind: other.microseconds for other in rows if other.clients == row.clients}
        sweeps = sorted(sweep for one in row.rounds for sweep in one.sweeps)
        ratio = [row.microseconds / beside[peer] if peer in beside else None for peer in PEERS]
        parts = [f"{row.clients:,}", row.kind, f"{row.microseconds:.1f}"]
        parts += ["" if one is None else f"{one:.2f}" for one in ratio]
        parts += [f"{1e6 / row.microseconds:,.0f}"]
        parts += [f"{sweeps[int(len(sweeps) * part)]:.0f} ms" if sweeps else "" for part in (0.5, 0.99)]
        parts += [f"{row.kib:.1f}", f"{statistics.mean(one.delivered for one in row.rounds):.0%}"]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, action="append", help="default: 1,000, 5,000 and 10,000")
    parser.add_argument("--only", action="append", choices=KINDS)
    options = parser.parse_args()
    print(machine(), flush=True)
    kinds = list(options.only or KINDS)
    if "nchan" in kinds and not (shutil.which("nginx") and NCHAN_MODULE.exists()):
        kinds.remove("nchan")
        print("nchan is not installed: apt-get install nginx libnginx-mod-nchan", flush=True)
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("clients", "floor"):
            subprocess.run(("cc", "-O2", "-o", folder / name, HERE / f"{name}.c"), check=True)
        for count in options.clients or CLIENTS:
            for kind in kinds:
                rows.append(measure(kind, count, folder))
                print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
