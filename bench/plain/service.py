"""What a user would write by hand instead, in an afternoon, and not badly: FastAPI, PyJWT, asyncpg, redis-py.

It counts an action once (a unique key), writes each to disk before it answers, and has the new top 10 on all
screens within some 50 ms. It has no queue: a request waits for PostgreSQL and Redis, and a crash between the
two leaves them different. It knows no limits, no grants, no undoing, no rebuilding, no resuming.

    DATABASE_URL=... REDIS_URL=... SECRET=... uvicorn service:app
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from redis.asyncio import Redis

POINTS = 1
FRAME_SECONDS = 0.05
POOL_SIZE = 16


class Update(BaseModel):
    """A completed action."""

    userId: str  # noqa: N815 - the name on the wire
    actionId: str  # noqa: N815


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connections, the table, and the loop that sends the top."""
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=POOL_SIZE) as app.state.pool:
        await app.state.pool.execute(
            "CREATE TABLE IF NOT EXISTS plain (user_id text, action_id text, points integer,"
            " at timestamptz DEFAULT now(), PRIMARY KEY (user_id, action_id))"
        )
        sending = asyncio.create_task(send_top())
        yield
        sending.cancel()
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)
watching: set[WebSocket] = set()


def user(authorization: Annotated[str, Header()]) -> str:
    """Who asks."""
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "),
            os.environ["SECRET"],
            algorithms=["HS256"],
            audience="scoreboard",
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, str(error)) from error
    return claims["sub"]


@app.post("/update-score", status_code=201)
async def update_score(update: Update, user: Annotated[str, Depends(user)]) -> dict[str, str | float]:
    """Count an action, once."""
    if update.userId != user:
        raise HTTPException(403, "not yours")
    done = await app.state.pool.execute(
        "INSERT INTO plain (user_id, action_id, points) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        *(user, update.actionId, POINTS),
    )
    if done.endswith(" 0"):
        raise HTTPException(409, "counted before")
    score = await app.state.redis.zincrby("plain", POINTS, user)
    return {"userId": user, "score": score}


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    """Watch the board."""
    await socket.accept()
    watching.add(socket)
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        watching.discard(socket)


async def send_top() -> None:
    """Send the top 10 to all who watch, whenever it has changed."""
    last = None
    while True:
        await asyncio.sleep(FRAME_SECONDS)
        if not watching:
            continue
        top = await app.state.redis.zrevrange("plain", 0, 9, withscores=True)
        if top == last:
            continue
        last = top
        for socket in list(watching):
            try:
                await socket.send_json([{"userId": user, "score": score} for user, score in top])
            except RuntimeError:
                watching.discard(socket)
