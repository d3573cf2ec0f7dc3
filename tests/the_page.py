"""The page at ``/`` on the real system: who scores on its boards, and what a reader finds on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec
import pytest
from playwright.async_api import Locator, Page

from deployment import Deployment
from scoreboard.config import Config
from scoreboard.engines import Urls

BOARD = "page"
EMPTY = "empty"
GOAL = "goal"
CONFIG = msgspec.convert(
    {
        "actions": {GOAL: {"points": 10}, "never": {"points": 1}},
        "boards": {
            BOARD: {"title": 'The "page\'s" <own> board', "top": 100, "actions": [GOAL]},
            EMPTY: {"actions": ["never"]},
        },
    },
    Config,
)
numbers = itertools.count(1)


class System(NamedTuple):
    """The running system, as these tests use it."""

    url: str
    """Without a slash at the end."""
    key: str
    """A service's key with ``score:write``."""


@pytest.fixture(scope="module")
async def system(engine_urls: Urls) -> AsyncIterator[System]:
    """All roles on the real engines, with boards that only these tests score on."""
    deployment = Deployment(engine_urls, CONFIG, f"page_{os.getpid()}")
    await deployment.prepare()
    try:
        async with deployment.running() as client:
            yield System(str(client.base_url).rstrip("/"), deployment.key)
    finally:
        await deployment.close()


def users(*names: str) -> list[str]:
    """User ids that no other test uses, one for each word."""
    return [f"page-{next(numbers)}-{name}" for name in names]


async def score(system: System, user: str, goals: int = 1) -> None:
    """Score so many goals, and return when they are on the board."""
    async with httpx.AsyncClient(base_url=system.url, timeout=30) as client:
        for _ in range(goals):
            answer = await client.post(
                "/update-score",
                headers={"Authorization": f"Bearer {system.key}", "Prefer": "wait=10"},
                json={"userId": user, "actionId": f"{GOAL}:{next(numbers)}-{user}"},
            )
            assert answer.json()["status"] == "applied", answer.text


async def rename(system: System, user: str, name: str) -> None:
    async with httpx.AsyncClient(base_url=system.url, timeout=30) as client:
        headers = {"Authorization": f"Bearer {system.key}"}
        answer = await client.put(f"/users/{user}", headers=headers, json={"name": name})
        assert answer.is_success, answer.text


def rows(page: Page) -> Locator:
    return page.locator("#rows > tr:not(.leaving)")


def row(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.locator(".name").get_by_text(name, exact=True))


async def order(page: Page, *names: str) -> list[str]:
    """Those of the names that are on the board, in the board's order."""
    return [name for name in await rows(page).locator(".name").all_text_contents() if name in names]


def link(page: Page) -> Locator:
    return page.locator("#link")
