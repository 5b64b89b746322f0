"""`hub preview`: a message as one contact would get it, or against a whole list. Sends and keeps nothing."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click

from hub.cli import coverage
from hub.cli.place import Place, print_table
from hub.errors import HubError

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("message")
@click.argument("email", required=False)
@click.option(
    "--sample", type=FILE, help="a made-up contact instead, as JSON: needs no database and no secrets"
)
@click.option("--html", type=FILE, help="write the HTML part here, with its images inside")
@click.option("--eml", type=FILE, help="write the whole mail here, unsigned")
@click.option("--browser", is_flag=True, help="show the HTML part in a browser")
@click.option(
    "--list",
    "list_name",
    metavar="LIST",
    help="tell of everybody on a list: what they lack, whose mail cannot be composed, languages and sizes",
)
@click.option("--missing", metavar="FIELD", help="with --list: everybody for whom this field is blank")
@click.option("--csv", "csv_file", type=FILE, help="with --missing: write them here")
@click.option(
    "--compose",
    default=1_000,
    show_default=True,
    type=click.IntRange(0),
    help="with --list: compose the mails of so many, drawn at random, beside the extremes",
)
@click.pass_obj
def preview(
    place: Place, message: str, email: str | None, sample: Path | None, html: Path | None, eml: Path | None, browser: bool,
    list_name: str | None, missing: str | None, csv_file: Path | None, compose: int,
) -> None:  # fmt: skip
    """Show MESSAGE as the contact with the address EMAIL would get it now, or what a whole list lacks for it.

    Links lead straight to where they lead; the unsubscribe link does nothing.
    """
    from hub.jobs import preview as previews

    if sum(each is not None for each in (email, sample, list_name)) != 1:
        raise HubError("give an address, --sample or --list, and one of them", "see `hub preview --help`")
    if list_name is None and (missing or csv_file):
        raise HubError("--missing and --csv are about a list", "add --list LIST")
    if list_name is not None and (html or eml or browser):
        raise HubError("--html, --eml and --browser are about one mail", "give an address instead of --list")
    if csv_file is not None and missing is None:
        raise HubError("--csv writes who lacks a field", "add --missing FIELD")
    if list_name is not None and missing is not None:
        coverage.missing(place, message, list_name, missing, csv_file)
        return
    if list_name is not None:
        report = place.run(lambda runtime: previews.for_list(runtime, message, list_name, compose=compose))
        place.show(report, lambda: _report(report))
        return
    if sample is not None:
        found = _of_sample(place, message, sample)
    else:
        found = place.run(lambda runtime: previews.for_contact(runtime, message, str(email)))
    mail, page = found.pop("eml"), found.pop("page")
    if eml is not None:
        _write(eml, mail)
    if html is not None:
        _write(html, page.encode())
    if browser:
        with tempfile.NamedTemporaryFile(prefix="mailyard-", suffix=".html", delete=False) as file:
            file.write(page.encode())
        click.launch(file.name)
        click.echo(f"shown in a browser: {file.name}", err=True)
    place.show(found, lambda: _tables(found))


def _report(found: dict[str, Any]) -> None:
    rows = [{"reason": reason, "people": count} for reason, count in found["excluded"].items()]
    click.echo(f"{found['message']} to {found['list']}: {found['recipients']:,} recipients")
    print_table("Would not get it", {"reason": "reason", "people": "people"}, rows, empty="nobody")
    coverage.tables(found)


def _of_sample(place: Place, message: str, sample: Path) -> dict[str, Any]:
    from hub.clock import from_environment
    from hub.config import load
    from hub.jobs import preview as previews

    try:
        contact = json.loads(sample.read_bytes())
    except OSError as error:
        raise HubError(f"{sample} cannot be read: {error.strerror}", "check the path") from None
    except ValueError as error:
        raise HubError(f"{sample} is no JSON: {error}", "mend it") from None
    if not isinstance(contact, dict):
        raise HubError(f"{sample} holds no contact", 'write {"email": "ann@example.com", ...}')
    config = load(place.config, dict(os.environ), with_secrets=False)
    return previews.for_sample(config, message, contact, now=from_environment().now())


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise HubError(f"{file} cannot be written: {error.strerror}", "check the path") from None


def _tables(found: dict[str, Any]) -> None:
    rows = [{"what": name, "value": value} for name, value in found["headers"].items()]
    rows += [{"what": what, "value": value} for what, value in _facts(found).items() if value]
    columns = {"what": "what", "value": "value"}
    print_table(f"{found['message']} for {found['email']}", columns, rows)
    fields = [
        {**row, "remark": ("blank" + (": the template sees to it" if row["seen_to"] else "")) if row["blank"] else ""}
        for row in found["fields"]
    ]  # fmt: skip
    columns = {"field": "field", "value": "value", "remark": ""}
    print_table("Fields that it uses", columns, fields, empty="none")
    click.echo(f"\n{found['text']}")


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    language = found["language"] or "that of the message itself"
    wished = f", for {found['chosen_for'] or 'no language'}" if found["chosen_for"] is not None else ""
    clipped = ": Gmail cuts it off, see `clipped` in docs/messages.md" if found["clipped"] else ""
    return {
        "would get it": f"no: {found['excluded']}" if found["excluded"] else "yes" if found["contact_id"] else "",
        "language": f"{language}{wished}",
        "preheader": found["preheader"],
        "attachments": [f"{each['name']} ({each['bytes']:,} bytes)" for each in found["attachments"]],
        "images": [f"{each['name']} ({each['bytes']:,} bytes)" for each in found["images"]],
        "size": f"{found['size_bytes']:,} bytes",
        "HTML": f"{found['html_bytes']:,} bytes{clipped}",
        **{
            f"{kind} are counted": f"{'yes' if seen['on'] else 'no'}: {seen['why']}"
            for kind, seen in found["tracking"].items()
        },
        "others with the address": ", ".join(f"contact {id}" for id in found["others"]),
    }  # fmt: skip


COMMANDS = (preview,)
