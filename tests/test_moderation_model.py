"""Rules, bans, revocations and restores against a plain model: totals, ranks and explanations agree."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployment import Deployment
from scoreboard import counting, history, ledger, refresh
from scoreboard.board import Batch as BoardBatch
from scoreboard.board import Board
from scoreboard.config import Action, Config, Quarantine
from scoreboard.config import Board as BoardSettings
from scoreboard.database import Database, connect
from scoreboard.event_ids import event_id_of_action
from scoreboard.ledger import Batch, Terms
from scoreboard.model import PLACES, Accepted, Amend, Entry, Mark, Update, Verdict
from scoreboard.queue import State
from scoreboard.rules import rules_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = {
    "win": Action(points=5),
    "free": Action(points=0),
    "boss": Action(points=10, cooldown="10s", limit="3/minute", quarantine=Quarantine(points_per_hour=15)),
    "first": Action(points=7, once=True),
}
CONFIG = Config(
    actions=ACTIONS, boards={"main": BoardSettings(), "wins": BoardSettings(actions=("win", "boss"))}
)
RULES = rules_of(ACTIONS, "UTC")
STANDING = ("applied", "quarantined")


class Event:
    """One event of the model."""

    def __init__(self, accepted: Accepted, entry: Update) -> None:
        self.id, self.user, self.type, self.points = entry.event_id, entry.user, entry.type, entry.points
        self.boards, self.principal = entry.boards, entry.principal
        self.accept_no, self.at = accepted.accept_no, accepted.at
        self.states: list[str] = []
        """All states it has had, the newest last."""
        self.judged = True

    @property
    def state(self) -> str:
        return self.states[-1]


class Model:
    """What everybody should see, the plainest way: judge by looking at all events each time."""

    def __init__(self) -> None:
        self.events: dict[bytes, Event] = {}
        self.planted: set[bytes] = set()
        self.marks: dict[tuple[str, str], bool] = {}

    def apply(self, accepted: Accepted) -> None:
        entry = accepted.entry
        if isinstance(entry, Mark):
            self.marks[entry.user, entry.what] = entry.on
        elif isinstance(entry, Amend):
            self._amend(entry)
        elif isinstance(entry, Update) and entry.event_id not in self.events:
            event = Event(accepted, entry)
            event.states.append(self._judge(event))
            self.events[event.id] = event

    def _judge(self, event: Event) -> str:
        if event.id in self.planted:
            return "revoked"
        if self.marks.get((event.user, "banned")):
            return "rejected"
        counted = [e for e in self.events.values() if (e.user, e.type) == (event.user, event.type)]
        counted = [e for e in counted if e.state in STANDING]
        if event.type == "first" and counted:
            return "rejected"
        if event.type == "boss":
            if any(event.at < e.at + timedelta(seconds=10) for e in counted):
                return "rejected"
            if sum(e.at.replace(second=0) == event.at.replace(second=0) for e in counted) >= 3:
                return "rejected"
            hour = event.at.replace(minute=0, second=0)
            points = sum(e.points for e in counted if e.state == "applied" and e.at >= hour)
            if points + event.points > 15:
                return "quarantined"
        return "applied"

    def _amend(self, entry: Amend) -> None:
        known = False
        for event in self.events.values():
            if entry.event is not None and event.id != entry.event:
                continue
            known = known or entry.event is not None
            if entry.user and event.user != entry.user:
                continue
            if entry.key and event.principal != f"key:{entry.key}":
                continue
            if entry.since is not None and event.at < entry.since:
                continue
            if entry.until is not None and event.at >= entry.until:
                continue
            if entry.verdict is Verdict.REVOKE and event.state in STANDING:
                event.states.append("revoked")
            elif entry.verdict is Verdict.RESTORE and event.state == "revoked":
                if len(event.states) == 1 and entry.event is None:
                    continue  # it was never judged
                before = event.states[-2] if len(event.states) > 1 else "applied"
                event.states.append(before if before in STANDING else "applied")
            elif entry.verdict is Verdict.RELEASE and event.state == "quarantined":
                event.states.append("applied")
            elif entry.verdict is Verdict.REJECT and event.state == "quarantined":
                event.states.append("rejected")
        if entry.event is not None:
            if entry.verdict is Verdict.REVOKE and not known:
                self.planted.add(entry.event)
            elif entry.verdict is Verdict.RESTORE:
                self.planted.discard(entry.event)

    def totals(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(board, user): (score, reached)."""
        found: dict[tuple[str, str], list[Event]] = {}
        for event in self.events.values():
            for board in event.boards if event.state == "applied" else ():
                found.setdefault((board, event.user), []).append(event)
        return {
            key: (
                sum(e.points for e in events),
                max([e.accept_no for e in events if e.points], default=min(e.accept_no for e in events)),
            )
            for key, events in found.items()
        }

    def shown(self, board: str) -> list[tuple[str, int]]:
        """The board from the top, without the hidden."""
        rows = [
            (-score, reached, user)
            for (name, user), (score, reached) in self.totals().items()
            if name == board and not self.marks.get((user, "hidden"))
        ]
        return [(user, -score) for score, _, user in sorted(rows)]


class World:
    """A ledger, a board that follows it, and the log's sequence."""

    def __init__(self, connection: Any, database: Database, board: Board) -> None:
        self.connection, self.database, self.board = connection, database, board
        self.sequence = 0

    async def apply(self, entries: list[Entry], at: datetime) -> list[Accepted]:
        """Apply the next message, and tell the boards."""
        self.sequence += 1
        accepted = [Accepted(self.sequence * PLACES + n, at, entry, "i") for n, entry in enumerate(entries)]
        batch = Batch(0, "log", self.sequence - 1, self.sequence, at, accepted)
        terms = Terms(tuple(CONFIG.boards), RULES)
        applied = await ledger.apply(self.connection, batch, terms)
        upto = (self.sequence + 1) * PLACES - 1
        batches = [
            BoardBatch(board, [row for row in applied.rows if row.board == board], 0, None, upto)
            for board in CONFIG.boards
        ]
        for answer in await self.board.apply(batches):
            assert isinstance(answer, dict)
        return accepted


@pytest.fixture(scope="module")
async def world(deploy: Any) -> Any:
    deployment: Deployment = await deploy(CONFIG)
    connection = await connect(deployment.database_url)
    board = Board(deployment.environment.board, deployment.config)
    async with Database.open(deployment.database_url) as database:
        await ledger.position(connection, 0, State("log", 1, 1, 0, 0, 0))
        for name in CONFIG.boards:
            await refresh.rebuild(database, board, name)
        yield World(connection, database, board)
    await board.close()
    await connection.close()


users = st.sampled_from(["ann", "bob"])
numbers = st.integers(0, 3)
types, keys = st.sampled_from([*ACTIONS, "boss", "boss"]), st.sampled_from("kl")
updates = st.tuples(st.just("update"), users, types, numbers, keys)
marks = st.tuples(st.just("mark"), users, st.sampled_from(["banned", "hidden"]), st.booleans())
amends = st.tuples(
    st.just("amend"),
    st.sampled_from([*Verdict, Verdict.REVOKE]),
    st.sampled_from(["event", "event", "user", "key", "since", "until"]),
    users,
    st.sampled_from(list(ACTIONS)),
    numbers,
    st.sampled_from("kl"),
)
steps = st.one_of(updates, updates, updates, marks, amends)
messages = st.lists(
    st.tuples(st.integers(0, 40), st.lists(steps, min_size=1, max_size=6)), min_size=1, max_size=10
)
_examples = itertools.count()
_commands = itertools.count(1)


def entry_of(step: Any, prefix: str, at: datetime) -> Entry:
    kind, *rest = step
    command_id = next(_commands).to_bytes(16, "big")
    if kind == "update":
        user, action, number, key = rest
        user, name = prefix + user, f"{action}:{number}"
        event_id = event_id_of_action(user, name).bytes
        points, boards = ACTIONS[action].points, CONFIG.boards_of(action)
        return Update(event_id, user, action, str(number), points, boards, f"key:{prefix}{key}")
    if kind == "mark":
        user, what, on = rest
        return Mark(command_id, prefix + user, what, on, "key:admin", "because")
    verdict, selector, user, action, number, key = rest
    user = prefix + user
    chosen: dict[str, Any] = {"user": user}
    if selector == "event":
        chosen = {"event": event_id_of_action(user, f"{action}:{number}").bytes}
    elif selector == "key":
        chosen = {"key": prefix + key}
    elif selector == "since":
        chosen["since"] = at - timedelta(seconds=30)
    elif selector == "until":
        chosen["until"] = at - timedelta(seconds=10)
    return Amend(command_id, command_id, verdict, "key:admin", "because", **chosen)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=messages)
async def test_whatever_is_revoked_banned_and_restored_everything_agrees(world: World, log: Any) -> None:
    prefix = f"e{next(_examples)}-"
    model, at = Model(), BEGIN
    for pause, steps_of_message in log:
        at += timedelta(seconds=pause)
        for accepted in await world.apply([entry_of(step, prefix, at) for step in steps_of_message], at):
            model.apply(accepted)
    connection = world.connection
    rows = await connection.fetch("SELECT * FROM scores WHERE user_id LIKE $1 AND standing", prefix + "%")
    assert {(r["board"], r["user_id"]): (r["score"], r["reached"]) for r in rows} == model.totals()
    assert await world.database.unsummed() == []

    states = await connection.fetch("SELECT event_id, state FROM states WHERE user_id LIKE $1", prefix + "%")
    assert {row["event_id"].bytes: row["state"] for row in states} == {
        event.id: event.state for event in model.events.values()
    }

    for name in CONFIG.boards:
        page = await world.board.page(name, limit=1000)
        assert page is not None
        ours = [(line.user_id, line.score) for line in page.top if line.user_id.startswith(prefix)]
        assert ours == model.shown(name)
        assert [line.rank for line in page.top] == list(range(1, len(page.top) + 1)), "ranks close up"

    # What the rules go by is what the ledger says, whether it was kept or counted anew.
    found = await counting.read(connection, [e for e in _updates(prefix) if e.type in RULES], RULES)
    fresh = await counting._counted(connection, sorted(found), RULES)
    assert {k: (c.last_at, c.in_window, c.in_hour) for k, c in found.items() if c.last_at} == {
        k: (c.last_at, c.in_window, c.in_hour) for k, c in fresh.items() if c.last_at
    }

    for user in (prefix + "ann", prefix + "bob"):
        told = await explained(world.database, user)
        assert [(e.event_id, e.outcome) for e in told if e.amends is None] == [
            (str(UUID(bytes=e.id)), e.states[0])
            for e in sorted(model.events.values(), key=lambda e: -e.accept_no)
            if e.user == user
        ]
        newest: dict[str, int] = {}
        for one in told:
            for board, score in one.boards.items():
                newest.setdefault(board, score.score)
        totals = {board: score for (board, who), (score, _) in model.totals().items() if who == user}
        assert {board: score for board, score in newest.items() if score} == {
            board: score for board, score in totals.items() if score
        }


async def explained(database: Database, user: str) -> list[history.HistoryRow]:
    """A user's whole history, in parts of three; each row adds its change to the score of the one before."""
    told: list[history.HistoryRow] = []
    cursor = None
    while True:
        part = await history.of_user(database, user, 3, cursor, who=True)
        told += part.events
        cursor = part.next
        if cursor is None:
            break
    scores: dict[str, int] = {}
    for one in reversed(told):
        for board, score in one.boards.items():
            assert score.score == scores.get(board, 0) + score.change
            scores[board] = score.score
    return told


def _updates(prefix: str) -> list[Update]:
    return [
        entry
        for user in ("ann", "bob")
        for action in ACTIONS
        if isinstance(entry := entry_of(("update", user, action, 0, "k"), prefix, BEGIN), Update)
    ]
