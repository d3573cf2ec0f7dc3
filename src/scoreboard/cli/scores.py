"""Scores by hand and from files, and whether everything adds up: score, replay, verify, rebuild, check."""

from __future__ import annotations

import asyncio
import math
import re
import sys
from pathlib import Path

import click

from scoreboard.cli.command import DATABASE_AND_BOARD, Deployment, command, main
from scoreboard.texts import flaw_of_user_id


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
@click.option("--key", help="A service's key; better in SCOREBOARD_KEY. [one made for this replay]")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Times real time. [as fast as it goes]"
)
def replay(deployment: Deployment, file: Path, url: str | None, key: str | None, speed: float | None) -> None:
    """Send real events (CSV with the columns at,userId,actionId) through the HTTP API, in order."""
    from scoreboard import submit

    key = key or (deployment.environment.key if url else None)
    if url and not key:
        raise click.UsageError("--url needs a service's key in SCOREBOARD_KEY")
    if url and not re.fullmatch(r"https?://[\w.:\[\]-]+(/.*)?", url):
        raise click.BadParameter("must be like http://127.0.0.1:8000", param_hint="--url")
    if key and not re.fullmatch(r"[!-~]+", key):
        raise click.BadParameter("is not a key", param_hint="--key")
    if speed is not None and not math.isfinite(speed):
        raise click.BadParameter("must be a number", param_hint="--speed")
    click.echo(asyncio.run(submit.replay(deployment.options, file, url, key, speed)))


@command(main, "verify", there=DATABASE_AND_BOARD)
def verify(deployment: Deployment) -> None:
    """Check: ledger = totals = board. Exit status 1 and the differences if not."""
    from scoreboard import verify as verifying

    report, differences = asyncio.run(verifying.verify(deployment.config, deployment.options))
    click.echo(report)
    for difference in differences:
        click.echo(f"  {difference}")
    if differences:
        sys.exit(1)


@command(main, "rebuild", there=DATABASE_AND_BOARD)
def rebuild(deployment: Deployment) -> None:
    """Build the board again from the database, while updates go on."""
    from scoreboard import verify as verifying

    for line in asyncio.run(verifying.rebuild(deployment.config, deployment.options)):
        click.echo(line)


@command(main, "check")
def check(deployment: Deployment) -> None:
    """Check the configuration and say what it means."""
    config = deployment.config
    from scoreboard.auth.grants import Grants
    from scoreboard.auth.tokens import Tokens

    Tokens(config, deployment.environment)
    Grants(config, deployment.environment)
    click.echo(f"{deployment.path or 'built-in configuration'}: fine (catalogue {config.catalogue})")
    for name, action in config.actions.items():
        boards = ", ".join(config.boards_of(name)) or "no board"
        rules = [
            *(["once"] if action.once else []),
            *([f"cooldown {action.cooldown}"] if action.cooldown else []),
            *([f"limit {action.limit}"] if action.limit else []),
            *(
                [f"held back above {action.quarantine.points_per_hour} points an hour"]
                if action.quarantine
                else []
            ),
        ]
        told = ", ".join([f"{action.points} points", f"policy {action.policy}", *rules])
        click.echo(f"  action {name}: {told}, counts on {boards}")
    for name, board in config.boards.items():
        click.echo(
            f"  board {name}: {board.title or name}, top {board.top}, {board.rank} ranks, {board.order}"
        )
