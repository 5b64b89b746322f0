"""`hub deliveries` and `hub suppression`: mails of the ledger and addresses that get none, looked at and decided on by hand."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hub.cli.place import Place, print_table
from hub.errors import HubError

F = TypeVar("F", bound=Callable[..., Any])


def _chosen(command: F) -> F:
    """The options that choose mails."""
    for option in reversed(
        (
            click.option("--state", help="queued, claimed, accepted, rejected, uncertain, excluded or held"),
            click.option("--message", help="of this message"),
            click.option("--relay", help="offered to this relay"),
            click.option("--funnel", help="sent by this funnel"),
            click.option("--campaign", help="of this campaign"),
            click.option("--email", help="to the contacts with this address"),
        )
    ):
        command = option(command)
    return command


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        return f"uid {os.getuid()}"


BECAUSE = click.option(
    "--because", required=True, metavar="TEXT", help="the reason; it is kept with the decision"
)
BY = click.option("--by", default=_user, show_default="the system's user", help="who decides")


@click.group("deliveries", invoke_without_command=True)
@_chosen
@click.pass_context
def deliveries_(ctx: click.Context, /, **chosen: str | None) -> None:
    """How many mails of each message are in which state at which relay, and mostly why; with --state by each reason."""
    if ctx.invoked_subcommand is not None:
        if any(chosen.values()):
            raise HubError(
                "options of `hub deliveries` stand behind its subcommand", "see `hub deliveries list -h`"
            )
        return
    from hub.jobs import decisions

    place: Place = ctx.obj
    found = place.run(lambda runtime: decisions.sums(runtime, chosen))
    columns = {
        "message": "message", "state": "state", "relay": "relay", "mails": "mails", "oldest": "oldest", "newest": "newest",
        "reason": "because" if chosen["state"] else "mostly because",
    }  # fmt: skip
    place.show(found, lambda: print_table("Deliveries", columns, found, empty="none"))


@deliveries_.command("list")
@_chosen
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="how many, the newest first"
)
@click.pass_obj
def list_(place: Place, /, limit: int, **chosen: str | None) -> None:
    """The newest mails, each with its contact and why it is where it is."""
    from hub.jobs import decisions

    found = place.run(lambda runtime: decisions.mails(runtime, chosen, limit))
    columns = {
        "id": "delivery", "message": "message", "email": "address", "contact_id": "contact", "state": "state",
        "relay": "relay", "queued_at": "queued", "why": "why",
    }  # fmt: skip
    place.show(found, lambda: print_table("Deliveries", columns, found, empty="none"))


@deliveries_.command()
@click.argument("id", type=int)
@click.pass_obj
def show(place: Place, id: int) -> None:
    """Everything that is known of the mail ID: what came back of it, and what was decided about it."""
    from hub.jobs import decisions

    found = place.run(lambda runtime: decisions.mail(runtime, id))
    place.show(found, lambda: _mail_tables(found))


def _mail_tables(found: dict[str, Any]) -> None:
    rows = [
        {"what": key, "value": value}
        for key, value in found.items()
        if key not in ("events", "decisions", "id") and value not in (None, "")
    ]
    print_table(f"Delivery {found['id']}", {"what": "what", "value": "value"}, rows)
    columns = {
        "at": "at",
        "kind": "kind",
        "by": "by",
        "source": "source",
        "detail": "detail",
        "evidence": "evidence",
    }
    print_table("Came back", columns, [{**e, "at": e["occurred_at"], "by": _who(e)} for e in found["events"]])
    _decisions(found["decisions"])


def _who(event: dict[str, Any]) -> str:
    if event["kind"] not in ("opened", "clicked"):
        return ""
    return "a machine" if event["machine"] else "a person"


def _decisions(rows: list[dict[str, Any]]) -> None:
    columns = {"at": "at", "what": "what", "decided_by": "by", "because": "because", "detail": "detail"}
    print_table("Decided by hand", columns, rows)


@deliveries_.command()
@click.argument("ids", type=int, nargs=-1, required=True, metavar="ID...")
@click.option(
    "--as",
    "state",
    required=True,
    type=click.Choice(("accepted", "rejected", "queued")),
    help="the relay had it; it had it not and it shall not go out; send it again, which may be a second time",
)
@BECAUSE
@BY
@click.pass_obj
def settle(place: Place, ids: tuple[int, ...], state: str, because: str, by: str) -> None:
    """Say what became of uncertain mails, as you found out in the relay's log. Ends with 1 when one was not uncertain."""
    from hub.jobs import decisions

    found = place.run(lambda runtime: decisions.settle(runtime, ids, state, because=because, by=by))

    def tell() -> None:
        for row in found:
            click.echo(
                f"delivery {row['id']} is {row['state']}" if row["state"] else row["why"],
                err=not row["state"],
            )

    place.show(found, tell)
    sys.exit(0 if all(row["state"] for row in found) else 1)


@click.group()
def suppression() -> None:
    """Addresses that get no mail, whatever its purpose."""


@suppression.command("list")
@click.argument("email", required=False)
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="how many, the newest first"
)
@click.pass_obj
def suppressed(place: Place, email: str | None, limit: int) -> None:
    """How many are suppressed for which reason, the newest, and incidents that lifted some; with EMAIL whether it is, and
    what was decided about it."""
    from hub.jobs import decisions

    found = place.run(lambda runtime: decisions.suppressed(runtime, email, limit))

    def tables() -> None:
        if email is None:
            rows = [{"reason": reason, "addresses": count} for reason, count in found["sums"].items()]
            print_table("Suppressed", {"reason": "reason", "addresses": "addresses"}, rows, empty="none")
        columns = {"email": "address", "at": "since", "reason": "reason", "evidence": "evidence"}
        rows = [{**row, "email": row["email"] or "(known by its hash)"} for row in found["addresses"]]
        title = "Newest" if email is None else f"{email}"
        print_table(title, columns, rows, empty="not suppressed" if email else "none")
        if email is not None:
            _decisions(found["decisions"])
        if found["incidents"]:
            columns = {"began_at": "since", "closed_at": "over", "why": "why", "lifted": "lifted"}
            print_table("Incidents: bounces about us that suppressed nobody", columns, found["incidents"])

    place.show(found, tables)


@suppression.command()
@click.argument("email")
@BECAUSE
@BY
@click.pass_obj
def add(place: Place, email: str, because: str, by: str) -> None:
    """Never send to EMAIL again, from now on, also what is queued."""
    from hub.jobs import decisions

    new = place.run(lambda runtime: decisions.suppress(runtime, email, because=because, by=by))
    words = "is suppressed" if new else "was suppressed before"
    place.show({"email": email, "new": new}, lambda: click.echo(f"{email} {words}"))


@suppression.command()
@click.argument("email")
@BECAUSE
@BY
@click.pass_obj
def lift(place: Place, email: str, because: str, by: str) -> None:
    """Let EMAIL get mail again. Opt-outs stay: they are their owner's word."""
    from hub.jobs import decisions

    was = place.run(lambda runtime: decisions.lift(runtime, email, because=because, by=by))
    place.show(
        {"email": email, "was": was},
        lambda: click.echo(f"{email} is no longer suppressed; it was: {was['reason']}"),
    )


COMMANDS = (deliveries_, suppression)
