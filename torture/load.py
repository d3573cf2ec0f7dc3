"""The clients: some who report actions, of both kinds and by both doors, and some who watch.

In: a deployment. Out: what they were told (``Told``). What was not answered for good is sent again with the
same id, and some of what was, on purpose, at times by both doors at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from scoreboard.auth.profile import signed
from scoreboard.auth.tokens import LOCAL_AUDIENCE, PURPOSE
from scoreboard.envelope import purpose_key
from scoreboard.model import LOCAL_ISSUER, Frame
from torture.system import System
from torture.told import Screen, Told

LANES = 6  # clients that send at a time: bounded load, so that a small machine keeps up
PAUSE_SECONDS = (0.05, 0.25)  # between two requests of a client
ANSWER_SECONDS = 4.0  # a client that was told nothing by then gives up, and sends the same again later
USERS = 60  # few: so that ties, limits and ranks are contested
BATCH = (2, 14)  # updates in a batch
AGAIN = 400  # actions that may be sent again, newest
UNANSWERED = 2_000
TOKEN_SECONDS = 12 * 3600
WAIT_SECONDS = 2
WATCH_AGAIN_SECONDS = 0.1
PROBE = "probe"
OWN_TYPES = ("cheer", "cheer", "daily", "first")
SERVICE_TYPES = ("point", "point", "win", "daily")
_frame = msgspec.json.Decoder(Frame)


class Load:
    """Clients that report actions while ``going`` is set. Open it with ``loading``."""

    def __init__(self, system: System, told: Told, chance: random.Random, http: httpx.AsyncClient) -> None:
        self._told, self._chance, self._http = told, chance, http
        self._doors = (system.url, system.second_url)
        self._key, self._secret = system.key, system.secret
        self._tokens: dict[str, str] = {}
        self._number = 0
        self._sent: deque[tuple[str, str]] = deque(maxlen=AGAIN)
        self._unanswered: deque[tuple[str, str]] = deque(maxlen=UNANSWERED)
        self._open = 0
        self._quiet = asyncio.Event()
        self.going = asyncio.Event()

    async def rest(self) -> None:
        """Send nothing new, and return when every request has been answered or given up."""
        self.going.clear()
        while self._open:
            self._quiet.clear()
            await self._quiet.wait()

    async def probe(self, door: str) -> int | None:
        """Report an action of the user ``PROBE``; its score once it counts, ``None`` if not in time."""
        self._number += 1
        answer = await self._one(door, PROBE, f"probe:{self._number}", wait=True)
        return None if answer is None else int(answer["boards"]["main"]["score"])

    async def lane(self) -> None:
        """One client, until cancelled."""
        chance = self._chance
        while True:
            await self.going.wait()
            door, dice = chance.choice(self._doors), chance.random()
            if dice < 0.2:
                await self._batch(door, [self._action(SERVICE_TYPES) for _ in range(chance.randint(*BATCH))])
            elif dice < 0.6:
                await self._one(door, *self._action(SERVICE_TYPES), wait=chance.random() < 0.3)
            elif dice < 0.9:
                user, action = self._action(OWN_TYPES)
                await self._one(door, user, action, wait=chance.random() < 0.3, own=True)
            else:  # by both doors at once
                user, action = self._action(SERVICE_TYPES)
                await asyncio.gather(*(self._one(one, user, action, wait=True) for one in self._doors))
            await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))

    def _action(self, types: Sequence[str]) -> tuple[str, str]:
        """A new action, or one that was sent before."""
        chance = self._chance
        if self._unanswered and chance.random() < 0.3:
            return self._unanswered.popleft()
        if self._sent and chance.random() < 0.1:
            return chance.choice(self._sent)
        self._number += 1
        new = f"user-{chance.randrange(USERS):02}", f"{chance.choice(types)}:{self._number}"
        self._sent.append(new)
        return new

    async def _one(
        self, door: str, user: str, action: str, *, wait: bool, own: bool = False
    ) -> dict[str, Any] | None:
        own = own and action.partition(":")[0] in OWN_TYPES  # what is sent again may be a service's
        headers = self._headers(self._token(user) if own else self._key, wait=wait)
        event_id = self._told.send(user, action)
        answer = await self._post(f"{door}/update-score", {"userId": user, "actionId": action}, headers)
        if answer is None or "code" in answer:
            self._refused(answer, [(user, action)])
            return None
        self._told.answered(event_id, answer)
        return answer if answer["status"] == "applied" else None

    async def _batch(self, door: str, actions: list[tuple[str, str]]) -> None:
        ids = [self._told.send(user, action) for user, action in actions]
        body = [{"userId": user, "actionId": action} for user, action in actions]
        answer = await self._post(f"{door}/update-scores", body, self._headers(self._key))
        if answer is None or "code" in answer:
            self._refused(answer, actions)
            return
        for event_id, action, result in zip(ids, actions, answer["results"], strict=True):
            if "code" in result:
                self._refused(result, [action])
            else:
                self._told.answered(event_id, result)

    async def _post(self, url: str, body: object, headers: dict[str, str]) -> dict[str, Any] | None:
        self._open += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer: dict[str, Any] = (await self._http.post(url, json=body, headers=headers)).json()
                return answer
        except (httpx.TransportError, TimeoutError):
            return None
        finally:
            self._open -= 1
            if not self._open:
                self._quiet.set()

    def _refused(self, problem: dict[str, Any] | None, actions: Sequence[tuple[str, str]]) -> None:
        if problem is None:
            self._told.refused("none", retryable=True)
        else:
            self._told.refused(problem["code"], retryable=problem["retryable"])
        self._unanswered.extend(actions)

    def _headers(self, credentials: str, *, wait: bool = False) -> dict[str, str]:
        prefer = {"prefer": f"wait={WAIT_SECONDS}"} if wait else {}
        return {"authorization": f"Bearer {credentials}", **prefer}

    def _token(self, user: str) -> str:
        if user not in self._tokens:
            # Without the time of issue: an api whose clock is an hour behind takes it, too.
            until = int(time.time()) + TOKEN_SECONDS
            claims = {"iss": LOCAL_ISSUER, "aud": LOCAL_AUDIENCE, "sub": user, "exp": until}
            self._tokens[user] = signed(claims, purpose_key(self._secret, PURPOSE), "JWT")
        return self._tokens[user]


async def watch(screen: Screen, url: str, board: str = "main") -> None:
    """Watch a board until cancelled, and connect again whenever the connection ends."""
    address = f"{url.replace('http', 'ws', 1)}/boards/{board}/live"
    while True:
        newest = screen.newest
        query = f"?epoch={newest.epoch}&seq={newest.seq}" if newest else ""
        with suppress(OSError, TimeoutError, WebSocketException):
            async with connect(
                address + query, subprotocols=[Subprotocol("scoreboard.v1")], compression=None
            ) as socket:
                screen.connected()
                async for message in socket:
                    if b'"type":"board"' in (
                        data := message.encode() if isinstance(message, str) else message
                    ):
                        screen.take(_frame.decode(data))
        await asyncio.sleep(WATCH_AGAIN_SECONDS)


@asynccontextmanager
async def loading(
    system: System, told: Told, screens: dict[str, Screen], chance: random.Random
) -> AsyncIterator[Load]:
    """All clients, for as long as the block runs; ``screens`` by the address that they watch."""
    async with httpx.AsyncClient() as http, asyncio.TaskGroup() as tasks:
        load = Load(system, told, chance, http)
        clients = [tasks.create_task(load.lane()) for _ in range(LANES)]
        clients += [tasks.create_task(watch(screen, url)) for url, screen in screens.items()]
        load.going.set()
        try:
            yield load
        finally:
            for client in clients:
                client.cancel()
