"""The numbers that the protocol promises are those of the code; the other tests run with quicker ones."""

from __future__ import annotations

import asyncio
from types import ModuleType

import msgspec
import pytest
from websockets.asyncio.client import connect

from by_hand import Raw
from scoreboard import sockets
from scoreboard.board import watching
from scoreboard.live import hub, hubs, inbound, members, you
from scoreboard.live.watcher import BYE_MILLISECONDS, RETRY_SECONDS
from watching import PATIENCE, frame, serving


@pytest.mark.parametrize(
    ("module", "name", "least", "most"),
    [
        (hub, "MERGE_SECONDS", 0.05, 0.05),
        (hub, "HEARTBEAT_SECONDS", 20, 20),
        (hub, "BATCH", 1, 1_000),  # some 6 us each: so that nobody else waits for longer than 6 ms
        (hubs, "STUCK_SECONDS", 30, 30),
        (hubs, "AUTH_SECONDS", 5, 5),
        (inbound, "MESSAGE_BYTES", 4_096, 4_096),
        (sockets, "DEAD_MILLISECONDS", 1, 30_000),
        (members, "CHECK_SECONDS", 0, 1),  # with a look at keys each second: a revocation is seen within two
        (you, "SECOND", 1, 1),
    ],
)
def test_a_promised_number(module: ModuleType, name: str, least: float, most: float) -> None:
    assert least <= getattr(module, name) <= most


def test_a_lost_message_is_repaired_within_a_second() -> None:
    # At worst it was lost just before a board was passed over because it had just been heard.
    assert watching.QUIET_SECONDS + watching.CHECK_SECONDS <= 1.0


async def test_who_must_come_back_does_not_come_with_all_others() -> None:
    async with serving() as live:
        live.hub.publish(frame(1))
        clients = [await connect(live.url(), proxy=None) for _ in range(12)]
        draining = asyncio.create_task(live.hubs.drain(PATIENCE))
        pauses = set()
        for client in clients:
            while (said := msgspec.json.decode(await client.recv()))["type"] != "bye":
                pass
            pauses.add(said["retryAfter"])
            await client.close()
        await draining
        assert len(pauses) > 6
        assert max(pauses) - min(pauses) > (BYE_MILLISECONDS[1] - BYE_MILLISECONDS[0]) / 4
        refused = set()
        for _ in range(30):
            async with await Raw.connect(live) as late:
                refused.add(int((await late.ask())[1]["retry-after"]))
        assert len(refused) > 1
        assert min(refused) >= RETRY_SECONDS[0]
        assert max(refused) <= RETRY_SECONDS[1]
