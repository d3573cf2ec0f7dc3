"""Orderly ends: each role is restarted under load, and nobody gets less than an answer."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployment import SECONDS, Deployment, bearer, free_port, is_ready, submit, until
from processes import Program, settings_of, started
from scoreboard import draining
from scoreboard.app.serving import serve
from scoreboard.listening import listen
from scoreboard.live.watcher import DRAINING
from test_worker import audit

CLIENTS = 3
WATCHERS = 4
ON_TIME_SECONDS = 3.0  # beyond `retryAfter`, for a handshake on a busy machine


class Load:
    """Clients that report without a pause to two apis, and keep their connections."""

    def __init__(self, deployment: Deployment, urls: list[str]) -> None:
        self._headers = bearer(deployment.key)
        self._urls = urls
        self._numbers = itertools.count()
        self.accepted: list[str] = []
        self.told: Counter[str] = Counter()
        self.failed: list[str] = []
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Report until ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        async with AsyncExitStack() as stack:
            apis = itertools.cycle(
                [
                    await stack.enter_async_context(
                        httpx.AsyncClient(base_url=url, headers=self._headers, timeout=SECONDS)
                    )
                    for url in self._urls
                ]
            )
            while not self.stop.is_set():
                action = f"point:{next(self._numbers)}"
                while not await self._report(next(apis), f"u{number}", action):
                    pass

    async def _report(self, api: httpx.AsyncClient, user: str, action: str) -> bool:
        """Was it accepted? What is not is sent again to the other api, with the same actionId."""
        try:
            answer = await submit(api, user, action, wait=2 if action.endswith("7") else 0)
        except httpx.ConnectError:
            self.told["not connected"] += 1  # nothing was sent; a proxy takes the other one
            await asyncio.sleep(0)
            return False
        except httpx.TransportError as error:
            self.failed.append(repr(error))
            return False
        self.told[f"{answer.status_code}"] += 1
        if answer.status_code == 503 and answer.json()["retryable"]:
            return False
        if answer.status_code not in (200, 202):
            self.failed.append(answer.text)
        self.accepted.append(answer.json()["eventId"])
        return True


class Watcher:
    """A client of two live processes that does what a ``bye`` says."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = itertools.cycle(urls)
        self.late: list[float] = []
        self.byes = 0
        self.score = 0
        self.seen = False
        self.wrong: list[str] = []

    async def run(self) -> None:
        """Watch until cancelled."""
        due = time.monotonic()
        while True:
            url = next(self._urls).replace("http", "ws")
            try:
                async with connect(f"{url}/boards/main/live", subprotocols=["scoreboard.v1"]) as ws:  # type: ignore[list-item]
                    message = msgspec.json.decode(await ws.recv())
                    self.seen = True
                    if self.byes:
                        self.late.append(time.monotonic() - due)
                    while message["type"] != "bye":
                        if message["type"] == "board":
                            self.score = sum(row["score"] for row in message["top"])
                        message = msgspec.json.decode(await ws.recv())
                    assert message["code"] == DRAINING
                    self.byes += 1
                    due = time.monotonic() + message["retryAfter"] / 1000
                    await ws.recv()
            except InvalidStatus as refused:
                if refused.response.status_code != 503:
                    self.wrong.append(repr(refused))
                due = time.monotonic() + int(refused.response.headers["Retry-After"])
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != DRAINING:
                    self.wrong.append(repr(closed))
            except OSError:
                continue  # not up again: the other one
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@asynccontextmanager
async def role(name: str, folder: Path, settings: dict[str, str], port: int) -> AsyncIterator[Program]:
    """One role as a process, ready."""
    flags = ["--port", str(port)] if port else []
    async with started(name, *flags, cwd=folder, settings=settings) as program:
        if port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

                async def ready() -> bool:
                    try:
                        return await is_ready(client)
                    except httpx.TransportError:
                        return False

                async with asyncio.timeout(3 * SECONDS):  # as long as any program may take to start
                    while not await ready():  # noqa: ASYNC110  the condition is another process's
                        await asyncio.sleep(0.1)
        yield program


async def test_a_rolling_restart_of_each_role_fails_no_request(
    deployment: Deployment, tmp_path: Path
) -> None:
    settings = settings_of(deployment)
    ports = [free_port() for _ in range(4)]
    roles = [
        ("worker", 0),
        ("worker", 0),
        *(("api", p) for p in ports[:2]),
        *(("live", p) for p in ports[2:]),
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    load = Load(deployment, urls[:2])
    watchers = [Watcher(urls[2:]) for _ in range(WATCHERS)]

    async with AsyncExitStack() as stack:

        async def start(number: int) -> Program:
            name, port = roles[number]
            return await stack.enter_async_context(role(name, tmp_path / str(number), settings, port))

        async def restart(number: int) -> None:
            assert await running[number].stop() == 0
            running[number] = await start(number)

        for number in range(len(roles)):
            (tmp_path / str(number)).mkdir()
        running = list(await asyncio.gather(*map(start, range(len(roles)))))
        async with asyncio.TaskGroup() as tasks:
            reporting = tasks.create_task(load.run())
            watching_tasks = [tasks.create_task(watcher.run()) for watcher in watchers]

            async def watched() -> bool:
                return all(watcher.seen for watcher in watchers)

            await until(watched)  # all of them at the first
            for half in (range(0, 6, 2), range(1, 6, 2)):  # one of each role, then the other
                before = len(load.accepted)
                await asyncio.gather(*map(restart, half))

                async def flowing(before: int = before) -> bool:
                    return len(load.accepted) > before + 100

                await until(flowing)
            load.stop.set()
            await reporting
            await audit(deployment, load.accepted)

            async def shown() -> bool:
                return {watcher.score for watcher in watchers} == {len(set(load.accepted))}

            await until(shown)
            for task in watching_tasks:
                task.cancel()
    assert load.failed == []
    assert set(load.told) <= {"200", "202", "503", "not connected"}
    assert [watcher.wrong for watcher in watchers] == [[]] * WATCHERS
    assert sum(watcher.byes for watcher in watchers) >= WATCHERS, "each restart said it to those it had"
    assert max(late for watcher in watchers for late in watcher.late) < ON_TIME_SECONDS


@asynccontextmanager
async def ending(deployment: Deployment, stop: asyncio.Event) -> AsyncIterator[str]:
    """A server process's work; where it is. Its end is waited for."""
    sock = listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(deployment.settings, sock, stop, asyncio.Event()))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        stop.set()


async def test_who_waits_to_be_accepted_when_it_stops_is_answered(deployment: Deployment) -> None:
    stop = asyncio.Event()
    stop.set()  # it stops before it has looked at its socket
    async with ending(deployment, stop) as url, AsyncExitStack() as stack:
        answers = []
        for _ in range(50):
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=SECONDS))
            answers.append(asyncio.create_task(client.get("/health/live")))
        for answer in answers:
            found = await answer
            assert (found.status_code, found.headers["connection"]) == (200, "close")


async def test_one_that_went_before_it_was_taken_over_takes_nobody_with_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, accept = asyncio.Event(), socket.socket.accept
    gone = iter([True])

    def accepting(sock: socket.socket) -> tuple[socket.socket, object]:
        if next(gone, False):
            raise ConnectionAbortedError
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accepting)
    stop.set()
    async with ending(deployment, stop) as url, AsyncExitStack() as stack:
        answers = []
        for _ in range(5):
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=SECONDS))
            answers.append(asyncio.create_task(client.get("/health/live")))
        assert [(await answer).status_code for answer in answers] == [200] * 5
    assert not any(gone)


async def test_who_is_connected_is_answered_though_no_descriptor_is_left(deployment: Deployment) -> None:
    stop, limits = asyncio.Event(), resource.getrlimit(resource.RLIMIT_NOFILE)
    async with (
        ending(deployment, stop) as url,
        httpx.AsyncClient(base_url=url, timeout=SECONDS) as client,
    ):
        assert "connection" not in (await client.get("/health/live")).headers
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            stop.set()

            async def told() -> bool:
                return bool((await client.get("/health/live")).headers.get("connection") == "close")

            await until(told)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_connection_that_is_kept_is_told_to_end(deployment: Deployment) -> None:
    stop = asyncio.Event()
    async with (
        ending(deployment, stop) as url,
        httpx.AsyncClient(base_url=url, headers=bearer(deployment.key), timeout=SECONDS) as busy,
        httpx.AsyncClient(base_url=url, timeout=SECONDS) as idle,
    ):
        for client in (busy, idle):
            assert "connection" not in (await client.get("/health/live")).headers
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        stop.set()

        async def closed() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0

        await until(closed)  # nobody new is let in
        answer = await submit(busy, "ann", "point:1", wait=0)
        assert (answer.status_code, answer.headers["connection"]) == (202, "close")
        assert b"live" in await reader.read(), "the body of its only answer, and the end"
        writer.close()


async def test_who_waits_for_an_outcome_is_told_that_it_is_accepted(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DRAIN_SECONDS", 1.5)
    stop = asyncio.Event()
    async with (
        ending(deployment, stop) as url,
        httpx.AsyncClient(base_url=url, headers=bearer(deployment.key), timeout=SECONDS) as client,
    ):
        waiting = asyncio.create_task(submit(client, "ann", "point:1", wait=10))  # and there is no worker
        other = asyncio.create_task(submit(client, "bob", "point:1", wait=0))
        assert (await other).status_code == 202
        stop.set()
        answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")


async def test_what_a_worker_has_applied_when_it_stops_is_told(deployment: Deployment) -> None:
    async with deployment.serving() as client:
        updates = [{"userId": f"u{n}", "actionId": "point:1"} for n in range(1_000)]
        async with deployment.working():
            await submit(client, "ann", "point:1")  # it applies
            waiting = [
                asyncio.create_task(client.post("/update-scores", json=part, headers={"prefer": "wait=3"}))
                for part in (updates[:400], updates[400:700], updates[700:])
            ]

            async def some() -> bool:
                async with deployment.database() as connection:
                    return int(await connection.fetchval("SELECT count(*) FROM events")) > 1

            await until(some)
        async with deployment.database() as connection:
            applied = await connection.fetchval("SELECT count(*) FROM events WHERE user_id <> 'ann'")
        results = [result for answer in waiting for result in (await answer).json()["results"]]
        assert sum(result["status"] == "applied" for result in results) == applied
