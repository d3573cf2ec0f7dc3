"""Moderation and undoing as an operator does it over HTTP; every board follows."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from conftest import Deploy
from deployment import bearer, frame_with, submit, watching
from moderating import ACTIONS, Moderated, place
from scoreboard.auth.key_acts import create_key
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import SCORE_LIMIT, Scope

__all__ = ["place"]


async def test_a_ban_refuses_what_comes_after_it_and_an_unban_judges_nothing_anew(place: Moderated) -> None:
    await place.score("ban", "point:1")
    assert (await place.act("ban", userId="ban", reason="cheats"))["users"] == 1
    refused = (await submit(place.service, "ban", "point:2")).json()
    assert (refused["status"], refused["reason"]) == ("rejected", "banned")
    await place.act("unban", userId="ban")
    assert (await submit(place.service, "ban", "point:2")).json() == refused
    assert (await submit(place.service, "ban", "point:3")).json()["boards"]["main"]["score"] == 2


async def test_a_hidden_user_has_no_rank_and_ranks_close_up_at_once(place: Moderated) -> None:
    await place.score("hid-a", "big:1")
    await place.score("hid-b", "big:1")
    before = (await place.line("hid-b"))["rank"]
    await place.act("hide", userId="hid-a")
    hidden = await place.line("hid-a")
    assert (hidden["rank"], hidden["score"]) == (None, None)
    assert (await place.line("hid-b"))["rank"] == before - 1
    await place.act("show", userId="hid-a")
    assert (await place.line("hid-b"))["rank"] == before
    assert (await place.line("hid-a"))["score"] == SCORE_LIMIT


async def test_after_a_revocation_all_is_as_if_the_event_had_never_been(place: Moderated) -> None:
    first, second = await place.score("rev", "point:1", "point:2")
    done = await place.act("revoke", eventId=second, reason="by mistake")
    assert (done["status"], done["events"], done["users"]) == ("applied", 1, 1)
    assert ((await place.line("rev"))["score"], await place.state(second)) == (1, "revoked")
    assert (await submit(place.service, "rev", "point:2")).json()["status"] == "revoked"
    assert (await place.act("revoke", eventId=second))["events"] == 0
    await place.act("revoke", eventId=first)
    assert (await place.line("rev"))["rank"] is None
    await place.act("restore", userId="rev")
    assert (await place.line("rev"))["score"] == 2


async def test_what_was_revoked_no_longer_counts_for_a_cooldown(place: Moderated) -> None:
    (first,) = await place.score("cool", "wave:1")
    assert await place.state((await place.score("cool", "wave:2"))[0]) == "rejected"
    await place.act("revoke", eventId=first)
    (third,) = await place.score("cool", "wave:3")
    assert await place.state(third) == "applied"
    assert (await place.line("cool"))["score"] == 1
    assert await place.state((await place.score("cool", "wave:4"))[0]) == "rejected"


async def test_among_those_without_points_who_came_first_stays_first(place: Moderated) -> None:
    await place.score("zero-b", "visit:1")
    await place.score("zero-a", "visit:1")
    (point,) = await place.score("zero-b", "point:1")
    await place.score("zero-b", "visit:2")
    await place.act("revoke", eventId=point)
    first, second = await place.line("zero-b"), await place.line("zero-a")
    assert (first["score"], second["score"], second["rank"] - first["rank"]) == (0, 0, 1)


async def test_an_event_may_be_revoked_before_it_comes(place: Moderated) -> None:
    event = str(event_id_of_action("plant", "point:1"))
    assert (await place.act("revoke", eventId=event))["events"] == 0
    assert (await submit(place.service, "plant", "point:1")).json()["status"] == "revoked"
    assert (await place.line("plant")).get("code") == "unknown_user"
    await place.act("restore", eventId=event)
    assert ((await place.line("plant"))["score"], await place.state(event)) == (1, "applied")
    other = str(event_id_of_action("plant", "point:2"))
    await place.act("revoke", eventId=other)
    await place.act("restore", eventId=other)
    assert (await submit(place.service, "plant", "point:2")).json()["status"] == "applied"


async def test_a_condition_that_does_not_fit_revokes_nothing_that_is_to_come(place: Moderated) -> None:
    event = str(event_id_of_action("victim", "point:1"))
    key_id = f"k_{uuid4().hex[:12]}"
    for condition in ({"userId": "else"}, {"keyId": key_id}, {"since": "2026-01-01T00:00:00Z"}):
        assert (await place.act("revoke", eventId=event, **condition))["events"] == 0
    assert await place.score("victim", "point:1") == [event]
    assert await place.state(event) == "applied"
    other = str(event_id_of_action("victim", "point:2"))
    await place.act("revoke", eventId=other)
    await place.act("restore", eventId=other, userId="else")
    await place.score("victim", "point:2")
    assert await place.state(other) == "revoked"


async def test_what_is_named_and_not_known_is_told_and_stays_unknown(place: Moderated) -> None:
    for act in ("ban", "hide", "hide"):
        assert (await place.act(act, userId="ghost"))["unknown"] == ["userId"]
        assert (await place.line("ghost")).get("code") == "unknown_user"
    ids = {"eventId": str(uuid4()), "keyId": f"k_{uuid4().hex[:12]}"}
    for given in ({"eventId": ids["eventId"]}, {"keyId": ids["keyId"]}, ids | {"userId": "ghost"}):
        for trial in (True, False):
            told = await place.act("revoke", **given, dryRun=trial)
            assert set(told["unknown"]) == set(given)
    await place.score("ghost", "point:1")
    assert "unknown" not in await place.act("unban", userId="ghost")
    (event,) = await place.score("ghost", "point:2")
    assert "unknown" not in await place.act("revoke", eventId=event, userId="ghost")
    await place.act("show", userId="ghost")
    assert (await place.line("ghost"))["userId"] == "ghost"


async def test_what_was_never_judged_is_restored_by_its_name_alone(place: Moderated) -> None:
    await place.act("ban", userId="unjudged")
    event = str(event_id_of_action("unjudged", "point:1"))
    await place.act("revoke", eventId=event)
    assert await place.score("unjudged", "point:1") == [event]
    assert (await place.act("restore", userId="unjudged", dryRun=True))["events"] == 0
    assert (await place.act("restore", userId="unjudged"))["events"] == 0
    assert await place.state(event) == "revoked"
    assert (await place.act("restore", eventId=event))["events"] == 1
    assert (await place.act("revoke", userId="unjudged"))["events"] == 1
    assert (await place.act("restore", userId="unjudged"))["events"] == 1, "an operator has judged it"


async def test_what_is_held_back_is_released_or_rejected(place: Moderated) -> None:
    events = await place.score("held", "win:1", "win:2", "win:3")
    listed = (await place.service.get("/admin/held", headers=place.admin)).json()["events"]
    assert [one["eventId"] for one in listed if one["userId"] == "held"] == events[1:]
    await place.act("revoke", eventId=events[1])
    await place.act("restore", eventId=events[1])
    assert await place.state(events[1]) == "quarantined", "what was held back is held back again"
    assert (await place.act("release", eventId=events[1]))["events"] == 1
    assert (await place.act("reject", userId="held"))["events"] == 1
    assert [await place.state(event) for event in events] == ["applied", "applied", "rejected"]
    assert (await place.line("held"))["score"] == 20
    assert (await place.act("release", userId="held"))["events"] == 0
    assert (await place.act("revoke", eventId=events[1]))["events"] == 1
    assert (await place.act("restore", eventId=events[1]))["events"] == 1
    assert (await place.line("held"))["score"] == 20


async def test_all_events_of_a_key_are_undone_and_a_dry_run_tells_before(place: Moderated) -> None:
    async with Database.open(place.deployment.database_url) as database:
        key_id, key = await create_key(database, "stolen", [Scope.SCORE_WRITE])
    users = [f"key-{n}" for n in range(8)]
    for user in users:
        await place.score(user, "point:1")
        assert (await submit(place.service, user, "point:2", credentials=key)).status_code == 200
    trial = await place.act("revoke", keyId=key_id, dryRun=True)
    assert (trial["events"], trial["users"]) == (8, 8)
    assert [(d["userId"], d["score"], d["scoreAfter"]) for d in trial["differences"]] == [
        (user, 2, 1) for user in users
    ]
    assert (await place.line("key-0"))["score"] == 2, "a dry run changes nothing"
    assert (await place.act("revoke", keyId=key_id, reason="stolen"))["events"] == 8
    assert [(await place.line(user))["score"] for user in users] == [1] * 8


async def test_a_time_range_is_from_and_with_its_beginning_to_before_its_end(place: Moderated) -> None:
    for n in range(3):
        await place.score("time", f"point:{n}")
    rows = (await place.service.get("/users/time/events")).json()["events"]
    async with place.deployment.database() as connection:
        at = await connection.fetchval("SELECT at FROM events WHERE event_id = $1", rows[1]["eventId"])
        last = await connection.fetchval("SELECT at FROM events WHERE event_id = $1", rows[0]["eventId"])
    done = await place.act("revoke", userId="time", since=at.isoformat(), until=last.isoformat())
    assert done["events"] == 1
    assert await place.state(rows[1]["eventId"]) == "revoked"
    always = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59.999999Z"}
    assert (await place.act("restore", userId="time", **always))["events"] == 1


async def test_an_undoing_that_would_leave_the_range_leaves_that_user_as_is(place: Moderated) -> None:
    events = await place.score("range", "loss:1", "big:1")
    over = (await submit(place.service, "range", "loss:2")).json()
    assert over["boards"]["main"]["score"] == SCORE_LIMIT - 10
    await place.score("range", *(f"point:{n}" for n in range(10)))
    assert (await place.act("revoke", eventId=events[0]))["events"] == 0
    assert (await place.line("range"))["score"] == SCORE_LIMIT
    assert (await submit(place.service, "range", "loss:3")).json()["status"] == "applied"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("ban", {}, "invalid_field"),
        ("ban", {"userId": ""}, "invalid_field"),
        ("ban", {"userId": "a", "points": 3}, "unknown_field"),
        ("ban", {"userId": "a", "reason": "x" * 501}, "invalid_field"),
        ("revoke", {}, "invalid_field"),
        ("revoke", {"reason": "all of it"}, "invalid_field"),
        ("revoke", {"eventId": "1"}, "invalid_field"),
        ("revoke", {"keyId": ""}, "invalid_field"),
        ("revoke", {"since": "2026-11-26T00:00:00"}, "invalid_field"),
        ("revoke", {"since": "yesterday"}, "invalid_field"),
    ],
)
async def test_an_act_that_says_too_little_is_refused(
    place: Moderated, path: str, body: dict[str, Any], code: str
) -> None:
    answer = await place.service.post(f"/admin/{path}", json=body, headers=place.admin)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize(
    "act", ["ban", "unban", "hide", "show", "revoke", "restore", "release", "reject", "held", "audit"]
)
async def test_only_an_admin_moderates(place: Moderated, act: str) -> None:
    body = {"userId": "x"}
    for who in (bearer(place.deployment.key), bearer(place.deployment.token("x"))):
        if act in ("held", "audit"):
            answer = await place.service.get(f"/admin/{act}", headers=who)
        else:
            answer = await place.service.post(f"/admin/{act}", json=body, headers=who)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_every_screen_follows_a_revocation_at_once(deploy: Deploy) -> None:
    deployment = await deploy()
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    async with deployment.running() as client, watching(client) as socket:
        await submit(client, "ann", "point:1")
        event = (await submit(client, "bob", "point:1")).json()["eventId"]
        await frame_with(socket, [("ann", 1), ("bob", 1)])
        answer = await client.post("/admin/revoke", json={"eventId": event}, headers=admin)
        assert answer.json()["events"] == 1
        await frame_with(socket, [("ann", 1)])


async def test_the_log_replayed_gives_the_same_ledger(deploy: Deploy) -> None:
    config = Config(actions=ACTIONS)
    deployment = await deploy(config)
    admin = bearer(await deployment.make_key(Scope.ADMIN))
    tables = ("SELECT * FROM events ORDER BY 1", "SELECT * FROM scores ORDER BY 1, 3", "SELECT * FROM counts")
    async with deployment.serving() as client:
        async with deployment.working():
            for n in range(3):
                await submit(client, "ann", f"win:{n}")
            await client.post("/admin/revoke", json={"eventId": str(uuid4())}, headers=admin)
            await client.post("/admin/release", json={"userId": "ann"}, headers=admin)
            await client.post("/admin/revoke", json={"userId": "ann"}, headers=admin)
            await client.post("/admin/restore", json={"userId": "ann"}, headers=admin)
            await submit(client, "ann", "win:9")
        async with deployment.database() as connection:
            before = [await connection.fetch(query) for query in tables]
            await connection.execute("ALTER TABLE events DISABLE TRIGGER only_grows")
            await connection.execute("DELETE FROM events")
            await connection.execute("TRUNCATE scores, counts, planted, commands")
            await connection.execute("UPDATE cursor SET last = 0, last_at = 'epoch'")
            async with deployment.working():
                again = (await submit(client, "ann", "win:9")).json()
                assert again["status"] == "quarantined"
                after = [await connection.fetch(query) for query in tables]
    assert after == before
