"""Another time for a process, while it runs and without its help.

In: processes and a number of seconds. Out: for as long as the block runs, their wall clocks are off by so
much; timers, which use another clock, are not touched. A program asks for the time in the vDSO, a small
library that the kernel maps into each process (vdso(7)). There the functions for the wall clock are
overwritten, in that process's own copy, by ones that ask the kernel and add the difference. Linux on x86-64
alone; elsewhere ``Unsupported``. Children that are forked meanwhile inherit the wrong clock, and keep it.
"""

from __future__ import annotations

import platform
import signal
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from scoreboard.errors import ScoreboardError

POLL_SECONDS = 0.001
TRIES = 1_000  # a thread is rarely found in the few bytes that are to be overwritten
_DYNSYM, _SYMBOL_BYTES = 11, 24  # elf(5)
_SECONDS = b"????"
_hex = bytes.fromhex
# The functions of vdso(7) that tell the wall clock, in machine code; "????" is the difference.
FUNCTIONS = {
    # mov eax, 228; syscall; test edi, edi (CLOCK_REALTIME?); jne +7; add qword [rsi], ????; ret
    "__vdso_clock_gettime": _hex("b8e4000000 0f05 85ff 7507 488106") + _SECONDS + _hex("c3"),
    # mov eax, 96; syscall; test rdi, rdi; je +7; add qword [rdi], ????; ret
    "__vdso_gettimeofday": _hex("b860000000 0f05 4885ff 7407 488107") + _SECONDS + _hex("c3"),
    # push rdi; xor edi, edi; mov eax, 201; syscall; pop rdi; add rax, ????; test rdi, rdi; je +3;
    # mov [rdi], rax; ret
    "__vdso_time": _hex("57 31ff b8c9000000 0f05 5f 4805") + _SECONDS + _hex("4885ff 7403 488907 c3"),
}


class Unsupported(ScoreboardError):
    """The clock of a single process cannot be changed here."""


@contextmanager
def shifted(processes: Iterable[psutil.Process], seconds: int) -> Iterator[None]:
    """These processes' wall clocks are off by so many seconds while the block runs.

    Raises:
        Unsupported: not on this system, or not for us.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Unsupported("only on Linux, x86-64")
    difference = struct.pack("<i", seconds)
    with ExitStack() as stack:
        for process in processes:
            with suppress(FileNotFoundError):  # it has ended meanwhile
                begin, image = _vdso(process.pid)
                places = {begin + offset: FUNCTIONS[name] for name, offset in _functions(image)}
                before = {place: image[place - begin :][: len(code)] for place, code in places.items()}
                stack.callback(_write, process, before)
                after = {place: code.replace(_SECONDS, difference) for place, code in places.items()}
                _write(process, after)
        yield


def _vdso(pid: int) -> tuple[int, bytes]:
    """Where a process has its vDSO, and what is in it."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            with Path(f"/proc/{pid}/mem").open("rb") as memory:
                memory.seek(begin)
                return begin, memory.read(end - begin)
    raise Unsupported("there is no vDSO")


def _functions(image: bytes) -> Iterator[tuple[str, int]]:
    """Name and offset of those of ``FUNCTIONS`` that a shared library defines (64-bit ELF, elf(5))."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    entry, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + n * entry) for n in range(count)]
    for _, kind, _, _, begin, length, link, *_ in sections:
        for symbol in range(begin, begin + length, _SYMBOL_BYTES) if kind == _DYNSYM else ():
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, symbol)
            name += sections[link][4]
            text = image[name : image.index(b"\0", name)].decode()
            if text in FUNCTIONS:
                yield text, value


def _write(process: psutil.Process, places: Mapping[int, bytes]) -> None:
    """Overwrite code of a process at a moment when no thread is in it. Nothing, if the process is gone."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        for _ in range(TRIES):
            process.send_signal(signal.SIGSTOP)
            try:
                if not _busy(process.pid, places):
                    with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:
                        for place, code in places.items():
                            memory.seek(place)
                            memory.write(code)
                    return
            except PermissionError as error:
                raise Unsupported(f"the memory of a process may not be written: {error}") from error
            finally:
                process.send_signal(signal.SIGCONT)
            time.sleep(POLL_SECONDS)
        raise Unsupported("a process is never out of the functions that tell the time")


def _busy(pid: int, places: Mapping[int, bytes]) -> bool:
    """Is a thread of this process running still, or about to run what shall be overwritten?"""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "Tt":
            return True
        counter = int((task / "syscall").read_text().split()[-1], 16)
        if any(place < counter < place + len(code) for place, code in places.items()):
            return True
    return False
