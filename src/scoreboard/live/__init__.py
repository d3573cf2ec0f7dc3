"""Live: every change of a board, on every screen, at the speed of the slowest nobody has to wait for.

In come frames (the whole visible top of one board), WebSocket upgrades and requests for a stream; out go the
same bytes to everybody who watches. There is one newest frame a board and no queue a client: who cannot take
a frame now is skipped and gets the newest when it can.

    handshake.py   an upgrade request in; a welcome or a refusal out (pure)
    inbound.py     what one client says: bytes in, messages and answers out (pure)
    wire.py        every form in which a frame goes out, made once for all (pure)
    watcher.py     one client, whatever it watches through
    connection.py  one WebSocket: the protocol class that uvicorn takes
    sse.py         one stream of Server-Sent Events
    hub.py         one board: one newest frame, many clients
    hubs.py        all boards of a process: admission, deadlines, draining
    members.py     who has said who it is, and whether that still holds
    you.py         each user's own line

This package must never make one client wait for another, hold more than one frame for anybody, or run a task,
a timer or a coroutine a client. (A client that has just sent its token has a task until it is known whose.)
"""

from scoreboard.live.connection import Connection, protocol
from scoreboard.live.hub import Hub
from scoreboard.live.hubs import Hubs
from scoreboard.live.members import Members
from scoreboard.live.sse import EventStream
from scoreboard.live.you import Lines

__all__ = [
    "Connection",
    "EventStream",
    "Hub",
    "Hubs",
    "Lines",
    "Members",
    "protocol",
]
