"""Metrics of all stages, for Prometheus. Names say the unit; labels are few and their values bounded.

Several processes behind one port share their figures through files in the folder that
``PROMETHEUS_MULTIPROC_DIR`` names (the supervisor sets it for its children); ``GET /metrics`` adds them up.
That variable is the client library's; it is read here because it is the library's own switch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    exposition,
    multiprocess,
)

REQUESTS = Counter("scoreboard_updates_total", "Updates by what the door answered", ["answer"])
RATE_LIMITED = Counter("scoreboard_rate_limited_total", "Requests refused for their number", ["who"])
ENVELOPE_ENTRIES = Histogram(
    "scoreboard_envelope_entries", "Entries an envelope", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
ENVELOPE_BYTES = Histogram(
    "scoreboard_envelope_bytes",
    "Size of an envelope",
    buckets=(500, 1_000, 5_000, 10_000, 50_000, 100_000, 200_000, 300_000),
)
PUBLISH_SECONDS = Histogram(
    "scoreboard_publish_seconds",
    "Time from sending an envelope to the log until it was synced to disk",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)
WAITING = Gauge(
    "scoreboard_waiting_updates", "Updates that wait to be synced to the log", multiprocess_mode="livesum"
)
ENGINE_UP = Gauge(
    "scoreboard_engine_up", "Does the engine do its work? (1 or 0)", ["engine"], multiprocess_mode="livemin"
)
APPLIED = Counter("scoreboard_events_total", "Events by what the worker decided", ["outcome"])
BATCH_SECONDS = Histogram(
    "scoreboard_batch_seconds",
    "Time of one applying transaction",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
BOARD_SECONDS = Histogram(
    "scoreboard_board_seconds",
    "Time to bring the boards up to date after a batch",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1),
)
QUEUE_DEPTH = Gauge(
    "scoreboard_queue_messages",
    "Envelopes accepted and not yet applied",
    ["partition"],
    multiprocess_mode="livemostrecent",
)
QUEUE_AGE = Gauge(
    "scoreboard_queue_age_seconds",
    "How long the oldest envelope that is not yet applied has been waiting",
    ["partition"],
    multiprocess_mode="livemostrecent",
)
QUEUE_BYTES = Gauge(
    "scoreboard_queue_bytes", "Size of the log on disk", ["which"], multiprocess_mode="livemostrecent"
)
BOARD_LAG = Histogram(
    "scoreboard_board_lag_seconds",
    "Time from acceptance until the boards know",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)
FRAME_LAG = Histogram(
    "scoreboard_frame_lag_seconds",
    "Time from a change of a board until its frame goes out to those who watch",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
FORGED = Counter("scoreboard_forged_envelopes_total", "Messages of the log that bear no seal of ours")
FORGED_OUTCOMES = Counter(
    "scoreboard_forged_outcomes_total", "Messages at an inbox that were not the worker's"
)
DEAD_LETTERS = Counter(
    "scoreboard_dead_letters_total", "Messages and single events of the log that were set aside"
)
DEAD_WAITING = Gauge(
    "scoreboard_dead_letters_waiting",
    "Dead letters that wait for an operator",
    multiprocess_mode="livemostrecent",
)
DRIFT = Counter("scoreboard_drift_total", "Differences between board and database that were mended", ["what"])
DRIFT_CHECKED = Counter("scoreboard_drift_checked_total", "Entries of boards compared with the database")
DRIFT_SWEEPS = Counter("scoreboard_drift_sweeps_total", "Boards compared with the database from end to end")
BOARD_REBUILDS = Counter("scoreboard_board_rebuilds_total", "Boards built again from the database")
CATALOGUE_MISMATCH = Counter(
    "scoreboard_catalogue_mismatch_total", "Envelopes accepted under another catalogue than the worker's"
)
CONNECTIONS = Gauge(
    "scoreboard_live_connections", "Watching clients", ["transport"], multiprocess_mode="livesum"
)
FRAMES = Counter("scoreboard_live_frames_total", "Frames and heartbeats written to watching clients")
SKIPPED = Counter(
    "scoreboard_live_skipped_total", "Times a client could not take a frame and was left to get a newer one"
)
STUCK = Counter("scoreboard_live_stuck_total", "Watching clients that were dropped because they took nothing")
ROUND_SECONDS = Histogram(
    "scoreboard_live_round_seconds",
    "Time to offer a frame to every client of a board",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Tally:
    """Counts for a counter in one event loop, and tells it once an iteration: telling costs microseconds."""

    def __init__(self, counter: Counter) -> None:
        self._counter, self._count = counter, 0

    def inc(self) -> None:
        """One more."""
        if not self._count:
            asyncio.get_running_loop().call_soon(self._tell)
        self._count += 1

    def _tell(self) -> None:
        count, self._count = self._count, 0
        self._counter.inc(count)


def shared(data: Path) -> dict[str, str]:
    """An empty folder for the figures of processes that are about to start; what tells them of it."""
    folder = data / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return {FOLDER: str(folder)}


def forget(env: Mapping[str, str], pid: int) -> None:
    """A process that shared its figures has ended: what it had at that moment is no longer so."""
    if FOLDER in env:
        for file in Path(env[FOLDER]).glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)


def exposed() -> tuple[bytes, str]:
    """All figures in Prometheus' text format, and its content type."""
    registry: CollectorRegistry = REGISTRY
    if FOLDER in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST
