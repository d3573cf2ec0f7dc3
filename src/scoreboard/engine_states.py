"""The engines as one process sees them: whether each answers, and can do its work.

In comes what talks to them; out go their states, for whoever asks and for the metrics. However many ask, an
engine has one question to answer, and none of them is asked for longer than a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Collection
from typing import Any

from scoreboard import metrics
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.errors import Unavailable
from scoreboard.queue import Queue

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0  # an engine that has not answered by then is away
KEEP_SECONDS = 0.25  # an answer is given again for this long: the engines are not asked for each probe
LOOK_SECONDS = 5.0  # how often they are asked for the metrics, though nobody probes


class EngineStates:
    """The engines as one process sees them."""

    def __init__(
        self, config: Config, database: Database, board: Board, queue: Queue | None, needed: Collection[str]
    ) -> None:
        self._shown = next(iter(config.boards))
        self._database, self._board, self._queue = database, board, queue
        self.needed = needed
        """Those without which the process cannot do its work."""
        self._kept: tuple[float, dict[str, str]] = (0.0, {})
        self._asking = asyncio.Lock()
        """Held while they are asked: however many want to know, each engine has one question to answer."""

    async def states(self) -> dict[str, str]:
        """Each: ``ok``; ``away``; ``failing``: it answers, and cannot do its work; the queue ``full``."""
        async with self._asking:
            if time.monotonic() - self._kept[0] > KEEP_SECONDS:
                questions: dict[str, Awaitable[Any]] = {
                    "database": self._database.positions(),
                    "board": self._board.frame(self._shown),
                }
                if self._queue is not None:
                    questions["queue"] = self._of_queue(self._queue)
                answers = await asyncio.gather(*map(self._ask, questions.values()))
                self._kept = (time.monotonic(), dict(zip(questions, answers, strict=True)))
            return self._kept[1]

    async def run(self) -> None:
        """Keep the metrics of the engines until cancelled."""
        while True:
            for engine, state in (await self.states()).items():
                metrics.ENGINE_UP.labels(engine).set(state == "ok")
            await asyncio.sleep(LOOK_SECONDS)

    @staticmethod
    async def _ask(question: Awaitable[Any]) -> str:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await question
        except (Unavailable, TimeoutError):
            return "away"
        except Exception as error:  # another log, a schema in disorder: to be told, whatever it is
            logger.error("an engine cannot do its work: %r", error)
            return "failing"
        return answer if isinstance(answer, str) else "ok"

    @staticmethod
    async def _of_queue(queue: Queue) -> str:
        if await queue.flaw() is not None:
            return "failing"
        return "full" if (await queue.state()).full else "ok"
