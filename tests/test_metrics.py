"""The figures are right with several processes, when one of them is killed, and of a worker alone."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deployment import SECONDS, Deployment, bearer, frame_with, free_port, submit, until, watching
from processes import run, settings_of, started

DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana.json"


async def figures(client: httpx.AsyncClient) -> dict[str, float]:
    """All figures, as ``name`` or ``name:label`` for those with one label."""
    text = (await client.get("/metrics")).text
    return {
        ":".join([sample.name, *(str(v) for k, v in sample.labels.items() if k != "pid")]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def servers(pid: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[:1] == ["scoreboard api+live"]
    ]


async def test_figures_of_all_processes_add_up_and_outlive_a_killed_one(home: Path) -> None:
    async with started("up", "--port", "0", "--processes", "2", cwd=home) as up:
        url = await up.ready()
        key = (await run("key", "create", "--name", "k", "--scope", "score:write", cwd=home))[1].strip()
        accepted = 0
        async with httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=SECONDS) as client:
            async with watching(client) as screen:
                for number in range(3):
                    assert (await submit(client, "ann", f"point:{number}")).status_code == 200
                    await frame_with(screen, [("ann", number + 1)])
                updates = [{"userId": "ann", "actionId": f"point:{n}"} for n in range(100)]
                assert (await client.post("/update-scores", json=updates)).is_success

                async def watched() -> bool:
                    return (await figures(client))["scoreboard_live_connections:websocket"] == 1

                await until(watched)
            accepted += 100

            async def settled() -> bool:
                now = await figures(client)
                return (
                    now.get("scoreboard_events_total:applied") == 100
                    and now.get("scoreboard_events_total:duplicate") == 3
                    and now.get("scoreboard_queue_messages:0") == 0
                    and now.get("scoreboard_queue_age_seconds:0") == 0
                    and 0 < now["scoreboard_queue_bytes:used"] < now["scoreboard_queue_bytes:bound"]
                    and now.get("scoreboard_waiting_updates") == 0
                    and all(now.get(f"scoreboard_engine_up:{e}") == 1 for e in ("database", "queue", "board"))
                )

            await until(settled)
            now = await figures(client)
            assert now["scoreboard_updates_total:applied"] == 3
            assert now["scoreboard_updates_total:accepted"] == accepted
            assert now["scoreboard_envelope_entries_sum"] == accepted + 3
            assert now["scoreboard_envelope_entries_count"] == now["scoreboard_publish_seconds_count"] > 3
            assert now["scoreboard_envelope_bytes_sum"] > 103 * 50
            assert now["scoreboard_board_lag_seconds_count"] >= 3
            assert now["scoreboard_frame_lag_seconds_count"] >= 3
            assert now["scoreboard_forged_envelopes_total"] == 0
            told = (await client.get("/metrics")).text
            shown = set(re.findall(r"scoreboard_\w+", DASHBOARD.read_text()))
            # Nobody was refused for the number of requests.
            assert {name for name in shown if name not in told} == {"scoreboard_rate_limited_total"}

            before = servers(up.pid)
            before[0].send_signal(signal.SIGKILL)

            async def replaced() -> bool:
                found = {one.pid for one in servers(up.pid)}
                return len(found) == 2 and before[0].pid not in found

            await until(replaced)
        # On new connections: none to the one that is gone.
        async with httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=SECONDS) as client:
            answer = await submit(client, "ann", "point:more", wait=0)
            assert answer.status_code == 202

            async def goes_on() -> bool:
                now = await figures(client)
                return (
                    now["scoreboard_updates_total:accepted"] == accepted + 1
                    and now["scoreboard_events_total:applied"] == 101
                    and now.get("scoreboard_live_connections:websocket", 0) == 0
                )

            await until(goes_on)


async def test_a_worker_alone_tells_how_it_is(deployment: Deployment, tmp_path: Path) -> None:
    port, settings = free_port(), settings_of(deployment)
    async with (
        deployment.serving() as api,
        started("worker", "--port", str(port), cwd=tmp_path, settings=settings) as alone,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as worker,
    ):

        async def ready() -> bool:
            try:
                return (await worker.get("/health/ready")).is_success
            except httpx.TransportError:
                return False

        await until(ready)
        assert (await submit(api, "ann", "point:1")).status_code == 200
        told = (await worker.get("/health/ready")).json()
        assert told["engines"] == {"database": "ok", "board": "ok", "queue": "ok"}
        now = await figures(worker)
        assert now["scoreboard_events_total:applied"] == 1
        assert now["scoreboard_batch_seconds_count"] == 1
        assert (await worker.get("/boards/main")).status_code == 404
        # A taken port is an error if it was asked for; one of its own is found if not.
        status, _, err = await run("worker", "--port", str(port), cwd=tmp_path, settings=settings)
        assert status == 78
        assert f"port {port}" in err
        assert await alone.stop() == 0  # though a connection to it is open
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
    async with (
        started("worker", cwd=places[0], settings=settings),
        started("worker", cwd=places[1], settings=settings),
    ):

        async def each_has_a_port() -> bool:
            text = "".join((place / "worker.log").read_text() for place in places)
            return len(set(re.findall(r"worker at http://127\.0\.0\.1:(\d+)", text))) == 2

        await until(each_has_a_port)
