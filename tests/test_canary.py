"""No credential reaches a log, a metric or an answer, however wrong the place in which it was sent.

A real ``scoreboard up`` gets credentials where they belong and where they do not; then all that it wrote is
searched for them, whole and in pieces.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

from processes import run, started
from scoreboard.auth.tokens import local_token

FILE = '[actions.boss-kill]\npoints = 100\npolicy = "grant"\n'
PIECE = 24  # characters of a credential that nobody writes by chance


def written(folder: Path) -> str:
    """All that the processes of a data folder wrote to their logs."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))


def pieces(credential: str) -> set[str]:
    """A credential's distinctive part, in pieces: a JWT's header is the same for all."""
    secret = credential.split(".", 1)[-1].removeprefix("sb_")
    return {secret[begin : begin + PIECE] for begin in range(0, len(secret) - PIECE, PIECE)}


async def test_no_credential_is_in_any_log_metric_or_answer(tmp_path: Path) -> None:
    (tmp_path / "scoreboard.toml").write_text(FILE)
    async with started("up", "--port", "0", cwd=tmp_path) as up:
        url = await up.ready()
        _, key, _ = await run(
            "key", "create", "--name", "canary", "--scope", "score:write", "--scope", "admin", cwd=tmp_path
        )
        _, token, _ = await run("token", "--user", "ann", cwd=tmp_path)
        _, grant, _ = await run("grant", "--user", "ann", "--action", "boss-kill", cwd=tmp_path)
        secret = (tmp_path / "scoreboard-data" / "secret").read_text().strip()
        forged = local_token("f" * 32, "eve", None, 600)
        unknown = "sb_" + "canary-" * 6 + "x"
        credentials = [key.strip(), token.strip(), grant.strip(), forged, unknown]
        answers: list[str] = []
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            for one in credentials:
                who = {"authorization": f"Bearer {one}", "x-request-id": one}
                for method, path, headers, body in (
                    ("POST", "/update-score", who, {"userId": "ann", "actionId": grant.strip()}),
                    ("POST", "/update-score", who, {"userId": "bob", "actionId": one}),
                    ("POST", f"/update-score?token={one}", {}, {"userId": "ann", "actionId": "boss-kill:1"}),
                    ("POST", "/update-score", {"authorization": f"Basic {one}"}, {}),
                    ("POST", "/update-score", who, {one: 1}),
                    ("POST", "/admin/ban", who, {"userId": "bob", one: "x"}),
                    ("GET", f"/events/{one}", who, None),
                    ("GET", f"/boards/{one}", {}, None),
                    ("GET", f"/{one}?{one}={one}", {"cookie": one, "x-token": one}, None),
                ):
                    content = None if body is None else json.dumps(body)
                    form = {} if content is None else {"content-type": "application/json"}
                    answer = await client.request(method, path, headers=headers | form, content=content)
                    assert answer.status_code < 500, (method, path)
                    answers += [str(answer.headers)]
            live = f"{url.replace('http', 'ws', 1)}/boards/main/live"
            for one in credentials:
                async with connect(f"{live}?token={one}") as socket:
                    await socket.send(json.dumps({"type": "auth", "token": one}))
                    answers.append(str(await socket.recv()))
            # Whatever breaks inside must not tell either: the board's server ends in the middle.
            up.children()["valkey-server"].kill()
            for one in credentials:
                await client.get("/boards/main?limit=3", headers={"authorization": f"Bearer {one}"})
            metrics = (await client.get("/metrics")).text
    logs = written(tmp_path)
    assert "stopping" in logs, "this is what it wrote"
    assert "scoreboard_updates_total" in metrics
    for one in [*credentials, secret]:
        for piece in pieces(one):
            assert piece not in logs
            assert piece not in metrics
            assert not any(piece in answer for answer in answers)
