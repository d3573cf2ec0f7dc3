"""What operators do with keys: make, list, rotate, revoke. Each act is one transaction of the database.

In comes what is wanted, out goes the key's text, once: it is kept nowhere. A key never gets more than it was
made with: its successor has the same scopes, types and lifetime.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from msgspec import Struct

from scoreboard.auth.keys import KEY_PREFIX
from scoreboard.database import STATEMENTS, Database, hash_of_key
from scoreboard.errors import DatabaseUnavailable
from scoreboard.model import Scope

if TYPE_CHECKING:
    from scoreboard.database.server import Connection

KEY_BYTES = 32
SHOWN_CHARACTERS = 9  # `sb_` and 36 of the 256 bits: recognised, never guessed
# A key that a command makes for itself is prolonged while it runs, and ends soon after it was killed.
TEMPORARY = "temporary: "  # so their names begin, and nobody else's
TEMPORARY_SECONDS = 900
PROLONG_SECONDS = 300


class KeyLine(Struct, frozen=True):
    """What may be told of a key."""

    id: str
    name: str
    prefix: str | None
    scopes: Sequence[str]
    actions: Sequence[str] | None
    created: datetime
    used: datetime | None
    expires: datetime | None
    revoked: datetime | None
    replaced_by: str | None
    state: str
    """``active``, ``expired`` or ``revoked``, by the database's clock."""


async def create_key(
    database: Database,
    name: str,
    scopes: Sequence[Scope],
    *,
    actions: Sequence[str] | None = None,
    seconds: int | None = None,
    reason: str = "",
) -> tuple[str, str]:
    """Make a key: (its id, its text).

    Args:
        database: where keys are kept.
        name: what it is for.
        scopes: what it may do.
        actions: the types of action it is for; ``None``: all.
        seconds: how long it lives; ``None``: until it is revoked.
        reason: why, for the audit.
    """
    key_id, text = _new()
    async with database.transaction() as connection:
        await connection.execute(
            STATEMENTS["insert_key"],
            *(key_id, hash_of_key(text), name, [scope.value for scope in scopes]),
            *(text[:SHOWN_CHARACTERS], actions, seconds),
        )
        await _record(connection, "key create", key_id, _told(name, scopes, actions, seconds), reason)
    return key_id, text


async def rotate_key(database: Database, key_id: str, grace: int, reason: str = "") -> tuple[str, str] | None:
    """Make the successor of a key, which itself ends in ``grace`` seconds: (its id, its text).

    ``None`` if there is no such key, or it opens nothing any more, or has a successor already.
    """
    new_id, text = _new()
    async with database.transaction() as connection:
        made = await connection.fetchval(
            STATEMENTS["succeed_key"], key_id, new_id, hash_of_key(text), text[:SHOWN_CHARACTERS]
        )
        if made is None:
            return None
        await connection.execute(STATEMENTS["retire_key"], key_id, new_id, grace)
        told = f"followed by {new_id}, ends in {grace} s"
        await _record(connection, "key rotate", key_id, told, reason)
    return new_id, text


async def revoke_key(database: Database, key_id: str, reason: str = "") -> bool:
    """Revoke a key; was there one to revoke?"""
    async with database.transaction() as connection:
        if await connection.execute(STATEMENTS["revoke_key"], key_id) != "UPDATE 1":
            return False
        await _record(connection, "key revoke", key_id, "", reason)
    return True


async def list_keys(database: Database, *, everything: bool = True) -> list[KeyLine]:
    """All keys, oldest first; without ``everything`` no temporary ones that have ended."""
    async with database.transaction() as connection:
        hidden = None if everything else TEMPORARY
        return [KeyLine(*row) for row in await connection.fetch(STATEMENTS["list_keys"], hidden)]


@asynccontextmanager
async def temporary_key(database: Database, name: str, scope: Scope) -> AsyncIterator[str]:
    """A key for as long as the block runs, and hardly longer if it is killed."""
    name = f"{TEMPORARY}{name}, {operator()}"
    key_id, text = await create_key(database, name, [scope], seconds=TEMPORARY_SECONDS)

    async def prolong() -> None:
        while True:
            await asyncio.sleep(PROLONG_SECONDS)
            with suppress(DatabaseUnavailable):  # there are two more tries before it ends
                async with database.transaction() as connection:
                    await connection.execute(STATEMENTS["prolong_key"], key_id, TEMPORARY_SECONDS)

    prolonging = asyncio.create_task(prolong(), name="prolong the key")
    try:
        yield text
    finally:
        prolonging.cancel()
        with suppress(DatabaseUnavailable):  # it ends by itself
            await revoke_key(database, key_id)


def operator() -> str:
    """Who runs this process: the operating system's user, not what a variable says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _new() -> tuple[str, str]:
    return "k_" + secrets.token_hex(6), KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def _told(name: str, scopes: Sequence[Scope], actions: Sequence[str] | None, seconds: int | None) -> str:
    parts = [name, ", ".join(scopes)]
    if actions is not None:
        parts.append(f"for {', '.join(actions)}")
    if seconds is not None:
        parts.append(f"ends in {seconds} s")
    return "; ".join(parts)


async def _record(connection: Connection, act: str, key_id: str, told: str, reason: str) -> None:
    """Write an act into the audit, in its own transaction: all acts on keys pass here."""
    why = "; ".join(part for part in (told, reason) if part)
    await connection.execute(
        STATEMENTS["insert_audit"],
        *(uuid4(), None, f"os:{operator()}", act, f"key {key_id}", why, None, None),
    )
