"""What cannot be applied is set aside alone, and nothing else waits for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from crashing import ISOLATING
from deployment import Deployment, bearer, submit
from poisoning import audit, counted, event, letters, publish
from processes import settings_of, started
from scoreboard import dead_letters
from scoreboard.book import Book
from scoreboard.database import translated
from scoreboard.errors import BadData, DatabaseUnavailable, Fenced
from scoreboard.model import SCORE_LIMIT, Accepted, Entry, Rename, Update

HERE = Path(__file__).parent
GOOD = 500
POISON: list[Entry] = [
    event("nul", "a\0b"),  # 22021, from the server
    event("n\0l", "1"),
    event("rich", "1", SCORE_LIMIT + 1),  # 23514
    event("richer", "1", 2**63),  # no bigint: the driver refuses it
    event("".join(map(chr, range(256, 9_000))), "1"),  # 54000: too long for an index
    Rename(b"r" * 16, "ann", "n\0me", "key:k"),
    event("a\nb", "1"),  # the lists of the totals are lines: 23502
]


def planted() -> list[list[Entry]]:
    """500 good events in envelopes of 50; poison first, in the middle, last, two together, and one alone."""
    good = [event(f"u{n % 7}", str(n)) for n in range(GOOD)]
    envelopes: list[list[Entry]] = [list(good[n : n + 50]) for n in range(0, GOOD, 50)]
    envelopes[0].insert(0, POISON[0])
    envelopes[2][25:25] = POISON[1:3]
    envelopes[5].append(POISON[3])
    envelopes[7].insert(10, POISON[4])
    envelopes.insert(8, [POISON[5]])
    envelopes[9].append(POISON[6])
    return envelopes


def good_of(envelopes: Sequence[Sequence[Entry]]) -> list[Update]:
    return [one for part in envelopes for one in part if isinstance(one, Update) and one not in POISON]


async def test_poison_is_set_aside_alone_wherever_it_stands(deployment: Deployment) -> None:
    envelopes = planted()
    async with deployment.serving() as client:
        await publish(deployment, envelopes)
        async with deployment.working():
            await audit(deployment, good_of(envelopes))
            later = (await submit(client, "nul", "point:2")).json()
            assert (later["status"], later["boards"]["main"]["score"]) == ("applied", 1)
        found = await letters(deployment)
        assert [one.entry for one in found] == POISON
        assert {one.tries for one in found} == {dead_letters.TRIES}
        assert [one.settled for one in found] == [None] * len(POISON)
        assert all(one.reason for one in found)
        state = (await client.get(f"/events/{found[0].event_id}")).json()
        assert (state["status"], state["userId"]) == ("dead", "nul")
        other = await client.get(f"/events/{found[0].event_id}", headers=bearer(deployment.token("ann")))
        assert other.json()["code"] == "unknown_event"
        await counted(len(POISON))
        async with deployment.database() as connection:
            last = await connection.fetchval("SELECT last FROM cursor")
            assert last == await connection.fetchval("SELECT max(accept_no) / 1024 FROM events")


@pytest.mark.parametrize("point", ISOLATING)
async def test_a_worker_that_is_killed_while_isolating_leaves_nothing_half_done(
    deployment: Deployment, tmp_path: Path, point: str
) -> None:
    envelopes = planted()
    async with deployment.serving():
        await publish(deployment, envelopes)
        program = (sys.executable, str(HERE / "crashing.py"), point)
        async with started(cwd=tmp_path, program=program, settings=settings_of(deployment)) as worker:
            assert await worker.process.wait() == -signal.SIGKILL
        assert await letters(deployment) == []
        async with deployment.working():
            await audit(deployment, good_of(envelopes))
        assert [one.entry for one in await letters(deployment)] == POISON


async def test_an_exception_where_an_event_is_judged_is_that_events_own(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Book.judge

    def failing(book: Book, accepted: Accepted) -> None:
        if accepted.entry.user == "eve":
            raise ZeroDivisionError("of all things")
        judge(book, accepted)

    monkeypatch.setattr(Book, "judge", failing)
    async with deployment.running() as client:
        updates = [{"userId": user, "actionId": "point:1"} for user in ("ann", "eve", "bob")]
        results = (await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})).json()
        assert [one["status"] for one in results["results"]] == ["applied", "dead", "applied"]
        (letter,) = await letters(deployment)
        assert letter.reason == "ZeroDivisionError: of all things"


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DiskFullError("no space left"),
        asyncpg.OutOfMemoryError("out of memory"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.SerializationError("try again"),
        asyncpg.UndefinedColumnError("ours"),
        ConnectionResetError(),
        TimeoutError(),
        Fenced(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_is_away_or_full_is_not_poison(error: Exception) -> None:
    with pytest.raises(Exception) as raised, translated():  # noqa: PT011  which one is asked below
        raise error
    assert not dead_letters.blames(raised.value)
    assert isinstance(raised.value, DatabaseUnavailable | type(error))
    assert dead_letters.blames(BadData())
    assert dead_letters.blames(KeyError())
