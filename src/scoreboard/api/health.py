"""How things are: for load balancers, for operators, for Prometheus.

``/health/live`` says that this process answers. ``/health/ready`` says whether it can do its work: accept, if
it accepts, and show boards, if it shows any; apply, if it is a worker. An engine that is away but not needed
for that is told, not failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from scoreboard import __version__, metrics
from scoreboard.config import Config
from scoreboard.engine_states import EngineStates
from scoreboard.live import Hub


def routes(config: Config, engines: EngineStates, hubs: Iterable[Hub] = ()) -> list[HTTPRouteHandler]:
    """The handlers."""

    @get("/health/live", summary="Does this process answer?", sync_to_thread=False)
    def health_live() -> dict[str, str]:
        return {"status": "live"}

    @get("/health/ready", summary="Can this process do its work?")
    async def health_ready() -> Response[dict[str, Any]]:
        states = await engines.states()
        waiting = [hub.board for hub in hubs if hub.latest is None]
        # A full log is back-pressure, told with each answer: boards can be read, and it passes.
        ready = not waiting and not any(states.get(name) in ("away", "failing") for name in engines.needed)
        state: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "version": __version__,
            "catalogue": config.catalogue,
            "durability": config.durability,
            "engines": states,
        }
        if waiting:
            state["boardsWithoutFrame"] = waiting[:10]
        return Response(state, status_code=200 if ready else 503, headers={"cache-control": "no-store"})

    @get("/metrics", include_in_schema=False, sync_to_thread=False)
    def show_metrics() -> Response[bytes]:
        body, content_type = metrics.exposed()
        return Response(body, headers={"content-type": content_type})

    return [health_live, health_ready, show_metrics]
