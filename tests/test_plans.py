"""Applying looks at a key for each row that it touches, also by plans made when tables were empty.

PostgreSQL keeps the plan of a prepared statement. One that was made for an empty table and reads all of it
would go on reading all of it, batch after batch, until statistics are gathered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deployment import Deployment
from scoreboard.database import STATEMENTS, connect

EACH_BATCH = {
    "move_cursor": ("integer, text, bigint, timestamptz, bigint", "0, 'log', 1, now(), 0"),
    "known_events": ("uuid[]", "'{}'"),
    "planted": ("uuid[], integer", "'{}', 0"),
    "known_commands": ("uuid[]", "'{}'"),
    "users": ("text[]", "'{}'"),
    "scores": ("text[], text[]", "'{}', '{}'"),
    "known": ("text[], text[]", "'{}', '{}'"),
}


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read a table or an index."""
    if "Scan" in plan["Node Type"] and ("Relation Name" in plan or "Index Name" in plan):
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


@pytest.mark.parametrize("name", EACH_BATCH)
async def test_no_statement_of_a_batch_reads_a_whole_table(deployment: Deployment, name: str) -> None:
    types, values = EACH_BATCH[name]
    connection = await connect(deployment.database_url, applying=True)
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE looked_at ({types}) AS {STATEMENTS[name]}")
        explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at ({values})")
    finally:
        await connection.close()
    assert "Hash Join" not in explained
    assert "Merge Join" not in explained
    found = list(scans(json.loads(explained)[0]["Plan"]))
    assert found
    for node in found:
        assert "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan", node
