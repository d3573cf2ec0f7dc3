"""Report an action and follow the board: python play.py http://127.0.0.1:8000 KEY"""

import asyncio
import sys

from scoreboard.client import Client


async def play(url: str, key: str) -> None:
    """Ann completes an action; then print the board whenever it changes."""
    async with Client(url, key) as client:
        receipt = await client.submit("ann", "point:level-1", wait=2)
        print(receipt.status, receipt.boards["main"].score)
        async for frame in client.watch("main"):
            print(*(f"{line.rank}. {line.name} {line.score}" for line in frame.top), sep="  ", flush=True)


asyncio.run(play(*sys.argv[1:]))
