"""Live: nobody waits for the slow, the stuck and the broken, and each of them ends on the last frame."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from by_hand import Raw, Stream
from scoreboard.live import Hub, hub, hubs
from scoreboard.live.wire import EVENTS, WEBSOCKET
from watching import PATIENCE, Serving, frame, live, received, until

__all__ = ["live"]


async def test_a_client_that_never_reads_holds_up_nobody_and_ends_on_the_last_frame(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    live.hub.publish(frame(1, rows=100))
    size = len(msgspec.json.encode(frame(1, rows=100)))
    last = 200
    async with await Raw.watch(live, receive_buffer=4_096) as slow, connect(live.url(), proxy=None) as quick:
        (stalled,) = (
            c for c in live.connections() if c._transport.get_extra_info("peername")[1] == port(slow)
        )
        assert (await received(quick))["seq"] == 1
        for seq in range(2, last + 1):
            live.hub.publish(frame(seq, rows=100))
            assert (await received(quick))["seq"] == seq
            assert stalled._transport.get_write_buffer_size() < size + 10
        assert stalled.paused
        seen = [(await slow.message())["seq"]]
        while seen[-1] < last:
            seen.append((await slow.message())["seq"])
        assert seen == sorted(set(seen))
        assert (
            len(seen) < last / 4
        )  # most were never kept for it: the kernel's buffers are small, ours is none


def port(client: Raw) -> int:
    return int(client.sock.getsockname()[1])


async def test_a_stuck_client_is_dropped(live: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    monkeypatch.setattr(hubs, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    live.hub.publish(frame(1))
    async with await Raw.watch(live, receive_buffer=4_096), connect(live.url(), proxy=None) as quick:
        seq = 1
        while live.hubs.connections == 2:
            seq += 1
            live.hub.publish(frame(seq, rows=100))
            while (await received(quick))["seq"] < seq:
                pass
        assert len(live.hub) == 1
        assert not live.hubs._stuck


async def test_every_client_only_goes_forward_and_ends_on_the_last_frame(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    monkeypatch.setattr(hub, "BATCH", 4)
    chance = random.Random(20261123)  # noqa: S311 - the same at every run
    epoch, seq = 1, 1
    live.hub.publish(frame(seq, epoch=f"{epoch:03}"))
    stop = asyncio.Event()

    async def watch(number: int) -> tuple[str, int]:
        """Read, stall, vanish and come back at random; where it ended."""
        mine = random.Random(number)  # noqa: S311
        at = ("", 0)
        while True:
            if number % 3:
                path = f"/boards/main/live?epoch={at[0]}&seq={at[1]}"
                client: Raw | Stream = await Raw.watch(live, path, receive_buffer=4_096)
            else:
                client = await Stream.ask(live.address, Last_Event_ID=f"{at[0]}:{at[1]}")
            async with client:
                first = True
                while True:
                    got = await client.message()
                    here = (got["epoch"], got["seq"])
                    # On the way only forward; on coming back, where it was or further on.
                    assert here > at or (first and here == at)
                    assert (got["type"] == "heartbeat") == (here == at)
                    at, first = here, False
                    if stop.is_set() and at == (f"{epoch:03}", seq):
                        return at
                    roll = mine.random()
                    if roll < 0.05 and not stop.is_set():
                        break
                    if roll < 0.10 and not stop.is_set():
                        async with asyncio.timeout(PATIENCE):
                            wanted = seq + mine.randrange(30)
                            await until(lambda: seq >= wanted or stop.is_set())  # noqa: B023

    clients = [asyncio.create_task(watch(number)) for number in range(30)]
    for _ in range(400):
        if chance.random() < 0.01:
            epoch += 1
        seq += chance.randrange(1, 3)
        live.hub.publish(frame(seq, epoch=f"{epoch:03}", rows=chance.choice((1, 100))))
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
    stop.set()
    seq += 1
    live.hub.publish(frame(seq, epoch=f"{epoch:03}"))
    async with asyncio.timeout(PATIENCE):
        assert set(await asyncio.gather(*clients)) == {(f"{epoch:03}", seq)}
    await until(lambda: len(live.hub) == 0)


class Model:
    """A client that takes frames unless it is paused, and checks that they only go forward."""

    form: ClassVar[int] = WEBSOCKET

    def __init__(self, board: Hub, *, capacity: int) -> None:
        self.hub = board
        self.place = self.version = 0
        self.paused = self.gone = False
        self.capacity = self.room = capacity
        self.at = 0
        self.stale = False

    def write(self, data: bytes) -> None:
        assert not self.paused
        assert not self.gone
        if not data:
            return
        for text in data.split(b'{"type"')[1:]:
            got = msgspec.json.decode(b'{"type"' + text[: text.rindex(b"}") + 1])
            if got["type"] == "board":
                assert got["seq"] > self.at
                self.at = got["seq"]
            self.stale = "stale" in got
        self.room -= 1
        self.paused = self.room <= 0  # as a transport does: within write()

    def resume(self) -> None:
        self.room, self.paused = self.capacity, False
        self.hub.resumed(self)

    def bye(self) -> None: ...

    def abort(self) -> None:
        raise AssertionError("a write failed")


class Streaming(Model):
    """The same over Server-Sent Events."""

    form = EVENTS


Steps = st.lists(
    st.tuples(
        st.sampled_from(("publish", "join", "leave", "resume", "beat", "lose", "find", "turn", "settle")),
        st.integers(0, 99),
    ),
    min_size=30,  # short lists, which hypothesis prefers, hardly ever leave in the middle of a round
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(steps=Steps)
async def test_whatever_happens_during_a_round_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "BATCH", 2)
        patch.setattr(hub, "MERGE_SECONDS", 0.0)
        board = Hub("main")
        clients: list[Model] = []
        seq = 1
        board.publish(frame(seq))
        steps = [("join", 9)] * 7 + steps
        for step, number in steps:
            chosen = clients[number % len(clients)] if clients else None
            if step == "publish":
                seq += 1
                board.publish(frame(seq))
            elif step == "join":
                kind = Streaming if number % 2 else Model
                clients.append(kind(board, capacity=1 + number % 10))
                board.join(clients[-1])
            elif step == "leave" and chosen is not None:
                board.leave(chosen)
                chosen.gone = True
                clients.remove(chosen)
            elif step == "resume" and chosen is not None:
                chosen.resume()
            elif step == "beat" and clients:
                board._go_round(beat=True)
            elif step in ("lose", "find"):
                board.contact(there=step == "find")
            elif step == "turn":
                await asyncio.sleep(0)
            elif step == "settle":
                while board._round is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            if board._round is None and board.latest is not None:
                shown = board.latest.frame.seq
                ready = [client for client in clients if not client.paused]
                assert all((client.at, client.stale) == (shown, board._stale) for client in ready)
            assert len(board) == len(clients)
            assert {id(client) for client in board.clients()} == {id(client) for client in clients}
        seq += 1
        board.publish(frame(seq))
        await until(lambda: board._merging is None and board._round is None)
        for client in clients:
            if client.paused:
                client.resume()
        assert [client.at for client in clients] == [seq] * len(clients)
        assert [client.place for client in clients] == [board.clients().index(client) for client in clients]
        board.close()


async def test_a_client_that_cannot_be_written_to_harms_nobody_else() -> None:
    board = Hub("main")
    good, bad = Model(board, capacity=99), Model(board, capacity=99)
    aborted = asyncio.Event()
    board.join(bad)
    board.join(good)

    def fail(data: bytes) -> None:
        raise RuntimeError(data)

    bad.write = fail  # type: ignore[method-assign]
    bad.abort = aborted.set  # type: ignore[method-assign]
    board.publish(frame(1))
    await until(lambda: good.at == 1)
    assert aborted.is_set()
    board.close()
