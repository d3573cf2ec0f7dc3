"""What is kept beside the engines, and the way back: backup, restore, adopt, export."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from scoreboard.cli.command import (
    DATABASE,
    DATABASE_AND_QUEUE,
    Deployment,
    command,
    main,
    reason_option,
    with_database,
    with_engines,
)

_new_file = click.Path(path_type=Path, dir_okay=False)
_old_file = click.Path(path_type=Path, dir_okay=False, exists=True)


@command(main, "backup", there=DATABASE)
@click.argument("file", type=_new_file)
def backup(deployment: Deployment, file: Path) -> None:
    """Write the whole database to FILE, as it is at one moment, while everything runs.

    The file holds names and hashes of keys, so only its owner may read it. The deployment's secret is not in
    it: keep the data folder's `secret` (or SCOREBOARD_SECRET) in another place.
    """
    from scoreboard import backup as keeping

    header = with_engines(deployment, DATABASE, lambda _, database: keeping.backup(database, file))
    rows = {table.name: table.rows for table in header.tables}
    click.echo(
        f"{file}: {rows['events']} ledger rows, {rows['users']} users, {rows['keys']} keys, {_read(header)}"
    )


@command(main, "restore")
@click.argument("file", type=_old_file)
@click.option("--adopt", is_flag=True, help="Go on even if the log no longer holds what came after FILE.")
def restore(deployment: Deployment, file: Path, adopt: bool) -> None:
    """Read FILE, made by `scoreboard backup`, into an empty database. Stop all roles first.

    The worker then applies what the log holds beyond it, by itself: keep the log.
    """
    from scoreboard import adoption
    from scoreboard import backup as keeping
    from scoreboard.errors import LogMismatch

    config = deployment.config
    header = keeping.read_header(file)

    async def run(urls: Any, database: Any) -> None:
        async with _queue(urls.queue, config.namespace) as queue:
            state = await queue.there()
            found = adoption.flaw(header.log, state)
            if found is not None and not adopt:
                how = (
                    "nothing was restored. First look for a newer backup, or a better copy of the log."
                    " `scoreboard restore --adopt FILE` restores and goes on without what is lost."
                )
                raise LogMismatch(found, how)
            await keeping.restore(database, file)
            click.echo(f"restored {file}: {_read(header)}")
            if found is not None:
                await _adopt(database, queue, config, "after a restore")
            elif state is not None:
                last = min((one.last for one in header.log), default=state.first - 1)
                click.echo(
                    f"the log holds {state.last - last} messages beyond it: the worker will apply them"
                )
        click.echo(
            f"keys that were made or revoked after {header.made:%Y-%m-%d %H:%M} UTC are as they were then:"
        )
        click.echo("see scoreboard key list")

    with_engines(deployment, DATABASE_AND_QUEUE, run)


@command(main, "adopt", there=DATABASE_AND_QUEUE)
@click.option("--dry-run", is_flag=True, help="Only say what it would do.")
@reason_option
def adopt(deployment: Deployment, dry_run: bool, reason: str) -> None:
    """Go on with the log that is there, or a new one, if it is not the one that the database has read so far.

    For after a disaster, when the right log cannot be brought back; and to change `queue.partitions`. Stop
    all roles first. Numbers go on rising, and what the database holds already counts once.
    """
    config = deployment.config

    async def run(urls: Any, database: Any) -> None:
        await database.migrate()
        async with _queue(urls.queue, config.namespace) as queue:
            await _adopt(database, queue, config, reason, dry_run=dry_run)

    with_engines(deployment, DATABASE_AND_QUEUE, run)


@command(main, "export", there=DATABASE)
@click.argument("what", type=click.Choice(["ledger", "board"]))
@click.option("--board", help="Which board. [the first]")
@click.option("--format", "form", default="csv", show_default=True, type=click.Choice(["csv", "ndjson"]))
@click.option("--output", type=_new_file, help="A new file, which only its owner may read. [standard output]")
def export(deployment: Deployment, what: str, board: str | None, form: str, output: Path | None) -> None:
    """Write the ledger or a board out, for a spreadsheet or another program."""
    from scoreboard import export as exporting
    from scoreboard.errors import EngineError
    from scoreboard.files import appearing

    config = deployment.config
    name = board or next(iter(config.boards))
    if name not in config.boards:
        raise click.BadParameter(f"there is no board {name} in the configuration", param_hint="--board")
    if board and what == "ledger":
        raise click.UsageError("--board is for scoreboard export board")

    async def run(database: Any) -> None:
        rows, columns = (
            (exporting.ledger(database), exporting.LEDGER)
            if what == "ledger"
            else (exporting.board(database, name, config.boards[name]), exporting.BOARD)
        )
        to = nullcontext(sys.stdout.buffer) if output is None else appearing(output, replace=False)
        with to as file:
            count = await exporting.write(columns, rows, form, file.write)
        click.echo(f"{count} rows", err=True)

    try:
        with_database(deployment, run)
    except OSError as error:
        raise EngineError(f"cannot be written: {error}") from error


async def _adopt(database: Any, queue: Any, config: Any, reason: str, *, dry_run: bool = False) -> None:
    from scoreboard import adoption

    planned = await adoption.plan(database, queue, config)
    if planned is None:
        click.echo("The log is the one that the database has been reading; there is nothing to adopt.")
        return
    for line in planned.lines:
        click.echo(line)
    if dry_run:
        click.echo("Nothing was changed: without --dry-run it is done.")
        return
    await adoption.adopt(database, queue, config, planned, reason)
    click.echo("Done. Start the roles again.")


def _queue(url: str, namespace: str) -> Any:
    from scoreboard.queue import Queue

    return Queue.open(url, namespace, "recovery")


def _read(header: Any) -> str:
    """What a backup holds of the log."""
    last = max(header.log, key=lambda one: one.last, default=None)
    at = f"as of {header.made:%Y-%m-%d %H:%M:%S} UTC"
    return at if last is None else f"{at}, the log up to message {last.last}"
