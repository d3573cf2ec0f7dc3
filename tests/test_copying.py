"""The ledger's rows as we encode them, read back through the driver: any values, and they are the same."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deployment import Deployment
from scoreboard import copying
from scoreboard.book import Judged
from scoreboard.database import connect
from scoreboard.model import Accepted, Result, Update

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SELECT = f"SELECT {', '.join(copying.COLUMNS)} FROM events WHERE accept_no BETWEEN $1 AND $2 ORDER BY 2"  # noqa: S608
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_numbers = itertools.count(1)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
whole = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, 7 * 10**15).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
updates = st.builds(
    lambda number, **fields: Update(event_id=number.to_bytes(16, "big"), **fields),
    number=st.builds(lambda: next(_numbers)),
    user=texts,
    type=texts,
    reference=texts,
    points=whole,
    boards=st.lists(texts, max_size=4).map(tuple),
    principal=texts,
)
judgements = st.one_of(
    st.builds(Judged, st.sampled_from([*Result][:4]), st.none(), st.just(0), st.just(())),
    st.builds(Judged, st.just(Result.REJECTED), texts, st.just(0), st.just(()), st.none() | times),
)


@pytest.fixture(scope="module")
async def connection(deploy: Any) -> Any:
    deployment: Deployment = await deploy()
    found = await connect(deployment.database_url)
    yield found
    await found.close()


async def copy(connection: Connection, events: list[tuple[Accepted, Update, Judged]]) -> None:
    """Put rows into the ledger."""
    source: Any = memoryview(copying.rows(events))
    await connection.copy_to_table("events", columns=copying.COLUMNS, source=source, format="binary")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(st.tuples(updates, judgements, times), min_size=1, max_size=5))
async def test_what_is_encoded_is_what_is_read(connection: Connection, found: Any) -> None:
    first = next(_numbers)
    events = [(Accepted(first + n, at, entry), entry, judged) for n, (entry, judged, at) in enumerate(found)]
    for _ in events:
        next(_numbers)
    await copy(connection, events)
    assert [tuple(row) for row in await connection.fetch(SELECT, first, first + len(events) - 1)] == [
        (
            *(asyncpg.pgproto.pgproto.UUID(entry.event_id), accepted.accept_no, entry.user, entry.type),
            *(entry.reference, entry.principal, accepted.at, entry.points, list(entry.boards)),
            *(judged.result.value, judged.reason, judged.retry_at),
        )
        for accepted, entry, judged in events
    ]


@pytest.mark.parametrize("field", [{"points": 2**63}, {"user": "\udc00"}, {"reference": "a\0b"}])
async def test_what_the_database_cannot_hold_is_refused_and_nothing_is_written(
    connection: Connection, field: dict[str, Any]
) -> None:
    number = next(_numbers)
    fine = Update(number.to_bytes(16, "big"), "u", "t", "r", 1, ("main",), "p")
    entry = replace(fine, event_id=next(_numbers).to_bytes(16, "big"), **field)
    judged = Judged(Result.APPLIED, None, 1, ("main",))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(Exception, match=r"int too large|format requires|surrogates|0x00"):
        await copy(
            connection,
            [(Accepted(number + n, at, one), one, judged) for n, one in enumerate((fine, entry))],
        )
    assert await connection.fetch(SELECT, number, number + 1) == []
