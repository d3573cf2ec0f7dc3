"""Group commit: many entries, one synced publish, on the real NATS; and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from conftest import Deploy
from deployment import SECONDS, Deployment
from queueing import SECRET, opened, read, update
from scoreboard import group_commit
from scoreboard.config import Config
from scoreboard.config import Queue as QueueTable
from scoreboard.envelope import ENTRIES, ENTRY_BYTES, Sealer
from scoreboard.errors import QueueFull, Unavailable
from scoreboard.event_ids import event_id_of_action
from scoreboard.group_commit import WAITING_ENTRIES, GroupCommit
from scoreboard.queue import Queue


class Counting:
    """Counts publishes on their way to the real queue, and may lose it; not a queue of its own."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.published, self.flying, self.most = queue, 0, 0, 0
        self.away = False

    async def publish(self, partition: int, body: bytes) -> int:
        if self.away:
            raise Unavailable
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


class Told:
    """Notes how many entries have been told of, and what."""

    def __init__(self, total: int) -> None:
        self.parts: list[tuple[int, type[Exception] | None]] = []
        self.all = asyncio.Event()
        self._total = total

    def __call__(self, count: int, error: Exception | None) -> None:
        self.parts.append((count, None if error is None else type(error)))
        if sum(count for count, _ in self.parts) == self._total:
            self.all.set()


async def test_those_who_come_together_fill_envelopes_in_order(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, counting):
        alone, together, last = Told(1), Told(1_200), Told(1)
        commit.enter([update(0)], alone)
        commit.enter([update(n) for n in range(1, 1_201)], together, wanted=True)
        commit.enter([update(1_201)], last)
        await asyncio.wait_for(last.all.wait(), SECONDS)
        assert alone.parts == [(1, None)]
        assert together.parts == [(ENTRIES - 1, None), (ENTRIES, None), (201, None)]
        envelopes = [Sealer(SECRET).open(m.body) for m in await read(queue, 0, 3)]
        assert counting.published == 3
        assert [e for envelope in envelopes for e in envelope.entries] == [update(n) for n in range(1_202)]
        assert [list(e.wanted) for e in envelopes] == [
            list(range(1, ENTRIES)),
            list(range(ENTRIES)),
            list(range(201)),
        ]
        # It is known that nobody waits any more: what comes turn by turn is waited for again.
        later = [Told(1) for _ in range(5)]
        for one in later:
            commit.enter([update()], one)
            await asyncio.sleep(0)
        await asyncio.wait_for(later[-1].all.wait(), SECONDS)
        assert counting.published == 4


async def test_those_who_come_together_are_parted_by_bytes_too(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, counting):
        many = [update(n, size=2_000) for n in range(300)]
        told = Told(300)
        commit.enter(many, told)
        await asyncio.wait_for(told.all.wait(), SECONDS)
        messages = await read(queue, 0, counting.published)
        assert [len(Sealer(SECRET).open(m.body).entries) for m in messages] == [n for n, _ in told.parts]
        assert len(messages) > 1
        assert max(len(m.body) for m in messages) < ENTRY_BYTES + 4_096
        assert [e for m in messages for e in Sealer(SECRET).open(m.body).entries] == many


async def test_those_who_come_together_are_refused_together(deployment: Deployment) -> None:
    async with opened(deployment) as queue:
        commit = GroupCommit(queue, Sealer(SECRET), partitions=1, catalogue="c", inbox="")
        several, told = [update(n) for n in range(10)], Told(WAITING_ENTRIES)
        commit.enter([update(n) for n in range(WAITING_ENTRIES - 9)], told)
        with pytest.raises(QueueFull):
            commit.enter(several, told)
        commit.enter(several[1:], told)
        running = asyncio.create_task(commit.run())
        while not told.parts:  # noqa: ASYNC110  until the first envelope
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait_for(told.all.wait(), SECONDS)
        first, *others = told.parts
        assert first == (ENTRIES, None)
        assert {error for _, error in others[1:]} == {Unavailable}
        in_log = sum(len(Sealer(SECRET).open(m.body).entries) for m in await read(queue, 0, 1))
        assert sum(count for count, error in told.parts if error is None) <= in_log
        await asyncio.wait_for(commit.drain(), SECONDS)


async def test_when_the_log_does_not_answer_all_who_wait_are_told_once(deployment: Deployment) -> None:
    async with opened(deployment) as queue, committing(queue) as (commit, counting):
        counting.away = True
        several, alone, later = Told(700), Told(1), Told(1)
        commit.enter([update(n) for n in range(700)], several)
        commit.enter([update()], alone)
        await asyncio.wait_for(alone.all.wait(), SECONDS)
        counting.away = False
        commit.enter([update(1_000)], later)
        await asyncio.wait_for(later.all.wait(), SECONDS)
        assert several.parts == [(ENTRIES, Unavailable), (200, Unavailable)]
        assert (alone.parts, later.parts) == ([(1, Unavailable)], [(1, None)])
        assert (await queue.state()).last == 1


async def test_a_log_that_is_full_between_two_envelopes_refuses_the_second_alone(
    deployment: Deployment,
) -> None:
    async with opened(deployment, max_bytes=300_000) as queue, committing(queue) as (commit, _):
        told = Told(200)
        commit.enter([update(n, size=2_000) for n in range(200)], told)
        await asyncio.wait_for(told.all.wait(), SECONDS)
        assert [error for _, error in told.parts] == [None, QueueFull]
        (message,) = await read(queue, 0, 1)
        assert len(Sealer(SECRET).open(message.body).entries) == told.parts[0][0]


async def test_each_of_many_is_answered_in_its_place_whichever_partition_it_goes_to(deploy: Deploy) -> None:
    deployment = await deploy(Config(queue=QueueTable(partitions=3)))
    updates = [
        {"userId": f"u{n}", "actionId": f"nothing:{n}" if n % 7 == 3 else f"point:{n}"} for n in range(1_000)
    ]
    async with deployment.working(), deployment.serving() as client:
        results = (await client.post("/update-scores", json=updates)).json()["results"]
        told = [(one.get("code", one["status"]), one["eventId"]) for one in results]
        ids = [str(event_id_of_action(one["userId"], one["actionId"])) for one in updates]
        assert told == [
            ("unknown_action" if n % 7 == 3 else "accepted", event_id) for n, event_id in enumerate(ids)
        ]
        await deployment.ledger_holds(sum(code == "accepted" for code, _ in told))
    async with Queue.open(deployment.environment.queue, deployment.name, "test") as queue:
        assert (await queue.state()).last == 3, "an envelope a partition"


async def test_of_many_as_many_are_accepted_as_there_is_room_for(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "WAITING_ENTRIES", 10)
    updates = [{"userId": "ann", "actionId": f"point:{n}"} for n in range(100)]
    async with deployment.working(), deployment.serving() as client:
        for sent in (updates, updates[:10]):
            results = (await client.post("/update-scores", json=sent)).json()["results"]
            codes = [one.get("code", one["status"]) for one in results]
            assert codes == ["accepted"] * 10 + ["queue_full"] * (len(sent) - 10)
        await deployment.ledger_holds(10)


async def test_of_many_those_are_said_to_be_accepted_that_are_in_the_log(deploy: Deploy) -> None:
    deployment = await deploy(Config(queue=QueueTable(max_bytes=1 << 20)))
    accepted: set[str] = set()
    async with deployment.serving() as client:  # nobody works, so nothing leaves the log
        codes: list[str] = []
        while "queue_full" not in codes:
            count = 2 * ENTRIES if accepted else ENTRIES  # the log's bound comes after an odd number
            updates = [{"userId": "ann", "actionId": f"point:{len(accepted) + n}"} for n in range(count)]
            results = (await client.post("/update-scores", json=updates)).json()["results"]
            codes = [one.get("code", one["status"]) for one in results]
            accepted |= {one["eventId"] for one in results if one["status"] == "accepted"}
    assert codes == ["accepted"] * ENTRIES + ["queue_full"] * ENTRIES, "an envelope went in, the next did not"
    assert deployment.environment.secret is not None
    sealer, in_log = Sealer(deployment.environment.secret), set[str]()
    async with opened(deployment, max_bytes=1 << 20) as queue:
        for message in await read(queue, 0, len(accepted) // ENTRIES):
            in_log |= {str(UUID(bytes=one.event_id)) for one in sealer.open(message.body).entries}  # type: ignore[union-attr]
    assert in_log == accepted
