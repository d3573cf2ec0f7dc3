"""The data folder: who uses it now, and what is kept in it besides the engines' own files.

In: a path. Out: a folder that only its owner may enter, a lock that one process holds, the state that others
may read while it is held, and what the engines keep between two starts (majors, passwords, ports). Nothing
outside the folder is ever changed, nor a folder that is not ours. That somebody uses the folder is proved by
the lock alone, never by a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from scoreboard.errors import EngineError
from scoreboard.files import appearing

LOCK = "lock"
STATE = "state.json"
KEPT = "engines.json"
# One of these must be in a folder that is neither new nor empty, or it is not ours to close to others.
_OURS = (LOCK, STATE, KEPT, "secret", "demo")
WAIT_SECONDS = 60.0  # for another command or a starting `up`: longer than any of them takes to begin or end
POLL = 0.05  # seconds between two tries to get the lock: flock cannot wait with a deadline


class Urls(msgspec.Struct, frozen=True):
    """Where the three engines are."""

    database: str
    queue: str
    board: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of the lock tells others."""

    pid: int
    holder: str
    """``up``, or ``command`` for one that uses the engines while it works and stops them then."""
    url: str | None = None
    """Where it serves; ``None`` while it starts, and always for a command."""
    urls: Urls | None = None


class Kept(msgspec.Struct, kw_only=True):
    """What the engines need to know from one start to the next."""

    majors: dict[str, str] = {}
    passwords: dict[str, str] = {}
    ports: dict[str, int] = {}


def prepare(data: Path) -> Path:
    """Makes the folder if there is none, closes it to others, and gives its absolute path.

    Raises:
        EngineError: it cannot be made, or holds something that is not ours.
    """
    data = data.absolute()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(data.iterdir()) and not any((data / name).exists() for name in _OURS):
            msg = f"{data} is neither empty nor a data folder of Scoreboard; choose another with --data"
            raise EngineError(msg)
        if data.stat().st_mode & 0o066:
            data.chmod(0o700)
    except OSError as error:
        raise EngineError(f"the data folder {data} cannot be used: {error}") from error
    return data


def must_hold_engines(data: Path) -> None:
    """For a command that only reads: it would find an empty deployment that it made itself.

    Raises:
        EngineError: no deployment has ever run on this folder.
    """
    if not (data / KEPT).exists():
        what = "holds no deployment" if data.exists() else "does not exist"
        msg = f"the data folder {data.absolute()} {what}; say with --data where the one is that you mean"
        raise EngineError(msg)


def write_private(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes a file that only its owner may read, at once: a reader sees the old or the new, never half."""
    with appearing(path, sync=sync) as file:
        file.write(content)


def read_kept(data: Path) -> Kept:
    """What the engines kept; empty before the first start."""
    path = data / KEPT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.DecodeError) as error:
        raise EngineError(f"{path}: {error}") from error


def write_kept(data: Path, kept: Kept) -> None:
    """Keeps it."""
    write_private(data / KEPT, msgspec.json.encode(kept))


def read_state(data: Path) -> State | None:
    """What the holder of the lock has told; worth something only to one who has found the lock held."""
    try:
        return msgspec.json.decode((data / STATE).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


def tell(data: Path, state: State) -> None:
    """Tells others who holds the lock and where it serves."""
    write_private(data / STATE, msgspec.json.encode(state), sync=False)


@contextmanager
def hold(data: Path, holder: str) -> Iterator[bool]:
    """Holds the folder while the body runs. Yields ``False``, and holds nothing, if somebody else does."""
    try:
        # Not inherited by children (PEP 446), so that the lock ends with this process and not with them.
        fd = os.open(data / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise EngineError(f"the data folder {data} cannot be locked: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        tell(data, State(pid=os.getpid(), holder=holder))
        yield True
    finally:
        with contextlib.suppress(OSError):
            (data / STATE).unlink()
        os.close(fd)


@asynccontextmanager
async def share(data: Path) -> AsyncIterator[State | None]:
    """For a command: the state of the ``up`` that serves this folder, or ``None`` and the folder is held.

    Waits while an ``up`` is starting, and while another command uses the folder: its engines end with it.

    Raises:
        EngineError: neither came true in time.
    """
    end = time.monotonic() + WAIT_SECONDS
    while True:
        with hold(data, "command") as held:
            if held:
                yield None
                return
        state = read_state(data)
        if state is not None and state.url is not None:
            yield state
            return
        if time.monotonic() > end:
            who = f"process {state.pid} ({state.holder})" if state else "another process"
            raise EngineError(
                f"{who} has been using {data} for {WAIT_SECONDS:.0f} s; try again when it is done"
            )
        await asyncio.sleep(POLL)
