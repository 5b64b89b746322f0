"""What a list lacks for a message, as tables and as CSV: for `hub preview --list` and `hub campaigns plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hub.cli import spreadsheet
from hub.cli.place import Place, print_table

SHOWN = 20
"""So many records a table shows; --json and --csv have them all."""


def tables(found: dict[str, Any]) -> None:
    """The report of `hub.mail.coverage`."""
    fields = [
        {
            **row, "share": f"{row['blank'] / row['recipients']:.1%}" if row["recipients"] else "",
            "remark": ("the template sees to it" if row["seen_to"] else "prints nothing there") if row["blank"] else "",
            "examples": [_named(each) for each in row["examples"]],
        }
        for row in found["fields"]
    ]  # fmt: skip
    columns = {"field": "field", "blank": "blank", "share": "of", "remark": "then", "examples": "for example"}
    print_table("Fields that it uses", columns, fields, empty="none")
    if len(found["languages"]) > 1 or any(row["language"] for row in found["languages"]):
        rows = [{**row, "language": row["language"] or "that of the message"} for row in found["languages"]]
        print_table("Languages", {"language": "language", "recipients": "recipients"}, rows)
    rows = [{**row, "examples": [_named(each) for each in row["examples"]]} for row in found["rejected"]]
    columns = {
        "reason": "reason",
        "mails": "tried",
        "likely": "likely of all",
        "blank": "all lack",
        "examples": "for example",
    }
    print_table("Cannot be composed", columns, rows, empty="nobody's mail, as far as it was tried")
    click.echo(_of_size(found["html"]))
    click.echo(_of_sample(found["composed"], found["recipients"]))


def _named(record: dict[str, Any]) -> str:
    ids = "".join(f", {connection} {id}" for connection, id in record.get("records", {}).items())
    return f"{record['email']} (contact {record['contact_id']}{ids})"


def _of_size(html: dict[str, Any]) -> str:
    if html["largest_contact_id"] is None:
        return "HTML: no mail was composed"
    limit = f"{html['limit_bytes'] / 1000:,.0f} KB, which is all that Gmail shows"
    over = f"about {html['clipped_likely']:,} exceed {limit}" if html["clipped"] else f"none exceeds {limit}"
    return f"HTML: at most {html['largest_bytes']:,} bytes (contact {html['largest_contact_id']}); {over}"


def _of_sample(composed: dict[str, Any], recipients: int) -> str:
    if composed["everybody"]:
        return f"The mails of all {recipients:,} recipients were composed."
    return (
        f"Blanks and languages are counted of all {recipients:,} recipients. Mails were composed of {composed['mails']:,}:"
        f" {composed['drawn']:,} drawn at random, {composed['of_patterns']:,} so that each of {composed['patterns']:,}"
        f" patterns of blanks is there, and the {composed['longest']:,} with the longest values."
    )


def missing(place: Place, message: str, list_name: str, field: str, file: Path | None) -> None:
    """Everybody on a list who lacks a field: as a table, as JSON, or as CSV into a file."""
    from hub.jobs import preview as previews

    rows: list[dict[str, Any]] = []
    if file is None:
        place.run(lambda runtime: previews.lacking(runtime, message, list_name, field, rows.append))
        place.show(rows, lambda: _table(rows, list_name, field))
        return
    count = 0
    with spreadsheet.written(file, ("contact_id", "email", "name", "records")) as add:

        def write(row: dict[str, Any]) -> None:
            nonlocal count
            count += 1
            ids = " ".join(f"{connection}:{id}" for connection, id in row["records"].items())
            add((row["contact_id"], row["email"], row["name"], ids))

        place.run(lambda runtime: previews.lacking(runtime, message, list_name, field, write))
    place.show({"file": str(file), "records": count}, lambda: click.echo(f"{file}: {count:,} records"))


def _table(rows: list[dict[str, Any]], list_name: str, field: str) -> None:
    columns = {"contact_id": "contact", "email": "address", "name": "name", "records": "records"}
    print_table(f"On {list_name} without {field}", columns, rows[:SHOWN], empty="nobody")
    if len(rows) > SHOWN:
        click.echo(f"and {len(rows) - SHOWN:,} more: --json or --csv FILE has them all")
