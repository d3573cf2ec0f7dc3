"""The applying transaction against a plain model: any batches, any repetition, the same ledger."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deployment import Deployment
from scoreboard import ledger
from scoreboard.book import Applied, Memory
from scoreboard.database import STATEMENTS, Database, connect
from scoreboard.dead_letters import DeadLetter
from scoreboard.errors import Fenced, LogMismatch
from scoreboard.event_ids import event_id_of_action
from scoreboard.ledger import Batch, Terms
from scoreboard.model import PLACES, SCORE_LIMIT, Accepted, Entry, Rename, Settle, Update
from scoreboard.queue import State

BOARDS = ("main", "wins")
TERMS = Terms(BOARDS, {})
AT = datetime(2026, 1, 1, tzinfo=UTC)


class Ledger:
    """An applying session, and the log's sequence that it has come to."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self.sequence = 0
        self.memory = Memory()

    def batch(self, entries: list[Entry], *, inbox: str = "") -> Batch:
        """The next message of the log, as a batch."""
        sequence = self.sequence + 1
        accepted = [
            Accepted(sequence * PLACES + place, AT, entry, inbox) for place, entry in enumerate(entries)
        ]
        return Batch(0, "log", self.sequence, sequence, AT, accepted)

    async def apply(self, entries: list[Entry], *, inbox: str = "") -> Applied:
        """Apply the next message."""
        applied = await ledger.apply(self.connection, self.batch(entries, inbox=inbox), TERMS, self.memory)
        self.sequence += 1
        return applied


def log(identity: str = "log", *, first: int = 1, last: int = 0) -> State:
    """A log as the queue tells it."""
    return State(identity=identity, partitions=1, first=first, last=last, size=0, bound=0)


@pytest.fixture(scope="module")
async def book(deploy: Any) -> Any:
    deployment: Deployment = await deploy()
    connection = await connect(deployment.database_url)
    await ledger.position(connection, 0, log())
    yield Ledger(connection)
    await connection.close()


def update(
    user: str, number: int, points: int, boards: tuple[str, ...] = BOARDS, name: str | None = None
) -> Update:
    action = f"win:{number}"
    return Update(
        event_id_of_action(user, action).bytes, user, "win", str(number), points, boards, "key:k", name
    )


class Model:
    """What the ledger should say, the plainest way."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.scores: dict[tuple[str, str], tuple[int, int]] = {}
        self.names: dict[str, str] = {}
        self.applied = self.rejected = 0

    def apply(self, accept_no: int, entry: Entry) -> None:
        if isinstance(entry, Rename):
            self.names[entry.user] = entry.name
            return
        assert isinstance(entry, Update)
        if entry.event_id in self.seen:
            return
        self.seen.add(entry.event_id)
        sums = [self.scores.get((board, entry.user), (0, 0))[0] + entry.points for board in entry.boards]
        if any(abs(total) > SCORE_LIMIT for total in sums):
            self.rejected += 1
            return
        self.applied += 1
        for board, total in zip(entry.boards, sums, strict=True):
            _, reached = self.scores.get((board, entry.user), (0, accept_no))
            self.scores[board, entry.user] = (total, accept_no if entry.points else reached)
        if entry.name is not None:
            self.names[entry.user] = entry.name


@pytest.fixture(scope="module", autouse=True)
def few_look_ups() -> Iterator[None]:
    """Events are trusted to be new again after two batches without any that was not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scoreboard.book.LOOK_UPS", 2)
        yield


points = st.one_of(st.integers(-20, 20), st.sampled_from([SCORE_LIMIT, -SCORE_LIMIT, SCORE_LIMIT - 5]))
steps = st.tuples(
    st.sampled_from(["ann", "bob", "cid"]),
    st.integers(0, 12),
    points,
    st.sampled_from([BOARDS, ("main",), ()]),
    st.sampled_from([None, None, "N1", "N2"]),
)
_examples = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(steps, min_size=1, max_size=8), min_size=1, max_size=8), trusting=st.booleans()
)
async def test_totals_are_the_sum_of_the_ledger_however_it_is_cut_and_repeated(
    book: Ledger, batches: Any, trusting: bool
) -> None:
    book.memory = Memory(trusting=trusting)
    prefix = f"e{next(_examples)}-"
    model = Model()
    fixed: dict[tuple[str, int], Update] = {}
    told: dict[tuple[str, str], int] = {}
    for steps_of_batch in batches:
        entries: list[Entry] = []
        for user, number, worth, boards, name in steps_of_batch:
            # The same action is worth the same: what it is worth was decided when it was first accepted.
            key = (prefix + user, number)
            entries.append(fixed.setdefault(key, update(*key, worth, boards, name)))
        for accepted in book.batch(entries).accepted:
            model.apply(accepted.accept_no, accepted.entry)
        applied = await book.apply(entries)
        for row in applied.rows:
            assert row.changed > told.get((row.board, row.user), 0), "a board never gets an older row later"
            told[row.board, row.user] = row.changed
            assert row.score is not None
    found = await book.connection.fetch("SELECT * FROM scores WHERE user_id LIKE $1", prefix + "%")
    assert {(r["board"], r["user_id"]): (r["score"], r["reached"]) for r in found} == model.scores
    outcomes = await book.connection.fetch(
        "SELECT outcome, count(*) FROM events WHERE user_id LIKE $1 GROUP BY outcome", prefix + "%"
    )
    assert dict(outcomes) == {  # type: ignore[arg-type]
        name: n for name, n in (("applied", model.applied), ("rejected", model.rejected)) if n
    }
    names = await book.connection.fetch("SELECT user_id, name FROM users WHERE user_id LIKE $1", prefix + "%")
    assert dict(names) == model.names  # type: ignore[arg-type]


async def test_a_batch_that_comes_again_is_fenced_and_changes_nothing(book: Ledger) -> None:
    batch = book.batch([update("fenced", 1, 5)])
    await ledger.apply(book.connection, batch, TERMS)
    book.sequence += 1
    with pytest.raises(Fenced):
        await ledger.apply(book.connection, batch, TERMS)
    assert (
        await book.connection.fetchval("SELECT score FROM scores WHERE user_id = 'fenced' AND board = 'main'")
        == 5
    )


async def test_the_outcome_tells_what_happened_and_what_had_happened(book: Ledger) -> None:
    same = update("told", 1, 7)
    applied = await book.apply([same, same, update("told", 2, SCORE_LIMIT)], inbox="i")
    first, second, third = (outcome for _, outcome in applied.outcomes)
    assert (first.status, first.duplicate, first.points) == ("applied", False, 7)
    assert (second.status, second.duplicate) == ("applied", True)
    assert (third.status, third.reason) == ("rejected", "out_of_range")
    assert first.boards is not None
    assert first.boards["main"].score == 7
    later = (await book.apply([same], inbox="i")).outcomes[0][1]
    assert (later.duplicate, later.boards and later.boards["main"].score) == (True, 7)


async def test_who_is_banned_scores_nothing_from_then_on(book: Ledger) -> None:
    await book.apply([update("bad", 1, 5)])
    await book.connection.execute("INSERT INTO users (user_id, banned, changed) VALUES ('bad', true, 1)")
    book.memory.forget()  # somebody else has written
    applied = await book.apply([update("bad", 2, 5)], inbox="i")
    assert applied.outcomes[0][1].reason == "banned"
    assert applied.rows == []


async def test_a_command_that_comes_again_does_nothing_again(book: Ledger) -> None:
    await book.apply([update("named", 1, 1), Rename(b"1" * 16, "named", "First", "p")])
    await book.apply([Rename(b"2" * 16, "named", "Second", "p")])
    applied = await book.apply([Rename(b"1" * 16, "named", "First", "p")])
    assert applied.rows == []
    assert await book.connection.fetchval("SELECT name FROM users WHERE user_id = 'named'") == "Second"


async def test_a_new_name_goes_to_every_board_of_its_user(book: Ledger) -> None:
    await book.apply([update("wide", 1, 1)])
    applied = await book.apply([Rename(b"3" * 16, "wide", "Wide", "p")])
    assert {(row.board, row.name, row.score) for row in applied.rows} == {
        ("main", "Wide", 1),
        ("wins", "Wide", 1),
    }


async def test_what_is_set_aside_moves_the_cursor_and_is_kept_whole(book: Ledger) -> None:
    sequence = book.sequence + 1
    dead = [DeadLetter(sequence * PLACES, AT, "the seal is not ours", b"\x00forged")]
    await ledger.apply(book.connection, Batch(0, "log", book.sequence, sequence, AT, [], dead), TERMS)
    book.sequence = sequence
    kept = await book.connection.fetchrow(
        "SELECT * FROM dead_letters WHERE accept_no = $1", sequence * PLACES
    )
    assert kept is not None
    assert kept["body"] == b"\x00forged"


async def test_a_log_that_is_not_ours_or_has_lost_something_is_refused(book: Ledger) -> None:
    last = book.sequence
    with pytest.raises(LogMismatch, match=r"reading the log log, up to .*; the queue now holds other"):
        await ledger.position(book.connection, 0, log("other", last=last))
    with pytest.raises(LogMismatch, match="is gone"):
        await ledger.position(book.connection, 0, log(first=last + 2, last=last + 2))
    with pytest.raises(LogMismatch, match="older copy"):
        await ledger.position(book.connection, 0, log(last=last - 1))
    assert (await ledger.position(book.connection, 0, log(first=last + 1, last=last))).last == last


async def test_verify_finds_a_total_that_is_not_the_sum(deploy: Any) -> None:
    deployment: Deployment = await deploy()
    async with deployment.database() as connection, Database.open(deployment.database_url) as database:
        await ledger.position(connection, 0, log())
        one = Ledger(connection)
        await one.apply([update("ann", 1, 5), update("bob", 1, 5)])
        assert await database.unsummed() == []
        await connection.execute("UPDATE scores SET score = 6 WHERE user_id = 'ann' AND board = 'main'")
        await connection.execute("UPDATE scores SET reached = 1 WHERE user_id = 'bob' AND board = 'wins'")
        await connection.execute("INSERT INTO scores VALUES ('main', 'all', 'ghost', 1, 1, 1)")
        found = {(row["board"], row["user_id"]) for row in await database.unsummed()}
        assert found == {("main", "ann"), ("wins", "bob"), ("main", "ghost")}


async def test_events_are_looked_up_from_the_first_that_came_twice_until_there_are_no_more(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.memory = Memory(trusting=True)
    asked: list[str] = []
    fetch, execute = asyncpg.Connection.fetch, asyncpg.Connection.execute

    async def fetched(self: Any, query: str, *args: Any, **settings: Any) -> Any:
        asked.extend(["looked up"] if query == STATEMENTS["known_events"] else [])
        return await fetch(self, query, *args, **settings)

    async def executed(self: Any, query: str, *args: Any, **settings: Any) -> Any:
        asked.extend(["begun"] if query == STATEMENTS["move_cursor"] else [])
        return await execute(self, query, *args, **settings)

    monkeypatch.setattr(asyncpg.Connection, "fetch", fetched)
    monkeypatch.setattr(asyncpg.Connection, "execute", executed)

    async def done(*numbers: int) -> list[str]:
        asked.clear()
        applied = await book.apply([update("twice", number, 1) for number in numbers])
        assert sum(applied.counts.values()) == len(numbers)
        return list(asked)

    assert await done(1, 1, 2) == ["begun"]  # within one batch it is seen
    assert await done(2, 3) == ["begun", "begun", "looked up"]
    assert await done(4) == ["begun", "looked up"]
    assert await done(4, 5) == ["begun", "looked up"]  # again: the count begins anew
    assert await done(6) == ["begun", "looked up"]
    assert await done(7) == ["begun", "looked up"]
    assert await done(8) == ["begun"]
    row = await book.connection.fetchrow(
        "SELECT score, reached FROM scores WHERE user_id = 'twice' AND board = 'main'"
    )
    assert row is not None
    assert (row["score"], row["reached"]) == (8, book.sequence * PLACES)


async def test_a_letter_is_settled_by_a_command_that_is_read_with_it(book: Ledger) -> None:
    book.memory = Memory()
    poison = replace(update("dead", 1, 1), reference="\0")  # no text of PostgreSQL's holds it
    letter = (book.sequence + 1) * PLACES + 1
    drop = Settle(bytes(16), letter, "drop", "key:k", user="dead")
    batch = book.batch([update("dead", 2, 1), poison, drop, update("dead", 3, 1)])
    applied = await ledger.apply(book.connection, batch, TERMS, book.memory, isolating=True)
    book.sequence += 1
    assert applied.counts == {"applied": 2, "dead": 1, "settled": 1}
    row = await book.connection.fetchrow("SELECT settled FROM dead_letters WHERE accept_no = $1", letter)
    assert row is not None
    assert row["settled"] == "dropped"


async def test_an_event_that_was_revoked_before_it_came_counts_nothing_where_events_are_taken_for_new(
    book: Ledger,
) -> None:
    book.memory = Memory(trusting=True)
    revoked = update("early", 1, 5)
    planted = "INSERT INTO planted (event_id, partition, accept_no) VALUES ($1, 0, 1)"
    await book.connection.execute(planted, event_id_of_action("early", "win:1"))
    applied = await book.apply([revoked, update("early", 2, 3)])
    assert applied.counts == {"revoked": 1, "applied": 1}
    scores = await book.connection.fetch("SELECT score FROM scores WHERE user_id = 'early'")
    assert [row["score"] for row in scores] == [3] * len(BOARDS)


async def test_what_a_session_remembers_is_bounded_over_all_boards(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.memory = Memory()
    monkeypatch.setattr("scoreboard.book.REMEMBERED", 3)
    await book.apply([update("one", 1, 1)])
    assert set(book.memory.users) == {"one"}
    await book.apply([update("two", 1, 1)])  # two users with two places each
    assert not book.memory.users
    assert not book.memory.places
