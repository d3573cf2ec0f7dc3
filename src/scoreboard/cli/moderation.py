"""Moderation from the command line: bans, hiding, undoing, what is held back, explanations, the audit.

Acts go through the HTTP API and so through the log, like anybody's; what is only read comes from the
database.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

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
from scoreboard.model import Scope, Verdict
from scoreboard.texts import flaw_of_user_id

SHOWN = 20  # differences of a dry run that are printed
UNKNOWN = {
    "userId": "nothing is known of this user",
    "keyId": "there has never been such a key",
    "eventId": "no such event has come yet",
}
_limit = click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000))


def _mark(act: str, told: str, summary: str) -> None:
    @click.argument("user")
    @reason_option
    def run(deployment: Deployment, user: str, reason: str) -> None:
        if flaw := flaw_of_user_id(user):
            raise click.BadParameter(flaw, param_hint="USER")
        done = ask(deployment, act, {"userId": user, "reason": reason})
        if not _on_its_way(done):
            _refuse_dead(done)
            tell(f"{user} is {told}")
            _note(done)

    run.__doc__ = summary
    command(main, act)(run)


_mark("ban", "banned", "Refuse all that USER reports from now on. Earlier points stay.")
_mark("unban", "no longer banned", "Let USER score again. Nothing is judged anew.")
_mark("hide", "hidden", "Take USER off all boards. Ranks close up; nothing is lost.")
_mark("show", "shown", "Show USER again.")


def _amend(verdict: Verdict, told: str, summary: str, name: str = "") -> None:
    @click.option("--event", "event_id", type=click.UUID, help="One event, by its eventId.")
    @click.option("--user", help="Events of this user.")
    @click.option("--key-id", help="Events reported with this key (see key list), or with its grants.")
    @click.option("--grant-issuer", help="Events of grants that this issuer signed; scoreboard: ours.")
    @click.option("--since", help="Accepted at or after this time (ISO 8601; UTC if it says no zone).")
    @click.option("--until", help="Accepted before this time.")
    @reason_option
    @click.option("--dry-run", is_flag=True, help="Only show what it would do.")
    def run(deployment: Deployment, dry_run: bool, reason: str, **given: Any) -> None:
        body = {
            "eventId": None if given["event_id"] is None else str(given["event_id"]),
            "userId": given["user"],
            "keyId": given["key_id"],
            "grantIssuer": given["grant_issuer"],
            "since": _time("--since", given["since"]),
            "until": _time("--until", given["until"]),
        }
        if not any(body.values()):
            raise click.UsageError(
                "say which events: --event, --user, --key-id, --grant-issuer, --since or --until"
            )
        body = {name: value for name, value in body.items() if value is not None}
        waits = verdict is Verdict.REVOKE and list(body) == ["eventId"]
        done = ask(deployment, verdict.value, body | {"reason": reason, "dryRun": dry_run})
        if _on_its_way(done):
            return
        would = "would be " if dry_run else ""
        click.echo(f"{done['events']} events of {done['users']} users {would}{told}")
        for line in done.get("differences", [])[:SHOWN]:
            tell(f"  {line['board']}  {line['userId']}: {line['score']} -> {line['scoreAfter']}")
        if len(done.get("differences", ())) > SHOWN:
            click.echo("  …")
        _refuse_dead(done)
        _note(done, f": it {'would' if dry_run else 'will'} be revoked when it comes" if waits else "")

    run.__doc__ = summary
    command(main, name or verdict.value)(run)


_amend(Verdict.REVOKE, "revoked", "Undo events: totals and ranks are what they would be without them.")
_amend(Verdict.RESTORE, "restored", "Take a revocation back.", "unrevoke")  # a backup is what one restores
_amend(Verdict.RELEASE, "released", "Let events that are held back count.")
_amend(Verdict.REJECT, "rejected", "Reject events that are held back.")


@command(main, "held", there=DATABASE)
@_limit
def held(deployment: Deployment, limit: int) -> None:
    """List the events that are held back, oldest first: to release or to reject."""
    from scoreboard import history

    events, more = with_database(deployment, lambda database: history.held(database, limit, 0))
    for one in events:
        tell(f"{one.event_id}  {one.at}  {one.user_id}  {one.type}:{one.reference}  {one.points} points")
    if not events:
        click.echo("Nothing is held back.", err=True)
    elif more is not None:
        click.echo("There are more: --limit", err=True)


@command(main, "explain", there=DATABASE)
@click.argument("user")
@_limit
def explain(deployment: Deployment, user: str, limit: int) -> None:
    """Explain USER's score event by event, newest first."""
    from scoreboard import history

    told = with_database(deployment, lambda database: history.of_user(database, user, limit, None, who=True))
    for one in told.events:
        boards = ", ".join(f"{name} {score.change:+} = {score.score}" for name, score in one.boards.items())
        what = f"of {one.amends}" if one.amends else f"{one.type}:{one.reference}"
        why = "".join(f" ({words})" for words in (one.reason, one.why) if words)
        tell(f"{one.at}  {one.event_id}  {one.outcome}{why}  {what}  by {one.principal}  {boards}")
    if not told.events:
        click.echo(f"Nothing of {user} is in the ledger.", err=True)


@command(main, "audit", there=DATABASE)
@_limit
@click.option(
    "--all", "everything", is_flag=True, help="Also acts on keys that commands made for themselves."
)
def audit(deployment: Deployment, limit: int, everything: bool) -> None:
    """Show who did what, when and why: the newest acts first."""
    from scoreboard import history

    acts = with_database(deployment, lambda database: history.acts(database, limit, everything=everything))
    for one in acts:
        who = f"{one.who} ({one.key_name})" if one.key_name else one.who
        size = "" if one.events is None else f"  {one.events} events of {one.users} users"
        tell(f"{one.at}  {who}  {one.what}  {one.target}{size}  act {one.act_id}  {one.why}".rstrip())
    if not acts:
        click.echo("Nothing has been done yet.", err=True)


def _time(flag: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter("is not a time like 2026-11-26T20:15:00Z", param_hint=flag) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


def _on_its_way(done: dict[str, Any]) -> bool:
    """Is an act still to be done? Then say so."""
    if done.get("status") != "accepted":
        return False
    click.echo("accepted: it is in the log and will be done")
    return True


def _refuse_dead(done: dict[str, Any]) -> None:
    """End the command if the act, or a part of it, could not be done."""
    if done.get("status") == "dead":
        fail("it could not be done, or not for all, and is set aside: see scoreboard dead list")


def _note(done: dict[str, Any], more: str = "") -> None:
    """Say what was named and is not known: it may be mistyped."""
    for field in done.get("unknown", ()):
        click.echo(f"note: {UNKNOWN[field]}{more}", err=True)


def ask(deployment: Deployment, act: str, body: dict[str, Any]) -> dict[str, Any]:
    """Have an act carried out, as a service with the scope admin."""
    from scoreboard.submit import service

    deployment.config  # noqa: B018  a mistake is told before anything is started

    async def ask() -> dict[str, Any]:
        async with service(deployment.options, scope=Scope.ADMIN) as client:
            found: dict[str, Any] = msgspec.json.decode(await client.ask("POST", f"/admin/{act}", body))
        return found

    return asyncio.run(ask())
