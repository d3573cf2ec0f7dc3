"""Watch the history of one public project go by on a live board, in one command.

Starts everything in a temporary data folder, replays ``history.csv`` at five million times real time (about
100 seconds), compares the board with ``expected.json``, and goes on serving until Ctrl-C ends it all.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "scoreboard.cli")
SPEED = 5_000_000  # times real time: two months a second
STOP_SECONDS = 90
LOOK_SECONDS = 0.2


def main() -> int:
    """Run it; the exit status says whether the board is what it must be."""
    parser = argparse.ArgumentParser(description="Replay a real history onto a live board.")
    parser.add_argument("--port", type=int, default=8000, help="where to serve; 0: any free port")
    parser.add_argument("--speed", type=float, default=SPEED, help="times real time")
    parser.add_argument("--exit", action="store_true", help="end after the comparison")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="scoreboard-history-"))
    place = ("--config", str(HERE / "scoreboard.toml"), "--data", str(folder / "data"))
    # In a session of its own: Ctrl-C reaches this program, which then stops the other.
    with (folder / "log").open("w") as log:
        up = subprocess.Popen(
            [*COMMAND, "up", "--port", str(given.port), *place],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        url = ready(up)
        if url is None:
            print((folder / "log").read_text(), end="", file=sys.stderr)
            return up.wait()
        print(f"Watch it at {url}/ (Ctrl-C ends it)", flush=True)
        status = replay(given.speed, place) or compare(url)
        if status == 0 and not given.exit:
            up.wait()
        return status
    except KeyboardInterrupt:
        return 0
    finally:
        up.terminate()
        up.wait(STOP_SECONDS)
        shutil.rmtree(folder)


def ready(up: subprocess.Popen[str]) -> str | None:
    """The URL of the ``ready`` line; ``None`` if it ends without one."""
    assert up.stdout is not None  # noqa: S101  it was asked for
    for line in up.stdout:
        if line.startswith("ready "):
            return line.split()[1]
    return None


def replay(speed: float, place: tuple[str, ...]) -> int:
    """Send the actions at their times, and say which month it is; the exit status."""
    file = HERE / "history.csv"
    with file.open() as lines:
        times = [float(row["at"]) for row in csv.DictReader(lines)]
    sender = subprocess.Popen(
        [*COMMAND, "replay", str(file), "--speed", str(speed), *place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    began, shown = time.monotonic(), ""
    out = err = ""
    while True:
        try:
            out, err = sender.communicate(timeout=LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            now = min(times[0] + (time.monotonic() - began) * speed, times[-1])
            form = "\r%Y-%m " if sys.stdout.isatty() else "%Y\n"
            text = datetime.fromtimestamp(now, UTC).strftime(form)
            print(text if text != shown else "", end="", flush=True)
            shown = text
    print(f"\r{out}{err}", end="", flush=True)
    return sender.returncode


def compare(url: str) -> int:
    """Is the board what the history must give? 0 if so."""
    expected = json.loads((HERE / "expected.json").read_text())
    with urllib.request.urlopen(f"{url}/boards/main?limit=1000") as answer:  # noqa: S310  our own address
        page = json.load(answer)
    rows = [{name: row[name] for name in ("rank", "userId", "score")} for row in page["top"]]
    total = sum(row["score"] for row in rows)
    same = (rows[:100], rows[-5:], page["total"], total) == (
        expected["top"], expected["last"], expected["users"], expected["total"],
    )  # fmt: skip
    what = f"{expected['users']} users, {expected['total']} points, the first 100 and the last 5 places"
    print(f"As expected: {what}." if same else f"NOT as expected: {what}.", flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
