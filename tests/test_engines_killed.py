"""Whatever ends the engines or their supervisor: they come back as they were, or leave nothing that runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from own_engines import (
    DEADLINE,
    ENGINES,
    KEEPER,
    NOTHING_GIVEN,
    data,
    dead,
    family,
    read,
    server_process,
    started,
    until,
    until_usable,
    write,
)
from scoreboard.engines import Engines
from scoreboard.engines.process import Backoff, Leftovers, start_time

__all__ = ["data"]


@pytest.mark.parametrize("name", ENGINES)
async def test_a_killed_engine_comes_back_on_the_same_address(made: Path, name: str) -> None:
    async with started(made) as (ours, urls):
        await write(urls, "before")
        victim = server_process(ours, name)
        victim.send(signal.SIGKILL)
        await until(lambda: server_process(ours, name).pid != victim.pid, f"{name} is started again")
        await until_usable(urls)
        await write(urls, "after")
        assert await read(urls) == (["before", "after"], 2)


async def test_after_all_were_killed_at_once_the_next_start_works(made: Path) -> None:
    ours = Engines(made, NOTHING_GIVEN)
    urls = await ours.start()
    await write(urls, "one")
    for name in ENGINES:
        server_process(ours, name).send(signal.SIGKILL)
    for name in ENGINES:
        await server_process(ours, name).wait()
    assert (made / "postgresql" / "data" / "postmaster.pid").exists()
    async with started(made) as (_, again):
        assert again == urls
        assert await read(again) == (["one"], 1)


async def test_a_lock_file_whose_process_id_is_in_use_again_does_not_block(made: Path) -> None:
    ours = Engines(made, NOTHING_GIVEN)
    urls = await ours.start()
    await write(urls, "one")
    ours.kill()
    for name in ENGINES:
        await server_process(ours, name).wait()
    # As after the restart of a container: our id, which is certainly in use, was that of the database.
    lock = made / "postgresql" / "data" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    marks = json.loads((made / "processes.json").read_text())
    marks["postgresql"] = {"pid": os.getpid(), "started": "another time"}
    (made / "processes.json").write_text(json.dumps(marks))
    async with started(made) as (_, again):
        assert (await read(again))[0] == ["one"]


async def test_a_killed_supervisor_leaves_no_engine(made: Path) -> None:
    keeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, str(made), stdout=subprocess.PIPE
    )
    assert keeper.stdout is not None
    said = json.loads(await asyncio.wait_for(keeper.stdout.readline(), DEADLINE))
    everyone = family(list(said["pids"].values()))
    names = {psutil.Process(pid).name() for pid in said["pids"].values()}
    assert names == {"postgres", "nats-server", "valkey-server"}
    assert {os.getsid(pid) for pid in said["pids"].values()} == set(said["pids"].values())
    keeper.kill()
    await keeper.wait()
    await until(lambda: all(map(dead, everyone)), "all engines end with their supervisor")
    async with started(made) as (_, urls):
        assert [urls.database, urls.queue, urls.board] == said["urls"]


async def test_leftovers_are_ended_only_when_they_are_proved_to_be_ours(data: Path) -> None:
    forever = (sys.executable, "-c", "import signal; print(flush=True); signal.pause()")
    ours, stranger = [
        await asyncio.create_subprocess_exec(*forever, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for process in (ours, stranger):
        assert process.stdout is not None
        await process.stdout.readline()
    leftovers = Leftovers(data)
    leftovers.remember("nats", ours.pid)
    leftovers.remember("valkey", stranger.pid)
    marks = json.loads((data / "processes.json").read_text())
    marks["valkey"]["started"] += "0"  # the id was the engine's, then became another process'
    (data / "processes.json").write_text(json.dumps(marks))
    await Leftovers(data).end()
    assert await asyncio.wait_for(ours.wait(), DEADLINE) == -signal.SIGKILL
    assert start_time(stranger.pid) is not None
    stranger.kill()
    await stranger.wait()


async def test_back_off_doubles_up_to_a_bound_and_forgets_after_a_minute() -> None:
    backoff = Backoff()
    assert [round(backoff.after(1), 1) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert backoff.after(61) == 0.1
    assert backoff.after(1) == 0.2
