"""Pages in headless Chromium, watched to the end, and what can stand between them and the server.

Every page of every test is watched: an error on the console, a violation of its Content-Security-Policy or a
request to a host that is not its server's fails the test.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Route,
    WebSocketRoute,
    async_playwright,
)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
# All that moves: a document's own list leaves out what is in its elements' shadow trees.
ANIMATIONS = """() => {
  const of = (root) => [
    ...root.getAnimations(),
    ...[...root.querySelectorAll("*")].flatMap(({shadowRoot}) => (shadowRoot ? of(shadowRoot) : [])),
  ];
  return of(document);
}"""
WATCHMAN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(
  `${event.effectiveDirective} ${event.blockedURI}`));
window.animations = 0;
const animate = Element.prototype.animate;
Element.prototype.animate = function (...given) {
  window.animations += 1;
  return animate.apply(this, given);
};
"""
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
Open = Callable[..., Awaitable[Page]]


class Wire:
    """Stands between pages and the live end point: passes through, cuts, or speaks itself."""

    def __init__(self, board: str = "page") -> None:
        self.board = board
        self.urls: list[str] = []
        """Of all attempts, by whichever way."""
        self.closes_with: int | None = None
        """Refuse new connections with this close code, and the other ways to watch altogether."""
        self.real = True
        """Is there a server at the other end, or does the test speak?"""
        self.deaf = False
        """Drop what the server sends."""
        self._ends: list[WebSocketRoute] = []
        self._more = asyncio.Event()

    async def meet(self, end: WebSocketRoute) -> None:
        """A page connects."""
        self.urls.append(end.url)
        self._ends.append(end)
        if self.closes_with is not None:
            await end.close(code=self.closes_with, reason="by the test")
        elif self.real:
            server = end.connect_to_server()
            server.on_message(lambda message: None if self.deaf else end.send(message))
        self._more.set()

    async def ask(self, route: Route) -> None:
        """A page tries another way."""
        self.urls.append(route.request.url)
        self._more.set()
        if self.closes_with is None:
            await route.continue_()
        else:
            await route.abort("connectionrefused")

    async def connections(self, count: int) -> None:
        """Wait until a page has connected so many times."""
        async with asyncio.timeout(30):
            while len(self.urls) < count:
                self._more.clear()
                await self._more.wait()

    def say(self, **frame: Any) -> None:
        """Send a frame on the newest connection."""
        self._ends[-1].send(json.dumps(frame))

    def show(
        self, rows: list[tuple[str, int]], seq: int, epoch: str = "e1", total: int | None = None
    ) -> None:
        """Send a board of these (name, score)."""
        top = [
            {"rank": rank, "userId": f"u-{name}", "name": name, "score": score}
            for rank, (name, score) in enumerate(rows, 1)
        ]
        frame = {"epoch": epoch, "seq": seq, "at": "2026-11-23T20:15:00.123Z", "total": total or len(rows)}
        self.say(type="board", board=self.board, **frame, top=top)

    async def cut(self, code: int) -> None:
        await self._ends[-1].close(code=code, reason="by the test")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    # First the shell: the same engine without the windows around it, at less than half the processor time.
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)  # else what playwright brought along
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Open]:
    """Open a page in a browser context of its own (whose options may be given), watched to the end.

    ``lost``: a pattern for errors on the console that the test itself brings about. ``server``: the one other
    host that the page may ask, for a page that is not the server's.
    """
    opened: list[tuple[Page, str]] = []
    faults: list[str] = []

    async def visit(
        url: str,
        wire: Wire | None = None,
        clock: bool = False,
        lost: str | None = None,
        server: str = "",
        **options: Any,
    ) -> Page:
        context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        page = await context.new_page()
        host = urlsplit(url).netloc
        opened.append((page, host))

        def requested(address: str) -> None:
            if urlsplit(address).netloc not in (host, urlsplit(server).netloc):
                faults.append(f"a request to another host: {address}")

        def said(message: ConsoleMessage) -> None:
            patterns = [lost] if lost else ["ERR_CONNECTION_REFUSED"] if wire else []
            expected = any(re.search(pattern, message.text) for pattern in patterns)
            if message.type in ("error", "warning") and not expected:
                faults.append(message.text)

        page.on("request", lambda request: requested(request.url))
        page.on("websocket", lambda socket: requested(socket.url))
        page.on("pageerror", lambda error: faults.append(f"an error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"a dialog: {dialog.message}"))
        page.on("console", said)
        await page.add_init_script(WATCHMAN)
        if clock:
            await page.clock.install()
        if wire is not None:
            await page.route_web_socket(re.compile(r"/boards/.+/live"), wire.meet)
            await page.route(re.compile(r"/boards/[^/]+(/events)?(\?.*)?$"), wire.ask)
        await page.goto(url)
        return page

    yield visit
    for page, _ in opened:
        faults += await page.evaluate("window.violations")
        await page.context.close()
    assert faults == []


async def at_rest(page: Page) -> None:
    """Wait until nothing that ends by itself moves any more."""
    await page.wait_for_function(
        f"() => ({ANIMATIONS})().every(({{effect}}) => effect.getTiming().iterations === Infinity)"
    )


async def moving(page: Page) -> int:
    """How many animations run or wait."""
    count: int = await page.evaluate(f"({ANIMATIONS})().length")
    return count


async def low_contrast(page: Page) -> list[str]:
    """Texts with less contrast than WCAG AA asks for, against the solid colours that they may stand on."""
    found: list[str] = await page.evaluate(
        """() => {
          const light = (rgb) => rgb.map((c) => c / 255)
            .map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
          const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
          const under = (element) => {
            for (let at = element; at; at = at.assignedSlot ?? at.parentElement ?? at.getRootNode().host) {
              const style = getComputedStyle(at);
              const stops = at === document.body ? null : style.backgroundImage.match(/rgb\\([^)]+\\)/g);
              if (stops) return stops.map(rgb);
              const colour = rgb(style.backgroundColor);
              if (colour.length === 3) return [colour];
            }
            return [[255, 255, 255]];
          };
          const low = [];
          const all = (root) => [...root.querySelectorAll("*")]
            .flatMap((one) => [one, ...(one.shadowRoot ? all(one.shadowRoot) : [])]);
          for (const element of all(document.body)) {
            const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
            if (!own || !element.checkVisibility() || element.closest(".unseen, .skip")) continue;
            const style = getComputedStyle(element);
            const ink = light(rgb(style.color).slice(0, 3));
            const size = parseFloat(style.fontSize);
            const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
            for (const ground of under(element)) {
              const [a, b] = [ink, light(ground)].sort((x, y) => y - x);
              const ratio = (a + .05) / (b + .05);
              if (ratio < needed) low.push(`${element.textContent.trim()}: ${ratio.toFixed(2)}`);
            }
          }
          return low;
        }"""
    )
    return found
