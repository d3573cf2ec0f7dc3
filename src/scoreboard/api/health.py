"""How things are: for load balancers, for operators, for Prometheus.

``/health/live`` says that this process answers. ``/health/ready`` says whether it can do its work: accept, if
it accepts, and show boards, if it shows any. An engine that is away but not needed for that is told, not
failed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from scoreboard import __version__, metrics
from scoreboard.api.services import Services
from scoreboard.errors import Unavailable

ASK_SECONDS = 1.0  # an engine that has not answered by then is away
KEEP_SECONDS = 0.25  # an answer is given again for this long: the engines are not asked for each probe


def routes(services: Services) -> list[HTTPRouteHandler]:
    """The handlers."""
    kept: tuple[float, dict[str, Any]] = (0.0, {})

    async def engines() -> dict[str, str]:
        async def ask(question: Any) -> str:
            try:
                await asyncio.wait_for(question, ASK_SECONDS)
            except (Unavailable, TimeoutError):
                return "away"
            return "ok"

        names = ["database", "board"]
        questions = [services.database.positions(), services.board.frame(next(iter(services.config.boards)))]
        answers = dict(zip(names, await asyncio.gather(*map(ask, questions)), strict=True))
        if services.queue is not None:
            answers["queue"] = "ok" if services.queue.connected else "away"
        return answers

    @get("/health/live", summary="Does this process answer?", sync_to_thread=False)
    def health_live() -> dict[str, str]:
        return {"status": "live"}

    @get("/health/ready", summary="Can this process do its work?")
    async def health_ready() -> Response[dict[str, Any]]:
        nonlocal kept
        if time.monotonic() - kept[0] > KEEP_SECONDS:
            answers: dict[str, Any] = {**await engines()}
            waiting = [hub.board for hub in services.hubs if hub.latest is None]
            ready = answers.get("queue") != "away" and not waiting
            state: dict[str, Any] = {
                "status": "ready" if ready else "not ready",
                "version": __version__,
                "catalogue": services.config.catalogue,
                "engines": answers,
            }
            if waiting:
                state["boardsWithoutFrame"] = waiting[:10]
            kept = (time.monotonic(), state)
        status = 200 if kept[1]["status"] == "ready" else 503
        return Response(kept[1], status_code=status, headers={"cache-control": "no-store"})

    @get("/metrics", include_in_schema=False, sync_to_thread=False)
    def show_metrics() -> Response[bytes]:
        body, content_type = metrics.exposed()
        return Response(body, headers={"content-type": content_type})

    return [health_live, health_ready, show_metrics]
