"""Users and events in numbers, as if they had come through the log: written by the database itself.

The deployment is down meanwhile. The log's numbering and the cursor move on together, so that whatever comes
next comes after; the board is empty at the next start, and is built anew by the product.
"""

from __future__ import annotations

from pathlib import Path

from system import ends

from scoreboard.config import Environment, load
from scoreboard.engines import engines
from scoreboard.model import PLACES

AN_ENVELOPE = 500  # events
FILL_SECONDS = 3_600.0

# The n-th event is one of user n modulo users. Points are spread, so that scores are.
EVENTS = """
INSERT INTO events (event_id, accept_no, user_id, type, reference, points, boards, principal, at, outcome)
SELECT gen_random_uuid(), ($1::bigint + n / {an_envelope}) * {places} + n % {an_envelope},
       'user-' || n % $3::bigint, 'step', 'filled:' || ($1::bigint + n / {an_envelope}) || ':' || n,
       1 + n * 7919 % 1000, ARRAY['main'], 'filled', now(), 'applied'
FROM generate_series(0, $2::bigint - 1) AS n
"""
SCORES = """
INSERT INTO scores (board, period, user_id, score, reached, changed)
SELECT 'main', 'all', user_id, sum(points), max(accept_no), max(accept_no)
FROM events WHERE accept_no >= $1 GROUP BY user_id
ON CONFLICT (board, period, user_id) DO UPDATE
SET score = scores.score + excluded.score, reached = excluded.reached, changed = excluded.changed
"""


async def fill(home: Path, config: str, users: int, events: int) -> None:
    """Bring the deployment of a folder that is down to so many users and at least so many events."""
    file = home / "scoreboard.toml"
    file.write_text(config)
    async with engines(home / "data", Environment()) as urls, ends(urls, load(file, {})) as found:
        missing = max(events - await found.events(), 0)
        async with found.database.connection() as connection:
            # Each user has one event at least: the first that are filled in are of all of them in turn.
            missing = max(missing, users if await found.database.count_rows("main") < users else 0)
            if not missing:
                return
            first = (await found.queue.state()).last + 1
            last = first + (missing - 1) // AN_ENVELOPE
            async with connection.transaction():
                numbers = {"an_envelope": AN_ENVELOPE, "places": PLACES}
                await connection.execute(
                    EVENTS.format(**numbers), first, missing, users, timeout=FILL_SECONDS
                )
                await connection.execute(SCORES, first * PLACES, timeout=FILL_SECONDS)
                await connection.execute(
                    "INSERT INTO cursor VALUES (0, $1, $2, now()) ON CONFLICT (partition)"
                    " DO UPDATE SET last = excluded.last, last_at = excluded.last_at",
                    (await found.queue.state()).identity,
                    last,
                )
            for table in ("events", "scores"):
                await connection.execute(f"VACUUM ANALYZE {table}", timeout=FILL_SECONDS)
        await found.queue.trim(last)
        assert (await found.queue.state()).last == last
