"""Commands that set a hub up: init, schema, check, migrate, demo."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hub.cli.place import Place
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.config import Config
    from hub.document import Problem


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(folder: Path) -> None:
    """Write a commented hub.yaml and a first template to start from. Existing files are left alone."""
    from hub.config.starter import files

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        target = folder / name
        if target.exists():
            click.echo(f"kept    {target}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        click.echo(f"wrote   {target}")
    click.echo("next: set the environment variables that hub.yaml names, then `hub check`")


@click.command()
def schema() -> None:
    """Print the JSON Schema of hub.yaml, for editors."""
    from hub.config.schema import json_schema
    from hub.sdk import registry

    click.echo(json.dumps(json_schema(registry.connectors(), registry.relays(), registry.events()), indent=2))


@click.command()
@click.pass_obj
def check(place: Place) -> None:
    """Find every mistake in hub.yaml, its mappings and its templates at once, offline.

    Hints are printed too; only mistakes make it end with status 1.
    Where the database is at hand (it runs, or HUB_DATABASE_URL names it), a rule that matches no stage or segment of what was
    read gets a hint.
    """
    from hub.check import check as find

    report = find(place.config, dict(os.environ))
    hints = list(report.hints)
    if not report.problems and report.config is not None:
        hints += _doubts(place, report.config)
    if place.as_json:
        found = [{**p.as_dict(), "severity": "mistake"} for p in report.problems]
        found += [{**p.as_dict(), "severity": "hint"} for p in hints]
        click.echo(json.dumps(found, indent=2))
    else:
        for problem in report.problems:
            click.echo(str(problem))
        for hint in hints:
            click.echo(f"{hint} (a hint)")
        if not report.problems:
            click.echo(f"{place.config}: no mistakes found")
    sys.exit(1 if report.problems else 0)


def _doubts(place: Place, config: Config) -> list[Problem]:
    """What the data says; nothing where it is not at hand."""
    import psycopg

    from hub.check import doubts
    from hub.embedded import EmbeddedServers

    url = os.environ.get("HUB_DATABASE_URL")
    if not url:
        if not place.data.is_dir():  # nothing was ever started here, and a check makes no folder
            return []
        url = EmbeddedServers(place.data).urls.database

    async def ask() -> list[Problem]:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as conn:
            return await doubts(conn, config)

    try:
        return asyncio.run(ask())
    except psycopg.Error:  # it does not run, or has no tables yet: then the check is what it is offline
        return []


@click.command()
@click.option("--list", "only_list", is_flag=True, help="only name the migrations that are not applied yet")
@click.pass_obj
def migrate(place: Place, only_list: bool) -> None:
    """Bring the database's tables to this version (embedded servers do so by themselves)."""
    from hub import embedded
    from hub.store import database

    with embedded.running(place.data) as urls:
        names = database.pending_migrations(urls.database) if only_list else database.migrate(urls.database)
    for name in names:
        click.echo(f"{'pending' if only_list else 'applied'} {name}")
    if not names:
        click.echo("the database is up to date")


@click.command()
@click.option("--once", is_flag=True, help="end by itself when the journey is over")
@click.option(
    "--contacts", default=2_000, show_default=True, help="how many contacts the sandbox's account holds"
)
@click.option(
    "--data", "folder", type=click.Path(path_type=Path), help="folder to use and keep; it is wiped first"
)
@click.pass_obj
def demo(place: Place, once: bool, contacts: int, folder: Path | None) -> None:
    """Play the main job on sandboxes: HubSpot to lists to a funnel to a relay, and every result back.

    With --json the last line is one JSON object with the sums.
    """
    from hub.demo.play import play

    if contacts < 1:
        raise HubError("a rehearsal needs at least one contact", "give --contacts a number above 0")
    sys.exit(play(folder, contacts=contacts, once=once, as_json=place.as_json))


COMMANDS = (init, schema, check, migrate, demo)
