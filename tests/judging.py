"""For the tests of tokens: their issuers, who judges them, and what becomes of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from scoreboard.auth.keyring import NotYetKnown
from scoreboard.auth.tokens import Tokens
from scoreboard.config import Auth as AuthTable
from scoreboard.config import Config, Environment
from scoreboard.errors import Problem
from scoreboard.issuers import Issuer
from signing import Signer

ID, OLD, NEW = Signer(), Signer(kid="old"), Signer(kid="new")
SECRET = "shared-with-the-issuer-0123456789abcdef"
WEAK_BITS = 1024
ALGORITHMS = ("EdDSA", "ES256", "RS256")


def tokens_of(**issuer: Any) -> Tokens:
    """Tokens of one issuer."""
    given = {"issuer": "https://id.example", "algorithms": ("EdDSA",)} | issuer
    return Tokens(Config(auth=AuthTable(issuers=(Issuer(**given),))), Environment())


def code(judge: Tokens, token: str) -> str:
    """What becomes of a token."""
    try:
        judge.principal(token)
    except Problem as found:
        return found.code
    except NotYetKnown:
        return "unknown kid"
    return "fine"


@asynccontextmanager
async def followed(judge: Tokens) -> AsyncIterator[None]:
    """With the task that follows the issuers' keys."""
    following = asyncio.create_task(judge.run())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])
