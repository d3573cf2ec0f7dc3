"""What a visitor does on the page of ``scoreboard up --demo``: join, score, leave."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Request, Route, expect

from browsing import Open


@pytest.fixture(scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of ``scoreboard up --demo``."""
    data = tmp_path_factory.mktemp("demo")
    program = Path(sys.executable).with_name("scoreboard")
    process = await asyncio.create_subprocess_exec(
        program, "up", "--demo", "--host", "127.0.0.1", "--port", "0", "--data", data,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                if line.startswith(b"ready"):
                    break
            else:
                pytest.fail("scoreboard up --demo ended before it was ready")
        url = re.search(r"http://\S+", line.decode())
        assert url is not None
        yield url[0].rstrip("/")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


def own(page: Page) -> Locator:
    return page.locator("#you")


async def test_a_visitor_takes_part_with_the_keyboard(demo: str, visit: Open) -> None:
    page = await visit(demo)
    await page.bring_to_front()  # a page behind another has no focus to give
    name = page.get_by_label("Your name on the board")
    await expect(name).to_be_visible()  # what is hidden takes no focus, and nobody says so
    await name.focus()
    await page.keyboard.type("Zoë <the> Visitor")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Join")).to_be_focused()
    await page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Score!")
    await expect(button).to_be_focused()
    await expect(page.locator("#player")).to_have_text("Zoë <the> Visitor")
    await expect(own(page)).to_have_text("You have no score yet")
    await page.keyboard.press("Enter")
    await expect(page.locator("#outcome")).to_have_text(re.compile(r"^Counted: 10 points(, rank \d+)?\.$"))
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 10 points · .+"))
    await page.keyboard.press("Space")
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 20 points · .+"))
    assert await page.evaluate("localStorage.length") == 0
    assert await page.evaluate("sessionStorage.length") == 1

    await page.reload()
    await expect(page.locator("#player")).to_have_text("Zoë <the> Visitor")
    await expect(own(page)).to_have_text(re.compile(r"^You: rank \d+ · 20 points"))
    await page.get_by_role("button", name="Leave").click()
    await expect(name).to_be_focused()
    await expect(own(page)).to_be_hidden()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_the_token_never_is_in_an_address(demo: str, visit: Open) -> None:
    page = await visit(demo)
    sent: list[Request] = []

    def note(request: Request) -> None:
        sent.append(request)

    page.on("request", note)
    await join(page, "Yves")
    await page.get_by_role("button", name="Score!").click()
    await expect(own(page)).to_contain_text("10 points")
    bearer = [await one.header_value("authorization") for one in sent if "update-score" in one.url]
    assert len(bearer) == 1
    assert bearer[0] is not None
    token = bearer[0].removeprefix("Bearer ")
    assert len(token) > 20
    assert all(token not in one.url for one in sent)


async def test_a_try_that_failed_is_sent_again_and_counts_once(demo: str, visit: Open) -> None:
    page = await visit(demo, lost="ERR_CONNECTION_RESET")
    tries: list[str] = []

    async def lose_the_answer(route: Route) -> None:
        tries.append(json.loads(route.request.post_data or "")["actionId"])
        if len(tries) == 1:
            await route.fetch()  # counted, but the answer is lost on its way
            await route.abort("connectionreset")
        else:
            await route.continue_()

    await join(page, "Again")
    await page.route("**/update-score", lose_the_answer)
    await page.get_by_role("button", name="Score!").click()
    await expect(page.locator("#outcome")).to_contain_text("Counted: 10 points", timeout=15_000)
    await expect(own(page)).to_contain_text("· 10 points")
    assert len(tries) == 2
    assert tries[0] == tries[1]


async def join(page: Page, name: str) -> None:
    await page.get_by_label("Your name on the board").fill(name)
    await page.get_by_role("button", name="Join").click()
    await expect(page.get_by_role("button", name="Score!")).to_be_visible()
