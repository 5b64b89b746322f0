"""Words on consent out of a CSV file: every row that says none is told with its line, and the others are taken."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from hub.errors import HubError
from hub.lists.csv_file import ADDRESS, DELIMITERS
from hub.model import ConsentHow, ConsentSource, Rejected
from hub.rules.reading import nearest
from hub.store.consent import Statement

COLUMNS = ("email", "purpose", "status", "at", "proof", "source")
SAID = {"in": "in", "granted": "in", "out": "out", "withdrawn": "out"}


def statements(
    file: Path, purposes: Collection[str], *, now: datetime
) -> tuple[list[Statement], list[Rejected]]:
    """(what the rows say, rows that say nothing). UTF-8, the columns separated by comma, semicolon, tab or |.

    The heading names `email`, `purpose` and `status` (granted or withdrawn), and where they are known `at` (ISO 8601, when
    it was said), `proof` and `source` (else the file's name). A row without `at` says nothing of when: it never lifts an
    opt-out. Raises HubError when the file cannot be read or has not these columns.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HubError(f"byte {error.start:,} is not UTF-8", "save the file as UTF-8", str(file)) from None
    except OSError as error:
        raise HubError(f"it cannot be read: {error.strerror}", "check the path", str(file)) from None
    heading = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter=max(DELIMITERS, key=heading.count))
    said: list[Statement] = []
    bad: list[Rejected] = []
    names: list[str] = []
    try:
        for row in reader:
            if not names:
                names = _columns(row, file)
            elif any(cell.strip() for cell in row):
                values = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
                try:
                    said.append(_statement(values, purposes, file.name, now))
                except HubError as error:
                    bad.append(
                        Rejected(object="consent", id=f"line {reader.line_num}", code="BAD_ROW",
                                 message=error.what, fix=error.fix)
                    )  # fmt: skip
    except csv.Error as error:
        raise HubError(f"it is no CSV: {error}", "save it as CSV anew", f"{file}:{reader.line_num}") from None
    if not names:
        raise HubError("it is empty", f"its first line names {', '.join(COLUMNS)}", str(file))
    return said, bad


def _columns(heading: list[str], file: Path) -> list[str]:
    names = [name.strip().lower() for name in heading]
    for wanted in COLUMNS[:3]:
        if wanted not in names:
            what = f"no column is called {wanted}"
            raise HubError(
                what, f"the first line names {', '.join(COLUMNS)}; {nearest(wanted, names)}", f"{file}:1"
            )
    return names


def _statement(values: Mapping[str, str], purposes: Collection[str], source: str, now: datetime) -> Statement:
    address = values.get("email", "").lower()
    if len(address) > 254 or "\x00" in address or not ADDRESS.fullmatch(address):
        raise HubError("there is no e-mail address in it", "mend the row and import it again")
    purpose = values.get("purpose", "")
    if purpose != "*" and purpose not in purposes:
        raise HubError(f"unknown purpose {purpose[:60]!r}", nearest(purpose, purposes))
    status = SAID.get(values.get("status", "").lower())
    if status is None:  # also a blank: it says nothing, and least of all yes
        raise HubError("its status is neither granted nor withdrawn", "mend the row and import it again")
    at = said_at(values["at"]) if values.get("at") else None
    if at is not None and at > now:
        raise HubError("it was said in the future", "correct the time in `at`")
    if purpose == "*" and status == "in":
        raise HubError("nobody consents to everything", "name the purpose")
    return Statement(
        address, purpose, status, values.get("source") or source, at or now, None, values.get("proof", "").replace("\x00", ""),
        ConsentSource.IMPORT, ConsentHow.IMPORTED, dated=at is not None, recorded_at=now,
    )  # fmt: skip


def said_at(text: str) -> datetime:
    """A time as a person writes it, UTC where it names no zone. Raises HubError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise HubError(f"{text[:40]!r} is no time", "write for example 2026-11-24T09:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
