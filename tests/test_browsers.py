"""What browsers may do: pages of our own host and of those named, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from playwright.async_api import Browser, Page

from conftest import Deploy
from deployment import Deployment, submit
from scoreboard.auth.origins import Origins
from scoreboard.config import Action, Board, Config, Web

TRUSTED = "https://game.example"
CONFIG = Config(
    actions={"point": Action(points=1), "cheer": Action(points=5, policy="open")},
    boards={"main": Board(), "inner": Board(public=False)},
    web=Web(origins=(TRUSTED, "http://127.0.0.1:1")),
)
WRITES = [
    ("POST", "/update-score"),
    ("POST", "/update-scores"),
    ("POST", "/grants"),
    ("POST", "/admin/ban"),
    ("PUT", "/users/ann"),
    ("POST", "/boards/main"),
    ("DELETE", "/events/1"),
]
ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.fixture(scope="module")
async def deployment(deploy: Deploy) -> Deployment:
    return await deploy(CONFIG)


@pytest.fixture(scope="module")
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    async with deployment.running() as made:
        yield made


def own(client: httpx.AsyncClient) -> str:
    return str(client.base_url).rstrip("/")


@pytest.mark.parametrize(
    ("origin", "host", "trusted"),
    [
        (None, "scores.example", True),
        ("https://scores.example", "scores.example", True),
        ("https://SCORES.example", "scores.EXAMPLE", True),
        ("https://scores.example:8443", "scores.example:8443", True),
        ("https://scores.example:8443", "scores.example", False),
        ("https://game.example", "scores.example", True),
        ("https://game.example:443", "scores.example", False),
        ("http://game.example", "scores.example", False),
        ("https://game.example.evil.example", "scores.example", False),
        ("https://evil-game.example", "scores.example", False),
        ("https://game.example/", "scores.example", False),
        ("https://game.example, https://evil.example", "scores.example", False),
        ("scores.example", "scores.example", False),
        ("://scores.example", "scores.example", False),
        ("ftp://scores.example", "scores.example", False),
        ("null", "scores.example", False),
        ("null", "null", False),
        ("", "scores.example", False),
        ("https://", "", False),
        ("*", "scores.example", False),
    ],
)
def test_only_pages_of_our_own_host_and_of_those_named_are_trusted(
    origin: str | None, host: str, trusted: bool
) -> None:
    assert Origins((TRUSTED,)).trusts(origin, host) is trusted


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://game.example.evil.example"])
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_foreign_page_may_write_nothing(
    client: httpx.AsyncClient, method: str, path: str, origin: str
) -> None:
    answer = await client.request(
        method, path, headers={"origin": origin}, json={"userId": "ann", "actionId": "point:1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_denied")
    assert "access-control-allow-origin" not in answer.headers
    asked = await client.options(path, headers={"origin": origin, **ASKING})
    assert "access-control-allow-origin" not in asked.headers or path.startswith("/boards")


async def test_of_two_origins_both_must_be_trusted(client: httpx.AsyncClient) -> None:
    headers = [("origin", TRUSTED), ("origin", "https://evil.example")]
    for given in (headers, headers[::-1]):
        answer = await client.post(
            "/update-score", headers=given, json={"userId": "ann", "actionId": "point:1"}
        )
        assert answer.json()["code"] == "origin_denied"


async def test_a_trusted_page_may_write_and_read_what_it_is_answered(client: httpx.AsyncClient) -> None:
    asked = await client.options("/update-score", headers={"origin": TRUSTED, **ASKING})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == TRUSTED
    assert asked.headers["vary"] == "Origin"
    assert set(asked.headers["access-control-allow-headers"].split(", ")) == {
        "Authorization", "Content-Type", "Prefer", "X-Request-Id",
    }  # fmt: skip
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in asked.headers
    body = {"userId": "ann", "actionId": "point:1"}
    done = await client.post("/update-score", json=body, headers={"origin": TRUSTED, "prefer": "wait=10"})
    assert done.json()["status"] == "applied"
    wrong = await client.post("/update-score", json={}, headers={"origin": TRUSTED})
    event = await client.get(f"/events/{done.json()['eventId']}", headers={"origin": TRUSTED})
    assert (wrong.status_code, event.status_code) == (400, 200)
    for answer in (done, wrong, event):
        assert answer.headers.get_list("access-control-allow-origin") == [TRUSTED]
        assert answer.headers["vary"] == "Origin"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_a_foreign_page_reads_no_answer_that_is_not_for_everybody(client: httpx.AsyncClient) -> None:
    foreign = {"origin": "https://evil.example"}
    answer = await client.get("/users/ann/events", headers=foreign)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    for path in ("/boards", "/boards/main", "/web/scoreboard.js"):
        answer = await client.get(path, headers=foreign)
        assert answer.headers.get_list("access-control-allow-origin") == ["*"], path
    assert (await client.get("/boards/inner", headers=foreign)).json()["code"] == "origin_denied"


async def test_our_own_pages_and_programs_need_not_be_named(client: httpx.AsyncClient) -> None:
    assert (await submit(client, "own", "point:1")).json()["status"] == "applied"
    for origin in (own(client), own(client).upper().replace("HTTP", "http")):
        answer = await client.post(
            "/update-score", json={"userId": "own", "actionId": "point:1"}, headers={"origin": origin}
        )
        assert answer.status_code == 202


async def test_every_answer_has_the_headers_that_keep_browsers_from_guessing(
    client: httpx.AsyncClient,
) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/", {}),
        ("GET", "/docs", {}),
        ("GET", "/docs/openapi.json", {}),
        ("GET", "/web/scoreboard.js", {}),
        ("GET", "/boards/main", {}),
        ("GET", "/boards/none", {}),
        ("GET", "/boards/none/events", {}),
        ("GET", "/health/ready", {}),
        ("GET", "/metrics", {}),
        ("GET", "/nowhere", {}),
        ("POST", "/update-score", {"json": {}}),
        ("POST", "/update-score", {"json": {}, "headers": {"origin": "https://evil.example"}}),
        ("OPTIONS", "/update-score", {"headers": {"origin": TRUSTED, **ASKING}}),
        ("OPTIONS", "/boards", {"headers": {"origin": TRUSTED, **ASKING}}),
        ("PATCH", "/update-score", {}),
    ]
    for method, path, kwargs in asked:
        answer = await client.request(method, path, **kwargs)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
        assert answer.headers.get_list("referrer-policy") == ["no-referrer"], path
        assert "server" not in answer.headers
        assert "set-cookie" not in answer.headers
        if answer.headers.get("content-type", "").startswith("text/html"):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'self'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert "geolocation=()" in answer.headers["permissions-policy"]


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


POST = """async ([url, token, user]) => {
  const init = {method: "POST", body: JSON.stringify({userId: user, actionId: "cheer:browser"}),
                headers: {"Content-Type": "application/json", "Authorization": `Bearer ${token}`}};
  try { return (await fetch(`${url}/update-score`, init)).status } catch (error) { return String(error) }
}"""


async def test_a_browser_lets_a_trusted_page_write_and_a_foreign_one_not(deploy: Deploy, page: Page) -> None:
    # Another port is another origin.
    made = await deploy(CONFIG)
    async with made.serving() as trusted, made.serving() as foreign:
        web = Web(origins=(own(trusted),))
        made.settings = msgspec.structs.replace(
            made.settings, config=msgspec.structs.replace(made.config, web=web)
        )
        async with made.running() as ours:

            async def post_from(site: httpx.AsyncClient, user: str) -> Any:
                await page.goto(f"{own(site)}/health/live")
                return await page.evaluate(POST, [own(ours), made.token(user), user])

            assert await post_from(ours, "one") == 202
            assert await post_from(trusted, "two") == 202
            assert "Failed to fetch" in await post_from(foreign, "three")
            # The log is in order: what comes after has been counted, and the foreign page's has not.
            assert (await submit(ours, "last", "point:1")).json()["status"] == "applied"
            top = (await ours.get("/boards/main?limit=10")).json()["top"]
            assert [row["userId"] for row in top] == ["one", "two", "last"]
