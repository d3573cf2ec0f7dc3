"""Following the frames of some boards: what is stored at first, then what is published.

Pub/sub is quick and may lose: a message to a connection that just broke is gone. So who is silent is read,
again and again. A frame that only reading brought means that the subscription is not to be
trusted, and it is made anew.

Within an epoch ``seq`` tells what is newer. Of two epochs only what is stored tells: a message may come after
a read that overtook it, of an epoch that was never seen because reading skipped it. So a message of another
epoch is not believed, the frame is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

from scoreboard.board import form
from scoreboard.board.server import Server
from scoreboard.errors import BoardUnavailable, heed_cancellation
from scoreboard.model import Frame

logger = logging.getLogger(__name__)

# A lost message is repaired within a second: a board is read this often, unless it was heard just now. What
# is stored may be newer than what was published a moment ago and is still on its way; that is not lost.
CHECK_SECONDS = 0.8
QUIET_SECONDS = 0.2
AGAIN_SECONDS = (0.1, 0.5)  # back-off while the server is away: first, longest; screens heal within a second
SILENT_SECONDS = 3.0  # without an answer to a ping a subscription is dead
EPOCHS = 8  # that were left and may be read again from a server that lost its last seconds


class _Seen:
    """What has been yielded of one board."""

    def __init__(self) -> None:
        self.epoch, self.seq = "", 0
        self._left: deque[str] = deque(maxlen=EPOCHS)

    def take(self, frame: Frame) -> bool:
        """Is this frame newer than all before? An epoch that was left does not come back."""
        if frame.epoch == self.epoch:
            newer = frame.seq > self.seq
        else:
            newer = frame.epoch not in self._left
            if newer:
                self._left.append(self.epoch)
        if newer:
            self.epoch, self.seq = frame.epoch, frame.seq
        return newer


async def watch(
    server: Server, specs: Sequence[form.Spec], contact: Callable[[str, bool], None]
) -> AsyncIterator[Frame]:
    """Every new frame of these boards, for ever; ``contact`` is told which can be followed."""
    seen = {spec.board: _Seen() for spec in specs}
    pause, longest = AGAIN_SECONDS
    away = False
    while True:
        try:
            async with aclosing(_follow(server, specs, seen, contact)) as frames:
                async for frame in frames:
                    if away:
                        logger.info("the board is back")
                    away, pause = False, AGAIN_SECONDS[0]
                    if frame is not None:
                        yield frame
        except BoardUnavailable as error:
            if not away:
                logger.warning("no new frames for now: %s", error)
            away = True
            for spec in specs:
                contact(spec.board, False)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)


async def _follow(
    server: Server,
    specs: Sequence[form.Spec],
    seen: Mapping[str, _Seen],
    contact: Callable[[str, bool], None],
) -> AsyncGenerator[Frame | None]:
    """The frames of one subscription, ``None`` after each reading; ends when it lost one."""
    names = {spec.channel.encode(): spec for spec in specs}
    loop = asyncio.get_running_loop()
    async with server.subscribed([spec.channel for spec in specs]) as subscription:
        silent = list(specs)
        new = True
        while True:
            lost = False
            stored = await server.fields([spec.meta for spec in silent], "frame")
            for spec, raw in zip(silent, stored, strict=True):
                frame = None if raw is None else form.frame(spec, raw)
                if frame is not None and seen[spec.board].take(frame):
                    lost = True
                    yield frame
                contact(spec.board, frame is not None)
            yield None
            if lost and not new:
                return
            new = False
            heard: dict[str, float] = {}
            due = loop.time() + CHECK_SECONDS
            while (left := due - loop.time()) > 0:
                message = await subscription.get_message(timeout=left)
                if message is None or message["type"] != "message":
                    continue
                spec = names[message["channel"]]
                heard[spec.board] = loop.time()
                frame = form.frame(spec, message["data"])
                if frame.epoch != seen[spec.board].epoch:
                    (raw,) = await server.fields([spec.meta], "frame")
                    frame = None if raw is None else form.frame(spec, raw)
                if frame is not None and seen[spec.board].take(frame):
                    yield frame
            silent = [spec for spec in specs if heard.get(spec.board, 0.0) <= due - QUIET_SECONDS]


async def touched(server: Server, specs: Sequence[form.Spec]) -> AsyncGenerator[tuple[str, list[str]]]:
    """(board, users whose rows changed), until the server does not answer.

    Raises:
        BoardUnavailable: that is now.
    """
    names = {(spec.channel + form.USERS).encode(): spec.board for spec in specs}
    loop = asyncio.get_running_loop()
    async with server.subscribed([name.decode() for name in names]) as subscription:
        heard = loop.time()
        while True:
            message = await subscription.get_message(timeout=CHECK_SECONDS)
            now = loop.time()
            if message is not None:
                heard = now
                if message["type"] == "message":
                    yield names[message["channel"]], message["data"].decode(errors="replace").split(form.LINE)
            elif now - heard > SILENT_SECONDS:
                raise BoardUnavailable
            elif now - heard >= CHECK_SECONDS:
                await subscription.ping()
                heed_cancellation()
