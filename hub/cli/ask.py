"""Commands that ask a hub: plan, funnels, contact, connectors, runs, and the replay of what rests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hub.cli import spreadsheet
from hub.cli.place import Place, print_table
from hub.errors import HubError


@click.command()
@click.option("--pull", is_flag=True, help="read the vendors first (nothing of it is kept)")
@click.option("--samples", default=3, show_default=True, help="how many examples of each thing to show")
@click.pass_obj
def plan(place: Place, pull: bool, samples: int) -> None:
    """Say what would be written and sent now, by the same code, and take all of it back."""
    from hub.jobs.plan import plan as make

    found = place.run(lambda runtime: make(runtime, pull=pull, samples=samples))
    place.show(found, lambda: _plan_tables(found))


def _plan_tables(found: dict[str, Any]) -> None:
    for problem in found["problems"]:
        click.echo(f"could not be read: {problem}", err=True)
    columns = {
        "list": "list", "size": "size", "joined": "would join", "left": "would leave", "samples": "for example",
        "waits_for": "waits for", "problem": "",
    }  # fmt: skip
    print_table("Lists", columns, found["lists"], empty="none are configured")
    columns = {
        "message": "message",
        "send": "would be sent",
        "excluded": "held back",
        "samples": "for example",
    }
    print_table("Mails", columns, found["mails"], empty="none would be sent")
    columns = {"connection": "connection", "kind": "kind", "count": "count", "samples": "for example"}
    print_table("Writes", columns, found["writes"], empty="nothing would be written")


@click.command("funnels")
@click.pass_obj
def funnels_(place: Place) -> None:
    """How many people are at each step of each funnel."""
    from hub.jobs import answers

    found = place.run(answers.all_funnels)
    columns = {
        "funnel": "funnel", "state": "state", "position": "next step", "people": "people", "next_wake": "next wake",
    }  # fmt: skip
    place.show(found, lambda: print_table("Funnels", columns, found, empty="nobody has entered"))


@click.command()
@click.argument("email")
@click.pass_obj
def contact(place: Place, email: str) -> None:
    """All that is known of a person, and why, in order."""
    from hub.jobs import answers

    found = place.run(lambda runtime: answers.about(runtime, email))
    if not found:
        raise HubError(f"no contact has the address {email}", "check the spelling, or `hub sync` first")

    def tables() -> None:
        for one in found:
            _contact_tables(one)

    place.show(found, tables)


def _contact_tables(one: dict[str, Any]) -> None:
    known = {**one["contact"], **one["contact"]["fields"]}
    rows = [{"field": k, "value": v} for k, v in known.items() if k != "fields" and v not in (None, {}, "")]
    print_table(f"Contact {one['contact']['id']}", {"field": "field", "value": "value"}, rows)
    columns = {"connection": "connection", "external_id": "id", "state": "state"}
    print_table("Known as", columns, one["identities"])
    if one["deals"]:
        print_table("Deals", {"name": "deal", "stage": "stage", "amount": "amount"}, one["deals"])
    if one["consent"]:
        columns = {"purpose": "purpose", "status": "status", "source": "source", "at": "at", "proof": "proof"}
        print_table("Consent", columns, one["consent"])
    print_table("Story", {"at": "when", "what": "what", "who": "who", "detail": "detail"}, one["story"])


@click.command()
@click.pass_obj
def connectors(place: Place) -> None:
    """The installed connectors and relays, and what each can do."""
    from hub.sdk import registry

    found = [
        {
            "name": name, "title": c.manifest.title, "streams": list(c.manifest.streams), "pushes": list(c.manifest.pushes),
            "webhooks": list(c.manifest.webhooks), "auth": list(c.manifest.auth), "docs": c.manifest.docs,
        }
        for name, c in sorted(registry.connectors().items())
    ] + [{"name": name, "title": "relay", "streams": [], "pushes": ["mail"], "webhooks": [], "auth": [], "docs": ""}
         for name in sorted(registry.relays())]  # fmt: skip
    columns = {
        "name": "name", "title": "title", "streams": "pulls", "pushes": "pushes", "webhooks": "webhooks", "auth": "auth",
    }  # fmt: skip
    place.show(found, lambda: print_table("Connectors", columns, found))
    for name, reason in registry.broken().items():
        click.echo(f"connector {name} cannot be loaded: {reason}", err=True)


@click.command("runs")
@click.argument("run_id", type=int, required=False)
@click.option("--limit", default=20, show_default=True)
@click.option(
    "--csv",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write all of its rejected rows into a file",
)
@click.pass_obj
def runs_(place: Place, run_id: int | None, limit: int, file: Path | None) -> None:
    """The newest runs; with RUN_ID one run with its rejected rows."""
    from hub.jobs import answers

    if file is not None:
        if run_id is None:
            raise HubError("--csv needs a run", "see `hub runs` for their numbers")
        _export(place, run_id, file)
        return
    if run_id is None:
        found = place.run(lambda runtime: answers.recent_runs(runtime, limit))
        columns = {
            "id": "run", "kind": "kind", "connection": "connection", "stream": "stream", "state": "state",
            "started_at": "started", "counts": "counts", "reason": "reason",
        }  # fmt: skip
        place.show(found, lambda: print_table("Runs", columns, found, empty="none yet"))
        return
    run = place.run(lambda runtime: answers.one_run(runtime, run_id))
    if run is None:
        raise HubError(f"there is no run {run_id}", "see `hub runs`")
    place.show(run, lambda: _run_tables(run))


def _export(place: Place, run_id: int, file: Path) -> None:
    from hub.jobs import answers

    columns = ("object", "external_id", "code", "message", "fix", "row", "at")
    with spreadsheet.written(file, columns) as add:
        count = place.run(
            lambda runtime: answers.rejects(
                runtime, run_id, lambda row: add([_plain(row[c]) for c in columns])
            )
        )
    place.show({"file": str(file), "rows": count}, lambda: click.echo(f"{file}: {count:,} rows"))


def _plain(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _run_tables(run: dict[str, Any]) -> None:
    rows = ({"what": k, "value": v} for k, v in run.items() if k != "rejects")
    print_table(f"Run {run['id']}", {"what": "what", "value": "value"}, rows)
    columns = {
        "object": "object", "external_id": "id", "code": "code", "message": "message", "fix": "what to do",
    }  # fmt: skip
    print_table("Rejected rows", columns, run["rejects"])


@click.command()
@click.argument("connection")
@click.option(
    "--uncertain", is_flag=True, help="also repeat writes whose outcome is unknown (may write twice)"
)
@click.pass_obj
def replay(place: Place, connection: str, uncertain: bool) -> None:
    """Queue a connection's dead letters again, after their cause is mended."""
    from hub.jobs import answers

    states = ("dead", "uncertain") if uncertain else ("dead",)
    count = place.run(lambda runtime: answers.replay(runtime, connection, states))
    place.show({"queued": count}, lambda: click.echo(f"{count} writes are queued again"))


COMMANDS = (plan, funnels_, contact, connectors, runs_, replay)
