"""For the tests of the element: boards that pages of other hosts show, and such pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
from playwright.async_api import Locator, Page

from browsing import Open
from conftest import Deploy
from deployment import Deployment, submit
from foreign import host
from scoreboard.config import Config

CONFIG = msgspec.convert(
    {
        "actions": {"point": {"points": 1}, "goal": {"points": 1000}},
        "boards": {
            "main": {"title": "All <time>", "actions": ["goal"]},
            "race": {"actions": ["point"]},
            "secret": {"title": "Secret", "public": False},
        },
    },
    Config,
)
PLAYERS = {"ann": 4, "bob": 3, "cem": 3, "dua": 2, "eve": 1, "fay": 1}
Foreign = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def server(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as client:
        for user, goals in PLAYERS.items():
            for number in range(goals):
                await submit(client, user, f"goal:{number}")
        yield client


def address(server: httpx.AsyncClient) -> str:
    return str(server.base_url).rstrip("/")


@pytest.fixture
async def foreign(server: httpx.AsyncClient, visit: Open) -> AsyncIterator[Foreign]:
    """Open a page of another host with this body, and the one script tag that is needed."""
    url = address(server)
    async with AsyncExitStack() as stack:

        async def open_page(body: str, policy: str = "", **how: Any) -> Page:
            script = f'<script type="module" src="{url}/web/live-scoreboard.js"></script>'
            html = f"<!doctype html><html lang=en><title>Foreign</title><body>{script}{body}"
            allowed = policy.format(server=url, live=url.replace("http", "ws"))
            return await visit(await stack.enter_async_context(host(html, allowed)), server=url, **how)

        yield open_page


def names(page: Page, board: str = "live-scoreboard") -> Locator:
    return page.locator(f"{board} tbody tr:not(.leaving) .name")
