"""The queue: an ordered log, group commit into it, and sealed envelopes in it, on the real NATS."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import nats
import pytest

from deployment import SECONDS, Deployment, until
from gate import Gate, gate
from processes import assert_one_error, command, settings_of, started
from queueing import SECRET, opened, read, update
from scoreboard.engines import Urls
from scoreboard.envelope import NotOurs, Sealer, encode_entry
from scoreboard.errors import LogMismatch, QueueFull, Unavailable
from scoreboard.group_commit import partition_of
from scoreboard.model import Entry, Rename
from scoreboard.queue import Queue, State
from scoreboard.queue.reading import READ_AHEAD
from scoreboard.queue.server import translated

NOWHERE = "http://127.0.0.1:1"


async def attempt(publish: Awaitable[int]) -> object:
    try:
        return await publish
    except QueueFull:
        return QueueFull


async def test_messages_are_read_in_order_from_any_place(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        count = 3 * READ_AHEAD + 7  # several requests for messages
        sequences = [await queue.publish(0, str(n).encode()) for n in range(count)]
        assert sequences == list(range(1, count + 1))
        found = await read(queue, 0, count)
        assert [(m.sequence, m.body) for m in found] == [(n + 1, str(n).encode()) for n in range(count)]
        assert [m.at for m in found] == sorted(m.at for m in found)
        assert [m.sequence for m in await read(queue, count - 2, 2)] == [count - 1, count]


async def test_a_reader_gets_what_comes_while_it_waits(deployment: Deployment) -> None:
    async with opened(deployment) as queue, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(queue, 0, 1))
        await queue.publish(0, b"late")
        assert [m.body for m in await reading] == [b"late"]


async def test_a_full_log_refuses_and_keeps_what_it_has(deployment: Deployment) -> None:
    async with opened(deployment, max_bytes=1 << 20) as queue:
        body = secrets.token_bytes(200_000)
        answers = [await attempt(queue.publish(0, body)) for _ in range(10)]
        assert answers.index(QueueFull) >= 4
        assert set(answers[answers.index(QueueFull) :]) == {QueueFull}
        state = await queue.state()
        assert (state.first, state.last) == (1, answers.index(QueueFull))
        await queue.trim(2)
        assert (await queue.state()).first == 3
        await queue.publish(0, body)


async def test_another_number_of_partitions_is_refused(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        with pytest.raises(LogMismatch, match=r"queue\.partitions is 2"):
            await queue.ensure(partitions=2, max_bytes=1 << 26, replicas=1, known=None)


async def test_a_log_that_the_database_has_not_been_reading_is_refused(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        with pytest.raises(LogMismatch, match="reading the log other; the queue now holds"):
            await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known="other")


async def test_a_log_that_is_gone_is_not_made_again_and_takes_nothing(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        known = (await queue.state()).identity
        client = await nats.connect(deployment.environment.queue)
        await client.jetstream().delete_stream(deployment.name)
        with pytest.raises(LogMismatch, match="no longer there"):
            await queue.state()
        async with Queue.open(deployment.environment.queue, deployment.name, "test") as other:
            with pytest.raises(LogMismatch, match="the queue holds none"):
                await other.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=known)
            await other.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)
            with pytest.raises(Unavailable):
                await queue.publish(0, b"into another log")
            assert (await other.state()).last == 0
        await client.close()


async def test_two_that_make_the_log_at_once_agree_on_one(deployment: Deployment) -> None:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:

        async def make() -> State:
            return await queue.ensure(partitions=1, max_bytes=1 << 26, replicas=1, known=None)

        states = await asyncio.gather(*(make() for _ in range(5)))
        assert len({state.identity for state in states}) == 1
        assert states[0].identity


async def test_a_reader_that_is_cut_off_says_so_and_another_goes_on(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        await queue.publish(0, b"1")
        async with aclosing(queue.read(0, 0)) as batches:
            assert [m.body for m in await anext(batches)] == [b"1"]
            client = await nats.connect(deployment.environment.queue)
            stream = client.jetstream()
            for consumer in await stream.consumers_info(deployment.name):
                await stream.delete_consumer(deployment.name, consumer.name)
            await client.close()
            with pytest.raises(Unavailable):
                await asyncio.wait_for(anext(batches), SECONDS)
        await queue.publish(0, b"2")
        assert [m.body for m in await read(queue, 1, 1)] == [b"2"]


def test_an_envelope_opens_with_the_key_it_was_sealed_with_and_the_previous_one() -> None:
    entries: list[Entry] = [update(1), Rename(b"c" * 16, "ann", "Ann", "user:ann@x")]
    sealed = Sealer(SECRET).seal("cat", "inbox", [1], [encode_entry(entry) for entry in entries])
    for sealer in (Sealer(SECRET), Sealer("another secret, just as long as it must be", SECRET)):
        opened_one = sealer.open(sealed)
        assert opened_one.entries == entries
        assert (opened_one.catalogue, opened_one.inbox, list(opened_one.wanted)) == ("cat", "inbox", [1])
    with pytest.raises(NotOurs):
        Sealer("another secret, just as long as it must be").open(sealed)


def test_no_changed_byte_of_an_envelope_goes_unnoticed() -> None:
    sealed = Sealer(SECRET).seal("cat", "", [], [encode_entry(update(1))])
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(NotOurs):
            Sealer(SECRET).open(bytes(changed))
    for size in (0, 31, 32, len(sealed) - 1):
        with pytest.raises(NotOurs):
            Sealer(SECRET).open(sealed[:size])


def test_all_entries_of_a_user_go_through_one_partition() -> None:
    assert {partition_of(f"u{n}", 4) for n in range(200)} == {0, 1, 2, 3}
    assert partition_of("ann", 4) == partition_of("ann", 4)


async def test_a_cancellation_that_the_client_swallows_still_ends_the_task() -> None:
    began = asyncio.Event()

    async def asking() -> None:
        with translated():
            began.set()
            with suppress(asyncio.CancelledError):  # as the client does while it flushes
                await asyncio.Event().wait()

    task = asyncio.create_task(asking())
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.fixture
async def door(engine_urls: Urls) -> AsyncIterator[Gate]:
    """Before the server; its URL is the one for clients."""
    parts = urlsplit(engine_urls.queue)
    async with gate(f"http://{parts.hostname}:{parts.port}") as door:
        netloc = f"{parts.username}:{parts.password}@{urlsplit(door.url).netloc}"
        door.url = parts._replace(netloc=netloc).geturl()
        yield door


async def test_who_connects_ends_when_told_to_though_the_server_goes_in_that_moment(door: Gate) -> None:
    there = door.server
    for turns in itertools.count():  # told one turn of the loop later each time, until it is connected
        async with AsyncExitStack() as stack:
            queue = Queue.open(door.url, "nobody", "test", patient=True)
            connecting = asyncio.create_task(stack.enter_async_context(queue))
            for _ in range(turns):
                await asyncio.sleep(0)
            if connecting.done():
                break
            connecting.cancel()
            door.server = NOWHERE
            door.cut()
            await asyncio.wait([connecting], timeout=SECONDS)
            assert connecting.done(), f"told to end after {turns} turns"
            door.server = there
    assert turns > 10


async def test_a_server_that_is_not_there_yet_is_waited_for_and_that_is_said(
    door: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "scoreboard.queue")
    there, door.server = door.server, NOWHERE
    async with AsyncExitStack() as stack:
        queue = Queue.open(door.url, "nobody", "test", patient=True)
        connecting = asyncio.create_task(stack.enter_async_context(queue))

        async def tried() -> bool:
            return len(caplog.messages) > 5

        await until(tried)
        door.server = there
        assert await (await connecting).flaw() is None
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [one.partition(":")[0] for one in warnings] == ["waiting for the queue"]


@pytest.mark.parametrize("role", ["api", "worker"])
async def test_a_role_waits_for_its_queue_until_it_is_told_to_end(
    deployment: Deployment, tmp_path: Path, role: str
) -> None:
    settings = settings_of(deployment) | {"SCOREBOARD_QUEUE_URL": "nats://127.0.0.1:1"}
    async with started(role, "--port", "0", cwd=tmp_path, settings=settings) as waiting:

        async def said() -> bool:
            return "waiting for the queue: ConnectionRefused" in (tmp_path / f"{role}.log").read_text()

        await until(said)
        assert await waiting.stop() == 0


async def test_who_is_not_patient_is_told_at_once_what_is_wrong(engine_urls: Urls) -> None:
    # Who has said a wrong password hears so, or, for the server hangs up at once, that it has hung up.
    wrong = {"nats://127.0.0.1:1": "Connect", engine_urls.queue.replace("@", "wrong@"): "Authorization|reset"}
    for url, what in wrong.items():
        with pytest.raises(Unavailable, match=f"^The queue is away, or does not let us in: .*({what})"):
            async with asyncio.timeout(SECONDS), Queue.open(url, "nobody", "test"):
                pass


async def test_what_is_no_address_is_told(engine_urls: Urls) -> None:
    with pytest.raises(Unavailable, match="invalid connect url"):
        async with asyncio.timeout(SECONDS), Queue.open(f"{engine_urls.queue},nats://b:1", "nobody", "test"):
            pass


async def test_a_command_does_not_wait_for_a_queue_that_is_away(
    deployment: Deployment, tmp_path: Path
) -> None:
    settings = settings_of(deployment) | {"SCOREBOARD_QUEUE_URL": "nats://127.0.0.1:1"}
    status, out, err = await command("adopt", "--dry-run", cwd=tmp_path, settings=settings)
    assert (status, out) == (1, "")
    assert_one_error(err)
    assert "The queue is away" in err
