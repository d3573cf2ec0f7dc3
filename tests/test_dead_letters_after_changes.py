"""What was set aside can still be decided about under another secret and with other partitions."""

from __future__ import annotations

import httpx
import msgspec

from deployment import Deployment, bearer, submit, until
from poisoning import audit, differences, event, letters, publish, refusing
from scoreboard import dead_letters
from scoreboard.app.starting import Settings
from scoreboard.group_commit import partition_of
from scoreboard.model import PLACES, Rename, Scope
from test_adoption import adopt, divided, jetstream


async def test_a_message_under_another_secret_is_tried_again_once_it_is_known(
    deployment: Deployment,
) -> None:
    old, admin = "o" * 32, await deployment.make_key(Scope.ADMIN)
    sent = [event(f"u{n}", "1") for n in range(5)]
    async with deployment.running() as client:
        await publish(deployment, [sent], old)
        await submit(client, "ann", "point:1")
        (letter,) = await letters(deployment)
        body = {"number": letter.number}
        answer = await client.post("/admin/dead/retry", json=body, headers=bearer(admin))
        assert "the seal is not ours" in answer.json()["detail"]
    outer = msgspec.structs.replace(deployment.environment, secret_previous=old)
    deployment.settings = Settings(config=deployment.config, environment=outer)
    async with deployment.running() as client:
        for _ in range(2):
            answer = await client.post("/admin/dead/retry", json=body, headers=bearer(admin))
        assert answer.json()["code"] == "not_found"
        await audit(deployment, [event("ann", "1"), *sent])


async def went_through(deployment: Deployment, accept_no: int) -> int:
    """The partition of the log that this came through."""
    async with jetstream(deployment) as log:
        base = int(((await log.stream_info(deployment.name)).config.metadata or {}).get("base", "0"))
        message = await log.get_msg(deployment.name, seq=accept_no // PLACES - base, direct=False)
    return int((message.subject or "").rpartition(".")[2])


async def test_dead_letters_follow_their_users_to_other_partitions(deployment: Deployment) -> None:
    """All that is about a user goes through one partition, or two workers write the same total."""
    old, admin = "o" * 32, bearer(await deployment.make_key(Scope.ADMIN))
    outer = msgspec.structs.replace(deployment.environment, secret_previous=old)
    sent = [event(f"u{n}", "1") for n in range(9)]
    one, three = divided(deployment, 1), divided(deployment, 3)
    one.settings = Settings(config=one.config, environment=outer)
    three.settings = Settings(config=three.config, environment=outer)
    assert partition_of("mia", 3) != 0
    async with deployment.running() as client:
        async with refusing(deployment, "mia"):
            await submit(client, "mia", "point:1")
            await submit(client, "mia", "point:2")
        await publish(deployment, [[*sent, Rename(b"r" * 16, "mia", "Mia", "key:k")]], old)
        await submit(client, "ann", "point:1")

    async def settle(client: httpx.AsyncClient, what: str, letter: dead_letters.Letter) -> str:
        answer = await client.post(f"/admin/dead/{what}", json={"number": letter.number}, headers=admin)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["status"])

    first, second, message = await letters(deployment)
    await adopt(three)
    async with three.running() as client:
        assert await settle(client, "retry", first) == "applied"
        assert await settle(client, "drop", second) == "dropped"
        assert (await submit(client, "mia", "point:2")).json()["status"] == "revoked"
        assert await settle(client, "retry", message) == "applied"
        async with deployment.database() as connection:

            async def applied() -> bool:
                return int(await connection.fetchval("SELECT count(*) FROM events")) == 3 + len(sent)

            await until(applied)
            rows = await connection.fetch("SELECT user_id, accept_no FROM events WHERE user_id <> 'ann'")
            rows += await connection.fetch("SELECT user_id, accept_no FROM commands WHERE user_id = 'mia'")
            assert len(rows) == 2 + len(sent) + 3
            for user, accept_no in rows:
                assert await went_through(three, accept_no) == partition_of(user, 3)
        async with refusing(deployment, "mia"):
            await submit(client, "mia", "point:3")
    await adopt(one)
    async with one.running() as client:
        assert await settle(client, "retry", (await letters(deployment))[-1]) == "applied"
        assert (await submit(client, "mia", "point:3")).json()["duplicate"]
    assert await differences(deployment) == []
