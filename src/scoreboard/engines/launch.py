"""A child's first steps, taken in the child itself: it becomes the engine or role that it was started for.

In: ``PARENT SIGNAL IDENTITY PROCESSORS PROGRAM [ARGUMENT …]``. Out: the program, in the same process, with
its own arguments and nothing of ours. What happens before: under which identity it runs (``same``;
``namespace:ID``, a user namespace in which we are ID; ``drop:UID:GID``), on how many processors (0: all), and
that the kernel sends it SIGNAL when its parent dies. It must never go on without its identity or that signal:
an engine that outlives its supervisor would block the next start.

Run as a file with ``python -I -S``, so it may import nothing but the standard library. It is a program and
not a ``preexec_fn`` because code between fork and exec of a process with threads can deadlock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
EX_OSERR = 71  # sysexits.h: the system refused something
EX_NOT_FOUND = 127  # what a shell answers when a program cannot be run


def main() -> None:
    """Takes the steps; returns never."""
    parent, death_signal, identity, processors, *argv = sys.argv[1:]
    try:
        assume(identity)
        confine(int(processors))
        # After the change of identity: a change of credentials clears the death signal.
        end_with_parent(int(parent), int(death_signal))
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]} as {identity}: {error}\n")
        sys.exit(EX_OSERR)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error}\n")
        sys.exit(EX_NOT_FOUND)


def assume(identity: str) -> None:
    """Becomes the user that the program is to run as."""
    kind, *numbers = identity.split(":")
    if kind == "namespace":
        uid, gid = os.geteuid(), os.getegid()
        _checked(_libc().unshare(CLONE_NEWUSER))
        # The kernel wants "deny" here before an unprivileged process may map its group.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{numbers[0]} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{numbers[0]} {gid} 1")
    elif kind == "drop":
        os.setgroups([])
        os.setgid(int(numbers[1]))
        os.setuid(int(numbers[0]))


def confine(processors: int) -> None:
    """Keeps to so many of the processors that we may use, where the system can (Linux); 0: to all of them."""
    if processors and sys.platform.startswith("linux"):
        with contextlib.suppress(PermissionError):  # a sandbox may forbid it; then it only costs more
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-processors:])


def end_with_parent(parent: int, death_signal: int) -> None:
    """Has the kernel send us ``death_signal`` when ``parent`` dies, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return  # the next start ends what is left, see process.Leftovers
    _checked(_libc().prctl(PR_SET_PDEATHSIG, death_signal))
    if os.getppid() != parent:  # it died before we asked
        sys.exit(EX_OSERR)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
