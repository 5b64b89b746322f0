"""`hub export`, `hub erase` and `hub erasures`: what is held of somebody, and its end."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from hub.cli.decide import BY
from hub.cli.place import Place, plain, print_table


@click.command()
@click.argument("email")
@click.pass_obj
def export(place: Place, email: str) -> None:
    """Everything that is held of EMAIL and of whoever it means, in one JSON document."""
    from hub.jobs import erasure

    found = place.run(lambda runtime: erasure.export(runtime, email))
    click.echo(json.dumps(found, default=plain, ensure_ascii=False, indent=2))


@click.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="do it; without it only what would be done is said")
@BY
@click.pass_obj
def erase(place: Place, email: str, yes: bool, by: str) -> None:
    """Erase whoever has EMAIL, here and by the API of each system that can. It cannot be undone."""
    from hub.jobs import erasure

    if not yes:
        planned = place.run(lambda runtime: erasure.plan(runtime, email))

        def tables() -> None:
            rows = [{"table": table, "rows": count} for table, count in planned["rows"].items()]
            print_table("Held of this person", {"table": "table", "rows": "rows"}, rows)
            print_table(
                "Other systems",
                {"connection": "system", "how": "how"},
                planned["systems"],
                empty="none knows them",
            )
            click.echo("nothing was done; --yes erases")

        place.show(planned, tables)
        return
    found = place.run(lambda runtime: erasure.erase(runtime, email, by=by))
    place.show(found, lambda: _receipts([found]))


@click.command()
@click.argument("email", required=False)
@click.pass_obj
def erasures(place: Place, email: str | None) -> None:
    """The receipts of erasures, system by system. Ends with 1 while one is refused or uncertain."""
    from hub.jobs import erasure
    from hub.store.erasing import states

    found = place.run(lambda runtime: erasure.receipts(runtime, email))
    place.show(found, lambda: _receipts(found))
    sys.exit(1 if states(found) & {"refused", "uncertain"} else 0)


def _receipts(found: list[dict[str, Any]]) -> None:
    rows = [
        {"id": e["id"], "at": e["at"], "connection": "this hub", "state": "erased", "note": e["counts"]}
        | shown
        for e in found
        for shown in [{}, *({**s, "note": _note(s)} for s in e["systems"])]
    ]
    columns = {"id": "erasure", "at": "asked", "connection": "system", "state": "state", "note": "receipt"}
    print_table("Receipts", columns, rows, empty="none")


def _note(system: dict[str, Any]) -> str:
    if system["state"] == "by hand":
        return "it cannot be asked by its API: delete the person there by hand"
    words = (str(system[key] or "") for key in ("confirmed_at", "code", "message", "fix"))
    return " ".join(word for word in words if word)


COMMANDS = (export, erase, erasures)
