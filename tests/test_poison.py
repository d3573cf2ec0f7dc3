"""What cannot be applied is set aside alone, nothing else waits for it, and an operator decides about it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import nats
import pytest

from conftest import Deploy
from crashing import ISOLATING
from deployment import Deployment, bearer, submit, until
from processes import command, settings_of, started
from scoreboard import dead_letters, metrics
from scoreboard.app import Settings
from scoreboard.board import Board
from scoreboard.book import Book
from scoreboard.config import Action, Config
from scoreboard.database import Database, translated
from scoreboard.envelope import Sealer, encode_entry
from scoreboard.errors import BadData, DatabaseUnavailable, Fenced
from scoreboard.event_ids import event_id_of_action
from scoreboard.group_commit import partition_of
from scoreboard.model import PLACES, SCORE_LIMIT, Accepted, Entry, Rename, Scope, Update
from scoreboard.verify import differences_of
from test_adoption import adopt, divided, jetstream

HERE = Path(__file__).parent
GOOD = 500


def event(user: str, unique: str, points: int = 1, kind: str = "point") -> Update:
    event_id = event_id_of_action(user, f"{kind}:{unique}").bytes
    return Update(event_id, user, kind, unique, points, ("main",), "key:k")


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


async def letters(deployment: Deployment) -> list[dead_letters.Letter]:
    async with Database.open(deployment.database_url) as database:
        return await dead_letters.letters(database, 100, settled=True)


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
        assert metrics.DEAD_WAITING._value.get() == len(POISON)
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


@asynccontextmanager
async def refusing(deployment: Deployment, user: str) -> AsyncIterator[None]:
    """While the block runs the ledger takes no events of this user."""
    async with deployment.database() as connection:
        await connection.execute(f"ALTER TABLE events ADD CONSTRAINT c CHECK (user_id <> '{user}') NOT VALID")
        try:
            yield
        finally:
            await connection.execute("ALTER TABLE events DROP CONSTRAINT c")


async def test_a_dead_event_is_tried_again_through_the_log_and_counts_once(deploy: Deploy) -> None:
    deployment = await deploy(
        Config(actions={"point": Action(points=1), "day": Action(points=5, limit="1/day")})
    )
    admin = await deployment.make_key(Scope.ADMIN)
    async with deployment.running() as client:

        async def decide(what: str, number: int) -> Any:
            body = {"number": number, "reason": "mended"}
            return (await client.post(f"/admin/dead/{what}", json=body, headers=bearer(admin))).json()

        async with refusing(deployment, "eve"):
            for action in ("day:1", "day:1", "point:9"):
                assert (await submit(client, "eve", action)).json()["status"] == "dead"
            assert (await submit(client, "bob", "point:1")).json()["status"] == "applied"
            first, second = await letters(
                deployment
            )  # what is sent again while it waits is no further letter
            again = await decide("retry", first.number)
            assert again["status"] == "dead"
            assert "violates check constraint" in again["reason"]
            assert [one.tries for one in await letters(deployment)] == [4, 3]
        # A dead event counts for no limit: the next one of the day is taken, and so the dead one is not.
        assert (await submit(client, "eve", "day:2")).json()["status"] == "applied"
        assert (await decide("retry", first.number)) | {"actId": ""} == {
            "status": "rejected", "actId": "", "reason": "limit"
        }  # fmt: skip
        assert (await decide("retry", second.number))["status"] == "applied"
        assert (await decide("retry", second.number))["code"] == "not_found"
        assert (await submit(client, "eve", "point:9")).json()["duplicate"]
        assert (await client.get(f"/events/{second.event_id}")).json()["status"] == "applied"
        line = (await client.get("/boards/main/users/eve")).json()
        assert (line["score"], line["rank"]) == (6, 1)
        async with deployment.database() as connection:
            order = await connection.fetch("SELECT user_id, type FROM events ORDER BY accept_no")
            assert [tuple(row) for row in order] == [
                ("bob", "point"), ("eve", "day"), ("eve", "day"), ("eve", "point")
            ]  # fmt: skip
            acts = await connection.fetch(
                "SELECT what, why FROM audit WHERE what LIKE '% dead' ORDER BY number"
            )
            assert [tuple(row) for row in acts] == [("retry dead", "mended")] * 3
    assert await differences(deployment) == []


async def test_a_dropped_event_is_revoked_for_good_unless_it_is_tried_again(deployment: Deployment) -> None:
    admin = await deployment.make_key(Scope.ADMIN)
    async with deployment.running() as client:
        async with refusing(deployment, "eve"):
            await submit(client, "eve", "point:1")
        (letter,) = await letters(deployment)
        body = {"number": letter.number}
        refused = await client.post("/admin/dead/drop", json=body)
        assert refused.json()["code"] == "insufficient_scope"
        dropped = await client.post("/admin/dead/drop", json=body, headers=bearer(admin))
        assert dropped.json()["status"] == "dropped"
        assert (await client.get(f"/events/{letter.event_id}")).json()["status"] == "revoked"
        assert metrics.DEAD_WAITING._value.get() == 0
        retried = await client.post("/admin/dead/retry", json=body, headers=bearer(admin))
        assert retried.json()["status"] == "applied"
        async with refusing(deployment, "bob"):
            await submit(client, "bob", "point:1")
        body = {"number": (await letters(deployment))[1].number}
        await client.post("/admin/dead/drop", json=body, headers=bearer(admin))
        assert (await submit(client, "bob", "point:1")).json()["status"] == "revoked"
        assert (await client.get("/boards/main")).json()["total"] == 1
    async with deployment.database() as connection:
        with pytest.raises(asyncpg.RaiseError):
            await connection.execute("DELETE FROM audit")
        told = await connection.fetch(
            "SELECT what, target FROM audit WHERE what LIKE '% dead' ORDER BY number"
        )
    assert [row["what"] for row in told] == ["drop dead", "retry dead", "drop dead"]
    assert "point:1 of eve" in told[0]["target"]
    assert await differences(deployment) == []


async def test_a_letter_whose_event_came_again_and_counts_is_not_dropped(deployment: Deployment) -> None:
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client:

        async def drop(letter: dead_letters.Letter) -> Any:
            body = {"number": letter.number}
            return (await client.post("/admin/dead/drop", json=body, headers=admin)).json()

        async with refusing(deployment, "eve"):
            await submit(client, "eve", "point:1")
        (letter,) = await letters(deployment)
        assert (await submit(client, "eve", "point:1")).json()["status"] == "applied"
        assert (await drop(letter))["status"] == "applied"
        assert [one.settled for one in await letters(deployment)] == ["retried"]
        assert (await client.get(f"/events/{letter.event_id}")).json()["status"] == "applied"
        assert metrics.DEAD_WAITING._value.get() == 0
        async with deployment.database() as connection:
            told = await connection.fetchrow("SELECT what, events FROM audit WHERE what LIKE '% dead'")
            assert tuple(told or ()) == ("drop dead", 0)
    assert await differences(deployment) == []


async def test_a_dropped_letter_waits_again_once_its_event_is_restored(deployment: Deployment) -> None:
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client:

        async def act(what: str, **body: object) -> Any:
            return (await client.post(f"/admin/{what}", json=body, headers=admin)).json()

        async with refusing(deployment, "eve"):
            await submit(client, "eve", "point:1")
            (letter,) = await letters(deployment)
            event_id = str(letter.event_id)
            await act("dead/drop", number=letter.number)
            await submit(client, "eve", "point:1")
            assert (await letters(deployment))[0].settled == "dropped", "whoever sends it again opens nothing"
            assert (await act("restore", eventId=event_id))["status"] == "applied"
            assert metrics.DEAD_WAITING._value.get() == 1
            await submit(client, "eve", "point:1")
            assert [one.settled for one in await letters(deployment)] == [None]
            assert (await client.get(f"/events/{event_id}")).json()["status"] == "dead"
        assert (await act("dead/retry", number=letter.number))["status"] == "applied"
        # One that came while it was dropped is in the ledger, and waits no more.
        async with refusing(deployment, "bob"):
            await submit(client, "bob", "point:1")
        letter = (await letters(deployment))[1]
        await act("dead/drop", number=letter.number)
        assert (await submit(client, "bob", "point:1")).json()["status"] == "revoked"
        assert (await act("dead/drop", number=letter.number))["status"] == "dropped"
        assert (await act("restore", eventId=str(letter.event_id)))["events"] == 1
        assert metrics.DEAD_WAITING._value.get() == 0
    assert await differences(deployment) == []


async def test_a_dead_command_is_tried_again_whatever_it_is(deployment: Deployment) -> None:
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    kinds = ["rename", "hide", "revoke", "drop dead"]
    async with deployment.running() as client, deployment.database() as connection:

        async def act(what: str, **body: object) -> Any:
            return (await client.post(f"/admin/{what}", json=body, headers=admin)).json()

        for user in ("ann", "bob", "cid"):
            await submit(client, user, "point:1")
        async with refusing(deployment, "eve"):
            await submit(client, "eve", "point:1")
        (event_of_eve,) = await letters(deployment)
        await connection.execute(
            "ALTER TABLE commands ADD CONSTRAINT c"
            " CHECK (kind NOT IN ('rename', 'hide', 'revoke', 'drop dead')) NOT VALID"
        )
        await publish(deployment, [[Rename(b"r" * 16, "ann", "Ann", "key:k")]])
        await act("hide", userId="bob")
        await act("revoke", userId="cid")
        assert (await act("dead/drop", number=event_of_eve.number))["status"] == "dead"
        await connection.execute("ALTER TABLE commands DROP CONSTRAINT c")
        commands = (await letters(deployment))[1:]
        assert [one.what for one in commands] == ["rename", "mark", "amend", "settle"]
        done = [await act("dead/retry", number=one.number) for one in commands]
        assert [one["status"] for one in done] == ["applied", "applied", "applied", "dropped"]
        assert metrics.DEAD_WAITING._value.get() == 0
        assert [one.settled for one in await letters(deployment)] == ["dropped", *["retried"] * 4]
        told = await connection.fetch("SELECT kind FROM commands ORDER BY accept_no")
        assert [row["kind"] for row in told] == kinds
        board = (await client.get("/boards/main")).json()
        assert [(line["userId"], line["name"]) for line in board["top"]] == [("ann", "Ann")]
        assert (await act("dead/retry", number=commands[0].number))["code"] == "not_found"
    assert await differences(deployment) == []


async def test_a_message_under_another_secret_is_tried_again_once_it_is_known(
    deployment: Deployment,
) -> None:
    old, admin = "o" * 32, await deployment.make_key(Scope.ADMIN)
    sent = [event(f"u{n}", "1") for n in range(5)]
    async with deployment.running() as client:
        await publish(deployment, [sent], old)
        await submit(client, "ann", "point:1")
        (letter,) = await letters(deployment)
        body = {"number": letter.number}
        answer = await client.post("/admin/dead/retry", json=body, headers=bearer(admin))
        assert "the seal is not ours" in answer.json()["detail"]
    outer = msgspec.structs.replace(deployment.environment, secret_previous=old)
    deployment.settings = Settings(config=deployment.config, environment=outer)
    async with deployment.running() as client:
        for _ in range(2):
            answer = await client.post("/admin/dead/retry", json=body, headers=bearer(admin))
        assert answer.json()["code"] == "not_found"
        await audit(deployment, [event("ann", "1"), *sent])


async def went_through(deployment: Deployment, accept_no: int) -> int:
    """The partition of the log that this came through."""
    async with jetstream(deployment) as log:
        base = int(((await log.stream_info(deployment.name)).config.metadata or {}).get("base", "0"))
        message = await log.get_msg(deployment.name, seq=accept_no // PLACES - base, direct=False)
    return int((message.subject or "").rpartition(".")[2])


async def test_dead_letters_follow_their_users_to_other_partitions(deployment: Deployment) -> None:
    """All that is about a user goes through one partition, or two workers write the same total."""
    old, admin = "o" * 32, bearer(await deployment.make_key(Scope.ADMIN))
    outer = msgspec.structs.replace(deployment.environment, secret_previous=old)
    sent = [event(f"u{n}", "1") for n in range(9)]
    one, three = divided(deployment, 1), divided(deployment, 3)
    one.settings = Settings(config=one.config, environment=outer)
    three.settings = Settings(config=three.config, environment=outer)
    assert partition_of("mia", 3) != 0
    async with deployment.running() as client:
        async with refusing(deployment, "mia"):
            await submit(client, "mia", "point:1")
            await submit(client, "mia", "point:2")
        await publish(deployment, [[*sent, Rename(b"r" * 16, "mia", "Mia", "key:k")]], old)
        await submit(client, "ann", "point:1")

    async def settle(client: httpx.AsyncClient, what: str, letter: dead_letters.Letter) -> str:
        answer = await client.post(f"/admin/dead/{what}", json={"number": letter.number}, headers=admin)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["status"])

    first, second, message = await letters(deployment)
    await adopt(three)
    async with three.running() as client:
        assert await settle(client, "retry", first) == "applied"
        assert await settle(client, "drop", second) == "dropped"
        assert (await submit(client, "mia", "point:2")).json()["status"] == "revoked"
        assert await settle(client, "retry", message) == "applied"
        async with deployment.database() as connection:

            async def applied() -> bool:
                return int(await connection.fetchval("SELECT count(*) FROM events")) == 3 + len(sent)

            await until(applied)
            rows = await connection.fetch("SELECT user_id, accept_no FROM events WHERE user_id <> 'ann'")
            rows += await connection.fetch("SELECT user_id, accept_no FROM commands WHERE user_id = 'mia'")
            assert len(rows) == 2 + len(sent) + 3
            for user, accept_no in rows:
                assert await went_through(three, accept_no) == partition_of(user, 3)
        async with refusing(deployment, "mia"):
            await submit(client, "mia", "point:3")
    await adopt(one)
    async with one.running() as client:
        assert await settle(client, "retry", (await letters(deployment))[-1]) == "applied"
        assert (await submit(client, "mia", "point:3")).json()["duplicate"]
    assert await differences(deployment) == []


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


async def test_the_command_line_shows_and_settles_dead_letters(tmp_path: Path) -> None:
    async with started("up", "--port", "0", cwd=tmp_path) as program:
        await program.ready()
        url = msgspec.json.decode((tmp_path / "scoreboard-data/state.json").read_bytes())["urls"]["database"]
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE events ADD CONSTRAINT c CHECK (user_id <> 'eve')")
        for unique in ("1", "2"):
            status, out, _ = await command("score", "eve", f"point:{unique}", cwd=tmp_path)
            assert (status, out) == (0, "eve: 1 dead\n")
        status, out, _ = await command("dead", "list", cwd=tmp_path)
        numbers = [line.split()[0] for line in out.splitlines()]
        assert len(numbers) == 2
        assert "3 tries  eve  point:1" in out
        _, out, _ = await command("dead", "show", numbers[0], cwd=tmp_path)
        assert f"number   {numbers[0]}" in out
        assert "violates check constraint" in out
        await connection.execute("ALTER TABLE events DROP CONSTRAINT c")
        await connection.close()
        _, out, err = await command("dead", "retry", numbers[0], "--reason", "mended", cwd=tmp_path)
        assert out == f"{numbers[0]}: applied\n", err
        _, out, err = await command("dead", "drop", numbers[1], cwd=tmp_path)
        assert out == f"{numbers[1]}: dropped\n", err
        _, out, err = await command("dead", "list", cwd=tmp_path)
        assert (out, err) == ("", "There are no dead letters.\n")
        _, out, _ = await command("dead", "list", "--all", cwd=tmp_path)
        assert [line.split()[4] for line in out.splitlines()] == ["retried", "dropped"]
        status, _, err = await command("dead", "retry", numbers[0], cwd=tmp_path)
        assert status == 1
        assert f"No dead letter {numbers[0]} waits" in err
        status, _, err = await command("dead", "show", "1", cwd=tmp_path)
        assert (status, err) == (1, "scoreboard: there is no dead letter 1; see: scoreboard dead list\n")


async def differences(deployment: Deployment) -> list[str]:
    """Between ledger and totals."""
    async with Database.open(deployment.database_url) as database:
        return [str(row) for row in await database.unsummed()]
