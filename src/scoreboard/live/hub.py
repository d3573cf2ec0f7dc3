"""One board: one newest frame, many clients.

In come frames from the bus (``publish``), whether it can be followed (``contact``), and clients (``join``,
``resumed``, ``leave``). Out goes one write of the same prebuilt bytes to each client. There is no queue: a
client that cannot take a frame now is skipped and gets the newest as soon as it can, so the latest wins and
nobody waits for the slow.

A *round* offers the newest frame to everybody. It goes round the circle of clients in batches that yield to
the loop; a frame that comes meanwhile starts the circle again from where it is, so that whoever is still owed
the old frame gets the new one instead, and nobody is starved by frames that come faster than rounds.

It must never wait, hold more than one frame, keep a task or timer a client, or send a client a frame that is
older than one it has had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar, Protocol

from scoreboard import metrics
from scoreboard.live import wire
from scoreboard.live.wire import Forms, Latest
from scoreboard.model import Frame

MERGE_SECONDS = 0.05
"""At most one frame in this time: 20 a second is more than an eye can follow in a top 10."""
HEARTBEAT_SECONDS = 20.0
"""After this long without a frame a heartbeat goes out; proxies commonly cut what is silent for 60 s."""
BATCH = 512
"""Writes between two yields to the loop: about 3 to 5 ms at the kernel's 6 to 9 us a write."""

_log = logging.getLogger(__name__)


class Client(Protocol):
    """What a hub needs of a connection."""

    place: int
    """Where it stands in the hub's list; the hub's own."""
    version: int
    """The newest frame that it was given, in the hub's count; the hub's own."""
    paused: bool
    """Is something that was written to it still waiting for the kernel?"""
    form: ClassVar[int]
    """In which of ``Forms`` it takes what is sent to all."""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Hand bytes to the kernel, or buffer what it does not take."""

    def bye(self) -> None:
        """Tell it to come back later, and close."""

    def abort(self) -> None:
        """End it at once."""


class Hub:
    """The newest frame of one board and the clients that watch it, in one process.

    It lives in one event loop and is not safe across threads.
    """

    def __init__(self, board: str, *, public: bool = True) -> None:
        self.board = board
        self.public = public
        """May anyone watch?"""
        self.latest: Latest | None = None
        """What a client that joins now is shown, and what HTTP answers. ``None`` until the first frame."""
        self._newest: Frame | None = None
        """The newest frame that came; ahead of ``latest`` while changes are being merged."""
        self._stale = False
        self._whole: Forms | None = None
        """What tells a client all there is to know; ``None`` while that is nothing."""
        self._beat: Forms | None = None
        """What tells the rest to a client that has the frame."""
        self._version = 0
        """Counts what there is to know."""
        self._framed = 0
        """The version in which ``latest`` came; a client that has this one needs no frame."""
        self._merging: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0

        self._clients: list[Client | None] = []
        """``None`` is the tombstone of a client that left during a round: moving another into its place would
        let the round skip or repeat it."""
        self._tombstones = 0
        self._next = 0
        self._left = 0
        self._beating = False
        """Does this round bring a heartbeat to those who know everything?"""
        self._began = 0.0
        self._round: asyncio.Handle | None = None
        """The next batch; ``None`` between rounds."""

    def __len__(self) -> int:
        """Clients that watch."""
        return len(self._clients) - self._tombstones

    @property
    def stale(self) -> bool:
        """Can the board not be followed now? Then ``latest`` is the last that is known."""
        return self._stale

    @property
    def json(self) -> bytes | None:
        """The newest board frame as JSON, ready to be an HTTP answer."""
        return self.latest.json if self.latest is not None else None

    def publish(self, frame: Frame) -> None:
        """Take a frame if it is newer than all before, and let everybody see it soon."""
        newest = self._newest
        if newest is not None and frame.epoch == newest.epoch and frame.seq <= newest.seq:
            return
        self._newest = frame
        if self._merging is None:
            self._release(frame)

    def contact(self, *, there: bool) -> None:
        """Say whether the board can be followed now; all who watch are told when that changes."""
        if there == self._stale:
            self._stale = not there
            self._tell()

    def join(self, client: Client, known: tuple[str, str] = ("", ""), before: bytes = b"") -> None:
        """Add a client and write it ``before`` and the newest frame, in one go.

        ``known`` is the epoch and seq that it says it has, as text. If they are current, it gets a heartbeat.
        """
        if not self._clients:
            self._awake()
        client.place = len(self._clients)
        client.version = self._version
        self._clients.append(client)
        if self._round is not None:
            self._left += 1  # the circle has grown; without this the round would end one client early
        if self._whole is not None and self._beat is not None:
            latest = self.latest
            current = latest is not None and known == (latest.frame.epoch, str(latest.frame.seq))
            before += (self._beat if current else self._whole)[client.form]
        client.write(before)

    def leave(self, client: Client) -> None:
        """Remove a client."""
        if self._round is not None:
            self._clients[client.place] = None
            self._tombstones += 1
        else:
            last = self._clients.pop()
            if last is not None and last is not client:
                self._clients[client.place] = last
                last.place = client.place
        if not len(self):
            self._rest()

    def resumed(self, client: Client) -> None:
        """Give a client that can take frames again the newest, if it missed any."""
        if client.version != self._version and self._whole is not None and self._beat is not None:
            forms = self._whole if client.version < self._framed else self._beat
            client.version = self._version
            client.write(forms[client.form])
            metrics.FRAMES.inc()

    def clients(self) -> list[Client]:
        """All clients, as of now."""
        return [client for client in self._clients if client is not None]

    def close(self) -> None:
        """Stop all timers, and the round if there is one."""
        for handle in (self._merging, self._heart, self._round):
            if handle is not None:
                handle.cancel()
        self._merging = self._heart = self._round = None
        self._left = 0
        self._bury()

    def _release(self, frame: Frame) -> None:
        """Make this frame the one that is shown, unless it shows nothing new."""
        latest = self.latest
        if latest is not None and frame.epoch == latest.frame.epoch and frame.top == latest.frame.top:
            return
        if latest is not None:
            changed = datetime.fromisoformat(frame.at)
            metrics.FRAME_LAG.observe(max((datetime.now(UTC) - changed).total_seconds(), 0.0))
        self.latest = Latest.of(frame)
        self._stale = False
        self._framed = self._version + 1
        if self._clients:
            self._merging = asyncio.get_running_loop().call_later(MERGE_SECONDS, self._merged)
        self._tell()

    def _tell(self) -> None:
        """There is something new to know: make its bytes, and begin a round."""
        self._version += 1
        frame = self.latest.frame if self.latest is not None else None
        self._beat = beat = wire.heartbeat(self.board, frame, stale=self._stale)
        if self.latest is None:
            self._whole = beat
        elif self._stale:
            of_frame = self.latest.forms
            self._whole = (of_frame[0] + beat[0], of_frame[1] + beat[1])
        else:
            self._whole = self.latest.forms
        if self._clients:
            self._go_round(beat=False)

    def _merged(self) -> None:
        self._merging = None
        if self._newest is not None:
            self._release(self._newest)

    def _go_round(self, *, beat: bool) -> None:
        self._beating = beat
        self._left = len(self._clients)
        loop = asyncio.get_running_loop()
        self._quiet_since = loop.time()
        if self._round is None:
            self._began = self._quiet_since
            self._round = loop.call_soon(self._sweep)

    def _sweep(self) -> None:
        """Offer the newest frame to the next batch of clients."""
        whole, beat = self._whole, self._beat
        if whole is None or beat is None:
            return  # never so: a round begins with something to know
        if self._next >= len(self._clients):
            self._next = 0
        batch = self._clients[self._next : self._next + min(BATCH, self._left)]
        version, framed, beating = self._version, self._framed, self._beating
        sent = skipped = 0
        for client in batch:
            if client is None:
                continue
            if client.paused:
                skipped += client.version != version
                continue
            try:
                if client.version < framed:
                    client.version = version
                    client.write(whole[client.form])
                elif client.version != version or beating:
                    client.version = version
                    client.write(beat[client.form])
                else:
                    continue
                sent += 1
            except Exception:
                _log.exception("A client could not be written to; it is dropped, the others go on")
                client.abort()
        metrics.FRAMES.inc(sent)
        metrics.SKIPPED.inc(skipped)
        self._next += len(batch)
        self._left -= len(batch)
        loop = asyncio.get_running_loop()
        if self._left > 0:
            self._round = loop.call_soon(self._sweep)
            return
        self._round = None
        metrics.ROUND_SECONDS.observe(loop.time() - self._began)
        self._bury()

    def _bury(self) -> None:
        """Close the gaps that clients left during a round."""
        if self._tombstones:
            self._clients = [client for client in self._clients if client is not None]
            self._tombstones = 0
            for place, client in enumerate(self._clients):
                if client is not None:
                    client.place = place

    def _awake(self) -> None:
        loop = asyncio.get_running_loop()
        self._quiet_since = loop.time()
        self._heart = loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)

    def _heartbeat(self) -> None:
        """Send a heartbeat if nothing was sent for long enough, and look again when that may next be so."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._quiet_since + HEARTBEAT_SECONDS:
            self._quiet_since = loop.time()
            if self._beat is not None:
                self._go_round(beat=True)
        self._heart = loop.call_at(self._quiet_since + HEARTBEAT_SECONDS, self._heartbeat)

    def _rest(self) -> None:
        """Nobody watches: no timer runs, and what was being merged is taken over at once."""
        self.close()
        self._merged()
