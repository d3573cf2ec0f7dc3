"""Under which user PostgreSQL runs: it refuses root, and wants a user that the system knows by name.

In: who we are and what the kernel allows. Out: the identity for ``launch.py``, and program and folder so that
this identity can use them. No user is made, and no permission outside the data folder is changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import msgspec

from scoreboard.engines.process import Process
from scoreboard.errors import EngineError

NOBODY = 65534  # what nearly every system calls "nobody"
PROBE_SECONDS = 10.0  # for a process that does nothing; longer means that the machine is stuck
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""All that an engine sees of an environment: none of our secrets, and no PGDATA or PGPORT of the user's."""


class Identity(msgspec.Struct, frozen=True):
    """Who PostgreSQL is, as the launcher is told, and who must own its files."""

    launch: str
    uid: int
    gid: int

    @property
    def dropped(self) -> bool:
        """Is it a real user other than us, who cannot read what is ours?"""
        return self.launch.startswith("drop:")


async def identity() -> Identity:
    """The first of these that works: ourselves, a user namespace, an unprivileged user.

    Raises:
        EngineError: none does.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and _known(uid):
        return Identity("same", uid, gid)
    user = _someone()
    if user is not None:
        namespace = f"namespace:{user.pw_uid}"
        if await works(namespace):
            return Identity(namespace, uid, gid)
        if uid == 0:
            return Identity(f"drop:{user.pw_uid}:{user.pw_gid}", user.pw_uid, user.pw_gid)
    who = "root" if uid == 0 else f"the user {uid}, who has no entry in /etc/passwd"
    raise EngineError(f"PostgreSQL cannot run as {who}, and user namespaces are denied here; {_WAY_OUT}")


async def works(launch: str) -> bool:
    """Does the system let a process start under this identity?"""
    probe = await Process.spawn(["/bin/true"], env=ENVIRONMENT, identity=launch, output=subprocess.DEVNULL)
    return await probe.stop(0, PROBE_SECONDS) and probe.returncode == 0


def reachable(program: Path, folder: Path, who: Identity) -> Path:
    """The program (a folder ``…/PACKAGE/INSTALLATION``) and the folder made usable for this identity.

    Returns:
        The program itself, or a copy below ``folder`` where the identity may not read it.

    Raises:
        EngineError: the way to the data folder is closed to it.
    """
    if who.dropped:
        data = folder.parent
        closed = [path for path in data.parents if not path.stat().st_mode & 0o001]
        if closed:
            msg = (
                f"as root, PostgreSQL has to run as the user {who.uid}, who may not enter {closed[-1]}; "
                f"choose a folder below an open one with --data, or {_WAY_OUT}"
            )
            raise EngineError(msg)
        data.chmod(0o711)  # to pass through; every file in it stays closed
        if not open_to_all(program):
            program = _staged(program, folder)
    if os.geteuid() == 0:
        _give(folder, who)
    return program


def open_to_all(folder: Path) -> bool:
    """May everybody go there?"""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _staged(program: Path, folder: Path) -> Path:
    package = program.parent
    copy = folder / "program"
    target = copy / package.name / program.name
    if not target.exists():
        new = folder / "program.new"
        shutil.rmtree(new, ignore_errors=True)
        for part in ("bin/postgres", "bin/initdb", "lib/postgresql", "share/postgresql"):
            source, into = program / part, new / package.name / program.name / part
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, into)
            else:
                shutil.copy2(source, into)
        libraries = package.with_name(f"{package.name}.libs")  # where a wheel keeps its shared libraries
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name)
        shutil.rmtree(copy, ignore_errors=True)
        new.rename(copy)
    return target


def _give(folder: Path, who: Identity) -> None:
    """Makes the identity the owner of the folder and all in it; also back, after a change of identity."""
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118 - thousands of files: no object for each
            found = os.lstat(path)
            if (found.st_uid, found.st_gid) != (who.uid, who.gid):
                os.chown(path, who.uid, who.gid, follow_symlinks=False)


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _someone() -> pwd.struct_passwd | None:
    """A user without privileges whom the system knows by name."""
    others = [user for user in pwd.getpwall() if user.pw_uid != 0]
    return min(others, key=lambda user: user.pw_uid != NOBODY, default=None)


_WAY_OUT = "run as another user, or give a server's URL in SCOREBOARD_DATABASE_URL"
