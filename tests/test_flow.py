"""The whole flow, over HTTP and a real WebSocket, on the real engines."""

from __future__ import annotations

from deployment import Deployment, bearer, frame, frame_with, submit, watching


async def test_an_update_is_applied_and_everybody_who_watches_sees_it(deployment: Deployment) -> None:
    async with deployment.running() as client, watching(client) as ann, watching(client) as bob:
        first = await frame(ann)
        assert first["type"] == "board"
        assert first["top"] == []
        answer = await submit(client, "ann", "point:1")
        assert answer.status_code == 200
        assert answer.headers["preference-applied"] == "wait=10"
        body = answer.json()
        assert body["status"] == "applied"
        assert body["duplicate"] is False
        assert body["points"] == 1
        assert body["boards"] == {"main": {"score": 1, "rank": 1, "previousRank": None}}
        for screen in (ann, bob):
            shown = await frame_with(screen, [("ann", 1)])
            assert shown["top"] == [{"rank": 1, "userId": "ann", "name": "ann", "score": 1}]
            assert shown["total"] == 1
        read = await client.get("/boards/main")
        assert [row["userId"] for row in read.json()["top"]] == ["ann"]


async def test_without_prefer_the_answer_is_202_and_the_event_reaches_its_end(deployment: Deployment) -> None:
    async with deployment.running() as client:
        answer = await submit(client, "ann", "point:1", wait=0)
        assert answer.status_code == 202
        event_id = answer.json()["eventId"]
        again = await submit(client, "ann", "point:1")
        assert again.json()["eventId"] == event_id
        assert again.json()["duplicate"] is True
        event = (await client.get(f"/events/{event_id}")).json()
        assert (event["status"], event["points"], event["boards"]) == ("applied", 1, ["main"])


async def test_a_user_names_itself_and_the_name_is_shown(deployment: Deployment) -> None:
    async with deployment.running() as client, watching(client) as screen:
        await submit(client, "u/1", "point:1")
        headers = bearer(deployment.token("u/1"))
        answer = await client.put("/users/u%2F1", json={"name": "Zoë <b>"}, headers=headers)
        assert answer.status_code == 202, answer.text
        while True:
            shown = await frame(screen)
            if shown["top"] and shown["top"][0]["name"] != "u/1":
                break
        assert shown["top"][0] == {"rank": 1, "userId": "u/1", "name": "Zoë <b>", "score": 1}
        around = (await client.get("/boards/main/users/u%2F1")).json()
        assert (around["name"], around["rank"], around["score"], around["toNext"]) == ("Zoë <b>", 1, 1, None)
