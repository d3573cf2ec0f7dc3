"""The ``scoreboard`` command. Each subcommand parses its arguments here; another module does the work.

Exit status: 0 done; 1 it did not work, or ``verify`` found a difference; 2 the command line is wrong; 78 the
configuration is wrong.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from scoreboard import __version__
from scoreboard.config import Config, Environment, environment, load, secret_of
from scoreboard.errors import EX_CONFIG, ConfigurationError, ScoreboardError
from scoreboard.model import Scope, flaw_of_name, flaw_of_user_id

if TYPE_CHECKING:
    from scoreboard.supervisor import Options

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with a message on standard error."""
    click.echo(f"scoreboard: {message}", err=True)
    sys.exit(status)


def command(group: click.Group, name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand that takes --config and --data, and whose errors are told in one line."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(*args: Any, config: Path | None, data: Path | None, **kwargs: Any) -> None:
            try:
                function(*args, deployment=Deployment(config, data), **kwargs)
            except ConfigurationError as error:
                fail(str(error), EX_CONFIG)
            except ScoreboardError as error:
                fail(str(error))
            except KeyboardInterrupt:
                sys.exit(130)

        run = click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            help="Data folder. [./scoreboard-data]",
        )(run)
        run = click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Configuration. [./scoreboard.toml]",
        )(run)
        return group.command(name)(run)

    return decorate


class Deployment:
    """Where things are: the flags, else the variables, else the defaults."""

    def __init__(self, config: Path | None, data: Path | None) -> None:
        self.environment: Environment = environment()
        given = config or (Path(self.environment.config) if self.environment.config else None)
        default = Path("scoreboard.toml")
        self.path = given or (default if default.exists() else None)
        if self.path is not None and not self.path.is_file():
            raise ConfigurationError(f"{self.path}: there is no such file")
        self.data = data or Path(self.environment.data or "scoreboard-data")

    @property
    def config(self) -> Config:
        """The configuration, checked."""
        return load(self.path)

    @property
    def options(self) -> Options:
        """How ``scoreboard up`` would be started here."""
        from scoreboard.supervisor import Options

        return Options(config=self.path, data=self.data)


def seconds(text: str) -> int:
    """A duration such as 90s, 15m, 1h or 7d, in seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is not a duration like 30s, 15m, 1h or 7d")
    return int(found[1]) * _UNITS[found[2]]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="scoreboard")
def main() -> None:
    """A self-hosted real-time scoreboard: every action counts once, every screen shows it at once.

    Begin with: scoreboard up
    """


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
    def run(deployment: Deployment, host: str = "", port: int = 0) -> None:
        from scoreboard import app, logs
        from scoreboard.listening import listen

        logs.set_up()
        settings = app.Settings(config=deployment.config, environment=deployment.environment)
        app.run_role(role, settings, listen(host, port) if host else None)

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
def worker(deployment: Deployment) -> None:
    """Run the worker role alone: applies the log. Several may run; one applies, the others stand by."""
    _role("worker")(deployment)


@main.group("key")
def key() -> None:
    """Services' keys: create, list, revoke."""


@command(key, "create")
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice([scope.value for scope in Scope])
)
def key_create(deployment: Deployment, name: str, scopes: tuple[str, ...]) -> None:
    """Make a key. It is printed once, alone on standard output, and kept nowhere."""
    from scoreboard.auth.keys import create_key

    async def create(database: Any) -> str:
        key_id, text = await create_key(database, name, sorted({Scope(scope) for scope in scopes}))
        click.echo(f"made {key_id} ({', '.join(sorted(set(scopes)))})", err=True)
        return text

    click.echo(_with_database(deployment, create))


@command(key, "list")
def key_list(deployment: Deployment) -> None:
    """List all keys; what opens something is known by its id only."""

    async def listed(database: Any) -> list[Any]:
        found: list[Any] = await database.list_keys()
        return found

    rows = _with_database(deployment, listed)
    if not rows:
        click.echo("There is no key yet: scoreboard key create --name game --scope score:write", err=True)
    for row in rows:
        state = f"revoked {row['revoked']:%Y-%m-%d %H:%M}" if row["revoked"] else "active"
        scopes = ",".join(row["scopes"])
        click.echo(f"{row['id']}  {row['created']:%Y-%m-%d %H:%M}  {state:24}  {scopes:32}  {row['name']}")


@command(key, "revoke")
@click.argument("key_id")
def key_revoke(deployment: Deployment, key_id: str) -> None:
    """Revoke a key by its id (see key list). Works everywhere within two seconds."""
    if not _with_database(deployment, lambda database: database.revoke_key(key_id)):
        fail(f"there is no active key {key_id}")
    click.echo(f"revoked {key_id}", err=True)


@command(main, "token")
@click.option("--user", required=True, help="The user id.")
@click.option("--name", help="The name to show.")
@click.option("--expires-in", default="1h", show_default=True, help="30s, 15m, 1h, at most 1d.")
def token(deployment: Deployment, user: str, name: str | None, expires_in: str) -> None:
    """Print a user's token, signed with the local key, alone on standard output."""
    from scoreboard.auth.tokens import LIFETIME_SECONDS, local_token

    lifetime = seconds(expires_in)
    if lifetime > LIFETIME_SECONDS:
        raise click.BadParameter("a token lives for one day at most", param_hint="--expires-in")
    for flag, flaw in (
        ("--user", flaw_of_user_id(user)),
        ("--name", None if name is None else flaw_of_name(name)),
    ):
        if flaw:
            raise click.BadParameter(flaw, param_hint=flag)
    auth = deployment.config.auth
    if auth.issuers and not auth.local:
        msg = "local tokens are off, since an issuer is configured; auth.local = true turns them on"
        raise ConfigurationError(msg)
    click.echo(local_token(secret_of(deployment.environment, deployment.data), user, name, lifetime))


@command(main, "score")
@click.argument("user")
@click.argument("action", metavar="TYPE[:UNIQUE]")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 100_000))
def score(deployment: Deployment, user: str, action: str, count: int) -> None:
    """Report that USER completed an action of TYPE, COUNT times. With :UNIQUE it counts once, for ever."""
    from scoreboard import submit

    if ":" in action and count > 1:
        raise click.BadParameter("with :UNIQUE the action counts once", param_hint="--count")
    if flaw := flaw_of_user_id(user):
        raise click.BadParameter(flaw, param_hint="USER")
    deployment.config  # noqa: B018
    for line in asyncio.run(submit.score(deployment.options, user, action, count)):
        click.echo(line)


@command(main, "replay")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--url", help="Where the api is. [the one that runs on the data folder]")
@click.option("--key", help="A service's key. [one made for this replay]")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Times real time. [as fast as it goes]"
)
def replay(deployment: Deployment, file: Path, url: str | None, key: str | None, speed: float | None) -> None:
    """Send real events (CSV with the columns at,userId,actionId) through the HTTP API, in order."""
    from scoreboard import submit

    if url and not key:
        raise click.UsageError("--url needs --key")
    if url and not re.fullmatch(r"https?://[\w.:\[\]-]+(/.*)?", url):
        raise click.BadParameter("must be like http://127.0.0.1:8000", param_hint="--url")
    if key and not re.fullmatch(r"[!-~]+", key):
        raise click.BadParameter("is not a key", param_hint="--key")
    if speed is not None and not math.isfinite(speed):
        raise click.BadParameter("must be a number", param_hint="--speed")
    click.echo(asyncio.run(submit.replay(deployment.options, file, url, key, speed)))


@command(main, "verify")
def verify(deployment: Deployment) -> None:
    """Check: ledger = totals = board. Exit status 1 and the differences if not."""
    from scoreboard import verify as verifying

    report, differences = asyncio.run(verifying.verify(deployment.config, deployment.options))
    click.echo(report)
    for difference in differences:
        click.echo(f"  {difference}")
    if differences:
        sys.exit(1)


@command(main, "rebuild")
def rebuild(deployment: Deployment) -> None:
    """Build the board again from the database, while updates go on."""
    from scoreboard import verify as verifying

    for line in asyncio.run(verifying.rebuild(deployment.config, deployment.options)):
        click.echo(line)


@command(main, "check")
def check(deployment: Deployment) -> None:
    """Check the configuration and say what it means."""
    config = deployment.config
    from scoreboard.auth.tokens import Tokens

    Tokens(config, deployment.environment)
    click.echo(f"{deployment.path or 'built-in configuration'}: fine (catalogue {config.catalogue})")
    for name, action in config.actions.items():
        boards = ", ".join(config.boards_of(name)) or "no board"
        click.echo(f"  action {name}: {action.points} points, policy {action.policy}, counts on {boards}")
    for name, board in config.boards.items():
        click.echo(
            f"  board {name}: {board.title or name}, top {board.top}, {board.rank} ranks, {board.order}"
        )


def _with_database(deployment: Deployment, do: Callable[[Any], Any]) -> Any:
    """The result of ``do`` with the database of the deployment."""
    from scoreboard.database import Database
    from scoreboard.engines import engines

    async def run() -> Any:
        outer = deployment.environment
        if outer.database_url is not None:
            return await with_url(outer.database_url)
        async with engines(deployment.data, outer) as urls:
            return await with_url(urls.database)

    async def with_url(url: str) -> Any:
        async with Database.open(url) as database:
            await database.migrate()
            return await do(database)

    return asyncio.run(run())


if __name__ == "__main__":
    main()
