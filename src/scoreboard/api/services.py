"""What the handlers of one process work with. ``app/serving.py`` puts it together."""

from __future__ import annotations

from msgspec import Struct

from scoreboard.api.outcomes import Outcomes
from scoreboard.api.places import Places
from scoreboard.api.update_score import UpdateScore
from scoreboard.auth import Auth
from scoreboard.auth.policy import Policy
from scoreboard.board import Board
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.engine_states import EngineStates
from scoreboard.group_commit import GroupCommit
from scoreboard.live import Hubs


class Services(Struct, frozen=True, kw_only=True):
    """The stages as this process sees them. A process that only shows boards accepts nothing."""

    config: Config
    database: Database
    board: Board
    hubs: Hubs
    places: Places
    auth: Auth
    engines: EngineStates
    live: bool = True
    """Does this process send live frames?"""
    door: UpdateScore | None = None
    policy: Policy | None = None
    commit: GroupCommit | None = None
    outcomes: Outcomes | None = None
    secret: str = ""
    demo: bool = False
