"""``scoreboard key`` for services, ``scoreboard token`` for users."""

from __future__ import annotations

from typing import Any

import click

from scoreboard.cli.command import Deployment, command, fail, main, seconds, with_database
from scoreboard.config import secret_of
from scoreboard.errors import ConfigurationError
from scoreboard.model import Scope, flaw_of_name, flaw_of_user_id


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

    click.echo(with_database(deployment, create))


@command(key, "list")
def key_list(deployment: Deployment) -> None:
    """List all keys; what opens something is known by its id only."""

    async def listed(database: Any) -> list[Any]:
        found: list[Any] = await database.list_keys()
        return found

    rows = with_database(deployment, listed)
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
    if not with_database(deployment, lambda database: database.revoke_key(key_id)):
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
