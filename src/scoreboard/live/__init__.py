"""Live: every change of a board, on every screen, at the speed of the slowest nobody has to wait for.

In come frames (the whole visible top of one board) and WebSocket upgrade requests; out go the same bytes to
everybody who watches. There is one newest frame a board and no queue a client: who cannot take a frame now is
skipped and gets the newest when it can.

    listen.py      options of the listening socket, so that the kernel hoards no old frames
    handshake.py   an upgrade request in; a welcome or a refusal out (pure)
    inbound.py     what one client says: bytes in, messages and answers out (pure)
    wire.py        every form in which a frame goes out, made once for all (pure)
    connection.py  one WebSocket: the protocol class that uvicorn takes
    hub.py         one board: one newest frame, many clients
    hubs.py        all boards of a process: admission, deadlines, draining

This package must never make one client wait for another, hold more than one frame for anybody, or run a task,
a timer or a coroutine a client.
"""

from scoreboard.live.connection import Connection, protocol
from scoreboard.live.hub import Hub
from scoreboard.live.hubs import Hubs
from scoreboard.live.listen import raise_file_limit, tune

__all__ = ["Connection", "Hub", "Hubs", "protocol", "raise_file_limit", "tune"]
