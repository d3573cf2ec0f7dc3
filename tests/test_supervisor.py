"""``scoreboard up`` keeps everything alive and stops it in the order of the flow.

The roles are small programs here, so that what is tested is the supervisor; the real roles run under it in
the tests of the whole flow. The engines are real.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from scoreboard.config import Environment
from scoreboard.engines import Urls, engines
from scoreboard.errors import ConfigurationError, EngineError
from scoreboard.supervisor import Options, children, running, up
from small_roles import roles

DEADLINE = 30.0
# `up` as a program: prints the URL when it is ready, or the error.
UP = """
import asyncio, json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import msgspec
from scoreboard.errors import ScoreboardError
from scoreboard.supervisor import Options, up
from small_roles import roles
options = msgspec.json.decode(sys.argv[2], type=Options, dec_hook=lambda kind, value: kind(value))
try:
    asyncio.run(up(options, on_ready=lambda url: print("ready", url, flush=True), children=roles))
except ScoreboardError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(1)
"""


@pytest.fixture
def data() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sb-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def quick(data: Path, engine_urls: Urls, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder where PostgreSQL is given: to make a database takes longer than all the rest."""
    monkeypatch.setenv("SCOREBOARD_DATABASE_URL", engine_urls.database)
    return data


class Up:
    """A running ``up``."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path, url: str) -> None:
        self.process = process
        self.data = data
        self.url = url

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "state.json").read_text())
        return found

    def pids(self, role: str) -> list[int]:
        if not (self.data / "pids").exists():
            return []
        lines = (self.data / "pids").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == role]

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)).decode().strip()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), DEADLINE)


async def launched(data: Path, **options: Any) -> tuple[asyncio.subprocess.Process, str]:
    """Starts ``up``; the answer is its first line."""
    settings = json.dumps({"config": None, "data": str(data), "port": 0} | options)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UP, str(Path(__file__).parent), settings), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    return process, line.decode().strip()


@asynccontextmanager
async def running_up(data: Path, **options: Any) -> AsyncIterator[Up]:
    process, line = await launched(data, **options)
    try:
        assert line.startswith("ready http://"), line
        yield Up(process, data / "demo" if options.get("demo") else data, line.split()[1])
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def until(condition: Callable[[], object], what: str) -> None:
    """Polls a condition; the time limit is only how long a failure takes."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.01)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def get(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        found: dict[str, Any] = (await client.get(url, timeout=DEADLINE)).json()
        return found


async def test_it_serves_and_stops_in_the_order_of_the_flow(data: Path) -> None:
    async with running_up(data, demo=True, processes=2) as it:
        everyone = family(it.process.pid)
        await until(lambda: it.pids("demo"), "the demo has started")
        await until(lambda: len(it.pids("api+live")) == 2, "both servers have started")
        assert psutil.Process(it.process.pid).cmdline()[0].startswith("scoreboard up")
        assert await it.stop() == 0
        stops = (it.data / "stops").read_text().split()
        assert stops == ["demo", "api+live", "api+live", "worker"]
        assert all(map(dead, everyone))
        assert not (it.data / "state.json").exists()
        assert "shut down" in (it.data / "postgresql" / "log").read_text()  # in good order


async def test_children_get_their_settings_and_a_session_of_their_own(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = made.parent / f"{made.name}.toml"
    monkeypatch.setenv("SCOREBOARD_CONFIG", "/of/somebody/else.toml")
    async with running_up(made, config=str(config)) as it:
        seen = await get(it.url)
        assert seen["session"] == seen["pid"]
        urls = it.state["urls"]
        assert seen["settings"] == {
            "SCOREBOARD_DATABASE_URL": urls["database"],
            "SCOREBOARD_QUEUE_URL": urls["queue"],
            "SCOREBOARD_BOARD_URL": urls["board"],
            "SCOREBOARD_SECRET": (made / "secret").read_text(),
            "SCOREBOARD_CONFIG": str(config),
            "SCOREBOARD_DATA": str(made),
        }


async def test_the_state_is_told_to_the_owner_alone(quick: Path) -> None:
    async with running_up(quick) as it:
        assert (it.state["pid"], it.state["url"]) == (it.process.pid, it.url)
        assert mode(quick / "state.json") == 0o600


@pytest.mark.parametrize("role", ["api+live", "worker"])
async def test_a_killed_role_comes_back_and_the_port_stays_open(quick: Path, role: str) -> None:
    async with running_up(quick) as it:
        await until(lambda: it.pids(role), "the role has started")
        os.kill(it.pids(role)[0], signal.SIGKILL)
        # The supervisor holds the socket: a client waits for the new process, and is never refused.
        assert (await get(it.url))["pid"] > 0
        await until(lambda: len(it.pids(role)) == 2, f"{role} is started again")


async def test_a_killed_engine_comes_back(quick: Path) -> None:
    async with running_up(quick) as it:
        victim = next(p for p in psutil.Process(it.process.pid).children() if p.name() == "nats-server")
        port = int(it.state["urls"]["queue"].rpartition(":")[2])
        victim.kill()
        await until(lambda: dead(victim), "it is dead")
        await until(lambda: answers(port), "it listens on the same port")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_killed_itself_it_leaves_nothing_and_the_next_start_works(made: Path) -> None:
    async with running_up(made, processes=2) as it:
        everyone = family(it.process.pid)
        assert len(everyone) > 6
        it.process.kill()
        await it.process.wait()
        await until(lambda: all(map(dead, everyone)), "nothing is left")
    async with running_up(made) as again:
        assert (await get(again.url))["pid"] > 0


async def test_a_second_up_on_the_same_folder_is_refused(quick: Path) -> None:
    async with running_up(quick) as it:
        process, line = await launched(quick)
        assert await process.wait() == 1
        assert line.startswith("EngineError")
        for part in (str(quick), f"process {it.process.pid}", it.url, "stop it first", "--data"):
            assert part in line
        assert (await get(it.url))["pid"] > 0


async def test_a_port_in_use_is_refused_before_an_engine_starts(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = Options(config=None, data=data, port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"port \d+ on 127\.0\.0\.1 is in use.*--port"):
            await up(options, children=roles)
    assert not (data / "postgresql").exists()


async def test_a_role_that_cannot_heal_stops_everything(quick: Path) -> None:
    async with running_up(quick) as it:
        await until(lambda: it.pids("worker"), "the worker has started")
        (quick / "told-worker").write_text("78")  # for the next one
        everyone = family(it.process.pid)
        os.kill(it.pids("worker")[0], signal.SIGKILL)
        assert (await it.line()).startswith("ConfigurationError the worker cannot run")
        assert await asyncio.wait_for(it.process.wait(), DEADLINE) == 1
        assert all(map(dead, everyone))


async def test_a_second_signal_ends_everything_at_once(made: Path) -> None:
    async with running_up(made) as it:
        everyone = family(it.process.pid)
        (made / "stubborn").touch()
        it.process.send_signal(signal.SIGINT)
        assert await it.line() == "stubborn api+live"  # it drains, and would for ten seconds
        begin = time.monotonic()
        assert await it.stop(signal.SIGINT) == 0
        assert time.monotonic() - begin < 5
        await until(lambda: all(map(dead, everyone)), "nothing is left")


async def test_a_signal_while_it_starts_stops_it(data: Path) -> None:
    (data / "lock").touch()
    settings = json.dumps({"config": None, "data": str(data), "port": 0})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UP, str(Path(__file__).parent), settings), stdout=subprocess.PIPE
    )
    await until((data / "postgresql" / "data.new").exists, "the cluster is being made")
    everyone = family(process.pid)
    process.terminate()
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert (process.returncode, output) == (0, b"")
    await until(lambda: all(map(dead, everyone)), "nothing is left")
    async with running_up(data) as it:  # what was half made is made anew
        assert (await get(it.url))["pid"] > 0


async def test_commands_use_the_running_one(made: Path) -> None:
    async with running_up(made) as it:
        async with engines(made, Environment()) as urls:
            assert urls.database == it.state["urls"]["database"]
            await (await asyncpg.connect(urls.database)).close()
        async with running(Options(config=None, data=made), children=roles) as found:
            assert (found.url, found.urls) == (it.url, urls)


async def test_a_command_starts_what_it_needs_and_stops_it(made: Path) -> None:
    others = family(os.getpid())  # the engines of other tests
    async with running(Options(config=None, data=made, port=1), children=roles) as found:
        assert found.url.startswith("http://127.0.0.1:")
        assert (await get(found.url))["pid"] > 0
        with pytest.raises(EngineError, match=rf"by a command, process {os.getpid()}"):
            await up(Options(config=None, data=made), children=roles)
        everyone = [process for process in family(os.getpid()) if process not in others]
    assert len(everyone) > 3
    assert all(map(dead, everyone))


async def test_a_command_is_told_what_went_wrong(made: Path) -> None:
    (made / "lock").touch()
    (made / "told-api+live").write_text("78")
    with pytest.raises(ConfigurationError, match=r"the api\+live cannot run"):
        async with running(Options(config=None, data=made), children=roles):
            pass


async def test_the_demo_refuses_engines_of_others(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOREBOARD_DATABASE_URL", "postgresql://production/scoreboard")
    with pytest.raises(ConfigurationError, match="--demo plays on engines of its own"):
        await up(Options(config=None, data=data, demo=True), children=roles)


async def test_it_serves_on_ipv6(quick: Path) -> None:
    async with running_up(quick, host="::1") as it:
        assert it.url.startswith("http://[::1]:")
        assert (await get(it.url))["pid"] > 0


def test_the_real_children(data: Path) -> None:
    options = Options(config=None, data=data, processes=2, demo=True)
    app = (sys.executable, "-m", "scoreboard.app")
    found = [(child.role, child.argv, child.fds) for child in children(options, 7, "http://h:1")]
    serve = ("api+live", (*app, "api+live", "--fd", "7", "--demo"), (7,))
    assert found == [
        ("worker", (*app, "worker", "--demo"), ()),
        serve,
        serve,
        ("demo", (*app, "demo", "--url", "http://h:1"), ()),
    ]
