"""The queue: an ordered log, group commit into it, and sealed envelopes in it, on the real NATS."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress

import nats
import pytest

from deployment import SECONDS, Deployment
from scoreboard.envelope import ENTRIES, ENTRY_BYTES, NotOurs, Sealer, encode_entry
from scoreboard.errors import LogMismatch, QueueFull, Unavailable
from scoreboard.group_commit import WAITING_ENTRIES, GroupCommit, partition_of
from scoreboard.model import Entry, Rename, Update
from scoreboard.queue import Logged, Queue, State
from scoreboard.queue.reading import READ_AHEAD
from scoreboard.queue.server import translated

SECRET = "a secret of this test, long enough for it"


@asynccontextmanager
async def opened(deployment: Deployment, max_bytes: int = 1 << 26) -> AsyncIterator[Queue]:
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        await queue.ensure(partitions=1, max_bytes=max_bytes, replicas=1, known=None)
        yield queue


async def read(queue: Queue, after: int, count: int) -> list[Logged]:
    found: list[Logged] = []
    async with asyncio.timeout(SECONDS), aclosing(queue.read(0, after)) as batches:
        async for batch in batches:
            found += batch
            if len(found) >= count:
                break
    return found


async def attempt(publish: Awaitable[int]) -> object:
    try:
        return await publish
    except QueueFull:
        return QueueFull


def update(number: int = 0, size: int = 1) -> Update:
    return Update(number.to_bytes(16), f"user{number}", "win", "x" * size, 1, ("main",), "key:k")


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


class Counting:
    """Counts publishes on their way to the real queue; not a queue of its own."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.published, self.flying, self.most = queue, 0, 0, 0

    async def publish(self, partition: int, body: bytes) -> int:
        self.published += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            return await self.queue.publish(partition, body)
        finally:
            self.flying -= 1


@asynccontextmanager
async def committing(queue: Queue) -> AsyncIterator[tuple[GroupCommit, Counting]]:
    counting = Counting(queue)
    commit = GroupCommit(counting, Sealer(SECRET), partitions=1, catalogue="c", inbox="i")  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commit.run())
        yield commit, counting
        running.cancel()


async def test_what_arrives_together_is_synced_together(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, counting):
        await commit.accept(update())
        assert counting.published == 1
        accepted = [commit.accept(update(n), wanted=n == 700) for n in range(1, 2_001)]
        await asyncio.gather(*accepted)
        assert counting.published == 1 + 2_000 // ENTRIES
        assert counting.most == 1, "one envelope in flight"
        envelopes = [Sealer(SECRET).open(m.body) for m in await read(queue, 0, 5)]
        entries = [entry for envelope in envelopes for entry in envelope.entries]
        assert entries == [update(n) for n in range(2_001)]
        assert [list(e.wanted) for e in envelopes] == [[], [], [199], [], []]
        assert [e.inbox for e in envelopes] == ["", "", "i", "", ""]


async def test_an_envelope_is_bounded_in_bytes_too(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, counting):
        await asyncio.gather(*(commit.accept(update(n, size=2_000)) for n in range(300)))
        sizes = [len(m.body) for m in await read(queue, 0, counting.published)]
        assert len(sizes) > 1
        assert max(sizes) < ENTRY_BYTES + 4_096


async def test_what_may_wait_is_bounded_and_an_end_answers_all(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        commit = GroupCommit(queue, Sealer(SECRET), partitions=1, catalogue="c", inbox="")
        waiting = [commit.accept(update(n)) for n in range(WAITING_ENTRIES)]
        with pytest.raises(QueueFull):
            commit.accept(update())
        running = asyncio.create_task(commit.run())
        await asyncio.wait_for(waiting[0], SECONDS)
        running.cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert refused
        assert {type(answer) for answer in refused} == {Unavailable}
        in_log = sum(len(Sealer(SECRET).open(m.body).entries) for m in await read(queue, 0, 1))
        assert 0 < answers.count(None) <= in_log, "what was told to be accepted is in the log"
        with pytest.raises(Unavailable):
            commit.accept(update())


async def test_draining_answers_what_waits_and_takes_nothing_new(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, _):
        waiting = [commit.accept(update(n)) for n in range(1_500)]
        await asyncio.wait_for(commit.drain(), SECONDS)
        assert [one.exception() for one in waiting] == [None] * 1_500
        with pytest.raises(Unavailable):
            commit.accept(update())


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
