"""``scoreboard key``: services' keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from scoreboard.cli.command import (
    DATABASE,
    Deployment,
    command,
    fail,
    main,
    one_line,
    reason_option,
    seconds,
    tell,
    with_database,
)
from scoreboard.model import Scope
from scoreboard.texts import TYPE_PATTERN

if TYPE_CHECKING:
    from datetime import datetime

    from scoreboard.auth.key_acts import KeyLine


@main.group("key")
def key() -> None:
    """Services' keys: create, list, rotate, revoke."""


@command(key, "create")
@click.option("--name", required=True, callback=one_line, help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice([scope.value for scope in Scope])
)
@click.option("--action", "actions", multiple=True, help="A type of action that it is for. [all]")
@click.option("--expires-in", help="30d, 12h: it ends by itself. [never]")
@reason_option
def key_create(
    deployment: Deployment,
    name: str,
    scopes: tuple[str, ...],
    actions: tuple[str, ...],
    expires_in: str | None,
    reason: str,
) -> None:
    """Make a key. It is printed once, alone on standard output, and kept nowhere."""
    from scoreboard.auth.key_acts import TEMPORARY, create_key

    if name.startswith(TEMPORARY):
        raise click.BadParameter(f"names that begin with {TEMPORARY!r} are for commands", param_hint="--name")
    for action in actions:
        if not re.fullmatch(TYPE_PATTERN, action):
            raise click.BadParameter(f"{action!r} is not a type of action", param_hint="--action")
        if action not in deployment.config.actions:
            click.echo(f"note: there is no action {action} in the configuration here", err=True)
    lifetime = None if expires_in is None else seconds(expires_in)
    wanted = sorted({Scope(scope) for scope in scopes})

    async def create(database: Any) -> tuple[str, str]:
        return await create_key(
            database, name, wanted, actions=sorted(set(actions)) or None, seconds=lifetime, reason=reason
        )

    key_id, text = with_database(deployment, create)
    click.echo(f"made {key_id} ({', '.join(wanted)})", err=True)
    click.echo(text)


@command(key, "list", there=DATABASE)
@click.option("--all", "everything", is_flag=True, help="Also ended keys that commands made for themselves.")
def key_list(deployment: Deployment, everything: bool) -> None:
    """List keys: state, when used, scopes, types. Of the text of each, only how it begins."""
    from scoreboard.auth.key_acts import list_keys

    lines = with_database(deployment, lambda database: list_keys(database, everything=everything))
    if not lines:
        click.echo("There is no key yet: scoreboard key create --name game --scope score:write", err=True)
        return
    rows = [("id", "begins", "created", "last used", "state", "scopes", "actions", "name")]
    rows += [
        (
            line.id,
            f"{line.prefix or ''}…",
            _time(line.created),
            _time(line.used) if line.used else "never",
            _state(line),
            ",".join(line.scopes),
            "all" if line.actions is None else ",".join(line.actions),
            line.name,
        )
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        tell("  ".join(padded).rstrip())


@command(key, "rotate", there=DATABASE)
@click.argument("key_id")
@click.option("--grace", default="1h", show_default=True, help="How long the old key goes on working.")
@reason_option
def key_rotate(deployment: Deployment, key_id: str, grace: str, reason: str) -> None:
    """Make the successor of a key: the same name, scopes, types and lifetime. Printed once, as by create."""
    from scoreboard.auth.key_acts import rotate_key

    left = seconds(grace)
    made = with_database(deployment, lambda database: rotate_key(database, key_id, left, reason))
    if made is None:
        fail(f"there is no active key {key_id} without a successor")
    click.echo(f"made {made[0]}; {key_id} ends in {grace}", err=True)
    click.echo(made[1])


@command(key, "revoke", there=DATABASE)
@click.argument("key_id")
@reason_option
def key_revoke(deployment: Deployment, key_id: str, reason: str) -> None:
    """Revoke a key by its id (see key list). Works everywhere within two seconds."""
    from scoreboard.auth.key_acts import revoke_key

    if not with_database(deployment, lambda database: revoke_key(database, key_id, reason)):
        fail(f"there is no active key {key_id}")
    click.echo(f"revoked {key_id}", err=True)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _state(line: KeyLine) -> str:
    told = line.state
    if line.revoked:
        told += f" {_time(line.revoked)}"
    elif line.expires:
        told += f" {'since' if line.state == 'expired' else 'until'} {_time(line.expires)}"
    return told + (f", now {line.replaced_by}" if line.replaced_by else "")
