"""Live over Server-Sent Events: the same messages, the same rules, one hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from by_hand import Raw, Stream
from scoreboard.live import EventStream, hub, hubs
from watching import PATIENCE, Serving, frame, serving, token, until


@pytest.fixture
async def live() -> AsyncIterator[Serving]:
    async with serving() as server:
        server.hub.publish(frame(1))
        yield server


async def test_a_stream_begins_with_the_board_in_the_documented_form(live: Serving) -> None:
    async with await Stream.ask(live.address) as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["cache-control"] == "no-store"
        assert client.headers["x-accel-buffering"] == "no"
        assert client.headers["access-control-allow-origin"] == "*"
        assert {"content-length", "transfer-encoding", "content-encoding"}.isdisjoint(client.headers)
        assert 1_000 <= int((await client.event())["retry"]) <= 5_000
        assert await client.event() == {
            "id": "e1:1",
            "data": msgspec.json.encode(frame(1)).decode(),
        }


async def test_both_transports_get_the_same_bytes_from_one_hub(live: Serving) -> None:
    async with await Stream.ask(live.address) as stream, await Raw.watch(live) as socket:
        for seq in range(2, 6):
            assert (await socket.receive())[1] == live.hub.json
            while "data" not in (event := await stream.event()):
                pass
            assert event["data"].encode() == live.hub.json
            assert event["id"] == f"e1:{seq - 1}"
            await until(lambda: live.hub._merging is None)
            live.hub.publish(frame(seq))
        assert len(live.hub) == 2


@pytest.mark.parametrize(
    ("query", "last_id", "kind"),
    [
        ("", "e1:1", "heartbeat"),
        ("", "e1:0", "board"),
        ("", "nonsense", "board"),
        ("", "e2:1", "board"),
        ("?epoch=e1&seq=1", None, "heartbeat"),
        ("?epoch=e1&seq=0", "e1:1", "heartbeat"),
        ("?epoch=e1&seq=1", "e1:0", "board"),
    ],
)
async def test_who_comes_back_with_the_current_frame_gets_a_heartbeat(
    live: Serving, query: str, last_id: str | None, kind: str
) -> None:
    headers = {} if last_id is None else {"Last_Event_ID": last_id}
    async with await Stream.ask(live.address, "/boards/main/events" + query, **headers) as client:
        assert (await client.message())["type"] == kind
        live.hub.publish(frame(2))
        assert (await client.message())["seq"] == 2


async def test_silence_is_broken_by_heartbeats_with_an_id(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_SECONDS", 0.05)
    async with await Stream.ask(live.address) as client:
        assert (await client.message())["type"] == "board"
        for _ in range(3):
            event = await client.event()
            assert event["id"] == "e1:1"
            assert msgspec.json.decode(event["data"]) == {
                "type": "heartbeat", "board": "main", "epoch": "e1", "seq": 1
            }  # fmt: skip


async def test_no_task_of_the_request_remains(live: Serving) -> None:
    before = len(asyncio.all_tasks())
    async with await Stream.ask(live.address) as client:
        assert (await client.message())["type"] == "board"
        assert len(asyncio.all_tasks()) <= before
        assert not live.server.server_state.tasks
        (server_side,) = live.hub.clients()
        assert isinstance(server_side, EventStream)
    await until(lambda: live.hubs.connections == 0)
    assert not live.server.server_state.connections


async def test_the_end_of_uvicorn_is_told_with_when_to_come_back(live: Serving) -> None:
    async with await Stream.ask(live.address) as client:
        assert (await client.message())["type"] == "board"
        live.server.should_exit = True
        event = await client.event()
        bye = msgspec.json.decode(event["data"])
        assert (bye["type"], bye["code"]) == ("bye", 4001)
        assert 500 <= bye["retryAfter"] <= 5_000
        assert event["retry"] == str(bye["retryAfter"])
        assert await client.rest() == b""


async def test_past_the_limit_of_connections_a_stream_is_answered_503() -> None:
    async with serving(connections=1) as live:
        live.hub.publish(frame(1))
        async with await Raw.watch(live), await Stream.ask(live.address) as refused:
            assert refused.status == 503
            assert 1 <= int(refused.headers["retry-after"]) <= 5
            assert refused.headers["access-control-allow-origin"] == "*"
            assert live.hubs.connections == 1
        await until(lambda: live.hubs.connections == 0)
        live.hubs._tokens = -1_000_000.0
        async with await Stream.ask(live.address) as refused:
            assert refused.status == 503  # too many in a second


async def test_a_connection_that_was_refused_a_stream_can_be_used_on(live: Serving) -> None:
    async with await Stream.ask(live.address, "/boards/other/events") as client:
        assert client.status == 404
        body = await client.reader.readexactly(int(client.headers["content-length"]))
        assert msgspec.json.decode(body)["code"] == "unknown_board"
        client.writer.write(b"GET /boards/main/events HTTP/1.1\r\nHost: board\r\n\r\n")
        assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")
        assert (await client.message())["type"] == "board"


async def test_a_stream_asked_for_behind_another_request_follows_its_answer(live: Serving) -> None:
    async with await Stream.ask(live.address, "/boards/main", Connection="keep-alive") as client:
        both = (
            b"GET /health/live HTTP/1.1\r\nHost: b\r\n\r\nGET /boards/main/events HTTP/1.1\r\nHost: b\r\n\r\n"
        )
        await client.reader.readexactly(int(client.headers["content-length"]))
        client.writer.write(both)
        assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in await client.reader.readuntil(b"text/event-stream")
        await client.reader.readuntil(b"\r\n\r\n")
        assert (await client.message())["type"] == "board"


async def test_head_and_the_reads_beside_are_as_they_were(live: Serving) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.address[1]}") as client:
        head = await client.head("/boards/main/events")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        whole = await client.get("/boards/main")
        assert whole.content == live.hub.json
        again = await client.get("/boards/main", headers={"if-none-match": whole.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert live.hubs.connections == 0


async def test_another_page_may_ask_whether_it_may_send_a_token(live: Serving) -> None:
    for path in ("/boards", "/boards/main", "/boards/main/events", "/boards/main/users/u%2F1"):
        async with await Stream.ask(
            live.address,
            path,
            "OPTIONS",
            Origin="https://elsewhere.example",
            Access_Control_Request_Headers="authorization",
        ) as client:
            assert client.status == 204
            assert client.headers["access-control-allow-origin"] == "*"
            assert "Authorization" in client.headers["access-control-allow-headers"]
            assert "Last-Event-ID" in client.headers["access-control-allow-headers"]


async def test_a_token_that_does_not_hold_is_refused_even_where_none_is_needed(live: Serving) -> None:
    async with await Stream.ask(live.address, Authorization="Bearer nonsense") as client:
        assert client.status == 401
        assert client.headers["www-authenticate"].startswith("Bearer")
    async with await Stream.ask(live.address, Authorization=f"Bearer {token()}") as client:
        assert client.status == 200


async def test_a_stream_that_never_reads_holds_up_nobody_and_is_dropped(
    live: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MERGE_SECONDS", 0.001)
    monkeypatch.setattr(hubs, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(hubs, "TICK_SECONDS", 0.01)
    size = len(msgspec.json.encode(frame(1, rows=100)))
    async with await Raw.connect(live, receive_buffer=4_096) as slow, await Stream.ask(live.address) as quick:
        await slow.send_bytes(b"GET /boards/main/events HTTP/1.1\r\nHost: board\r\n\r\n")
        await until(lambda: len(live.hub) == 2)
        assert (await quick.message())["seq"] == 1
        stalled = live.hub.clients()[1]
        assert isinstance(stalled, EventStream)
        seq = 1
        while live.hubs.connections == 2:
            seq += 1
            live.hub.publish(frame(seq, rows=100))
            while (await quick.message())["seq"] < seq:
                pass
            assert stalled._transport.get_write_buffer_size() < size + 100
        assert len(live.hub) == 1


async def test_who_talks_on_a_stream_is_cut_off(live: Serving) -> None:
    async with await Stream.ask(live.address) as client:
        assert (await client.message())["type"] == "board"
        client.writer.write(b"x" * 100_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.message()
    await until(lambda: live.hubs.connections == 0)


async def test_who_goes_leaves_nothing(live: Serving) -> None:
    for _ in range(20):
        async with await Stream.ask(live.address) as client:
            assert client.status == 200
    async with asyncio.timeout(PATIENCE):
        await until(lambda: live.hubs.connections == 0)
    assert len(live.hub) == 0
    assert not live.server.server_state.connections
