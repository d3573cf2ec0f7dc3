"""Watch the history of one public project go by on a live board, in one command.

Starts everything in a temporary data folder, replays ``history.csv`` at five million times real time (about
100 seconds), compares the board with ``expected.json``, and goes on serving until Ctrl-C ends it all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "scoreboard.cli")
SPEED = 5_000_000  # times real time: two months a second
STOP_SECONDS = 90


def main() -> int:
    """Run it; the exit status says whether the board is what it must be."""
    parser = argparse.ArgumentParser(description="Replay a real history onto a live board.")
    parser.add_argument("--port", type=int, default=8000, help="where to serve; 0: any free port")
    parser.add_argument("--speed", type=float, default=SPEED, help="times real time")
    parser.add_argument("--exit", action="store_true", help="end after the comparison")
    given = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="scoreboard-history-"))
    place = ("--config", str(HERE / "scoreboard.toml"), "--data", str(data / "data"))
    up = subprocess.Popen(
        [*COMMAND, "up", "--port", str(given.port), *place], stdout=subprocess.PIPE, text=True
    )
    try:
        url = ready(up)
        print(f"Watch it at {url}/ (Ctrl-C ends it)", flush=True)
        replay = [*COMMAND, "replay", str(HERE / "history.csv"), "--speed", str(given.speed), *place]
        status = subprocess.run(replay, check=False).returncode or compare(url)
        if status == 0 and not given.exit:
            up.wait()
        return status
    except KeyboardInterrupt:
        return 0
    finally:
        up.terminate()  # after a Ctrl-C it has been told already; a second word would hurry it
        up.wait(STOP_SECONDS)
        shutil.rmtree(data)


def ready(up: subprocess.Popen[str]) -> str:
    """The URL of the ``ready`` line."""
    assert up.stdout is not None  # noqa: S101  it was asked for
    for line in up.stdout:
        if line.startswith("ready "):
            return line.split()[1]
    sys.exit(up.wait() or 1)  # it has said why


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
