"""The board against a plain dict: any order, any repetition, removals, rebuilds between; and what is read."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plain_board import NAME, Plain, Valkey, board_on, chunks, configuration, row, running, told
from scoreboard.board import Batch, Board
from scoreboard.model import Frame, Row

USERS = ["u", "u:1", "u10", 'a{b}"c', "\\x %s $1 ]]", "é", "日本 語", "🙂"]
TOP = 3
# Past 2^53, where a double could no longer tell two neighbours apart.
FIRST = 2**60
SCORES = [0, 1, 1, 2, -1, -2, 10**15, 10**15 + 1, 2**53 - 1, 2**53 - 2, 1 - 2**53, 2 - 2**53]
BOARDS = [(order, rank) for order in ("desc", "asc") for rank in ("ordinal", "competition", "dense")]

# A user's row: who, its score now (None: removed), and how long ago it was reached (equal ones occur).
Step = tuple[str, int | None, int, str | None]
steps: st.SearchStrategy[Step] = st.tuples(
    st.sampled_from(USERS),
    st.one_of(st.none(), st.sampled_from(SCORES)),
    st.integers(0, 2),
    st.sampled_from([None, "Ann", 'B"{}\\', *USERS[:1]]),
)
histories = st.lists(steps, min_size=1, max_size=14).map(
    lambda given: [
        Row(NAME, user, score, FIRST + max(n - ago, 0), FIRST + n, name)
        for n, (user, score, ago, name) in enumerate(given)
    ]
)
thorough = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(params=BOARDS, ids="-".join)
async def board(request: pytest.FixtureRequest, valkey: Valkey) -> AsyncIterator[tuple[Board, Plain]]:
    order, rank = request.param
    async with board_on(valkey, order=order, rank=rank, top=TOP) as made:
        yield made, Plain(order, rank)


async def emptied(board: tuple[Board, Plain]) -> tuple[Board, Plain]:
    """The same board with nothing on it, following another database."""
    made, plain = board
    made.database = str(uuid.uuid4())
    assert await made.position(NAME) is None
    assert await made.rebuild(NAME, upto={0: 0}, rows=chunks()) == 0
    return made, Plain(plain.order, plain.mode)


async def agree(board: Board, plain: Plain) -> Frame:
    """Whatever can be asked of the board is what the plain one says. Returns the frame."""
    expected = plain.lines()
    page = await board.page(NAME, limit=2)
    assert page is not None
    found = page.top
    while page.next is not None:
        page = await board.page(NAME, limit=2, after=page.next)
        assert page is not None
        assert page.total == len(expected)
        found += page.top
    assert found == expected
    ranks = plain.ranks()
    scores = {line.user_id: line.score for line in expected}
    pairs = [(NAME, user) for user in USERS]
    assert await board.ranks(pairs) == [(scores.get(user), ranks.get(user)) for user in USERS]
    for user, standing in zip(USERS, await board.standings(pairs), strict=True):
        assert standing is not None
        assert standing.around() == plain.around(user)
    frame = await board.frame(NAME)
    assert frame is not None
    assert frame.top == expected[:TOP]
    visible = [plain.rows[line.user_id] for line in expected]
    gone = [one for one in plain.rows.values() if one.score is None]
    assert await board.compare(NAME, chunks(gone, visible)) == []
    return frame


@thorough
@given(history=histories, data=st.data())
async def test_any_order_and_any_repetition_give_the_same_board(
    board: tuple[Board, Plain], history: list[Row], data: st.DataObject
) -> None:
    made, plain = await emptied(board)
    deliveries: list[list[Row]] = data.draw(
        st.lists(st.lists(st.sampled_from(history), max_size=6), max_size=4)
    )
    deliveries.append(data.draw(st.permutations(history)))
    seen = await agree(made, plain)
    for rows in deliveries:
        before = plain.ranks()
        plain.apply(rows)
        after = plain.ranks()
        assert await told(made, *rows, wanted=USERS) == {
            user: (before.get(user), after.get(user)) for user in USERS
        }
        frame = await agree(made, plain)
        # A new number exactly when what is visible changed.
        assert frame.epoch == seen.epoch
        assert frame.seq == seen.seq + (frame.top != seen.top)
        seen = frame


@thorough
@given(history=histories, data=st.data())
async def test_a_rebuild_between_any_updates_misses_none(
    board: tuple[Board, Plain], history: list[Row], data: st.DataObject
) -> None:
    made, plain = await emptied(board)
    committed = data.draw(st.integers(0, len(history)))
    counts = st.integers(0, len(history) - committed)

    async def apply_some() -> None:
        """Commit some more to the database, then tell the board anything that has been committed."""
        nonlocal committed
        committed = min(len(history), committed + data.draw(counts))
        if committed:
            rows = data.draw(st.lists(st.sampled_from(history[:committed]), max_size=5))
            plain.apply(rows)
            await told(made, *rows)

    async def snapshot() -> AsyncIterator[Sequence[Row]]:
        database = Plain(plain.order, plain.mode)
        database.apply(history[:committed])
        rows = data.draw(st.permutations(list(database.rows.values())))
        middle = data.draw(st.integers(0, len(rows)))
        for part in (rows[:middle], rows[middle:]):
            await apply_some()
            assert (
                await agree(made, plain)
            ).epoch == old.epoch  # still the old one, and it is kept up to date
            yield part
        await apply_some()
        plain.apply(rows)

    await apply_some()
    old = await agree(made, plain)
    await made.rebuild(NAME, upto={}, rows=snapshot())
    new = await agree(made, plain)
    assert new.epoch != old.epoch
    assert new.seq == 1
    await apply_some()
    await agree(made, plain)


@thorough
@given(history=histories, cut=st.integers(0, 14), data=st.data())
async def test_a_board_that_is_built_for_the_first_time_takes_updates_meanwhile(
    board: tuple[Board, Plain], history: list[Row], cut: int, data: st.DataObject
) -> None:
    made, plain = board
    made.database = str(uuid.uuid4())
    plain = Plain(plain.order, plain.mode)
    frame = await made.frame(NAME)

    async def snapshot() -> AsyncIterator[Sequence[Row]]:
        ranks = await told(made, *history[cut:], wanted=USERS[:1])
        assert ranks == {USERS[0]: (None, None)}  # nothing to rank on yet
        assert await made.position(NAME) is None
        assert await made.page(NAME, limit=1) is None
        assert await made.standings([(NAME, USERS[0])]) == [None]
        assert await made.ranks([(NAME, USERS[0])]) == [(None, None)]
        assert await made.frame(NAME) == frame  # the last one stays on the screens
        yield data.draw(st.permutations(history[:cut]))

    plain.apply(history)
    assert await made.rebuild(NAME, upto={0: 7}, rows=snapshot()) == len(history[:cut])
    assert await made.position(NAME) == {0: 7}
    await agree(made, plain)


async def test_who_was_removed_does_not_come_back_with_an_older_row(valkey: Valkey) -> None:
    async with board_on(valkey) as made:
        await told(made, row("a", 1, 1))
        assert await told(made, row("a", None, 1, changed=3), wanted=["a"]) == {"a": (1, None)}
        assert await told(made, row("a", 2, 2), wanted=["a"]) == {"a": (None, None)}
        assert await told(made, row("a", 4, 4), wanted=["a"]) == {"a": (None, 1)}


async def test_a_batch_larger_than_luas_stack_is_applied_at_once(valkey: Valkey) -> None:
    async with board_on(valkey, rank="dense") as made:
        plain = Plain("desc", "dense")
        rows = [row(f"u{n}", n % 700, n + 1) for n in range(9_500)]
        plain.apply(rows)
        wanted = [line.user_id for line in plain.lines()[::50]]
        ranks = await told(made, *rows, upto=10, wanted=wanted)
        expected = plain.ranks()
        assert ranks == {user: (None, expected[user]) for user in wanted}
        assert await made.position(NAME) == {0: 10}
        page = await made.page(NAME, limit=1_000)
        assert page is not None
        assert page.top == plain.lines()[:1_000]


async def test_several_boards_are_told_in_one_call_each_for_itself(valkey: Valkey) -> None:
    async with board_on(valkey) as made:
        answers = await made.apply(
            [
                Batch(NAME, [row("a", 1, 1)], 0, 0, 10, ["a"]),
                Batch(NAME, [row("b", 2, 2)], 0, 0, 20, ["b"]),  # it is at 10 by now
                Batch(NAME, [row("c", 3, 3)], 0, 10, 20, ["c"]),
            ]
        )
        assert answers[0] == {"a": (None, 1)}
        assert type(answers[1]).__name__ == "BoardBehind"
        assert answers[2] == {"c": (None, 1)}
        assert await made.position(NAME) == {0: 20}
        assert await made.ranks([(NAME, "c"), (NAME, "b"), (NAME, "a")]) == [(3, 1), (None, None), (1, 2)]


async def test_a_page_begins_at_a_place_in_the_order_whoever_moves(valkey: Valkey) -> None:
    async with board_on(valkey, rank="competition") as made:
        await told(made, *(row(f"u{n}", 10 - n // 2, n + 1) for n in range(8)))  # 10 10 9 9 8 8 7 7
        page = await made.page(NAME, limit=3)
        assert page is not None
        assert [(line.user_id, line.rank) for line in page.top] == [("u0", 1), ("u1", 1), ("u2", 3)]
        # The last one shown goes away, one from below overtakes all: nobody is skipped, nobody shown twice.
        await told(made, row("u2", None, 50), row("u7", 99, 51))
        page = await made.page(NAME, limit=3, after=page.next)
        assert page is not None
        assert [(line.user_id, line.rank) for line in page.top] == [("u3", 4), ("u4", 5), ("u5", 5)]
        page = await made.page(NAME, limit=3, after=page.next)
        assert page is not None
        assert [line.user_id for line in page.top] == ["u6"]
        assert page.next is None


@pytest.mark.parametrize("cursor", ["", "x", "!!", "é", "gaFi", "k6FiAaAA", "k6Fi" * 200])
async def test_a_cursor_that_is_none_is_refused(valkey: Valkey, cursor: str) -> None:
    async with board_on(valkey) as made:
        with pytest.raises(ValueError, match=r"."):
            await made.page(NAME, limit=1, after=cursor)


async def test_a_cursor_of_another_board_is_refused(valkey: Valkey) -> None:
    config = configuration()
    config.boards["other"] = config.boards[NAME]
    made = Board(valkey.url, config, "db")
    for name in config.boards:
        await made.rebuild(name, upto={}, rows=chunks([row("a", 1, 1), row("b", 1, 2)]))
    page = await made.page("other", limit=1)
    assert page is not None
    with pytest.raises(ValueError, match="another board"):
        await made.page(NAME, limit=1, after=page.next)
    await made.close()


async def test_the_order_of_a_board_cannot_change_without_a_rebuild(valkey: Valkey) -> None:
    config = configuration()
    made = Board(valkey.url, config, "db")
    await made.rebuild(NAME, upto={0: 5}, rows=chunks([row("a", 1, 1), row("b", 2, 2)]))
    config.boards[NAME] = type(config.boards[NAME])(order="asc")
    other = Board(valkey.url, config, "db")
    assert await made.position(NAME) == {0: 5}
    assert await other.position(NAME) is None
    assert await other.page(NAME, limit=1) is None
    await other.rebuild(NAME, upto={0: 6}, rows=chunks([row("a", 1, 1), row("b", 2, 2)]))
    assert await other.position(NAME) == {0: 6}
    assert await made.position(NAME) is None
    page = await other.page(NAME, limit=2)
    assert page is not None
    assert [line.user_id for line in page.top] == ["a", "b"]
    await made.close()
    await other.close()
