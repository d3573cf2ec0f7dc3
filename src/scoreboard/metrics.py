"""Metrics of all stages, for Prometheus. Names say the unit; labels are few and their values bounded.

Several processes behind one port share their figures through files in the folder that
``PROMETHEUS_MULTIPROC_DIR`` names (the supervisor sets it); ``GET /metrics`` adds them up.
"""

from __future__ import annotations

import os

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
ENVELOPE_ENTRIES = Histogram(
    "scoreboard_envelope_entries", "Entries an envelope", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
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
    "scoreboard_queue_messages", "Envelopes accepted and not yet applied", multiprocess_mode="mostrecent"
)
DEAD_LETTERS = Counter("scoreboard_dead_letters_total", "Messages of the log that were set aside")
BOARD_REBUILDS = Counter("scoreboard_board_rebuilds_total", "Boards built again from the database")
CATALOGUE_MISMATCH = Counter(
    "scoreboard_catalogue_mismatch_total", "Envelopes accepted under another catalogue than the worker's"
)
CONNECTIONS = Gauge("scoreboard_live_connections", "Watching WebSocket clients", multiprocess_mode="livesum")


def exposed() -> tuple[bytes, str]:
    """All figures in Prometheus' text format, and its content type."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST
