"""Processes that we start, and the proof that a process is one of them.

In: a program and its arguments. Out: a ``Process`` in a session of its own (Ctrl-C reaches only the
supervisor) that ends when its parent ends. Nothing here must ever signal a process that is not proved to be
ours: by being our child, or by its id together with the time at which it was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from scoreboard.engines.folder import write_private
from scoreboard.errors import EngineError

LAUNCHER = str(Path(__file__).with_name("launch.py"))
BACKOFF_FIRST = 0.1  # seconds before the first restart: a single crash is hardly noticed
BACKOFF_MOST = 5.0  # seconds: what cannot run is tried again often enough, and costs next to nothing
HEALTHY_AFTER = 60.0  # seconds of life after which an earlier crash is forgotten
LEFTOVER_GRACE = 1.0  # seconds for a leftover to end by itself: the kernel has told it already
LEFTOVER_DEADLINE = 10.0  # seconds for it to be gone after SIGKILL; longer means a stuck disk
POLL = 0.02  # seconds between two looks at a process that is not our child


class Process:
    """One child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._started = time.monotonic()

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int | None = None,
        output: IO[bytes] | int | None = None,
        pass_fds: Sequence[int] = (),
        identity: str = "same",
        processors: int = 0,
        death_signal: int = signal.SIGKILL,
    ) -> Process:
        """Starts a program; its output goes where ours goes, or to ``output``. The rest is for ``launch.py``.

        Must be called in the main thread: the kernel takes the end of the calling thread for its parent's.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", LAUNCHER),
            *(str(os.getpid()), str(int(death_signal)), identity, str(processors)),
            *argv,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id; that of the program, too, for the launcher becomes the program."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended (negative: by that signal), ``None`` while it lives."""
        return self._process.returncode

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    async def wait(self) -> int:
        """Waits for its end and says how it ended."""
        return await self._process.wait()

    def send(self, number: int) -> None:
        """Sends a signal, if it still lives."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self, number: int, deadline: float) -> bool:
        """Asks it to end and waits; after ``deadline`` seconds it is killed, and the answer is ``False``."""
        self.send(number)
        try:
            async with asyncio.timeout(deadline):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()
            return False
        finally:
            if self.returncode is None:  # we were cancelled: nothing may be left behind
                self.send(signal.SIGKILL)
        return True


class Backoff:
    """How long to wait before a restart: longer each time, short again after a minute of health."""

    def __init__(self) -> None:
        self._next = BACKOFF_FIRST

    def after(self, age: float) -> float:
        """Seconds to wait, now that a process has died at this age."""
        delay = BACKOFF_FIRST if age >= HEALTHY_AFTER else self._next
        self._next = min(delay * 2, BACKOFF_MOST)
        return delay


class Mark(msgspec.Struct, frozen=True):
    """What identifies a process beyond doubt: ids are used again, an id and its start time are not."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Is this very process still running?"""
        return start_time(self.pid) == self.started


class Leftovers:
    """The processes that belong to a data folder, on disk, so that the next start can end what is left.

    Needed where the kernel does not tell children of their parent's death, and for the moment that they
    need to end where it does.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / "processes.json"
        self.marks: dict[str, Mark] = {}
        try:
            self.marks = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Mark])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            raise EngineError(f"{self._path}: {error}. Delete it once nothing of it runs") from error

    def remember(self, name: str, pid: int) -> None:
        """Notes that the process ``name`` of this folder has this id now."""
        started = start_time(pid)
        if started is not None:
            self.marks[name] = Mark(pid, started)
            write_private(self._path, msgspec.json.encode(self.marks), sync=False)

    async def end(self) -> None:
        """Ends what an earlier supervisor left running."""
        await asyncio.gather(*(self._end(name, mark) for name, mark in self.marks.items()))

    async def _end(self, name: str, mark: Mark) -> None:
        if await _gone(mark, LEFTOVER_GRACE):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(mark.pid, signal.SIGKILL)
        if not await _gone(mark, LEFTOVER_DEADLINE):
            msg = f"{name} (process {mark.pid}) of an earlier start does not end; end it, then try again"
            raise EngineError(msg)


async def _gone(mark: Mark, deadline: float) -> bool:
    end = time.monotonic() + deadline
    while mark.alive:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(POLL)
    return True


def start_time(pid: int) -> str | None:
    """When the process with this id was started, as text to compare; ``None`` if none runs."""
    if sys.platform.startswith("linux"):
        try:
            # The name, in parentheses, may hold anything: count from behind it (proc_pid_stat(5)).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        state, ticks = fields[0], fields[19]
        # A zombie is dead; in a container without an init nobody collects it.
        return None if state in "ZX" else f"{boot} {ticks}"
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None
