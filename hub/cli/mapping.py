"""`hub mapping`: a connection's fields in both directions, who wins, and what has changed at the vendor."""

from __future__ import annotations

import sys
from typing import Any

import click

from hub.cli.place import Place, print_table


@click.group("mapping")
def mapping_() -> None:
    """Show a connection's mapping, hold it against the vendor's live schema, and suggest entries."""


@mapping_.command()
@click.argument("connection")
@click.pass_obj
def show(place: Place, connection: str) -> None:
    """Both directions of a connection's mapping, and for each field whose word stands."""
    from hub.jobs import mapping

    async def ask(runtime: Any) -> dict[str, Any]:
        return mapping.show(runtime, connection)

    found = place.run(ask)
    place.show(found, lambda: _show_tables(found))


def _show_tables(found: dict[str, Any]) -> None:
    columns = {"object": "object", "from": "its field", "to": "hub field", "type": "type", "how": "how"}
    print_table(f"Pulled from {found['connection']}", columns, found["pull"])
    columns = {"object": "object", "field": "hub field", "wins": "whose word stands", "with": "also pulled from",
               "blank": "a blank there"}  # fmt: skip
    print_table("Overwrites", columns, found["overwrites"])
    columns = {
        "object": "object",
        "from": "hub field",
        "to": "its field",
        "how": "how",
        "set_by": "set by funnels",
    }
    print_table(f"Pushed to {found['connection']}", columns, found["push"])
    print_table(
        "Opt-outs", {"purpose": "purpose", "field": "its field"}, found["consent"], empty="none are read"
    )
    click.echo(f"new people are matched by: {', '.join(found['match']) or 'nothing'}")


@mapping_.command()
@click.argument("connection")
@click.option(
    "--accept", is_flag=True, help="take the schema as it is now: later checks tell what changes from here"
)
@click.pass_obj
def check(place: Place, connection: str, accept: bool) -> None:
    """Ask the vendor for its fields and tell what no longer fits the mapping. Status 1 when something is wrong."""
    from hub.jobs import mapping

    found = place.run(lambda runtime: mapping.check(runtime, connection, accept=accept))
    columns = {"level": "", "object": "object", "name": "hub field", "what": "what", "fix": "what to do"}
    place.show(
        found, lambda: print_table(f"Mapping of {connection}", columns, found["findings"], empty="no drift")
    )
    sys.exit(1 if any(finding["level"] == "wrong" for finding in found["findings"]) else 0)


@mapping_.command()
@click.argument("connection")
@click.pass_obj
def suggest(place: Place, connection: str) -> None:
    """Entries to paste into the connection's own mapping file: for fields that are gone, and for those not mapped yet."""
    from hub.jobs import mapping

    found = place.run(lambda runtime: mapping.suggest(runtime, connection))
    place.show(found, lambda: click.echo(found["yaml"] or "# nothing: every field that could be mapped is"))


COMMANDS = (mapping_,)
