"""`hub consent`: what was said about an address and what follows, words added by hand and imported."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hub.cli.place import Place, print_table
from hub.errors import HubError


class _OrAddress(click.Group):
    """A group of commands; an address in place of one is shown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, ["show", *args] if args and "@" in args[0] else args)


@click.group("consent", cls=_OrAddress)
def consent_() -> None:
    """Who may get what, by whose word, since when; `hub consent EMAIL` is short for `hub consent show EMAIL`."""


@consent_.command()
@click.argument("email")
@click.pass_obj
def show(place: Place, email: str) -> None:
    """Everything that was said about EMAIL, and what follows for each purpose by which entry."""
    from hub.jobs import consent

    found = place.run(lambda runtime: consent.show(runtime, email))

    def tables() -> None:
        columns = {
            "channel": "channel", "purpose": "purpose", "status": "stands", "mail": "gets mail", "entry": "by entry",
            "source": "of", "at": "said",
        }  # fmt: skip
        print_table("Verdicts", columns, found["verdicts"], empty="hub.yaml has no purposes")
        columns = {
            "id": "entry", "channel": "channel", "purpose": "purpose", "status": "said", "source_kind": "by", "source": "of",
            "how": "how", "at": "at", "dated": "said then", "recorded_at": "recorded", "proof": "proof",
        }  # fmt: skip
        print_table("Entries", columns, found["entries"], empty="nothing was said")
        if found["suppressed"]:
            print_table("Suppressed", {"reason": "reason", "at": "since"}, found["suppressed"])

    place.show(found, tables)


@consent_.command()
@click.argument("email")
@click.argument("purpose")
@click.option("--granted/--withdrawn", required=True, default=None, help="which of the two was said")
@click.option(
    "--source", default="admin", show_default=True, help="where it was said, e.g. phone or fair-2026"
)
@click.option("--proof", default="", metavar="TEXT", help="what shows it; an opt-in needs one")
@click.option("--at", metavar="TIME", help="when it was said, ISO 8601; default: now")
@click.pass_obj
def record(
    place: Place, email: str, purpose: str, granted: bool, source: str, proof: str, at: str | None
) -> None:
    """Add what was said of EMAIL and PURPOSE (`*`: all of them). An opt-in lifts only opt-outs that are older than it."""
    from hub.jobs import consent, consent_file

    when: datetime | None = consent_file.said_at(at) if at else None
    new = place.run(
        lambda runtime: consent.record(
            runtime, email, purpose, granted=granted, source=source, proof=proof, at=when
        )
    )
    words = "is recorded" if new else "was recorded before"
    place.show({"email": email, "purpose": purpose, "new": new}, lambda: click.echo(f"it {words}"))


@consent_.command()
@click.argument("email")
@click.argument("purpose")
@click.pass_obj
def request(place: Place, email: str, purpose: str) -> None:
    """Send EMAIL the mail that asks for consent to PURPOSE: what its `double_opt_in` names. Its link decides."""
    from hub.jobs import consent

    found = place.run(lambda runtime: consent.request(runtime, email, purpose))
    place.show(found, lambda: click.echo(f"a mail to {found['email']} asks for confirmation"))


@consent_.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.pass_obj
def import_(place: Place, file: Path) -> None:
    """Take in a CSV FILE with the columns email, purpose, status (granted or withdrawn), and where known at, proof and
    source. Ends with 1 when a row was rejected."""
    from hub.jobs import consent

    found: dict[str, Any] = place.run(lambda runtime: consent.take_in(runtime, file))

    def tables() -> None:
        click.echo(f"{found['new']:,} new, {found['known']:,} known, {len(found['rejected']):,} rejected")
        for each in found["rejected"]:
            click.echo(str(HubError(each["message"], each["fix"], f"{file}: {each['line']}")), err=True)

    place.show(found, tables)
    sys.exit(1 if found["rejected"] else 0)


@consent_.command()
@click.option("--all", "everything", is_flag=True, help="also those that were confirmed")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="how many, the most urgent first"
)
@click.pass_obj
def clock(place: Place, everything: bool, limit: int) -> None:
    """Opt-outs that another system has to be told within 48 hours. Ends with 1 when one is overdue."""
    from hub.jobs import consent

    found = place.run(lambda runtime: consent.clock(runtime, everything=everything, limit=limit))

    def tables() -> None:
        click.echo(", ".join(f"{count:,} {name}" for name, count in found["sums"].items()))
        columns = {
            "contact_id": "contact", "purpose": "purpose", "connection": "system", "said_at": "said", "due_at": "due",
            "state": "state", "overdue": "overdue", "attempts": "tried", "code": "code", "message": "it said", "do": "what to do",
        }  # fmt: skip
        print_table("Owed", columns, found["obligations"], empty="nothing")

    place.show(found, tables)
    sys.exit(1 if found["sums"]["overdue"] else 0)


COMMANDS = (consent_,)
