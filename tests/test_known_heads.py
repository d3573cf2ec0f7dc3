"""Heads that are known by their bytes: not parsed again, and all else is judged anew with each request."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from deployment import Deployment, submit, until
from scoreboard.api import straight
from scoreboard.api.connection import Http
from scoreboard.api.straight import Request, Straight
from scoreboard.auth import keys
from scoreboard.auth.key_acts import create_key, revoke_key
from scoreboard.database import Database
from scoreboard.model import Scope
from straight_way import action, asked, get, post, raw, served

__all__ = ["asked", "served"]
Served = tuple[Deployment, httpx.AsyncClient]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets of the requests whose heads were parsed."""
    found: list[str] = []
    complete = Http.on_headers_complete

    def noted(self: Http) -> None:
        found.append(self.url.decode())
        complete(self)

    monkeypatch.setattr(Http, "on_headers_complete", noted)
    return found


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[bytes, straight.Head]]:
    """The heads that each server knows that is started from now on."""
    found: list[Mapping[bytes, straight.Head]] = []
    make = Straight.__init__

    def noted(self: Straight, handlers: Any, **more: Any) -> None:
        make(self, handlers, **more)
        if handlers:  # a worker's server has none
            found.append(self._heads)

    monkeypatch.setattr(Straight, "__init__", noted)
    return found


async def test_a_head_that_comes_again_is_not_parsed_again(served: Served, parsed: list[str]) -> None:
    deployment, client = served
    before = (await client.get("/boards/main/users/ann")).json()["score"]
    async with raw(client) as connection, raw(client) as other:
        parsed.clear()
        for number in range(3):
            for one in (connection, other):
                one.send(post(deployment.key, action("ann", f"point:{number}{int(one is other)}")))
                assert (await one.answer()).status == 202
            connection.send(get("/boards/main"))
            assert (await connection.answer()).status == 200
        assert parsed == ["/update-score", "/boards/main"]
    await submit(client, "ann", "point:last")
    assert (await client.get("/boards/main/users/ann")).json()["score"] == before + 7


async def test_one_byte_more_or_less_is_another_head(served: Served, parsed: list[str]) -> None:
    deployment, client = served
    async with raw(client) as connection:
        connection.send(post(deployment.key, action("ann", "point:1")))
        assert (await connection.answer()).status == 202
        parsed.clear()
        for headers, status in (
            (("X: y",), 202),
            (("Prefer: wait=5",), 200),
            (("Content-Encoding: gzip",), 415),
            (("Content-Type: text/plain",), 415),
        ):
            connection.send(post(deployment.key, action("ann", "point:1"), *headers))
            assert (await connection.answer()).status == status
        connection.send(post(deployment.key[:-1], action("ann", "point:1")))
        assert (await connection.answer()).status == 401
        assert len(parsed) == 5


@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
async def test_a_head_is_known_whatever_the_length_of_its_body(
    served: Served, parsed: list[str], name: str
) -> None:
    deployment, client = served
    async with raw(client) as connection:
        for length in (1, 2, 30, 5, 64):
            request = post(deployment.key, action("ann", f"point:{length:0{length}}"))
            connection.send(request.replace(b"Content-Length", name.encode()))
            assert (await connection.answer()).status == 202
        assert parsed == ["/update-score"]
        tall = post(deployment.key, action("ann", "point:1") | {"x": "y" * straight.BODY_BYTES})
        connection.send(tall)
        assert (await connection.answer()).status == 413
        assert len(parsed) == 2


async def test_only_the_number_of_a_content_length_may_differ(served: Served) -> None:
    deployment, client = served
    body = b'{"userId":"ann","actionId":"point:1"}'
    one = post(deployment.key, body)
    length = b"Content-Length: %d" % len(body)
    async with raw(client) as connection:
        connection.send(one)
        assert (await connection.answer()).status == 202
        # Another header that ends alike comes first: it is not the length of anything.
        then = get("/boards/main")
        for more in (0, 1, 5, 0):
            strong = one.replace(length, b"Strength: %d\r\n%b" % (len(body) + more, length))
            connection.send(strong + then[:more])
            assert (await connection.answer()).status == 202
            connection.send(then[more:])
            assert (await connection.answer()).status == 200
            connection.send(get("/boards/main", f"Strength: {more}") + then[:more])
            assert (await connection.answer()).status == 200
            connection.send(then[more:])
            assert (await connection.answer()).status == 200
    for wrong in (b"", b"+37", b"3_7", b"0x25", b"\xd9\xa3\xd9\xa7"):
        async with raw(client) as connection:
            connection.send(one.replace(length, b"Content-Length: " + wrong))
            assert (await connection.answer()).status == 400


def test_only_a_content_length_is_left_out_whatever_a_parser_lets_through() -> None:
    handler: Any = SimpleNamespace(keeps=True)
    known = Straight({})
    for name in ("Strength", "Content-Length"):
        piece = b"GET / HTTP/1.1\r\n%b: 0\r\nContent-Length: \r\n\r\n" % name.encode()
        known.keep(piece, Request(handler, handler, "said"))
        assert (known.known(piece) is not None) == (name == "Content-Length")
        assert known.known(piece.replace(b"0", b"5") + b"GET /") is None or name == "Content-Length"


@pytest.mark.parametrize("cut", [1, 30, -20, -1])
async def test_a_known_head_in_pieces_is_put_together(served: Served, parsed: list[str], cut: int) -> None:
    deployment, client = served
    async with raw(client) as connection, raw(client) as other:
        for number in range(3):
            request = post(deployment.key, action("ann", f"point:{number}"))
            connection.send(request[:cut])
            other.send(get("/boards/main"))  # the first piece has been read by then
            assert (await other.answer()).status == 200
            connection.send(request[cut:])
            assert (await connection.answer()).status == 202
            connection.send(post(deployment.key, action("ann", f"point:whole{number}")))
            assert (await connection.answer()).status == 202
    assert parsed.count("/update-score") == 4  # the three in pieces, and the first whole one


async def test_what_follows_a_known_head_is_never_taken_for_its_body(served: Served) -> None:
    deployment, client = served
    one = post(deployment.key, action("ann", "point:1"))
    async with raw(client) as connection:
        connection.send(one)
        assert (await connection.answer()).status == 202
        # More than the body: the beginning of the next request; and all of it.
        connection.send(one + b"GET /boards/main HT")
        assert (await connection.answer()).status == 202
        connection.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert (await connection.answer()).status == 200
        connection.send(get("/boards/main") + get("/boards/main"))
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]
        # An empty line before it belongs to nobody.
        for _ in range(2):
            connection.send(b"\r\n" + one)
            assert (await connection.answer()).status == 202
        # A body that is shorter than the head says is waited for, and then it is broken JSON.
        connection.send(one[:-1])
        connection.send(b"x")
        assert (await connection.answer()).status == 400


async def test_no_head_is_kept_whose_end_could_be_doubted(
    heads: list[Mapping[bytes, straight.Head]], served: Served
) -> None:
    deployment, client = served
    unclear = get("/boards/main").replace(b"\r\n", b"\n") + get("/boards/main")
    long = post(deployment.key, action("ann", "point:1"), "X: " + "y" * straight.KEPT_BYTES)
    known = len(heads[0])
    async with raw(client) as connection:
        connection.send(long)
        assert (await connection.answer()).status == 202
        assert len(heads[0]) == known
        connection.send(unclear)
        assert (await connection.answer()).status in (200, 400)
        assert len(heads[0]) == known


async def test_only_so_many_heads_are_kept_and_nothing_of_what_they_hold(
    heads: list[Mapping[bytes, straight.Head]], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, client = served
    monkeypatch.setattr(straight, "HEADS", 3)
    async with raw(client) as connection:
        for number in range(5):
            for _ in range(2):
                request = post(deployment.key, action("ann", f"point:{number}"), f"X: {number}")
                connection.send(request)
                assert (await connection.answer()).status == 202
        assert len(heads[0]) == 3
    seen: set[int] = set()
    kept: list[object] = [heads[0]]
    while kept:
        one = kept.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        assert not (isinstance(one, str | bytes) and deployment.key in str(one))
        if isinstance(one, dict | list | tuple | straight.Head) or type(one).__name__ == "partial":
            kept += gc.get_referents(one)


@pytest.mark.parametrize("ending", ["revoked", "expired"])
async def test_credentials_that_end_are_refused_with_a_head_that_is_known(
    served: Served, parsed: list[str], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(keys, "REFRESH_SECONDS", 0.01)
    deployment, client = served
    async with raw(client) as connection, Database.open(deployment.database_url) as database:
        key_id, key = await create_key(database, "test", [Scope.SCORE_WRITE])
        credentials = key if ending == "revoked" else deployment.token("ann")
        request = post(credentials, action("ann", "point:again"))

        async def status() -> int:
            connection.send(request)
            return (await connection.answer()).status

        assert [await status() for _ in range(3)] == [202, 202, 202]
        parsed.clear()
        assert await status() == 202
        assert parsed == []
        if ending == "revoked":
            await revoke_key(database, key_id)
        else:
            later = time.time() + 3600
            monkeypatch.setattr(time, "time", lambda: later)

        async def refused() -> bool:
            return await status() == 401

        await until(refused)
        assert await status() == 401
