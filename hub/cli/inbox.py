"""`hub inbox`: what vendors' webhooks brought, what could not be worked and why, and its replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from hub.cli.place import Place, print_table

TIME = click.DateTime(("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"))
STATE = click.Choice(("new", "done", "set_aside"))


@click.group("inbox", invoke_without_command=True)
@click.pass_context
def inbox_(ctx: click.Context) -> None:
    """How many events of webhooks came of each kind, and how many wait or were set aside."""
    if ctx.invoked_subcommand is not None:
        return
    from hub.jobs import inbox

    place: Place = ctx.obj
    found = place.run(inbox.overview)
    columns = {
        "connection": "connection", "object": "object", "action": "action", "state": "state", "events": "events",
        "last_at": "last",
    }  # fmt: skip
    place.show(found, lambda: print_table("Webhooks", columns, found, empty="none have come"))


@inbox_.command("list")
@click.option("--connection", help="of this connection")
@click.option("--state", type=STATE, help="in this state")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="how many, the newest first"
)
@click.pass_obj
def list_(place: Place, connection: str | None, state: str | None, limit: int) -> None:
    """The newest events, each with where it is and why."""
    from hub.jobs import inbox

    found = place.run(lambda runtime: inbox.entries(runtime, connection=connection, state=state, limit=limit))
    columns = {
        "id": "webhook", "connection": "connection", "object": "object", "external_id": "id", "action": "action",
        "state": "state", "received_at": "received", "reason": "because",
    }  # fmt: skip
    place.show(found, lambda: print_table("Webhooks", columns, found, empty="none"))


@inbox_.command()
@click.argument("id", type=int)
@click.pass_obj
def show(place: Place, id: int) -> None:
    """All that is kept of one event; of a call that was not understood, its body."""
    from hub.jobs import inbox

    found = place.run(lambda runtime: inbox.entry(runtime, id))
    rows = [{"what": k, "value": v} for k, v in found.items() if v not in (None, "", [], {})]
    place.show(found, lambda: print_table(f"Webhook {id}", {"what": "what", "value": "value"}, rows))


@inbox_.command()
@click.argument("connection")
@click.option("--since", type=TIME, help="only what came at or after this time (UTC)")
@click.option("--until", type=TIME, help="only what came before this time (UTC)")
@click.option("--object", help="only events about this: contact, deal")
@click.option("--all", "worked_too", is_flag=True, help="also what was worked already")
@click.pass_obj
def replay(
    place: Place, /, connection: str, since: datetime | None, until: datetime | None, **chosen: Any
) -> None:
    """Work what was set aside again, after its cause is mended. It does no harm: records are read as they are now."""
    from hub.jobs import inbox

    count = place.run(
        lambda runtime: inbox.replay(runtime, connection, since=_utc(since), until=_utc(until), **chosen)
    )
    place.show({"queued": count}, lambda: click.echo(f"{count} webhooks are worked again"))


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)


COMMANDS = (inbox_,)
