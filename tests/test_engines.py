"""The engines keep their data, their addresses and their folder, whatever ends them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import nats
import psutil
import pytest
import redis.asyncio

from scoreboard.config import Environment
from scoreboard.engines import Engines, Urls, engines, folder, postgres
from scoreboard.engines import identity as identities
from scoreboard.engines.process import Backoff, Leftovers, Process, start_time
from scoreboard.errors import EngineError

NOTHING_GIVEN = Environment()
NOBODY = 65534
DEADLINE = 30.0
ENGINES = ("postgresql", "nats", "valkey")
# Starts the engines, says which processes they are, and keeps them until it is killed.
KEEPER = """
import asyncio, json, sys
from pathlib import Path
from scoreboard.config import Environment
from scoreboard.engines import Engines

async def main():
    engines = Engines(Path(sys.argv[1]), Environment())
    urls = await engines.start()
    pids = {server.name: server.process.pid for server in engines._servers}
    print(json.dumps({"pids": pids, "urls": [urls.database, urls.queue, urls.board]}), flush=True)
    await engines.watch()

asyncio.run(main())
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder with a short path, empty."""
    path = Path(tempfile.mkdtemp(prefix="sb-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def started(
    data: Path, environment: Environment = NOTHING_GIVEN
) -> AsyncIterator[tuple[Engines, Urls]]:
    ours = Engines(data, environment)
    urls = await ours.start()
    watching = asyncio.create_task(ours.watch())
    try:
        yield ours, urls
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await ours.stop()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_up(path: Path) -> None:
    path.chmod(0o755)


def open_to_others(data: Path) -> list[Path]:
    """Whatever in the folder is not closed to everybody but its owner."""
    return [path for path in data.rglob("*") if not path.is_symlink() and mode(path) & 0o077]


async def until(condition: Callable[[], object], what: str) -> None:
    """Polls a condition; the time limit is only how long a failure takes."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.01)


async def write(urls: Urls, text: str) -> None:
    """Puts a text where it must survive."""
    connection = await asyncpg.connect(urls.database)
    await connection.execute("CREATE TABLE IF NOT EXISTS t (x text)")
    await connection.execute("INSERT INTO t VALUES ($1)", text)
    await connection.close()
    client = await nats.connect(urls.queue)
    stream = client.jetstream()
    await stream.add_stream(name="T", subjects=["t"])
    await stream.publish("t", text.encode())
    await client.close()
    await answers_board(urls)


async def answers_board(urls: Urls) -> None:
    board = redis.asyncio.from_url(urls.board)
    assert await board.set("t", "x")
    await board.aclose()


async def read(urls: Urls) -> tuple[list[str], int]:
    connection = await asyncpg.connect(urls.database)
    rows = [row["x"] for row in await connection.fetch("SELECT x FROM t")]
    await connection.close()
    client = await nats.connect(urls.queue)
    state = (await client.jetstream().stream_info("T")).state
    await client.close()
    return rows, state.messages


def server_process(ours: Engines, name: str) -> Process:
    process = next(server.process for server in ours._servers if server.name == name)
    assert process is not None
    return process


def family(pids: list[int]) -> list[psutil.Process]:
    """Processes with all that they have started."""
    roots = [psutil.Process(pid) for pid in pids]
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_restart_keeps_data_addresses_and_credentials(data: Path) -> None:
    async with started(data) as (_, first):
        await write(first, "one")
    async with started(data) as (_, second):
        assert second == first
        await write(second, "two")
        assert await read(second) == (["one", "two"], 2)
        board = redis.asyncio.from_url(second.board)
        assert await board.dbsize() == 1  # nothing of the first start
        await board.aclose()


async def test_everything_is_durable_and_nothing_listens_beyond_this_machine(data: Path) -> None:
    async with started(data) as (ours, urls):
        connection = await asyncpg.connect(urls.database)
        for name, value in {
            "server_version_num": "18",
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "",
            "password_encryption": "scram-sha-256",
        }.items():
            assert str(await connection.fetchval(f"SHOW {name}")).startswith(value), name
        await connection.close()
        settings = json.loads((data / "nats" / "nats.conf").read_text())
        assert settings["jetstream"]["sync_interval"] == "always"
        listening = {
            connection.laddr.ip
            for name in ENGINES
            for connection in psutil.Process(server_process(ours, name).pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    assert not list((data / "valkey").glob("*.rdb"))


@pytest.mark.parametrize(
    ("limits", "gib"),
    [
        ({}, 4),
        ({"memory.max": "max\n"}, 4),
        ({"memory.max": "2147483648\n"}, 2),
        ({"memory/memory.limit_in_bytes": "1073741824\n"}, 1),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4),
    ],
)
def test_memory_is_what_the_machine_has_or_the_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], gib: int
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 20}.__getitem__)
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert postgres.memory(tmp_path) == gib << 30


@pytest.mark.parametrize(
    ("memory", "disk", "buffers", "wal"),
    [
        (1 << 29, (10 << 30, 9 << 30), 128, 1024),
        (8 << 30, (64 << 30, 60 << 30), 1024, 2048),
        (8 << 30, (64 << 30, 6 << 30), 1024, 1536),
        (8 << 30, (64 << 30, 1 << 30), 1024, 1024),
        (1 << 40, (1 << 50, 1 << 50), 4096, 4096),
    ],
)
def test_postgresql_gets_its_share_of_the_machine_within_bounds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    disk: tuple[int, int],
    buffers: int,
    wal: int,
) -> None:
    monkeypatch.setattr(postgres, "memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=disk[0], free=disk[1]))
    lines = postgres.settings(tmp_path).splitlines()
    assert f"shared_buffers = {buffers}MB" in lines
    assert f"max_wal_size = {wal}MB" in lines


async def test_every_engine_wants_its_password(data: Path) -> None:
    async with started(data) as (_, urls):
        passwords = json.loads((data / "engines.json").read_text())["passwords"]
        wrong = Urls(*(
            url.replace(passwords[name], "wrong")
            for name, url in zip(ENGINES, (urls.database, urls.queue, urls.board), strict=True)
        ))  # fmt: skip
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong.database)
        # By hand: a client that is refused leaves its connection open (nats-py 2.16).
        reader, writer = await asyncio.open_connection("127.0.0.1", int(wrong.queue.rpartition(":")[2]))
        await reader.readline()
        writer.write(b'CONNECT {"user":"scoreboard","pass":"wrong"}\r\nPING\r\n')
        assert b"Authorization Violation" in await reader.readline()
        writer.close()
        await writer.wait_closed()
        board = redis.asyncio.from_url(wrong.board)
        with pytest.raises(redis.exceptions.ConnectionError, match="invalid username-password"):
            await board.ping()
        await board.aclose()


async def _ignore(_: Exception) -> None:
    """The error is raised as well."""


async def test_nobody_else_may_enter_the_folder_or_read_a_credential(data: Path) -> None:
    open_up(data)
    async with started(data):
        assert mode(data) == 0o700
        assert open_to_others(data) == []


@pytest.mark.parametrize("name", ENGINES)
async def test_a_killed_engine_comes_back_on_the_same_address(data: Path, name: str) -> None:
    async with started(data) as (ours, urls):
        await write(urls, "before")
        victim = server_process(ours, name)
        victim.send(signal.SIGKILL)
        await until(lambda: server_process(ours, name).pid != victim.pid, f"{name} is started again")
        await until_usable(urls)
        await write(urls, "after")
        assert await read(urls) == (["before", "after"], 2)


async def until_usable(urls: Urls) -> None:
    """The drivers' own waiting: each tries until its server answers."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            connection = await asyncpg.connect(urls.database)
            await connection.close()
            client = await nats.connect(urls.queue, allow_reconnect=False, error_cb=_ignore)
            try:
                await client.jetstream().account_info()
            finally:
                await client.close()
            await answers_board(urls)
        except (OSError, asyncpg.PostgresError, nats.errors.Error, redis.exceptions.RedisError):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        else:
            return


async def test_after_all_were_killed_at_once_the_next_start_works(data: Path) -> None:
    ours = Engines(data, NOTHING_GIVEN)
    urls = await ours.start()
    await write(urls, "one")
    for name in ENGINES:
        server_process(ours, name).send(signal.SIGKILL)
    for name in ENGINES:
        await server_process(ours, name).wait()
    assert (data / "postgresql" / "data" / "postmaster.pid").exists()
    async with started(data) as (_, again):
        assert again == urls
        assert await read(again) == (["one"], 1)


async def test_a_lock_file_whose_process_id_is_in_use_again_does_not_block(data: Path) -> None:
    ours = Engines(data, NOTHING_GIVEN)
    urls = await ours.start()
    await write(urls, "one")
    ours.kill()
    for name in ENGINES:
        await server_process(ours, name).wait()
    # As after the restart of a container: our id, which is certainly in use, was that of the database.
    lock = data / "postgresql" / "data" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    marks = json.loads((data / "processes.json").read_text())
    marks["postgresql"] = {"pid": os.getpid(), "started": "another time"}
    (data / "processes.json").write_text(json.dumps(marks))
    async with started(data) as (_, again):
        assert (await read(again))[0] == ["one"]


async def test_a_killed_supervisor_leaves_no_engine(data: Path) -> None:
    keeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, str(data), stdout=subprocess.PIPE
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
    async with started(data) as (_, urls):
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


async def test_a_path_too_long_for_a_socket_falls_back_to_loopback(data: Path) -> None:
    long = data / ("x" * 100)
    async with started(long) as (_, urls):
        assert "@127.0.0.1:" in urls.database
        assert urls.board.startswith("redis://")
        await write(urls, "one")
    async with started(long) as (_, again):
        assert again == urls
        assert await read(again) == (["one"], 1)


async def test_an_odd_path_works(data: Path) -> None:
    async with started(data / 'it\'s 50% "ö" #1?&') as (_, urls):
        assert "host=%2F" in urls.database
        await write(urls, "one")


async def test_a_log_from_before_the_account_had_a_name_is_taken_over(data: Path) -> None:
    async with started(data) as (_, urls):
        await write(urls, "one")
    streams = data / "nats" / "jetstream"
    (streams / "SCOREBOARD").rename(streams / "$G")
    async with started(data) as (_, urls):
        assert await read(urls) == (["one"], 1)


async def test_an_engine_given_by_url_is_not_started(data: Path) -> None:
    async with started(data / "a") as (_, urls):
        environment = Environment(database_url=urls.database, board_url=urls.board)
        async with started(data / "b", environment) as (ours, mixed):
            assert (mixed.database, mixed.board) == (urls.database, urls.board)
            assert mixed.queue != urls.queue
            assert [server.name for server in ours._servers] == ["nats"]
            await write(mixed, "one")


async def test_with_all_urls_a_command_touches_no_folder(data: Path) -> None:
    environment = Environment(database_url="postgresql://a/b", queue_url="nats://a", board_url="redis://a")
    async with engines(data / "none", environment) as urls:
        assert urls == Urls("postgresql://a/b", "nats://a", "redis://a")
    assert not (data / "none").exists()


async def test_two_commands_use_the_engines_one_after_the_other(data: Path) -> None:
    inside: list[str] = []

    async def command(name: str) -> None:
        async with engines(data, NOTHING_GIVEN) as urls:
            inside.append(f"{name} begins")
            await write(urls, name)
            inside.append(f"{name} ends")

    await asyncio.gather(command("a"), command("b"))
    assert inside in (
        ["a begins", "a ends", "b begins", "b ends"],
        ["b begins", "b ends", "a begins", "a ends"],
    )
    assert not (data / "state.json").exists()


@pytest.mark.parametrize("name", ["postgresql", "nats"])
async def test_files_of_another_major_version_are_refused(data: Path, name: str) -> None:
    async with started(data):
        pass
    kept = json.loads((data / "engines.json").read_text())
    kept["majors"][name] = "1"
    (data / "engines.json").write_text(json.dumps(kept))
    with pytest.raises(EngineError, match=r"was written by \w+ 1, and this is .*(install|with) the version"):
        await Engines(data, NOTHING_GIVEN).start()


async def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(data: Path) -> None:
    (data / "thesis.txt").write_text("years of work")
    open_up(data)
    with pytest.raises(EngineError, match="neither empty nor a data folder"):
        await Engines(data, NOTHING_GIVEN).start()
    assert mode(data) == 0o755


async def test_an_engine_that_cannot_start_says_why_and_leaves_none_running(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(data):
        pass
    monkeypatch.setattr("scoreboard.engines.server.RETRY_SECONDS", 0.0)
    shutil.rmtree(data / "postgresql" / "data" / "global")
    ours = Engines(data, NOTHING_GIVEN)
    with pytest.raises(
        EngineError, match=r"(?s)PostgreSQL ended at its start .*SCOREBOARD_DATABASE_URL.*could not open file"
    ):
        await ours.start()
    for name in ("nats", "valkey"):
        assert server_process(ours, name).returncode is not None


async def test_missing_wheels_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("scoreboard.engines.server.importlib.metadata.distribution", missing)
    with pytest.raises(EngineError, match=r"pip install '\.\[engines\]'"):
        await Engines(data, NOTHING_GIVEN).start()


async def test_back_off_doubles_up_to_a_bound_and_forgets_after_a_minute() -> None:
    backoff = Backoff()
    assert [round(backoff.after(1), 1) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert backoff.after(61) == 0.1
    assert backoff.after(1) == 0.2


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

    @pytest.mark.usefixtures("no_namespaces")
    @pytest.mark.parametrize("staged", [False, True])
    async def test_where_namespaces_are_denied_postgresql_runs_as_nobody(
        data: Path, staged: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identities, "open_to_all", lambda _: not staged)
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


async def test_the_lock_alone_proves_use(data: Path) -> None:
    folder.tell(data, folder.State(pid=1, holder="up", url="http://127.0.0.1:1", urls=Urls("a", "b", "c")))
    async with engines(data, NOTHING_GIVEN) as urls:  # the state file of a dead `up` deceives nobody
        assert urls.database != "a"
