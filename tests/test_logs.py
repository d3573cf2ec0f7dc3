"""A line of the log that belongs to a request says to which, and the client is told the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployment import Deployment, bearer, free_port, is_live, submit, until
from processes import settings_of, started
from scoreboard.event_ids import event_id_of_action
from scoreboard.group_commit import GroupCommit

ID = "0e59b7a8-4d0c-80f3-bbd1-d81d774f4e94"


async def test_answers_and_lines_bear_the_request_s_id(deployment: Deployment, tmp_path: Path) -> None:
    port = free_port()
    async with (
        started("api", "--port", str(port), cwd=tmp_path, settings=settings_of(deployment)),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer(deployment.key)) as client,
    ):
        await until(lambda: is_live(client))

        async def told(path: str, given: str = "") -> str | None:
            answer = await client.get(path, headers={"x-request-id": given} if given else {})
            found: str | None = answer.headers.get("x-request-id")
            return found

        body = {"userId": "ann", "actionId": "point:1"}
        named = await client.post("/update-score", json=body, headers={"x-request-id": "job-7.a_b"})
        assert (named.status_code, named.headers["x-request-id"]) == (202, "job-7.a_b")
        assert await told("/boards", "B" * 40) == "B" * 40
        assert await told("/boards") is None, "nobody asked"
        for odd in ("B" * 41, "a b", 'a"b', deployment.key):
            assert await told("/boards", odd) is None

        async with deployment.database() as connection:
            await connection.execute("ALTER VIEW states RENAME COLUMN user_id TO somebody")  # a fault
            assert await told(f"/events/{ID}", "mine") == "mine"
            made = await told(f"/events/{ID}")
        assert made
        assert re.fullmatch("[0-9a-f]{16}", made)
    lines = [json.loads(line) for line in (tmp_path / "api.log").read_text().splitlines()]
    failed: list[dict[str, Any]] = [line for line in lines if line["message"] == "a request failed"]
    assert [line["request"] for line in failed] == ["mine", made]
    assert all("user_id" in line["exception"] for line in failed)


async def test_a_line_about_an_event_names_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployment.serving() as client:
        assert (await submit(client, "ann", "point:1", wait=0)).status_code == 202

        def fault(*_: object, **__: object) -> None:
            raise RuntimeError("planted")

        monkeypatch.setattr(GroupCommit, "enter", fault)
        answer = await submit(client, "ann", "point:2", wait=0)
        many = await client.post("/update-scores", json=[{"userId": "ann", "actionId": "point:2"}])
    event_id = str(event_id_of_action("ann", "point:2"))
    assert (answer.status_code, answer.json()["eventId"]) == (500, event_id)
    assert many.json()["results"][0]["eventId"] == event_id
    failed = [record for record in caplog.records if record.getMessage() == "a request failed"]
    assert [getattr(record, "event", "") for record in failed] == [event_id, event_id]
