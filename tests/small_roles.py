"""For the tests of the supervisor: small programs in place of roles.

Imports no more than it must: each `up` of those tests does, in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scoreboard.supervisor import Child, Options, children

# A role: serves if it was given a socket, notes that it was told to stop, and ends; or does what it is told
# by a file in the data folder that bears its name.
ROLE = """
import asyncio, json, os, pathlib, signal, socket, sys
role, fd = sys.argv[1], int(sys.argv[2])
data = pathlib.Path(os.environ["SCOREBOARD_DATA"])
told = data / f"told-{role}"
if told.exists():
    sys.exit(int(told.read_text()))

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    settings = {k: v for k, v in os.environ.items() if k.startswith("SCOREBOARD_")}
    body = json.dumps({"pid": os.getpid(), "session": os.getsid(0), "settings": settings}).encode()
    head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if fd >= 0:
        await asyncio.start_server(answer, sock=socket.socket(fileno=fd))
    with (data / "pids").open("a") as file:
        file.write(f"{role} {os.getpid()}\\n")
    await stop.wait()
    if (data / "stubborn").exists():
        print("stubborn", role, flush=True)
        await asyncio.Event().wait()
    with (data / "stops").open("a") as file:
        file.write(f"{role}\\n")

asyncio.run(main())
"""


def roles(options: Options, fd: int, url: str) -> Sequence[Child]:
    """The same children as the real ones, with small programs for roles."""
    return [
        Child(
            role=child.role,
            argv=(sys.executable, "-c", ROLE, child.role, str(child.fds[0] if child.fds else -1)),
            fds=child.fds,
            after_ready=child.after_ready,
        )
        for child in children(options, fd, url)
    ]
