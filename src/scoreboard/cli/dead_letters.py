"""``scoreboard dead``: what could not be applied: look at it, try it again, or drop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scoreboard.cli.command import (
    DATABASE,
    Deployment,
    command,
    fail,
    main,
    reason_option,
    tell,
    with_database,
)
from scoreboard.cli.moderation import ask

if TYPE_CHECKING:
    from scoreboard.dead_letters import Letter

SHOWN_CHARACTERS = 120  # of a reason, in the list
SHOWN_BYTES = 512  # of what cannot be read
_numbers = click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True, type=int)


@main.group("dead")
def dead() -> None:
    """Dead letters, events that could not be applied: list, show, retry, drop."""


@command(dead, "list", there=DATABASE)
@click.option("--all", "settled", is_flag=True, help="Also those that were retried or dropped.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000))
def dead_list(deployment: Deployment, settled: bool, limit: int) -> None:
    """List what waits for you, oldest first: number, time, tries, user, what it is, why it failed."""
    from scoreboard import dead_letters

    found: list[Letter] = with_database(
        deployment, lambda database: dead_letters.letters(database, limit + 1, settled=settled)
    )
    for one in found[:limit]:
        state = f"  {one.settled}" if one.settled else ""
        why = one.reason.partition("\n")[0][:SHOWN_CHARACTERS]
        tell(f"{one.number}  {one.at}  {one.tries} tries{state}  {one.user or '-'}  {one.what}  {why}")
    if not found:
        click.echo("There are no dead letters.", err=True)
    elif len(found) > limit:
        click.echo("There are more: --limit", err=True)


@command(dead, "show", there=DATABASE)
@click.argument("number", type=int)
def dead_show(deployment: Deployment, number: int) -> None:
    """Show dead letter NUMBER, whole."""
    from scoreboard import dead_letters

    one: Letter | None = with_database(deployment, lambda database: dead_letters.letter(database, number))
    if one is None:
        fail(f"there is no dead letter {number}; see: scoreboard dead list")
    click.echo(f"number   {one.number}\nat       {one.at}\nstate    {one.settled or 'waits'}")
    click.echo(f"tries    {one.tries}\nevent    {one.event_id or 'a whole message'}")
    tell(f"reason   {one.reason}")
    tell(f"content  {one.entry or one.body[:SHOWN_BYTES]!r}")


@command(dead, "retry", there=DATABASE)
@_numbers
@reason_option
def dead_retry(deployment: Deployment, numbers: tuple[int, ...], reason: str) -> None:
    """Try dead letters again, in this order: judged now, at the end of the log. Each counts at most once."""
    for number in numbers:
        done = ask(deployment, "dead/retry", {"number": number, "reason": reason})
        why = f": {done['reason']}" if "reason" in done else ""
        click.echo(f"{number}: {done['status']}{why}")


@command(dead, "drop", there=DATABASE)
@_numbers
@reason_option
def dead_drop(deployment: Deployment, numbers: tuple[int, ...], reason: str) -> None:
    """Give dead letters up: their events are revoked. The letters stay, for `dead list --all`."""
    for number in numbers:
        done = ask(deployment, "dead/drop", {"number": number, "reason": reason})
        click.echo(f"{number}: {done['status']}")
