"""The door: what is answered to whom about an update, in which order of decisions."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from deployment import Deployment, problem, submit, until
from scoreboard.api.update_score import wait_of
from scoreboard.event_ids import event_id_of_action
from scoreboard.model import Scope
from the_door import SIGNER, client, deployment, door

__all__ = ["client", "deployment", "door"]


async def test_the_answer_carries_the_id_that_follows_from_user_and_action(client: httpx.AsyncClient) -> None:
    answer = await submit(client, "ann", "win:1", wait=0)
    assert answer.status_code == 202
    assert answer.json() == {"status": "accepted", "eventId": str(event_id_of_action("ann", "win:1"))}
    assert UUID(answer.json()["eventId"]).version == 8


async def test_an_event_counts_on_every_board_that_takes_its_type(client: httpx.AsyncClient) -> None:
    assert (await submit(client, "ann", "point:1")).json()["boards"].keys() == {"main"}
    body = (await submit(client, "ann", "win:1")).json()
    assert body["boards"]["main"] == {"score": 11, "rank": 1, "previousRank": 1}
    assert body["boards"]["wins"] == {"score": 10, "rank": 1, "previousRank": None}
    assert (await submit(client, "ann", "fine:1")).json()["boards"]["main"]["score"] == 8


async def test_ranks_before_and_after_tell_who_was_overtaken(client: httpx.AsyncClient) -> None:
    await submit(client, "ann", "win:1")
    await submit(client, "bob", "point:1")
    body = (await submit(client, "bob", "win:1")).json()
    assert body["boards"]["main"] == {"score": 11, "rank": 1, "previousRank": 2}


async def test_the_same_action_a_hundred_times_at_once_counts_once(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(submit(client, "ann", "win:same") for _ in range(100)))
    bodies = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(not body["duplicate"] for body in bodies) == 1
    assert {body["boards"]["main"]["score"] for body in bodies} == {10}


async def test_the_same_unique_part_for_another_user_is_another_event(client: httpx.AsyncClient) -> None:
    assert (await submit(client, "ann", "win:1")).json()["duplicate"] is False
    assert (await submit(client, "bob", "win:1")).json()["duplicate"] is False


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "malformed_json")),
        (b"{", (400, "malformed_json")),
        (b"\xff\xfe", (400, "malformed_json")),
        (b"[" * 3000, (400, "invalid_field")),
        (b"null", (400, "invalid_field")),
        (b"[]", (400, "invalid_field")),
        (b'{"userId":"ann"}', (400, "invalid_field")),
        (b'{"userId":1,"actionId":"win:1"}', (400, "invalid_field")),
        (b'{"userId":"","actionId":"win:1"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win:1","points":1000}', (400, "unknown_field")),
        (b'{"userId":"ann","actionId":"win:1","userId":"bob"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win:1","user\\u0049d":"bob"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win:"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":":1"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"Win:1"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win:a b"}', (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"win:' + b"x" * 257 + b'"}', (400, "invalid_field")),
        (b'{"userId":"' + b"x" * 129 + b'","actionId":"win:1"}', (400, "invalid_field")),
        (b'{"userId":"ann\\u0000","actionId":"win:1"}', (400, "invalid_field")),
        (b'{"userId":"a\\u202enn","actionId":"win:1"}', (400, "invalid_field")),
        (b'{"userId":"a\\ud800","actionId":"win:1"}', (400, "malformed_json")),
        (b'{"userId":" ann","actionId":"win:1"}', (400, "invalid_field")),
        ('{"userId":"%s","actionId":"win:1"}' % ("\N{PILE OF POO}" * 65), (400, "invalid_field")),
        (b'{"userId":"ann","actionId":"lose:1"}', (422, "unknown_action")),
        (b" " * 4097, (413, "payload_too_large")),
    ],
)
async def test_a_body_that_is_not_exactly_right_is_refused(
    door: httpx.AsyncClient, body: bytes | str, expected: tuple[int, str]
) -> None:
    headers = {"content-type": "application/json"}
    answer = await door.post("/update-score", content=body, headers=headers)
    assert problem(answer) == expected


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_another_content_type_is_refused(door: httpx.AsyncClient, media_type: str) -> None:
    headers = {"content-type": media_type}
    answer = await door.post("/update-score", content=b"{}", headers=headers)
    assert problem(answer) == (415, "unsupported_media_type")


async def test_ids_are_taken_as_they_are(client: httpx.AsyncClient) -> None:
    composed, decomposed = "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}", "Zoe\N{COMBINING DIAERESIS}"
    for user in (
        composed,
        decomposed,
        "a:b/c d{}",
        "\N{GRINNING FACE}" * 64,
        "O'Brien; DROP TABLE events;--",
    ):
        answer = await submit(client, user, "point:1")
        assert answer.json()["duplicate"] is False, user
    assert (await client.get("/boards/main")).json()["total"] == 5


async def test_who_asks_is_decided_before_what_is_asked(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    async def ask(authorization: str | None, user: str = "ann", action: str = "cheer:1") -> tuple[int, str]:
        headers = {} if authorization is None else {"authorization": authorization}
        async with httpx.AsyncClient(base_url=client.base_url) as stranger:
            body = {"userId": user, "actionId": action}
            answer = await stranger.post("/update-score", json=body, headers=headers)
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer ")
        return problem(answer)

    ann = deployment.token("ann")
    assert await ask(None) == (401, "missing_token")
    assert await ask("Basic YTpi") == (401, "missing_token")
    assert await ask("Bearer nonsense") == (401, "invalid_token")
    assert await ask("Bearer sb_nonsense") == (401, "invalid_token")
    assert await ask("Bearer sb_" + "x" * 43) == (401, "invalid_token")
    assert await ask(f"Bearer {deployment.token('ann', lifetime=-60)}") == (401, "token_expired")
    assert await ask(f"Bearer {ann}", user="bob") == (403, "user_mismatch")
    assert await ask(f"Bearer {ann}", action="win:1") == (403, "action_not_allowed")
    weak = await deployment.make_key(Scope.ADMIN)
    assert await ask(f"Bearer {weak}") == (403, "insufficient_scope")
    assert (await client.get("/boards/main")).json()["total"] == 0


async def test_a_user_may_submit_an_open_action_for_itself(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    answer = await submit(client, "ann", "cheer:1", credentials=deployment.token("ann", "Ann"))
    assert answer.json()["points"] == 5
    assert (await client.get("/boards/main")).json()["top"][0]["name"] == "Ann"


def signed(**changes: Any) -> str:
    """A token of the configured issuer, with changes; a claim of ``None`` is left out."""
    now = int(time.time())
    headers = changes.pop("headers", None)
    claims = {
        "iss": "https://id.example",
        "aud": "scoreboard",
        "sub": "ann",
        "iat": now,
        "exp": now + 60,
    } | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, SIGNER, algorithm="EdDSA", headers=headers)


async def test_a_token_of_a_configured_issuer_is_accepted(client: httpx.AsyncClient) -> None:
    assert (await submit(client, "ann", "cheer:1", credentials=signed())).status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: signed(aud="other"), id="another audience"),
        pytest.param(lambda: signed(iss="https://else.example"), id="another issuer"),
        pytest.param(lambda: signed(exp=None), id="no expiry"),
        pytest.param(lambda: signed(exp=1e300), id="an endless expiry"),
        pytest.param(lambda: signed(exp=int(time.time()) + 10**6), id="a long lifetime"),
        pytest.param(lambda: signed(exp=str(int(time.time()) + 60)), id="an expiry in a text"),
        pytest.param(lambda: signed(exp=time.time() + 60.5), id="a fractional expiry"),
        pytest.param(lambda: signed(nbf=int(time.time()) + 600), id="not yet valid"),
        pytest.param(lambda: signed(sub=None), id="no subject"),
        pytest.param(lambda: signed(headers={"typ": "logout+jwt"}), id="another type"),
        pytest.param(lambda: signed(headers={"jku": "https://evil.example"}), id="a key by URL"),
        pytest.param(lambda: signed(headers={"crit": ["exp"]}), id="a critical extension"),
        pytest.param(lambda: signed(name="x" * 4000), id="more than 4 KiB"),
        pytest.param(lambda: signed()[:-4] + "AAAA", id="another signature"),
        pytest.param(
            lambda: jwt.encode(jwt.decode(signed(), options={"verify_signature": False}), "", "none"),
            id="none",
        ),
        pytest.param(
            lambda: jwt.encode(jwt.decode(signed(), options={"verify_signature": False}), "k" * 32, "HS256"),
            id="another algorithm",
        ),
    ],
)
async def test_a_token_outside_the_profile_is_refused(door: httpx.AsyncClient, token: Any) -> None:
    answer = await submit(door, "ann", "cheer:1", credentials=token())
    assert problem(answer) == (401, "invalid_token")


async def test_a_key_works_as_soon_as_it_is_made_and_not_after_it_is_revoked(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    key = await deployment.make_key(Scope.SCORE_WRITE)
    assert (await submit(client, "ann", "win:1", credentials=key)).status_code == 200
    async with deployment.database() as connection:
        await connection.execute(
            "UPDATE keys SET revoked = now() WHERE id = (SELECT id FROM keys ORDER BY created DESC LIMIT 1)"
        )
    began = time.monotonic()

    async def refused() -> bool:
        return (await submit(client, "ann", "win:1", credentials=key)).status_code == 401

    await until(refused)
    assert time.monotonic() - began < 2


async def test_an_empty_authorization_is_none(door: httpx.AsyncClient) -> None:
    body = {"userId": "ann", "actionId": "win:1"}
    answer = await door.post("/update-score", json=body, headers={"authorization": ""})
    assert problem(answer) == (401, "missing_token")


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=2", 2),
        ("respond-async, wait=3", 3),
        ('wait="4"', 4),
        ("WAIT=99", 10),
        ("wait=99999999999", 10),
        ("foo; wait=2", 0),
        ('foo="a, wait=2"', 0),
        ("wait=x", 0),
        ("await=3", 0),
    ],
)
def test_prefer_wait_is_read_as_rfc_7240_says(prefer: str, seconds: int) -> None:
    assert wait_of([prefer]) == seconds
