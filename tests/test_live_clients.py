"""Clients that others wrote: ``websockets``, ``ws`` for Node.js, Node.js itself, and a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser, Page
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from by_hand import Raw
from watching import PATIENCE, Serving, frame, serving, token, until

# Playwright, which tests the page, brings a Node.js along, and with it the library ws: exactly pinned, and
# installed with the other tools.
DRIVER = Path(str(resources.files("playwright"))) / "driver"
BUNDLE = DRIVER / "package" / "lib" / "utilsBundle.js"

WS = """
const { ws: WebSocket } = require(process.argv[1]);
const socket = new WebSocket(process.argv[2], ["scoreboard.v1"]);
const seen = [];
socket.on("message", (data, binary) => {
  const said = JSON.parse(data);
  seen.push(binary ? "binary" : said.type);
  if (said.seq === 1) socket.ping("hello");
  if (said.seq === 2) socket.send(JSON.stringify({ type: "auth", token: process.argv[3] }));
});
socket.on("pong", (data) => { seen.push("pong " + data); console.log("ready"); });
socket.on("close", (code, reason) => console.log(
  JSON.stringify([socket.protocol, socket.extensions, ...seen, code, String(reason)])));
"""

BUILT_IN = """
const socket = new WebSocket(process.argv[1], ["scoreboard.v1"]);
socket.onmessage = ({ data }) => {
  if (JSON.parse(data).seq === 1) console.log("ready"); else socket.close(3000, "enough");
};
socket.onclose = ({ code, reason, wasClean }) =>
  console.log(JSON.stringify([socket.protocol, code, reason, wasClean]));
"""


@pytest.fixture
async def live() -> AsyncIterator[Serving]:
    async with serving() as server:
        server.hub.publish(frame(1))
        yield server


class Node:
    """A script in Node.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def run(cls, script: str, *arguments: str) -> Node:
        process = await asyncio.create_subprocess_exec(
            DRIVER / "node", "-e", script, *arguments, stdout=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE):
            assert await self.process.wait() == 0


async def test_ws_for_node(live: Serving) -> None:
    node = await Node.run(WS, str(BUNDLE), live.url(), "nobody's")
    assert await node.line() == "ready"
    live.hub.publish(frame(2))
    expected = ["scoreboard.v1", "", "board", "pong hello", "board", 4401, "invalid token"]
    assert msgspec.json.decode(await node.line()) == expected
    await node.end()
    await until(lambda: live.hubs.connections == 0)


async def test_node_itself(live: Serving) -> None:
    node = await Node.run(BUILT_IN, live.url())
    assert await node.line() == "ready"
    live.hub.publish(frame(2))
    assert msgspec.json.decode(await node.line()) == ["scoreboard.v1", 3000, "enough", True]
    await node.end()
    await until(lambda: live.hubs.connections == 0)


async def test_websockets_offers_compression_pings_and_closes(live: Serving) -> None:
    async with connect(live.url(), compression="deflate", ping_interval=0.01, proxy=None) as client:
        assert msgspec.json.decode(await client.recv())["seq"] == 1
        assert client.protocol.extensions == []
        async with asyncio.timeout(PATIENCE):
            await (await client.ping())
        live.hub.publish(frame(2))
        assert msgspec.json.decode(await client.recv())["seq"] == 2
        await client.send(msgspec.json.encode({"type": "auth", "token": token()}))
        with pytest.raises(ConnectionClosed):
            await client.recv()  # a binary message
        assert client.close_code == 4400
    await until(lambda: live.hubs.connections == 0)


async def test_a_handshake_as_firefox_sends_it(live: Serving) -> None:
    async with await Raw.connect(live) as client:
        status, headers = await client.ask(
            connection="keep-alive, Upgrade",
            Sec_WebSocket_Extensions="permessage-deflate",
            Sec_Fetch_Mode="websocket",
            Pragma="no-cache",
            Cache_Control="no-cache",
            Origin="https://elsewhere.example",
        )
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
        assert {"sec-websocket-extensions", "sec-websocket-protocol"}.isdisjoint(headers)
        assert (await client.message())["seq"] == 1


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def test_a_browser_on_every_transport(live: Serving, page: Page) -> None:
    base = f"http://127.0.0.1:{live.address[1]}"
    await page.goto(base + "/health/live")

    async def socket() -> Any:
        return await page.evaluate("() => socket.seen")

    await page.evaluate(
        """(url) => {
          window.socket = new WebSocket(url, ["scoreboard.v1"]);
          socket.seen = [];
          socket.onmessage = ({ data }) => socket.seen.push(JSON.parse(data).seq);
          socket.onclose = ({ code, reason }) => socket.seen.push([socket.protocol, code, reason]);
          window.stream = new EventSource("/boards/main/events");
          stream.seen = [];
          stream.onmessage = ({ data, lastEventId: id }) => stream.seen.push([JSON.parse(data).type, id]);
        }""",
        live.url(),
    )
    await page.wait_for_function("socket.seen.length == 1 && stream.seen.length == 1")
    live.hub.publish(frame(2))
    await page.wait_for_function("socket.seen.length == 2 && stream.seen.length == 2")
    await page.evaluate("socket.send('nonsense')")
    await page.wait_for_function("socket.seen.length == 3")
    assert await socket() == [1, 2, ["scoreboard.v1", 4400, "bad message"]]

    # A stream that ends is opened again by the browser, which says what it had.
    (server_side,) = live.hub.clients()
    server_side.close(4001, "draining", 10)  # type: ignore[attr-defined]
    await page.wait_for_function("stream.seen.length == 4")
    assert await page.evaluate("stream.seen") == [
        ["board", "e1:1"], ["board", "e1:2"], ["bye", "e1:2"], ["heartbeat", "e1:2"],
    ]  # fmt: skip

    # By fetch a token goes along.
    said = await page.evaluate(
        """async ([user, last]) => {
          const headers = { Authorization: `Bearer ${user}`, "Last-Event-ID": last };
          const answer = await fetch("/boards/main/events", { headers });
          const { value } = await answer.body.pipeThrough(new TextDecoderStream()).getReader().read();
          return [answer.status, answer.headers.get("content-type"), value];
        }""",
        [token(), "e1:2"],
    )
    assert said[:2] == [200, "text/event-stream; charset=utf-8"]
    assert said[2].startswith("retry: ")
