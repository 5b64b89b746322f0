"""Addresses out of a CSV file: every row that is none is told with its line, and the others are taken."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from hub.errors import HubError
from hub.model import Rejected
from hub.rules.reading import nearest

ADDRESS = re.compile(r"[^\s@<>,;\"]{1,64}@[^\s@<>,;\"]+\.[^\s@<>,;\"]+")
NAMES = ("email", "e-mail", "e_mail", "mail", "email address", "e-mail address")
DELIMITERS = ",;\t|"
csv.field_size_limit(1_000_000)


def addresses(file: Path, column: str | None) -> tuple[list[str], list[Rejected]]:
    """(each address once, in lower case; rows without one). UTF-8, the columns separated by comma, semicolon, tab or |.

    `column` names the column; without it the one that is called email. A file of one column needs no heading. Raises
    HubError when the file cannot be read or has no such column.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            text = stream.read()
    except UnicodeDecodeError as error:
        raise HubError(f"byte {error.start:,} is not UTF-8", "save the file as UTF-8", str(file)) from None
    except OSError as error:
        raise HubError(f"it cannot be read: {error.strerror}", "check the path", str(file)) from None
    heading = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=heading.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=False)
    found: dict[str, None] = {}
    bad: list[Rejected] = []
    place: int | None = None
    try:
        for row in reader:
            if place is None:
                place = _place(row, column, file)
                if place >= 0:
                    continue
                place = 0
            if not any(cell.strip() for cell in row):
                continue
            value = row[place].strip().lower() if place < len(row) else ""
            if len(value) <= 254 and ADDRESS.fullmatch(value) and "\x00" not in value:
                found[value] = None
            else:
                bad.append(_rejected(reader.line_num, value))
    except csv.Error as error:
        raise HubError(f"it is no CSV: {error}", "save it as CSV anew", f"{file}:{reader.line_num}") from None
    return list(found), bad


def _place(heading: Sequence[str], column: str | None, file: Path) -> int:
    """Which column holds the addresses; -1 when there is but one and no heading."""
    names = [name.strip().lower() for name in heading]
    for wanted in [column.strip().lower()] if column else NAMES:
        if wanted in names:
            return names.index(wanted)
    if column is None and len(names) == 1 and ADDRESS.fullmatch(names[0]):
        return -1
    what = f"there is no column {column!r}" if column else "no column is called email"
    raise HubError(what, f"give --column; {nearest(column or 'email', names)}", f"{file}:1")


def _rejected(line: int, value: str) -> Rejected:
    what = f"{value[:100]!r} is no e-mail address" if value else "there is no e-mail address"
    return Rejected(
        object="address",
        id=f"line {line}",
        code="NO_ADDRESS",
        message=what,
        fix="mend the row and import it again",
    )
