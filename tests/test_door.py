"""The door beside single updates: many at once, what became of events, names, and pages of the board."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from deployment import Deployment, bearer, problem, submit, until
from scoreboard.api import outcomes
from scoreboard.event_ids import event_id_of_action
from the_door import client, deployment, door

__all__ = ["client", "deployment", "door"]


async def test_many_updates_are_answered_in_order_each_as_it_would_be_alone(
    client: httpx.AsyncClient,
) -> None:
    updates = [{"userId": f"u{n}", "actionId": "win:1"} for n in range(997)]
    updates += [{"userId": "u0", "actionId": "lose:1"}, {"userId": "u" * 129, "actionId": "win:1"}]
    updates.append({"userId": "u0", "actionId": "win:1"})
    answer = await client.post("/update-scores", json=updates, headers={"prefer": "wait=10"})
    results = answer.json()["results"]
    assert [r.get("eventId") for r in results] == [
        None if len(u["userId"]) > 128 else str(event_id_of_action(u["userId"], u["actionId"]))
        for u in updates
    ]
    assert [r["status"] for r in results[:997]] == ["applied"] * 997
    assert results[997]["code"] == "unknown_action"
    assert results[998]["code"] == "invalid_field"
    assert results[999]["status"] == "applied"
    assert (await client.get("/boards/main")).json()["top"][0] == {
        "rank": 1,
        "userId": "u0",
        "name": "u0",
        "score": 10,
    }


async def test_many_updates_are_for_services_only_and_bounded(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    one = {"userId": "ann", "actionId": "cheer:1"}
    by_user = await client.post("/update-scores", json=[one], headers=bearer(deployment.token("ann")))
    assert problem(by_user) == (403, "insufficient_scope")
    assert problem(await client.post("/update-scores", json=[one] * 1001)) == (413, "payload_too_large")
    assert problem(await client.post("/update-scores", json=one)) == (400, "invalid_field")
    twice = b'[{"userId":"ann","actionId":"win:1","actionId":"win:2"}]'
    answer = await client.post("/update-scores", content=twice, headers={"content-type": "application/json"})
    assert problem(answer) == (400, "invalid_field")
    assert (await client.post("/update-scores", json=[])).json() == {"results": []}


async def test_an_event_is_shown_to_its_user_and_to_services_only(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    event_id = (await submit(client, "ann", "win:1")).json()["eventId"]
    own = await client.get(f"/events/{event_id}", headers=bearer(deployment.token("ann")))
    assert own.json()["status"] == "applied"
    assert own.json()["points"] == 10
    other = await client.get(f"/events/{event_id}", headers=bearer(deployment.token("bob")))
    assert problem(other) == (404, "unknown_event")
    assert other.json()["retryable"] is True
    none = await client.get(f"/events/{event_id_of_action('ann', 'win:2')}")
    assert problem(none) == (404, "unknown_event")
    assert problem(await client.get("/events/nonsense")) == (400, "invalid_field")


async def test_what_was_accepted_here_is_known_before_it_is_applied(deployment: Deployment) -> None:
    async with deployment.serving() as client:  # nobody works
        event_id = (await submit(client, "ann", "win:1", wait=1)).json()["eventId"]
        state = (await client.get(f"/events/{event_id}")).json()
        assert state == {"eventId": event_id, "status": "accepted", "userId": "ann"}
        async with deployment.working():

            async def applied() -> bool:
                status: str = (await client.get(f"/events/{event_id}")).json()["status"]
                return status == "applied"

            await until(applied)


async def test_what_was_accepted_here_is_known_of_the_latest_only(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "REMEMBERED", 20)
    async with deployment.serving() as client:  # nobody works
        for number in range(50):
            await submit(client, "ann", f"win:{number}", wait=0)
        ids = [event_id_of_action("ann", f"win:{number}") for number in range(50)]
        found = [(await client.get(f"/events/{one}")).status_code == 200 for one in ids]
    assert found == sorted(found)
    assert 20 <= sum(found) < 40


async def test_a_name_is_the_users_own_or_a_services_to_choose(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    mine = bearer(deployment.token("ann"))
    assert problem(await client.put("/users/bob", json={"name": "B"}, headers=mine)) == (403, "user_mismatch")
    unseen = ["\u3164", "\u2800", "a\u034f", "\u115f\u1160", "\uffa0x", "\u17b4", "\ufe0f", "\u0301"]
    for name in ("", " x", "x" * 65, "a\u202eb", "a\x00b", *unseen):
        assert problem(await client.put("/users/ann", json={"name": name})) == (400, "invalid_field"), name
    assert problem(await client.put("/users/ann", json={"nom": "A"})) == (400, "unknown_field")
    json = {"content-type": "application/json"}
    twice = await client.put("/users/ann", content=b'{"name":"A","name":"B"}', headers=json)
    assert problem(twice) == (400, "invalid_field")
    for name in ("❤️", "नमस्ते", "도윤", "ᠮᠣᠩᠭᠣᠯ", "x ⠿", "...", "\U0001f1e9\U0001f1ea"):
        assert (await client.put("/users/ann", json={"name": name})).status_code == 202, name
    assert (await client.put("/users/ann", json={"name": "Zoe\N{COMBINING DIAERESIS}"})).json()[
        "name"
    ] == "Zoë"


async def test_a_user_id_in_a_path_is_taken_as_it_is(client: httpx.AsyncClient) -> None:
    for user in ("/lead", "trail/", "a//b", "a/b", "/", "%2F", "a/events", "ü?#"):
        assert (await submit(client, user, "point:1")).json()["status"] == "applied"
        path = quote(user, safe="")
        assert (await client.put(f"/users/{path}", json={"name": "N"})).json()["userId"] == user
        assert (await client.get(f"/boards/main/users/{path}")).json()["userId"] == user
    assert problem(await client.get("/boards/main/users/%ff")) == (400, "invalid_field")


async def test_a_page_says_what_comes_next_whatever_its_length(client: httpx.AsyncClient) -> None:
    for n in range(12):
        await submit(client, f"u{n}", "point:1")
    for limit in (9, 10, 11):
        assert (await client.get(f"/boards/main?limit={limit}")).json()["next"], limit
    assert (await client.get("/boards/main?limit=12")).json()["next"] is None


async def test_what_is_not_there_is_a_problem_too(door: httpx.AsyncClient) -> None:
    assert problem(await door.get("/nowhere")) == (404, "not_found")
    assert problem(await door.get("/update-score")) == (405, "method_not_allowed")
    assert problem(await door.get("/boards/none")) == (404, "unknown_board")
    assert problem(await door.get("/boards/main/users/nobody")) == (404, "unknown_user")
    assert problem(await door.get("/boards/main?limit=0")) == (400, "invalid_field")
    assert problem(await door.get("/boards/main?limit=1001")) == (400, "invalid_field")
    assert problem(await door.get("/boards/main?cursor=x")) == (400, "invalid_field")
