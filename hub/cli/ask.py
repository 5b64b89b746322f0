"""Commands that ask a hub: plan, lists, funnels, contact, connectors, runs, and the replay of what rests."""

from __future__ import annotations

import sys
from typing import Any

import click

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

    def tables() -> None:
        print_table("Lists", ("list", "size", "would join", "would leave", "for example"),
                    ((x["list"], x["size"], x["joined"], x["left"], ", ".join(x["samples"])) for x in found["lists"]))  # fmt: skip
        print_table("Mails", ("message", "would be sent", "held back", "for example"),
                    ((x["message"], x["send"], x["excluded"], ", ".join(x["samples"])) for x in found["mails"]),
                    empty="none would be sent")  # fmt: skip
        print_table("Writes", ("connection", "kind", "count", "for example"),
                    ((x["connection"], x["kind"], x["count"], "; ".join(x["samples"])) for x in found["writes"]),
                    empty="nothing would be written")  # fmt: skip

    place.show(found, tables)


@click.command("lists")
@click.argument("name", required=False)
@click.argument("email", required=False)
@click.pass_obj
def lists_(place: Place, name: str | None, email: str | None) -> None:
    """Sizes and ages of all lists; with NAME its newest changes; with NAME and EMAIL why that person is on it or not."""
    from hub.jobs import answers

    if name and email:
        why = place.run(lambda runtime: answers.why(runtime, name, email))
        place.show(why, lambda: print_table(
            f"{email} and {name}", ("contact", "condition", "holds", "value"),
            ((w["contact_id"], w["condition"], "yes" if w["holds"] else "no", w["value"]) for w in why),
            empty="no contact has this address",
        ))  # fmt: skip
        return
    if name:
        changes = place.run(lambda runtime: answers.list_changes(runtime, name))
        place.show(changes, lambda: print_table(f"Changes of {name}", ("at", "contact", "address", "change"),
                   ((c["at"], c["contact_id"], c["email"], c["change"]) for c in changes), empty="none yet"))  # fmt: skip
        return
    found = place.run(answers.all_lists)
    place.show(found, lambda: print_table("Lists", ("list", "members", "refreshed", "rule"),
               ((x["name"], x["members"], x["refreshed_at"], x["rule"]) for x in found), empty="none are configured"))  # fmt: skip


@click.command("funnels")
@click.pass_obj
def funnels_(place: Place) -> None:
    """How many people are at each step of each funnel."""
    from hub.jobs import answers

    found = place.run(answers.all_funnels)
    place.show(found, lambda: print_table("Funnels", ("funnel", "state", "next step", "people", "next wake"),
               ((x["funnel"], x["state"], x["position"], x["people"], x["next_wake"]) for x in found), empty="nobody has entered"))  # fmt: skip


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
            known = {
                k: v
                for k, v in {**one["contact"], **one["contact"]["fields"]}.items()
                if v not in (None, {}, "") and k != "fields"
            }
            print_table(f"Contact {one['contact']['id']}", ("field", "value"), known.items())
            print_table("Known as", ("connection", "id", "state"),
                        ((i["connection"], i["external_id"], i["state"]) for i in one["identities"]))  # fmt: skip
            if one["deals"]:
                print_table(
                    "Deals",
                    ("deal", "stage", "amount"),
                    ((d["name"], d["stage"], d["amount"]) for d in one["deals"]),
                )
            if one["consent"]:
                print_table(
                    "Consent",
                    ("purpose", "status", "source", "at", "proof"),
                    (c.values() for c in one["consent"]),
                )
            print_table("Story", ("when", "what", "who", "detail"), (s.values() for s in one["story"]))

    place.show(found, tables)


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
    place.show(found, lambda: print_table(
        "Connectors", ("name", "title", "pulls", "pushes", "webhooks", "auth"),
        ((c["name"], c["title"], ", ".join(c["streams"]), ", ".join(c["pushes"]), ", ".join(c["webhooks"]), ", ".join(c["auth"]))
         for c in found)))  # fmt: skip
    for name, reason in registry.broken().items():
        click.echo(f"connector {name} cannot be loaded: {reason}", err=True)


@click.command("runs")
@click.argument("run_id", type=int, required=False)
@click.option("--limit", default=20, show_default=True)
@click.pass_obj
def runs_(place: Place, run_id: int | None, limit: int) -> None:
    """The newest runs; with RUN_ID one run with its rejected rows."""
    from hub.jobs import answers

    if run_id is None:
        found = place.run(lambda runtime: answers.recent_runs(runtime, limit))
        place.show(found, lambda: print_table(
            "Runs", ("run", "kind", "connection", "stream", "state", "started", "counts", "reason"),
            ((r["id"], r["kind"], r["connection"], r["stream"], r["state"], r["started_at"], r["counts"], r["reason"]) for r in found),
            empty="none yet"))  # fmt: skip
        return
    run = place.run(lambda runtime: answers.one_run(runtime, run_id))
    if run is None:
        raise HubError(f"there is no run {run_id}", "see `hub runs`")
    place.show(run, lambda: _run_tables(run))


def _run_tables(run: dict[str, Any]) -> None:
    print_table(f"Run {run['id']}", ("what", "value"), ((k, v) for k, v in run.items() if k != "rejects"))
    print_table("Rejected rows", ("object", "id", "code", "message", "what to do"),
                ((r["object"], r["external_id"], r["code"], r["message"], r["fix"]) for r in run["rejects"]))  # fmt: skip


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
    sys.exit(0)


COMMANDS = (plan, lists_, funnels_, contact, connectors, runs_, replay)
