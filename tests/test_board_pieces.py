"""A large batch is told to a board in pieces, and none of them can be lost unnoticed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest

from plain_board import NAME, Valkey, board_on, row, running
from scoreboard.board import Batch, BoardBehind, writing
from scoreboard.model import Row

FEW = 100


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PIECE_ROWS", FEW)


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def batch(rows: Sequence[Row], upto: int, wanted: Sequence[str] = (), expect: int | None = 0) -> Batch:
    return Batch(NAME, rows, 0, expect, upto, wanted)


def test_each_piece_holds_all_that_changed_up_to_where_the_board_is_then() -> None:
    chance = random.Random(7)  # noqa: S311  the same rows each time
    # Some hundred commands changed several rows each; one of them more than a piece holds.
    rows = [row(f"u{n}", n, 1, changed=chance.choice((*range(10, 200), *[77] * 100))) for n in range(1_000)]
    wanted = ["u1", "u500", "u999", "nobody"]
    pieces = batch(rows, 300, wanted, expect=9).pieces()
    assert len(pieces) > 5
    assert pieces[0].expect == 9
    assert [piece.expect for piece in pieces[1:]] == [piece.upto for piece in pieces[:-1]]
    assert pieces[-1].upto == 300
    told: set[str] = set()
    for piece in pieces:
        told.update(one.user for one in piece.rows)
        assert told == {one.user for one in rows if one.changed <= piece.upto}
        together = {one.changed for one in piece.rows[FEW - 1 :]}
        assert len(together) <= 1, "it is larger only where rows changed together"
    assert sum(len(piece.rows) for piece in pieces) == len(rows)
    assert sorted(user for piece in pieces for user in piece.wanted) == sorted(wanted)
    for piece in pieces[:-1]:
        assert set(piece.wanted) <= {one.user for one in piece.rows}


def test_a_batch_that_is_small_enough_is_one_piece() -> None:
    rows = [row(f"u{n}", n, FEW - n) for n in range(FEW)]
    (piece,) = batch(rows, 300, ["u1"]).pieces()
    assert (piece.rows, piece.expect, piece.upto, set(piece.wanted)) == (rows, 0, 300, {"u1"})


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_piece_that_the_server_lost_is_missed(valkey: Valkey, lost: int) -> None:
    rows = [row(f"u{n}", n, n + 1) for n in range(3 * FEW + 1)]
    async with board_on(valkey) as board, valkey.client() as client:
        for number, piece in enumerate(batch(rows, 1_000).pieces()):
            kept = {key: await client.dump(key) for key in await client.keys()}
            (answer,) = await board.apply([piece])
            if number > lost:
                assert isinstance(answer, BoardBehind)
            elif number == lost:
                await client.flushdb()
                for key, value in kept.items():
                    await client.restore(key, 0, value)
        position = await board.position(NAME)
        assert position == {0: lost * FEW}
        await board.catch_up(NAME, [one for one in rows if one.changed > lost * FEW], partition=0, upto=1_000)
        page = await board.page(NAME, limit=1_000)
        assert page is not None
        assert [(line.user_id, line.score) for line in page.top] == [(o.user, o.score) for o in rows[::-1]]


async def test_a_board_that_is_further_than_the_rows_stays_there(valkey: Valkey) -> None:
    rows = [row(f"u{n}", n, n + 1) for n in range(3 * FEW)]
    async with board_on(valkey) as board:
        await board.catch_up(NAME, rows, partition=0, upto=1_000)
        for piece in batch(rows, 900, expect=1_000).pieces():
            assert piece.upto == 1_000, "what the next one is told to expect"
            assert await board.apply([piece]) == [{}]
        assert await board.position(NAME) == {0: 1_000}
