"""``scoreboard up`` and the commands beside it, as an operator meets them: real processes, a data folder."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from click.testing import CliRunner

from deployment import SECONDS, until, watching
from processes import Program, command, run, started
from scoreboard import verify
from scoreboard.cli import main

HISTORY = Path(__file__).parent.parent / "examples" / "redis-history"


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Program, Path]]:
    """Everything, in a folder of its own, with the example's catalogue and no limits of rates."""
    folder = tmp_path_factory.mktemp("up")
    catalogue = (HISTORY / "scoreboard.toml").read_text()
    (folder / "scoreboard.toml").write_text(f"{catalogue}\n[rate_limits]\nenabled = false\n")
    async with started("up", "--port", "0", cwd=folder) as program:
        await program.ready()
        yield program, folder


def shown(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("rank", "userId", "score")} for row in page["top"]]


async def test_a_real_history_gives_the_board_that_it_must_give(up: tuple[Program, Path]) -> None:
    program, folder = up
    expected = json.loads((HISTORY / "expected.json").read_text())
    async with httpx.AsyncClient(base_url=program.url) as client:
        status, out, err = await run("replay", str(HISTORY / "history.csv"), cwd=folder)
        assert (status, err) == (0, "")
        assert out.startswith(f"history.csv: {expected['events']} applied in ")
        page = (await client.get("/boards/main?limit=1000")).json()
        assert page["total"] == expected["users"]
        assert shown(page)[:100] == expected["top"]
        assert shown(page)[-5:] == expected["last"]

        status, out, _ = await run("replay", str(HISTORY / "history.csv"), cwd=folder)
        assert out.startswith(f"history.csv: {expected['events']} counted before in ")
        again = (await client.get("/boards/main?limit=1000")).json()
        assert again["top"] == page["top"]

        for command in ("verify", "rebuild", "verify"):
            status, out, _ = await run(command, cwd=folder)
            assert status == 0, out
        assert out.startswith(
            f"{expected['events']} events, {expected['users']} users, {expected['total']} points:"
            " ledger = totals = board"
        )
        assert (await client.get("/boards/main?limit=1000")).json()["top"] == page["top"]

        walked, cursor = [], ""
        while cursor is not None:
            page = (await client.get(f"/boards/main?limit=97{cursor and '&cursor=' + cursor}")).json()
            walked += page["top"]
            cursor = page.get("next")
        assert walked == again["top"], "the pages are the whole"


async def test_verify_tells_a_board_that_is_not_the_database(
    up: tuple[Program, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = up
    await run("score", "planted", "commit:1", cwd=folder)
    state = json.loads((folder / "scoreboard-data" / "state.json").read_text())
    connection = await asyncpg.connect(state["urls"]["database"])
    await connection.execute("UPDATE scores SET score = score + 1 WHERE user_id = 'planted'")
    with monkeypatch.context() as at_once:
        at_once.setattr(verify, "ON_THEIR_WAY_SECONDS", 0.0)
        status, out, _ = await command("verify", cwd=folder)
    assert status == 1
    assert "DIFFERENT" in out
    assert "planted" in out
    await connection.execute("UPDATE scores SET score = score - 1 WHERE user_id = 'planted'")
    await connection.close()
    assert (await command("verify", cwd=folder))[0] == 0


async def test_keys_are_made_listed_and_revoked(up: tuple[Program, Path]) -> None:
    program, folder = up
    status, out, err = await run(
        "key", "create", "--name", "game", "--scope", "score:write", "--scope", "admin", cwd=folder
    )
    assert status == 0
    key = out.strip()
    assert re.fullmatch(r"sb_[A-Za-z0-9_-]{43}", key), "the key is alone on standard output"
    key_id = re.findall(r"k_\w+", err)[0]
    listed = (await run("key", "list", cwd=folder))[1]
    assert key_id in listed
    assert "active" in listed
    assert key not in listed
    async with httpx.AsyncClient(base_url=program.url) as client:
        body = {"userId": "ann", "actionId": "commit:key"}
        headers = {"authorization": f"Bearer {key}"}
        assert (await client.post("/update-score", json=body, headers=headers)).status_code == 202
        assert (await run("key", "revoke", key_id, cwd=folder))[0] == 0

        async def refused() -> bool:
            return (await client.post("/update-score", json=body, headers=headers)).status_code == 401

        await until(refused)
    assert (await run("key", "revoke", key_id, cwd=folder))[0] == 1


async def test_a_token_of_the_command_line_is_taken(up: tuple[Program, Path]) -> None:
    program, folder = up
    token = (await run("token", "--user", "ann", "--name", "Ann", cwd=folder))[1].strip()
    async with httpx.AsyncClient(
        base_url=program.url, headers={"authorization": f"Bearer {token}"}
    ) as client:
        answer = await client.put("/users/ann", json={"name": "Ännchen"})
        assert answer.status_code == 202


async def test_scores_by_people_who_do_not_program(up: tuple[Program, Path]) -> None:
    program, folder = up
    async with httpx.AsyncClient(base_url=program.url) as client:
        status, out, _ = await run("score", "zoe", "fix", "--count", "1200", cwd=folder)
        assert status == 0
        assert "zoe: 1200 applied" in out
        assert "main: 6000 points, rank 2" in out
        assert (await run("score", "zoe", "fix:once", cwd=folder))[1].startswith("zoe: 1 applied")
        assert (await run("score", "zoe", "fix:once", cwd=folder))[1].startswith("zoe: 1 counted before")
        status, _, err = await run("score", "zoe", "fly", cwd=folder)
        assert status == 1
        assert err == "scoreboard: There is no action 'fly'.\n"
        assert (await client.get("/boards/main/users/zoe")).json()["score"] == 6005


async def test_a_second_up_is_refused(up: tuple[Program, Path]) -> None:
    program, folder = up
    status, out, err = await run("up", "--port", "0", cwd=folder)
    assert status == 1
    assert "ready" not in out
    assert f"process {program.pid}" in err
    assert program.url in err


async def test_the_configuration_is_checked_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "scoreboard.toml").write_text("[actions.win]\npoint = 3\n")
    for argv in (["check"], ["up"], ["verify"], ["score", "ann", "win"]):
        status, out, err = await run(*argv, cwd=tmp_path)
        assert (status, out) == (78, "")
        assert "unknown key 'point' in [actions.win]; did you mean 'points'?" in err
    assert not (tmp_path / "scoreboard-data").exists()
    (tmp_path / "scoreboard.toml").write_text("[actions.win]\npoints = 3\n")
    status, out, _ = await run("check", cwd=tmp_path)
    assert status == 0
    assert "action win: 3 points, policy service, counts on main" in out
    status, _, err = await run("check", cwd=tmp_path, settings={"SCOREBOARD_QUEU_URL": "x"})
    assert status == 78
    assert "did you mean 'SCOREBOARD_QUEUE_URL'?" in err
    for role, variable, url in (
        ("up", "SCOREBOARD_QUEUE_URL", "localhost:4222"),
        ("api", "SCOREBOARD_DATABASE_URL", "mysql://h/n"),
        ("worker", "SCOREBOARD_BOARD_URL", "redis://h:port"),
    ):
        status, out, err = await run(role, cwd=tmp_path, settings={variable: url})
        assert (status, out) == (78, "")
        assert re.fullmatch(rf"scoreboard: {variable} is not a URL like .*\n", err)


async def test_the_demo_moves_by_itself_and_leaves_the_real_ledger_alone(tmp_path: Path) -> None:
    async with started("up", "--demo", "--port", "0", cwd=tmp_path) as program:
        url = await program.ready()
        async with httpx.AsyncClient(base_url=url) as client, watching(client) as screen:
            async with asyncio.timeout(SECONDS):
                seen = [json.loads(await screen.recv()) for _ in range(4)]
            assert len({frame["seq"] for frame in seen}) == 4
            visit = (await client.post("/demo/join", json={"name": "Zoë"})).json()
            answer = await client.post(
                "/update-score",
                json={"userId": visit["userId"], "actionId": f"{visit['action']}:1"},
                headers={"authorization": f"Bearer {visit['token']}", "prefer": "wait=10"},
            )
            assert answer.json()["status"] == "applied"
    assert [p.name for p in (tmp_path / "scoreboard-data").iterdir()] == ["demo"]


@pytest.mark.parametrize(
    "command", [[], ["up"], ["key", "create"], ["token"], ["score"], ["replay"], ["verify"], ["check"]]
)
def test_help_is_there_for_everything(command: list[str]) -> None:
    told = CliRunner().invoke(main, [*command, "--help"])
    assert told.exit_code == 0
    assert told.output.startswith("Usage: ")
    if command:
        assert "--config" in told.output
        assert "--data" in told.output


READING = [
    ["verify"], ["rebuild"], ["held"], ["explain", "ann"], ["audit"], ["key", "list"], ["key", "rotate", "k"],
    ["key", "revoke", "k"], ["backup", "file"], ["adopt"], ["export", "ledger"],
    ["dead", "list"], ["dead", "show", "1"], ["dead", "retry", "1"], ["dead", "drop", "1"],
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_who_only_reads_refuses_a_folder_that_is_not_there(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (("mistyped", "does not exist"), ("empty", "holds no deployment")):
        result = CliRunner().invoke(main, [*command, "--data", str(tmp_path / name)])
        assert result.exit_code == 1
        assert f"{tmp_path / name} {words}" in result.output
        assert "--data" in result.output
    assert [one.name for one in tmp_path.iterdir()] == ["empty"]


def test_a_log_is_not_adopted_from_a_folder_that_is_not_there(tmp_path: Path) -> None:
    settings = {"SCOREBOARD_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    result = CliRunner().invoke(main, ["adopt", "--data", str(tmp_path / "mistyped")], env=settings)
    assert result.exit_code == 1
    assert f"{tmp_path / 'mistyped'} does not exist" in result.output
    assert not list(tmp_path.iterdir())


def test_the_reason_of_an_adoption_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["adopt", "--reason", "a\nb", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "--reason" in result.output
