"""`python -m hub.sdk.conformance acme_case:AcmeCase --grade gold`: the report, and 1 where the grade is not reached."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import click

from hub.sdk.conformance.suite import report
from hub.sdk.conformance.verdict import LADDER, Grade


@click.command()
@click.argument("case", metavar="MODULE:CASE")
@click.option("--grade", type=click.Choice([g.value for g in LADDER]), help="fail unless it reaches this")
@click.option("--only", multiple=True, metavar="CHECK", help="run only this check (may be given again)")
@click.option("--json", "as_json", is_flag=True, help="print one JSON document instead of a table")
def main(case: str, grade: str | None, only: tuple[str, ...], as_json: bool) -> None:
    """Hold a connector to what it promises. CASE is a ConnectorCase or a RelayCase, found as Python finds modules."""
    sys.path.insert(0, str(Path.cwd()))
    module, _, name = case.partition(":")
    try:
        found = report(getattr(importlib.import_module(module), name), only or None)
    except (ImportError, AttributeError, LookupError) as error:
        raise click.BadParameter(f"{case}: {error}") from None
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else str(found))
    sys.exit(1 if found.failed or (grade and found.missing(Grade(grade))) else 0)


if __name__ == "__main__":
    main(prog_name="python -m hub.sdk.conformance")
