"""What every subcommand stands on: the group, its errors in one line, and where the deployment is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from scoreboard import __version__
from scoreboard.config import Config, Environment, environment, load
from scoreboard.errors import EX_CONFIG, ConfigurationError, ScoreboardError
from scoreboard.texts import flaw_of_line, seconds_of

if TYPE_CHECKING:
    from scoreboard.supervisor import Options


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with a message on standard error."""
    click.echo(f"scoreboard: {message}", err=True)
    sys.exit(status)


DATABASE = ("postgresql",)
DATABASE_AND_QUEUE = ("postgresql", "nats")
DATABASE_AND_BOARD = ("postgresql", "valkey")


def command(
    group: click.Group, name: str, *, there: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], click.Command]:
    """A subcommand that takes --config and --data, and whose errors are told in one line.

    ``there``: engines whose content it is about. Those without a URL must have run on the data folder before.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(*args: Any, config: Path | None, data: Path | None, **kwargs: Any) -> None:
            try:
                deployment = Deployment(config, data)
                deployment.must_hold(there)
                function(*args, deployment=deployment, **kwargs)
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

    def must_hold(self, engines: Sequence[str]) -> None:
        """Refuse a data folder on which these have never run, unless they are given by URL."""
        from scoreboard.engines import folder, given

        if not given(self.environment).keys() >= set(engines):
            self.config  # noqa: B018  a mistake there is told first
            folder.must_hold_engines(self.data)

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
    found = seconds_of(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration like 30s, 15m, 1h or 7d")
    return found


def one_line(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """What was given, if it is one line of visible text: it will be shown among others."""
    if flaw := flaw_of_line(text):
        raise click.BadParameter(flaw)
    return text


reason_option = click.option("--reason", default="", callback=one_line, help="Why. Kept in the audit.")


def tell(line: str) -> None:
    """Print one line that holds other people's words: what would be more than text is shown escaped."""
    click.echo("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="scoreboard")
def main() -> None:
    """A self-hosted real-time scoreboard: every action counts once, every screen shows it at once.

    Begin with: scoreboard up
    """


def with_engines(deployment: Deployment, needed: Sequence[str], do: Callable[[Any, Any], Any]) -> Any:
    """The result of ``do`` with the engines' URLs and the database, whose schema is left as it is."""
    from scoreboard.database import Database
    from scoreboard.engines import engines

    async def run() -> Any:
        async with (
            engines(deployment.data, deployment.environment, needed) as urls,
            Database.open(urls.database) as database,
        ):
            return await do(urls, database)

    return asyncio.run(run())


def with_database(deployment: Deployment, do: Callable[[Any], Any]) -> Any:
    """The result of ``do`` with the database of the deployment, brought up to this version."""

    async def run(_: Any, database: Any) -> Any:
        await database.migrate()
        return await do(database)

    return with_engines(deployment, DATABASE, run)
