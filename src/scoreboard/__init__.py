"""A real-time scoreboard: an action is reported, counted once, and shown to everyone at once.

The flow, and where each stage lives::

    action ─▶ api ─▶ auth ─▶ queue ─▶ worker ─▶ database ─▶ board ─▶ live ─▶ client

    api/         HTTP in: ``POST /update-score`` and everything else
    auth/        who is this, and may this user have the points of this action?
    queue/       signed envelopes into and out of a synced, ordered log (NATS JetStream)
    worker.py    reads the log in order, applies each update exactly once
    database/    the truth: ledger, totals and cursor in one transaction (PostgreSQL)
    board/       the ranking, rebuildable at any moment (Redis or Valkey)
    live/        WebSocket fan-out of the newest frame
    web/         the page and its scripts

Around the flow: ``config/`` reads files and environment, ``app/`` wires a role together,
``engines/`` and ``supervisor.py`` run everything on one machine, ``cli/`` is the command.
"""

__version__ = "0.1.0"
