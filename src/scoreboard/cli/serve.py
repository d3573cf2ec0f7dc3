"""``scoreboard up``, and each role alone: api, live, worker."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import click

from scoreboard.cli.command import Deployment, command, fail, main
from scoreboard.errors import EX_CONFIG, HOPELESS

WORKER_PORT = 8002


@command(main, "up")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="Server processes."
)
@click.option("--demo", is_flag=True, help="With imaginary players, in a data folder of its own.")
def up(deployment: Deployment, host: str, port: int, processes: int, demo: bool) -> None:
    """Run everything on this machine: engines, api, live and worker. Ctrl-C ends it in order."""
    import msgspec
    import uvloop

    from scoreboard import logs, supervisor

    logs.set_up()
    deployment.config  # noqa: B018  a mistake is told before anything is started
    options = msgspec.structs.replace(
        deployment.options, host=host, port=port, processes=processes, demo=demo
    )

    def ready(url: str) -> None:
        click.echo(f"ready {url}")
        click.echo(f"  the board   {url}/")
        if not demo:
            flags = "".join(
                f" --{name} {value}"
                for name, value, default in (
                    ("config", deployment.path, Path("scoreboard.toml")),
                    ("data", deployment.data, Path("scoreboard-data")),
                )
                if value is not None and value != default
            )
            action = next(iter(deployment.config.actions), "point")
            click.echo(
                f"  score       {Path(sys.argv[0])} score ann {action}{flags}      (in another terminal)"
            )
        click.echo(f"  interface   {url}/docs")
        click.echo("  stop        Ctrl-C")

    uvloop.run(supervisor.up(options, on_ready=ready))


def _role(role: str) -> Callable[..., None]:
    def run(deployment: Deployment, host: str, port: int | None) -> None:
        from scoreboard import logs
        from scoreboard.app.running import run_role
        from scoreboard.app.starting import Settings
        from scoreboard.listening import base_url, listen, listen_near

        logs.set_up()
        settings = Settings(config=deployment.config, environment=deployment.environment)
        sock = listen_near(host, WORKER_PORT) if port is None else listen(host, port)
        logging.getLogger(__name__).info("%s at %s", role, base_url(host, sock))
        try:
            run_role(role, settings, sock)
        except HOPELESS as error:
            fail(str(error), EX_CONFIG)  # for whoever starts it again whenever it ends: not after this

    return run


@command(main, "api")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def api(deployment: Deployment, host: str, port: int) -> None:
    """Run the api role alone: accepts updates, answers reads. Needs the SCOREBOARD_*_URL variables."""
    _role("api")(deployment, host, port)


@command(main, "live")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535))
def live(deployment: Deployment, host: str, port: int) -> None:
    """Run the live role alone: WebSockets and reads. Needs the SCOREBOARD_*_URL variables."""
    _role("live")(deployment, host, port)


@command(main, "worker")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it tells its health and metrics.")
@click.option("--port", type=click.IntRange(0, 65535), help="For that. [8002, or a free one if it is taken]")
def worker(deployment: Deployment, host: str, port: int | None) -> None:
    """Run the worker role alone: applies the log. Several may run; one applies, the others stand by."""
    _role("worker")(deployment, host, port)
