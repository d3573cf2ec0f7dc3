"""The torture of ``torture/``, shortly: some faults, one broken guarantee, and what it does to clocks."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import nats
import psutil
from redis.asyncio import Redis
from torture.clock import shifted

from deployment import SECONDS
from scoreboard.engines import Urls

CHECKOUT = Path(__file__).parent.parent
SHORT = "kill -9 worker|kill -9 nats|kill -9 postgresql|FLUSHALL|cut line to valkey|clock jumps, nats"


async def torture(*options: str) -> tuple[int, str]:
    """Run it: exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "torture", *options),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 5 * SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_nothing_is_lost_and_nothing_counts_twice() -> None:
    status, out = await torture("--faults", "6", "--seed", "5", "--only", SHORT)
    assert status == 0, out
    whole = re.search(r"\| \*\*all\*\* \| 6 \| ([\d,]+) \| 0 \| 0 \| 0 \| 0 \|", out)
    assert whole, out
    assert int(whole[1].replace(",", "")) > 100, "there was load"


async def test_an_answer_before_the_sync_is_found_out() -> None:
    status, out = await torture("--break", "early", "--faults", "3", "--seed", "1", "--only", "kill -9 nats")
    assert status == 0, out
    assert re.search(r"lost: user-\d+ \w+:\d+ was accepted", out), out


async def test_the_clocks_of_engines_jump(engine_urls: Urls) -> None:
    client = await nats.connect(engine_urls.queue)
    stream, log = "clocks", client.jetstream()
    await log.add_stream(name=stream, subjects=[stream])
    database = await asyncpg.connect(engine_urls.database)
    names = {"nats-server", "postgres", "valkey-server"}
    processes = [child for child in psutil.Process().children(recursive=True) if child.name() in names]

    async def clocks() -> list[datetime]:
        sequence = (await log.publish(stream, b"")).seq
        async with Redis.from_url(engine_urls.board) as board:
            seconds, _ = await board.time()
        message = await log.get_msg(stream, seq=sequence)
        assert message.time is not None
        now = await database.fetchval("SELECT clock_timestamp()")
        return [message.time, now, datetime.fromtimestamp(seconds, UTC)]

    for hours in (1, -1, 0):
        with shifted(processes, hours * 3600):
            for at in await clocks():
                assert abs(at - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(seconds=SECONDS)
    await log.delete_stream(stream)
    await client.close()
    await database.close()
