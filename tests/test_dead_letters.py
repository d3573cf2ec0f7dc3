"""An operator decides about what was set aside: it is tried again, or dropped, and counts once at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from conftest import Deploy
from deployment import Deployment, bearer, submit
from poisoning import counted, differences, letters, publish, refusing
from processes import command, started
from scoreboard import dead_letters
from scoreboard.config import Action, Config, Queue
from scoreboard.model import Rename, Scope


@pytest.mark.parametrize(
    ("act", "body"), [("ban", {"userId": "ann"}), ("revoke", {"userId": "ann"}), ("hide", {"userId": "ann"})]
)
async def test_an_act_that_cannot_be_carried_out_is_answered_as_dead(
    deployment: Deployment, act: str, body: dict[str, Any]
) -> None:
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client:
        await submit(client, "ann", "point:1")
        async with deployment.database() as connection:
            await connection.execute(f"ALTER TABLE audit ADD CONSTRAINT c CHECK (what <> '{act}') NOT VALID")
            answer = await client.post(f"/admin/{act}", json=body, headers=admin)
            await connection.execute("ALTER TABLE audit DROP CONSTRAINT c")
        (letter,) = await letters(deployment)
        done = answer.json()
        assert (answer.status_code, done["status"], done["users"]) == (200, "dead", 0)
        assert done.get("events", 0) == 0
        assert (await submit(client, "ann", "point:2")).json()["boards"]["main"] == {
            "score": 2, "rank": 1, "previousRank": 1
        }  # fmt: skip
        body = {"number": letter.number}
        answer = await client.post("/admin/dead/retry", json=body, headers=admin)
        assert answer.json()["status"] == "applied"
        assert (await client.get("/boards/main/users/ann")).json()["rank"] == (1 if act == "ban" else None)


async def test_an_act_that_one_partition_cannot_carry_out_tells_what_the_others_did(deploy: Deploy) -> None:
    deployment = await deploy(Config(queue=Queue(partitions=2)))
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client:
        await submit(client, "ann", "point:1")
        async with deployment.database() as connection:
            # The partition that "ann" is not in has nothing to undo.
            await connection.execute("ALTER TABLE audit ADD CONSTRAINT c CHECK (users <> 0) NOT VALID")
            done = (await client.post("/admin/revoke", json={"userId": "ann"}, headers=admin)).json()
        assert (done["status"], done["events"], done["users"]) == ("dead", 1, 1)
        assert [one.what for one in await letters(deployment)] == ["amend"]


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
        await counted(0)
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
        await counted(0)
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
            await counted(1)
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
        await counted(0)
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
        await counted(0)
        assert [one.settled for one in await letters(deployment)] == ["dropped", *["retried"] * 4]
        told = await connection.fetch("SELECT kind FROM commands ORDER BY accept_no")
        assert [row["kind"] for row in told] == kinds
        board = (await client.get("/boards/main")).json()
        assert [(line["userId"], line["name"]) for line in board["top"]] == [("ann", "Ann")]
        assert (await act("dead/retry", number=commands[0].number))["code"] == "not_found"
    assert await differences(deployment) == []


async def test_the_command_line_shows_and_settles_dead_letters(home: Path) -> None:
    async with started("up", "--port", "0", cwd=home) as program:
        await program.ready()
        url = msgspec.json.decode((home / "scoreboard-data/state.json").read_bytes())["urls"]["database"]
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE events ADD CONSTRAINT c CHECK (user_id <> 'eve')")
        for unique in ("1", "2"):
            status, out, _ = await command("score", "eve", f"point:{unique}", cwd=home)
            assert (status, out) == (0, "eve: 1 dead\n")
        status, out, _ = await command("dead", "list", cwd=home)
        numbers = [line.split()[0] for line in out.splitlines()]
        assert len(numbers) == 2
        assert "3 tries  eve  point:1" in out
        _, out, _ = await command("dead", "show", numbers[0], cwd=home)
        assert f"number   {numbers[0]}" in out
        assert "violates check constraint" in out
        await connection.execute("ALTER TABLE events DROP CONSTRAINT c")
        await connection.close()
        _, out, err = await command("dead", "retry", numbers[0], "--reason", "mended", cwd=home)
        assert out == f"{numbers[0]}: applied\n", err
        _, out, err = await command("dead", "drop", numbers[1], cwd=home)
        assert out == f"{numbers[1]}: dropped\n", err
        _, out, err = await command("dead", "list", cwd=home)
        assert (out, err) == ("", "There are no dead letters.\n")
        _, out, _ = await command("dead", "list", "--all", cwd=home)
        assert [line.split()[4] for line in out.splitlines()] == ["retried", "dropped"]
        status, _, err = await command("dead", "retry", numbers[0], cwd=home)
        assert status == 1
        assert f"No dead letter {numbers[0]} waits" in err
        connection = await asyncpg.connect(url)
        await connection.execute(
            "ALTER TABLE audit ADD CONSTRAINT c CHECK (what NOT IN ('ban', 'revoke')) NOT VALID"
        )
        await connection.close()
        told = (
            "scoreboard: it could not be done, or not for all, and is set aside: see scoreboard dead list\n"
        )
        assert await command("ban", "eve", cwd=home) == (1, "", told)
        none = "0 events of 0 users revoked\n"
        assert await command("revoke", "--user", "eve", cwd=home) == (1, none, told)
        status, _, err = await command("dead", "show", "1", cwd=home)
        assert (status, err) == (1, "scoreboard: there is no dead letter 1; see: scoreboard dead list\n")
