"""The ledger and boards for other programs: whole, in order, and harmless in a spreadsheet."""

from __future__ import annotations

import asyncio
import csv
import io
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployment import Deployment, submit, until
from processes import run, settings_of
from scoreboard import config, export
from scoreboard.database import Database, reading

NASTY = ['=HYPERLINK("x")', "+1", "-1", "@x", "\uff1d1", "'quoted'", 'a,"b"', "plain"]  # u+ff1d: a wide =


@pytest.fixture(scope="module")
async def played(deploy: Any) -> Deployment:
    """A deployment whose users have names like formulas, and some equal scores."""
    deployment: Deployment = await deploy()
    async with deployment.running() as client:
        for place, user in enumerate(NASTY):
            for number in range(1 + place // 2):
                await submit(client, user, f"point:{number}")

        async def all_applied() -> bool:
            async with deployment.database() as connection:
                return int(await connection.fetchval("SELECT count(*) FROM events")) == 20

        await until(all_applied)
    return deployment


async def test_the_ledger_is_written_whole(played: Deployment, tmp_path: Path) -> None:
    settings = settings_of(played)
    status, out, err = await run("export", "ledger", "--format", "ndjson", cwd=tmp_path, settings=settings)
    assert (status, err) == (0, "20 rows\n")
    rows = [msgspec.json.decode(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [list(export.LEDGER)] * 20
    assert {row["userId"] for row in rows} == set(NASTY)
    numbers = [row["acceptNo"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert (rows[0]["boards"], rows[0]["points"], rows[0]["outcome"]) == (["main"], 1, "applied")

    command = ("export", "ledger", "--output", "file.csv")
    assert (await run(*command, cwd=tmp_path, settings=settings))[0] == 0
    assert stat.S_IMODE((tmp_path / "file.csv").stat().st_mode) == 0o600
    text = (tmp_path / "file.csv").read_text()
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["userId"].removeprefix("'") for row in table if row["userId"] != "''quoted'"] == [
        row["userId"] for row in rows if row["userId"] != "'quoted'"
    ]
    assert not [
        cell for row in table for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\uff1d"))
    ]
    status, _, err = await run(*command, cwd=tmp_path, settings=settings)
    assert (status, "there already" in err) == (1, True)
    assert (tmp_path / "file.csv").read_text() == text


async def test_a_ledger_that_takes_long_to_put_in_order_is_waited_for(
    played: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ANSWER_SECONDS", 0.5)
    async with (
        Database.open(played.database_url) as opened,
        played.database() as other,
        asyncio.TaskGroup() as tasks,
    ):
        lock = other.transaction()
        await lock.start()
        await other.execute("LOCK TABLE events")  # nothing is read of it until that ends

        async def exported() -> int:
            return await export.write(export.LEDGER, export.ledger(opened), "csv", lambda _: None)

        exporting = tasks.create_task(exported())
        assert not (await asyncio.wait([exporting], timeout=1))[0]
        await lock.rollback()
        assert await exporting == 20


@pytest.mark.parametrize(
    ("mode", "ranks"),
    [
        ("ordinal", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("competition", [1, 1, 3, 3, 5, 5, 7, 7]),
        ("dense", [1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
async def test_a_board_is_written_with_its_ranks(played: Deployment, mode: Any, ranks: list[int]) -> None:
    lines: list[bytes] = []
    async with Database.open(played.database_url) as database:
        rows = export.board(database, "main", config.Board(rank=mode))
        assert await export.write(export.BOARD, rows, "csv", lines.append) == 8
    table = list(csv.reader(io.StringIO(b"".join(lines).decode())))
    assert table[0] == ["rank", "userId", "name", "score"]
    assert [int(row[0]) for row in table[1:]] == ranks
    assert [row[1] for row in table[1:3]] == ['a,"b"', "plain"]
    assert [int(row[3]) for row in table[1:]] == [4, 4, 3, 3, 2, 2, 1, 1]
