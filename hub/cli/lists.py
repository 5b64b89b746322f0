"""`hub lists`: sizes and ages, why somebody is on one, a rule tried out, imports, snapshots, and their verification."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hub.cli.place import Place, print_table
from hub.errors import HubError


@click.group("lists", invoke_without_command=True)
@click.pass_context
def lists_(ctx: click.Context) -> None:
    """Each list: its size, who joined and left in the last week, its age, and what it waits for."""
    if ctx.invoked_subcommand is None:
        from hub.jobs import lists

        place: Place = ctx.obj
        found = place.run(lists.overview)
        place.show(found, lambda: _overview(found))


def _overview(found: list[dict[str, Any]]) -> None:
    columns = {
        "name": "list", "members": "members", "joined": "joined (7 days)", "left": "left (7 days)", "age": "age",
        "state": "state", "rule": "rule",
    }  # fmt: skip
    rows = [
        {
            **one,
            "age": _age(one["age_seconds"]),
            "state": one["problem"] or _waits(one["waits_for"]) or "fresh",
        }
        for one in found
    ]
    print_table("Lists", columns, rows, empty="none are configured")
    if found and found[0]["waiting"]:
        click.echo(f"{found[0]['waiting']:,} changed contacts are still to be looked at")


def _waits(streams: list[str]) -> str:
    return f"waits for {', '.join(streams)}" if streams else ""


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"


@lists_.command()
@click.argument("name")
@click.pass_obj
def show(place: Place, name: str) -> None:
    """The sizes of list NAME by day, and who joined and left last."""
    from hub.jobs import lists

    found = place.run(lambda runtime: lists.one(runtime, name))

    def tables() -> None:
        columns = {"day": "day (UTC)", "size": "size", "joined": "joined", "left": "left"}
        print_table(f"Size of {name}", columns, found["sizes"], empty="nobody was on it yet")
        columns = {"at": "at", "contact_id": "contact", "email": "address", "change": "change"}
        print_table(f"Changes of {name}", columns, found["changes"], empty="none yet")
        if found["mirrors"]:
            columns = {
                "connection": "connection", "segment": "kept as", "members": "members", "verified_at": "verified at",
                "problem": "",
            }  # fmt: skip
            print_table(f"Mirrors of {name}", columns, found["mirrors"])

    place.show(found, tables)


@lists_.command()
@click.argument("name")
@click.argument("email")
@click.pass_obj
def why(place: Place, name: str, email: str) -> None:
    """Why the person with address EMAIL is on list NAME or not: each condition, what it looked at, and which decided."""
    from hub.jobs import lists

    found = place.run(lambda runtime: lists.why(runtime, name, email))
    place.show(found, lambda: _why_tables(name, email, found))


def _why_tables(name: str, email: str, found: list[dict[str, Any]]) -> None:
    columns = {
        "condition": "condition", "holds": "holds", "decided": "decided", "value": "value", "source": "from", "at": "when",
        "run": "run",
    }  # fmt: skip
    if not found:
        click.echo(f"no contact has the address {email}")
    for one in found:
        rows = []
        for condition in one["conditions"]:
            blank = {"what": "", "value": None, "source": "", "at": None, "run": None}
            for number, value in enumerate(condition["values"] or [blank]):
                first = number == 0
                rows.append(
                    {
                        **value, "value": f"{value['what']}: {_plain(value['value'])}" if value["what"] else "",
                        "condition": condition["condition"] if first else "", "holds": condition["holds"] if first else "",
                        "decided": condition["decided"] if first else "",
                    }
                )  # fmt: skip
        state = f"is on {name} since {one['since']:%Y-%m-%d %H:%M}" if one["on_list"] else f"is not on {name}"
        print_table(f"Contact {one['contact_id']} {state}", columns, rows)
        if one["belongs"] != one["on_list"]:
            click.echo(
                f"its rule says by now that it {'belongs' if one['belongs'] else 'does not belong'} there"
            )


def _plain(value: object) -> str:
    return "blank" if value in (None, "") else str(value)


@lists_.command()
@click.argument("rule")
@click.option("--samples", default=5, show_default=True, help="how many people to show")
@click.pass_obj
def preview(place: Place, rule: str, samples: int) -> None:
    """Count the people for whom RULE is true, and show some. Nothing is kept."""
    from hub.jobs import lists

    found = place.run(lambda runtime: lists.preview(runtime, rule, samples))

    def tables() -> None:
        click.echo(
            f"{found['count']:,} of {found['contacts']:,} contacts, counted in {found['seconds']:.2f} s"
        )
        columns = {"contact_id": "contact", "name": "name", "email": "address"}
        print_table("Some of them", columns, found["samples"], empty="nobody")

    place.show(found, tables)


@lists_.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--column", help="heading of the column with the addresses; default: email")
@click.option("--replace", is_flag=True, help="take every address off that the file does not name")
@click.pass_obj
def import_(place: Place, name: str, file: Path, column: str | None, replace: bool) -> None:
    """Put the addresses of a CSV FILE on the static list NAME. Ends with 1 when a row was rejected."""
    from hub.jobs import lists

    found = place.run(lambda runtime: lists.take_in(runtime, name, file, column, replace=replace))

    def tables() -> None:
        click.echo(
            f"{found['new']:,} new, {found['known']:,} known, {found['removed']:,} removed; {found['members']:,} are on {name}"
        )
        if found["waiting"]:
            click.echo(f"{found['waiting']:,} are no contact yet and join when they are")
        for each in found["rejected"]:
            click.echo(f"{file}: {each['line']}: {each['message']}", err=True)

    place.show(found, tables)
    sys.exit(1 if found["rejected"] else 0)


@lists_.command()
@click.argument("name", required=False)
@click.option("--at", metavar="TIME", help="ISO 8601, UTC where it names no zone; default: now")
@click.option("--campaign", metavar="NAME", help="whom this campaign froze when it was approved")
@click.option("--limit", default=20, show_default=True, help="how many people to show")
@click.option(
    "--csv", "file", type=click.Path(path_type=Path, dir_okay=False), help="write all of them to this file"
)
@click.pass_obj
def snapshot(
    place: Place, name: str | None, at: str | None, campaign: str | None, limit: int, file: Path | None
) -> None:
    """Who was on list NAME at a time and by which rule, or whose mails a campaign froze."""
    from hub.jobs import lists

    if (name is None) == (campaign is None) or (campaign and at):
        raise HubError(
            "a snapshot is of a list or of a campaign", "give LIST, with --at if you like, or --campaign"
        )
    when = _time(at) if at else None
    found = place.run(lambda runtime: lists.snapshot(runtime, name, when, campaign, limit=limit, file=file))

    def tables() -> None:
        click.echo(
            f"{found['size']:,} on {found['list']} at {found['at']:%Y-%m-%d %H:%M:%S} by the rule: {found['rule']}"
        )
        columns = {"contact_id": "contact", "email": "address"}
        columns |= {"state": "mail", "reason": "because"} if campaign else {"since": "since"}
        print_table(f"The first {len(found['members'])}", columns, found["members"], empty="nobody")

    place.show(found, tables)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise HubError(f"{text!r} is no time", "write for example 2026-11-24T09:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@lists_.command()
@click.pass_obj
def verify(place: Place) -> None:
    """Hold every list against its whole rule, put right what differs, and tell it. Ends with 1 when a row differed."""
    from hub.jobs import lists

    run = place.run(lists.verify)

    def tables() -> None:
        click.echo(
            f"run {run['id']}: {run['counts'].get('read', 0)} lists, {run['counts'].get('rejected', 0)} rows differed"
        )
        columns = {"external_id": "contact", "message": "what was wrong"}
        if run["rejects"]:
            print_table("Drift", columns, run["rejects"])

    place.show(run, tables)
    sys.exit(0 if run["state"] == "done" else 1)


COMMANDS = (lists_,)
