"""What an operator did is told: in users' histories, in the audit, and on the command line."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from deployment import bearer, until
from moderating import Moderated, place
from processes import command, settings_of, started
from scoreboard.event_ids import event_id_of_action

__all__ = ["place"]


async def test_a_history_explains_the_score_row_by_row(place: Moderated) -> None:
    first, second = await place.score("tell", "point:1", "point:2")
    await place.act("revoke", eventId=second)
    answer = await place.service.get("/users/tell/events", params={"limit": 2})
    told = answer.json()
    assert [(e["outcome"], e["boards"]["main"]) for e in told["events"]] == [
        ("revoked", {"change": -1, "score": 1}),
        ("applied", {"change": 1, "score": 2}),
    ]
    assert told["events"][0]["amends"] == second
    rest = (await place.service.get("/users/tell/events", params={"cursor": told["next"]})).json()
    assert [e["eventId"] for e in rest["events"]] == [first]
    own = await place.service.get("/users/tell/events", headers=bearer(place.deployment.token("tell")))
    assert "principal" not in own.json()["events"][0], "whose key it was is not the user's to know"
    other = await place.service.get("/users/tell/events", headers=bearer(place.deployment.token("rev")))
    assert other.json()["code"] == "user_mismatch"


async def test_every_act_is_in_the_audit_which_only_grows(place: Moderated) -> None:
    await place.act("hide", userId="aud", reason="rude name")
    acts = (await place.service.get("/admin/audit", headers=place.admin)).json()["acts"]
    newest = acts[0]
    assert (newest["what"], newest["target"], newest["why"]) == ("hide", "aud", "rude name")
    assert newest["who"].startswith("key:k_")
    assert newest["keyName"] == "test"
    older = await place.service.get(
        "/admin/audit", params={"before": newest["number"], "limit": 1}, headers=place.admin
    )
    assert older.json()["acts"] == acts[1:2]
    async with place.deployment.database() as connection:
        for table in ("audit", "events"):
            for statement in ("DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET at = now()"):
                with pytest.raises(Exception, match="only grows"):
                    await connection.execute(statement.format(table))


async def test_an_admin_who_names_a_user_is_in_the_audit_and_a_game_is_not(place: Moderated) -> None:
    for headers, name in ((place.admin, "Rude"), ({}, "Nice")):
        answer = await place.service.put("/users/named", json={"name": name}, headers=headers)
        assert answer.status_code == 202

    await place.score("named", "point:1")

    async def shown() -> bool:
        return bool((await place.line("named"))["name"] == "Nice")

    await until(shown)
    acts = (await place.service.get("/admin/audit", headers=place.admin)).json()["acts"]
    assert [(act["what"], act["why"]) for act in acts if act["target"] == "named"] == [("rename", "to Rude")]


async def test_what_an_act_did_and_why_it_was_done_lead_to_each_other(place: Moderated) -> None:
    planted = str(event_id_of_action("why", "point:2"))
    before = await place.act("revoke", eventId=planted, reason="will be forged")
    events = await place.score("why", "point:1", "point:2")
    acts = [
        await place.act("revoke", userId="why", reason="forged"),
        await place.act("restore", userId="why"),
    ]
    told = (await place.service.get("/users/why/events")).json()["events"]
    assert [(one.get("amends"), one["outcome"], one.get("actId"), one.get("why")) for one in told] == [
        (events[0], "applied", acts[1]["actId"], None),
        (events[0], "revoked", acts[0]["actId"], "forged"),
        (None, "revoked", before["actId"], "will be forged"),
        (None, "applied", None, None),
    ]
    listed = (await place.service.get("/admin/audit", headers=place.admin)).json()["acts"]
    assert [act["actId"] for act in listed[:3]] == [acts[1]["actId"], acts[0]["actId"], before["actId"]]
    own = await place.service.get("/users/why/events", headers=bearer(place.deployment.token("why")))
    assert not {"why", "actId", "principal"} & {member for one in own.json()["events"] for member in one}


async def test_an_act_of_all_partitions_is_one_on_the_pages_of_the_audit(place: Moderated) -> None:
    for user in ("page-a", "page-b"):
        await place.score(user, "point:1")
        await place.act("revoke", userId=user)
    acts = (await place.service.get("/admin/audit", params={"limit": 3}, headers=place.admin)).json()["acts"]
    assert [(act["target"], act["events"]) for act in acts[:2]] == [("user page-b", 1), ("user page-a", 1)]
    paged, before = [], acts[0]["number"] + 1
    for _ in acts:
        page = {"limit": 1, "before": before}
        found = (await place.service.get("/admin/audit", params=page, headers=place.admin)).json()["acts"]
        before = found[0]["number"]
        paged += found
    assert paged == acts


async def test_on_the_command_line_an_act_is_one_line_of_text(place: Moderated, tmp_path: Path) -> None:
    async with place.deployment.database() as connection:
        await connection.execute(
            "INSERT INTO audit (act, at, who, what, target, why) "
            "VALUES (gen_random_uuid(), now(), 'key:k', 'ban', 'x', E'a\\n2026-01-01  forged\\x1b[2J')"
        )
    settings = settings_of(place.deployment)
    _, told, _ = await command("audit", "--limit", "1", cwd=tmp_path, settings=settings)
    assert told.count("\n") == 1
    assert told.endswith("  a\\n2026-01-01  forged\\x1b[2J\n")
    status, _, told = await command("ban", "x", "--reason", "a\nb", cwd=tmp_path, settings=settings)
    assert status == 2
    assert "nor line ends" in told


async def test_the_command_line_does_the_same(home: Path) -> None:
    async def done(*arguments: str) -> str:
        status, out, err = await command(*arguments, cwd=home)
        assert status == 0, err
        return out

    async with started("up", "--port", "0", cwd=home) as up:
        await up.ready()
        await done("score", "ann", "point:1")
        assert await done("ban", "ann", "--reason", "cheats") == "ann is banned\n"
        assert "banned" in await done("score", "ann", "point:2")
        assert await done("unban", "ann") == "ann is no longer banned\n"
        assert await done("hide", "ann") == "ann is hidden\n"
        assert await done("show", "ann") == "ann is shown\n"
        dry = await done("revoke", "--user", "ann", "--dry-run")
        assert dry == "1 events of 1 users would be revoked\n  main  ann: 1 -> 0\n"
        assert await done("revoke", "--user", "ann", "--reason", "oh") == "1 events of 1 users revoked\n"
        assert await done("unrevoke", "--user", "ann") == "1 events of 1 users restored\n"
        told = [line.split("  ")[2] for line in (await done("explain", "ann")).splitlines()]
        assert told == [
            "applied",
            "revoked (oh)",
            "rejected (banned)",
            "applied",
        ]
        acts = [line.split("  ")[2] for line in (await done("audit")).splitlines()]
        assert acts == ["restore", "revoke", "show", "hide", "unban", "ban"]
        assert "key create" in await done("audit", "--all")
        assert await done("key", "list") == ""
        assert "temporary: command line" in await done("key", "list", "--all")
        assert await done("held") == ""
        unknown = (
            ("hide", "an"),
            ("release", "--key-id", "k_000000000000"),
            ("revoke", "--event", str(uuid4())),
        )
        assert [(await command(*act, cwd=home))[2] for act in unknown] == [
            "note: nothing is known of this user\n",
            "note: there has never been such a key\n",
            "note: no such event has come yet: it will be revoked when it comes\n",
        ]
        never = ("--user", "ann", "--since", "0001-01-01T00:00:00+14:00")
        status, _, refused = await command("revoke", *never, cwd=home)
        assert (status, refused.count("\n")) == (1, 1)
        assert "since is outside the years 1 to 9999" in refused
        worker = up.children()["scoreboard worker"]
        worker.suspend()
        late = await done("hide", "ann")
        worker.resume()
        assert late == "accepted: it is in the log and will be done\n"
        assert "ledger = totals = board" in await done("verify")
