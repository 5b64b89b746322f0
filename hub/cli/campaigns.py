"""`hub campaigns`: what is sent once to a list, from its plan to its sums; and `hub release`, for what is held."""

from __future__ import annotations

from typing import Any

import click

from hub.cli import coverage
from hub.cli.place import Place, print_table
from hub.errors import HubError


@click.group("campaigns", invoke_without_command=True)
@click.pass_context
def campaigns_(ctx: click.Context) -> None:
    """Each campaign: its state, its mails by state, how far it is and when it will be through."""
    if ctx.invoked_subcommand is None:
        from hub.jobs import campaigns

        place: Place = ctx.obj
        found = place.run(campaigns.overview)
        place.show(found, lambda: _table(found))


def _table(found: list[dict[str, Any]]) -> None:
    columns = {
        "name": "campaign", "state": "state", "message": "message", "list": "list", "frozen": "frozen", "sums": "mails",
        "done": "done", "rate": "an hour", "eta": "through at",
    }  # fmt: skip
    rows = [{**dict.fromkeys(columns), **each, **_cells(each)} for each in found]
    print_table("Campaigns", columns, rows, empty="none are configured")


def _cells(each: dict[str, Any]) -> dict[str, Any]:
    if "frozen" not in each:
        return {}
    missing = "" if each["adds_up"] else " (rows are missing)"
    rate = f"{each['per_hour']:,.0f}" if each["per_hour"] else ""
    return {"sums": each["counts"], "done": f"{each['progress']:.1%}{missing}", "rate": rate}


@campaigns_.command()
@click.argument("name")
@click.pass_obj
def plan(place: Place, name: str) -> None:
    """Say who would get campaign NAME, who would not and why, when, by which relays and at what price. Keeps nothing."""
    from hub.jobs import campaigns

    found = place.run(lambda runtime: campaigns.plan(runtime, name))
    place.show(found, lambda: _plan_tables(found))


def _plan_tables(found: dict[str, Any]) -> None:
    print_table(
        f"Campaign {found['campaign']}",
        {"what": "what", "value": "value"},
        [
            {"what": "message", "value": found["message"]},
            {"what": "list", "value": f"{found['audience']}: {found['frozen']:,}"},
            {"what": "recipients", "value": f"{found['recipients']:,}"},
            {"what": "too late for", "value": f"{found['late']:,}"},
            {"what": "first mail (UTC)", "value": found["first_at"]},
            {
                "what": "last mail (UTC)",
                "value": found["last_at"] if found["per_hour"] else "as the relays take them",
            },
            {"what": "takes", "value": _duration(found["duration_seconds"])},
            {
                "what": "mails an hour",
                "value": f"{found['per_hour']:,.0f}" if found["per_hour"] else "no limit",
            },
            {
                "what": "costs",
                "value": ", ".join(f"{cost:,.2f} {unit}" for unit, cost in found["costs"].items()),
            },
            {"what": "plan", "value": found["plan"]},
        ],
    )
    rows = [{"reason": reason, "people": count} for reason, count in found["excluded"].items()]
    print_table("Excluded", {"reason": "reason", "people": "people"}, rows, empty="nobody")
    print_table(
        "Begins", {"at": "at (UTC)", "recipients": "recipients", "of": "on the clocks of"}, found["starts"]
    )
    columns = {
        "relay": "relay", "mails": "mails", "cost": "costs", "currency": "", "gate": "deliverability", "reasons": "because",
    }  # fmt: skip
    print_table("Relays", columns, found["relays"], empty="there is nothing to send")
    coverage.tables(found["coverage"])
    click.echo(f"hub campaigns approve {found['campaign']} --plan {found['plan']}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, rest = divmod(round(seconds), 3_600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


@campaigns_.command()
@click.argument("name")
@click.option("--plan", "wanted", metavar="HASH", help="refuse when anything has changed since this plan")
@click.pass_obj
def approve(place: Place, name: str, wanted: str | None) -> None:
    """Freeze the recipients of campaign NAME and let it go at its time. Approving twice changes nothing."""
    from hub.jobs import campaigns

    found = place.run(lambda runtime: campaigns.approve(runtime, name, wanted))
    words = "is approved" if found["approved"] else f"was approved before: it is {found['state']}"
    place.show(found, lambda: click.echo(f"campaign {name} {words}; {found['recipients']:,} recipients"))


@campaigns_.command()
@click.argument("name")
@click.pass_obj
def pause(place: Place, name: str) -> None:
    """Hold what no worker has taken yet of campaign NAME."""
    _change(place, "pause", name, "are held")


@campaigns_.command()
@click.argument("name")
@click.pass_obj
def resume(place: Place, name: str) -> None:
    """Go on with campaign NAME at its speed: what the pause held back is put off, not sent at once."""
    _change(place, "resume", name, "are queued again")


@campaigns_.command()
@click.argument("name")
@click.pass_obj
def cancel(place: Place, name: str) -> None:
    """Send nothing more of campaign NAME, for good."""
    _change(place, "cancel", name, "will not be sent")


def _change(place: Place, what: str, name: str, words: str) -> None:
    from hub.jobs import campaigns

    found = place.run(lambda runtime: getattr(campaigns, what)(runtime, name))
    place.show(
        found, lambda: click.echo(f"campaign {name} is {found['state']}; {found['mails']:,} mails {words}")
    )


@click.command()
@click.option("--all", "everything", is_flag=True, help="everything that is held")
@click.option("--campaign", metavar="NAME", help="what is held of this campaign")
@click.pass_obj
def release(place: Place, everything: bool, campaign: str | None) -> None:
    """Show which mails are held and why; with an option send them.

    After a restore or a copy of the database nothing is sent until this is done. What was on its way to a relay then becomes
    uncertain and is not sent again.
    """
    from hub.jobs import campaigns

    if everything and campaign:
        raise HubError("--all and --campaign exclude each other", "take one")
    if everything or campaign:
        done = place.run(lambda runtime: campaigns.release(runtime, campaign))
        words = f"{done['queued']:,} mails are queued, {done['uncertain']:,} are uncertain, {done['held']:,} are still held"
        place.show(done, lambda: click.echo(words))
        return
    found = place.run(campaigns.held)
    place.show(found, lambda: _held(found))


def _held(found: dict[str, Any]) -> None:
    if found["fence"]:
        click.echo(f"nothing is sent since {found['fence']['since']:%Y-%m-%d %H:%M}: {found['fence']['why']}")
    columns = {"campaign": "campaign", "reason": "reason", "mails": "mails"}
    print_table("Held", columns, found["held"], empty="nothing")


COMMANDS = (campaigns_, release)
