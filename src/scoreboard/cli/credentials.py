"""``scoreboard token`` and ``scoreboard grant``: what a user shows, signed with keys of our own."""

from __future__ import annotations

import click

from scoreboard.cli.command import Deployment, command, main, seconds
from scoreboard.config import secret_of
from scoreboard.errors import ConfigurationError
from scoreboard.texts import flaw_of_name, flaw_of_user_id


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
    if not deployment.config.auth.local_tokens:
        msg = "local tokens are off, since an issuer is configured; auth.local = true turns them on"
        raise ConfigurationError(msg)
    click.echo(local_token(secret_of(deployment.environment, deployment.data), user, name, lifetime))


@command(main, "grant")
@click.option("--user", required=True, help="The user id.")
@click.option("--action", required=True, help="The type of the action; its policy must be grant.")
@click.option("--expires-in", default="15m", show_default=True, help="30s, 15m, 1h, at most 1d.")
def grant(deployment: Deployment, user: str, action: str, expires_in: str) -> None:
    """Print a grant for one action of one user, alone on standard output. It counts once."""
    from scoreboard.auth.grants import LIFETIME_SECONDS, new_grant

    lifetime = seconds(expires_in)
    if lifetime > LIFETIME_SECONDS:
        raise click.BadParameter("a grant lives for one day at most", param_hint="--expires-in")
    if flaw := flaw_of_user_id(user):
        raise click.BadParameter(flaw, param_hint="--user")
    known = deployment.config.actions.get(action)
    if known is None or known.policy != "grant":
        flaw = "its policy is not grant" if known else "there is no such action in the configuration"
        raise click.BadParameter(flaw, param_hint="--action")
    secret = secret_of(deployment.environment, deployment.data)
    click.echo(new_grant(secret, user, action, lifetime)[0])
