"""``you``: a user who has said who it is sees its own place change, at once for its own actions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection

from conftest import Deploy
from deployment import SECONDS, Deployment, bearer, frame_with, submit, watching
from deployment import frame as message
from scoreboard.config import Action, Config
from scoreboard.config import Board as BoardSettings
from scoreboard.live import you

ACTIONS = {"ten": Action(points=10), "one": Action(points=1, policy="open")}


@pytest.fixture
async def client(deploy: Deploy) -> AsyncIterator[tuple[Deployment, httpx.AsyncClient]]:
    deployment = await deploy(Config(actions=ACTIONS, boards={"main": BoardSettings(top=2)}))
    async with deployment.running() as http:
        yield deployment, http


async def own(socket: ClientConnection) -> dict[str, Any]:
    """The next own line."""
    async with asyncio.timeout(SECONDS):
        while (found := await message(socket))["type"] != "you":
            pass
    return found


def auth(token: str) -> str:
    return msgspec.json.encode({"type": "auth", "token": token}).decode()


async def test_own_lines_in_the_documented_form_on_both_transports(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for user, count in (("ann", 3), ("bob", 2), ("cy", 2), ("dan", 1)):
        for n in range(count):
            await submit(http, user, f"ten:{user}{n}")
    async with watching(http) as socket:
        shown = await frame_with(socket, [("ann", 30), ("bob", 20)])
        await socket.send(auth(deployment.token("dan")))
        expected = {
            "type": "you",
            "board": "main",
            "seq": shown["seq"],
            "rank": 4,
            "score": 10,
            "toNext": 11,
            "above": [
                {"rank": 2, "userId": "bob", "name": "bob", "score": 20},
                {"rank": 3, "userId": "cy", "name": "cy", "score": 20},
            ],
            "below": [],
        }
        assert await own(socket) == expected
        async with http.stream(
            "GET", "/boards/main/events", headers=bearer(deployment.token("dan"))
        ) as stream:
            lines, before = stream.aiter_lines(), ""
            while not (line := await anext(lines)).startswith('data: {"type":"you"'):
                before = line
            assert before == ""  # no id: what a client comes back with is the board's frame
            assert msgspec.json.decode(line.removeprefix("data: ")) == expected


async def test_who_has_no_place_is_told_so_and_then_of_the_first(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    async with watching(http) as socket:
        await socket.send(auth(deployment.token("eve")))
        nothing = await own(socket)
        assert {name: nothing[name] for name in ("rank", "score", "toNext", "above", "below")} == {
            "rank": None, "score": None, "toNext": None, "above": [], "below": [],
        }  # fmt: skip
        await submit(http, "eve", "one:1", credentials=deployment.token("eve"))
        assert (await own(socket))["score"] == 1


async def test_ones_own_action_is_seen_within_100_milliseconds(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for n in range(3):
        await submit(http, f"better{n}", "ten:1")  # so that ann is not in the visible top
    users = ["ann", "bob", "cy"]
    for user in users:
        await submit(http, user, "one:0")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(watching(http)) for _ in users]
        for socket, user in zip(sockets, users, strict=True):
            await socket.send(auth(deployment.token(user)))
            await own(socket)
        taken = []
        for socket, user in zip(sockets, users, strict=True):
            # Others have just moved it: that must not hold up the user's own action.
            await submit(http, f"new-{user}", "ten:1")
            await own(socket)
            began = time.monotonic()
            await submit(http, user, "one:1", wait=0, credentials=deployment.token(user))
            while (await own(socket))["score"] != 2:
                pass
            taken.append(time.monotonic() - began)
        assert sorted(taken)[1] < 0.1


async def test_nobody_hears_more_than_once_a_second_and_the_last_word_is_right(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    async with watching(http) as socket, watching(http) as other:
        for one in (socket, other):
            await one.send(auth(deployment.token("ann")))
            await own(one)
        began = time.monotonic()
        for n in range(40):
            await submit(http, "ann", f"ten:{n}")
        heard = []
        for one in (socket, other):
            scores = [(await own(one))["score"]]
            while scores[-1] < 400:
                scores.append((await own(one))["score"])
            heard.append(scores)
        assert heard[0] == heard[1] == sorted(set(heard[0]))
        assert len(heard[0]) <= 1 + (time.monotonic() - began) / you.SECOND


async def test_the_movements_of_others_are_noticed_and_nothing_is_said_without_one(
    client: tuple[Deployment, httpx.AsyncClient],
) -> None:
    deployment, http = client
    for n, user in enumerate(("a", "b", "c", "d", "e", "f")):
        for again in range(6 - n):
            await submit(http, user, f"ten:{again}")
    async with watching(http) as socket:
        await socket.send(auth(deployment.token("f")))
        assert (await own(socket))["rank"] == 6
        await submit(http, "d", "ten:d")  # a neighbour
        said = await own(socket)
        assert [line["score"] for line in said["above"]] == [40, 20]
        await submit(http, "g", "ten:g1")
        await submit(http, "g", "ten:g2")
        assert (await own(socket))["rank"] == 7
