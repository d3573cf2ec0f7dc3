"""Print a board whenever it changes: python watch.py ws://127.0.0.1:8000/boards/main/live"""  # noqa: D400, D415

import asyncio
import contextlib
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


async def watch(url: str) -> None:  # noqa: D103
    async for socket in connect(url, subprotocols=[Subprotocol("scoreboard.v1")]):
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                frame = json.loads(message)
                if frame["type"] == "board":
                    print(*(f"{row['rank']}. {row['name']} {row['score']}" for row in frame["top"]), sep="  ")
        if 4400 <= (socket.close_code or 0) < 4500:  # refused for good; after anything else, connect again
            break


asyncio.run(watch(sys.argv[1]))
