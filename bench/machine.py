"""The machine that is measured on, processes for as long as they are needed, and what they use."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import psutil

HERE = Path(__file__).parent
PROGRAMS = {"service:app": "plain", str(HERE / "empty.py"): "empty"}
"""Of ours for comparison, by how they are started."""


def machine() -> str:
    """Where and when this was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "?")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{date.today()}, {os.cpu_count()} x {model}, Linux {platform.release()},"  # noqa: DTZ011 - a day
        f" Python {platform.python_version()}, load before: {load}"
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the block runs."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def start(core: int | None, *command: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start a process, on one core if it is named, to be spoken to."""
    environment = os.environ | variables
    process = subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE, env=environment
    )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    return process


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def until_open(port: int) -> None:
    """Wait until something listens there."""
    for _ in range(3_000):  # half a minute: a framework is slow to import
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(port)


def role_of(process: psutil.Process) -> str:
    """What a process is: ``worker``, ``postgres``, ``wrk``."""
    line = process.cmdline() or [process.name()]
    for part in line[1:]:
        if part in PROGRAMS:
            return PROGRAMS[part]
    first = line[0].removeprefix("scoreboard ")  # what the process list calls ours
    return Path(first.split(":")[0]).name


def used() -> dict[str, float]:
    """Seconds of processor time of all that this process has started, by role; of what has ended, too."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[role_of(process)] += times.user + times.system + times.children_user + times.children_system
    return found


def memory() -> dict[str, float]:
    """MiB by role; what several processes share is divided among them."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[role_of(process)] += process.memory_full_info().pss / 2**20
    return found
