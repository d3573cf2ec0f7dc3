"""For the tests of what cannot be applied: events put into the log by hand, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats

from deployment import Deployment, until
from scoreboard import dead_letters, metrics
from scoreboard.board import Board
from scoreboard.database import Database
from scoreboard.envelope import Sealer, encode_entry
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Entry, Update
from scoreboard.verify import differences_of


def event(user: str, unique: str, points: int = 1, kind: str = "point") -> Update:
    event_id = event_id_of_action(user, f"{kind}:{unique}").bytes
    return Update(event_id, user, kind, unique, points, ("main",), "key:k")


async def publish(deployment: Deployment, envelopes: Sequence[Sequence[Entry]], secret: str = "") -> None:
    """Put envelopes into the log, sealed as the door seals them."""
    sealer = Sealer(secret or deployment.environment.secret or "")
    client = await nats.connect(deployment.environment.queue)
    stream = (await client.jetstream().stream_info(deployment.name)).config
    subject = str((stream.subjects or [""])[0]).replace("*", "0")
    for entries in envelopes:
        body = sealer.seal(deployment.config.catalogue, "", [], [encode_entry(one) for one in entries])
        await client.jetstream().publish(subject, body)
    await client.close()


async def audit(deployment: Deployment, expected: Sequence[Update]) -> None:
    """These and no others are in the ledger, in this order; ledger = totals = board, soon."""
    async with Database.open(deployment.database_url) as database, deployment.database() as connection:

        async def applied() -> bool:
            return int(await connection.fetchval("SELECT count(*) FROM events")) >= len(expected)

        await until(applied)
        rows = await connection.fetch("SELECT event_id, outcome FROM events ORDER BY accept_no")
        assert [row["event_id"].bytes for row in rows] == [one.event_id for one in expected]
        assert {row["outcome"] for row in rows} == {"applied"}
        board = Board(deployment.environment.board, deployment.config)

        async def same() -> bool:
            return not await differences_of(deployment.config, database, board)

        await until(same)
        await board.close()


async def counted(waiting: int) -> None:
    """The gauge says how many letters wait; the worker sets it after it has answered."""

    async def told() -> bool:
        return bool(metrics.DEAD_WAITING._value.get() == waiting)

    await until(told)


async def letters(deployment: Deployment) -> list[dead_letters.Letter]:
    async with Database.open(deployment.database_url) as database:
        return await dead_letters.letters(database, 100, settled=True)


@asynccontextmanager
async def refusing(deployment: Deployment, user: str) -> AsyncIterator[None]:
    """While the block runs the ledger takes no events of this user."""
    async with deployment.database() as connection:
        await connection.execute(f"ALTER TABLE events ADD CONSTRAINT c CHECK (user_id <> '{user}') NOT VALID")
        try:
            yield
        finally:
            await connection.execute("ALTER TABLE events DROP CONSTRAINT c")


async def differences(deployment: Deployment) -> list[str]:
    """Between ledger and totals."""
    async with Database.open(deployment.database_url) as database:
        return [str(row) for row in await database.unsummed()]
