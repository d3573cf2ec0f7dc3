"""What has counted so far, as far as rules ask: read for a batch, counted anew where needed, and kept.

In come the updates of a batch, out goes a ``Count`` for each user and type that has rules. The table
``counts`` is a digest of the ledger: a row that is missing, or was made under other windows, is counted anew.
So a rule that is added today knows what counted yesterday, and whoever amends the ledger drops the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from scoreboard.database import STATEMENTS
from scoreboard.model import Update
from scoreboard.rules import Count, Rules, window_of

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

Pair = tuple[str, str]
"""A user and a type."""


async def begin(connection: Connection, rules: Mapping[str, Rules]) -> None:
    """Before the first batch under these rules: drop what has been counted of types that have none now."""
    await connection.execute(STATEMENTS["forget_other_counts"], sorted(rules))


async def read(
    connection: Connection, updates: Iterable[Update], rules: Mapping[str, Rules]
) -> dict[Pair, Count]:
    """What has counted for these users of these types. Only for types with rules."""
    pairs = sorted({(update.user, update.type) for update in updates if update.type in rules})
    if not pairs:
        return {}
    found: dict[Pair, Count] = {}
    for user, kind, text, last_at, in_window, in_hour in await connection.fetch(
        STATEMENTS["counts"], *_columns(pairs)
    ):
        if text == rules[kind].text:
            found[user, kind] = Count(last_at, in_window, in_hour)
    missing = [pair for pair in pairs if pair not in found]
    if missing:
        found |= await _counted(connection, missing, rules)
    return found


async def _counted(
    connection: Connection, pairs: Sequence[Pair], rules: Mapping[str, Rules]
) -> dict[Pair, Count]:
    """The ledger's own answer."""
    found = {pair: Count() for pair in pairs}
    since, hours = [], []
    counted = await connection.fetch(STATEMENTS["last_counted"], *_columns(pairs))
    for user, kind, last_at in counted:
        found[user, kind].last_at = last_at
        rule = rules[kind]
        since.append(window_of(rule.window, last_at, rule.zone)[0])
        hours.append(window_of("hour", last_at, rule.zone)[0])
    if counted:
        columns = _columns([(user, kind) for user, kind, _ in counted])
        for user, kind, in_window, in_hour in await connection.fetch(
            STATEMENTS["counted_since"], *columns, since, hours
        ):
            found[user, kind].in_window, found[user, kind].in_hour = in_window, in_hour
    return found


async def write(connection: Connection, counts: Mapping[Pair, Count], rules: Mapping[str, Rules]) -> None:
    """Keep what the batch counted, in one order of locking."""
    rows = sorted((pair, count) for pair, count in counts.items() if count.touched)
    if rows:
        await connection.execute(
            STATEMENTS["upsert_counts"],
            *_columns([pair for pair, _ in rows]),
            [rules[kind].text for (_, kind), _ in rows],
            *([c.last_at for _, c in rows], [c.in_window for _, c in rows], [c.in_hour for _, c in rows]),
        )


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [user for user, _ in pairs], [kind for _, kind in pairs]
