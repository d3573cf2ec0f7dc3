"""``scoreboard up --demo``: lively imaginary players, through the HTTP API like everybody else.

The demo has a catalogue and a data folder of its own, so that it never touches a real ledger.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Iterator

import msgspec

from scoreboard.auth.key_acts import temporary_key
from scoreboard.client import Client, ClientError
from scoreboard.config import Config
from scoreboard.database import Database
from scoreboard.model import Scope

logger = logging.getLogger(__name__)

CONFIG = msgspec.convert(
    {
        "actions": {
            "quiz": {"points": 10},
            "win": {"points": 25},
            "streak": {"points": 40},
            "cheer": {"points": 10, "policy": "open"},
        },
        "boards": {
            "main": {"title": "Demo league"},
            "streaks": {"title": "Hot streaks", "actions": ["streak"], "rank": "competition"},
        },
    },
    Config,
)
NAMES = (
    "Ada, Akira, Amélie, Björn, Chidi, Dalia, Emre, Farah, Grażyna, Hiro, Inês, Jonas, Kwame, Leila, Mateo,"
    " Nadia, Oluwaseun, Priya, Quentin, Rosa, Søren, Tomoko, Ursula, Valentina, Wei, Ximena, Yusuf, Zoë"
)
PAUSE_SECONDS = (0.15, 0.7)  # between two actions: lively, and each move can be followed
WEIGHTS = {"quiz": 6, "win": 3, "streak": 1}
SPURT = 30  # actions for which the same few players are hot


async def play(database_url: str, url: str, stop: asyncio.Event) -> None:
    """Let imaginary players score until ``stop``."""
    async with (
        Database.open(database_url) as database,
        temporary_key(database, "imaginary players", Scope.SCORE_WRITE) as key,
        Client(url, key, patience=0) as client,
    ):
        for user, name in players():
            await _heard(client.rename(user, name))
        for user, action in actions():
            await _heard(client.submit(user, f"{action}:{secrets.token_hex(8)}"))
            if stop.is_set():
                break
            await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311  a game, not a secret


def players() -> list[tuple[str, str]]:
    """The imaginary players: (user id, name)."""
    return [(f"demo-{place}", name) for place, name in enumerate(NAMES.split(", "))]


def actions() -> Iterator[tuple[str, str]]:
    """Who scores next, and with what, without end: spurts of a few, so that ranks change."""
    chance = random.Random()  # noqa: S311  a game, not a secret
    users = [user for user, _ in players()]
    while True:
        hot = chance.sample(users, 4)
        for _ in range(SPURT):
            user = chance.choice(hot if chance.random() < 0.7 else users)
            yield user, chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]


async def _heard(said: Awaitable[object]) -> None:
    try:
        await said
    except ClientError as error:
        logger.info("an imaginary player was not heard: %s", error)
