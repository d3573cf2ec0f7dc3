"""For the tests of users' places: readings of the board, or of the database, that are held."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from deployment import until


class Gate:
    """Readings that are held until they are let through, and may fail then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: type, name: str) -> None:
        self.rounds: list[list[tuple[str, str]]] = []
        self.open = asyncio.Event()
        self.fault: Exception | None = None
        read = getattr(source, name)

        async def held(self_: Any, pairs: Sequence[tuple[str, str]]) -> Any:
            self.rounds.append(list(pairs))
            await self.open.wait()
            if self.fault is not None:
                raise self.fault
            return await read(self_, pairs)

        monkeypatch.setattr(source, name, held)

    async def until_held(self, rounds: int = 1) -> None:
        """Wait until so many have begun."""

        async def begun() -> bool:
            return len(self.rounds) >= rounds

        await until(begun)
