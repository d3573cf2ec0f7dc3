"""``python -m torture``: the command line.

Exit status 0: every promise was kept; with ``--break``: the auditor told that one was broken. Else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torture.faults import FAULTS
from torture.run import run

BROKEN = Path(__file__).with_name("broken.py")
GUARANTEES = ("cursor", "increments", "early")
OWN_MOUNTS = "--own-mounts"


def main() -> int:
    """Torture, and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m torture", description="Faults under load, and an audit after each."
    )
    parser.add_argument("--faults", type=int, default=200, help="how many (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="of their order and moments"
    )
    parser.add_argument("--only", metavar="TEXT", help="only faults whose name holds this; | between several")
    parser.add_argument(
        "--break",
        dest="guarantee",
        choices=GUARANTEES,
        help="break this guarantee of the product on purpose, and end with the first audit that tells",
    )
    parser.add_argument(OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    disks = arguments.own_mounts
    if not disks and _may_mount():
        # Mounts of our own: they are nobody else's, and are gone when we are.
        command = ("unshare", "--mount", sys.executable, "-m", "torture", OWN_MOUNTS, *sys.argv[1:])
        os.execvp("unshare", command)  # noqa: S606  no shell is wanted
    parts = (arguments.only or "").split("|")
    kinds = [kind for kind in FAULTS if any(part in kind for part in parts)]
    if not kinds:
        parser.error(f"no fault's name holds {arguments.only!r}; there are: {', '.join(FAULTS)}")
    command = (sys.executable, "-m", "scoreboard.cli")
    if arguments.guarantee:
        command = (sys.executable, str(BROKEN), arguments.guarantee)
    print(f"seed {arguments.seed}, {arguments.faults} faults of {len(kinds)} kinds", flush=True)
    home, began = Path(tempfile.mkdtemp(prefix="torture-")), time.monotonic()
    report = asyncio.run(
        run(
            home,
            command,
            faults=arguments.faults,
            seed=arguments.seed,
            kinds=kinds,
            disks=disks,
            to_the_end=arguments.guarantee is None,
            say=lambda line: print(line, flush=True),
        )
    )
    print(*report.lines(), f"{time.monotonic() - began:.0f} s", sep="\n")
    good = bool(report.suffered) and not report.broken
    if arguments.guarantee:
        good = bool(report.broken - {"healing"})
        print(f"{arguments.guarantee} was broken on purpose, and {'this is told' if good else 'NOBODY TOLD'}")
    if good:
        shutil.rmtree(home)
    else:
        print(f"what is left of it: {home}")
    return 0 if good else 1


def _may_mount() -> bool:
    """Does the system let us have mounts of our own?"""
    trial = ("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir())
    try:
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
