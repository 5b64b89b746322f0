"""CSV files for spreadsheets, which would take a value that begins like a formula for one and run it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from hub.errors import HubError

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Rows(Protocol):
    """Takes one row."""

    def __call__(self, row: Sequence[Any]) -> None: ...


@contextmanager
def written(file: Path, headings: Sequence[str]) -> Iterator[Rows]:
    """A CSV file (UTF-8, RFC 4180) that is there when the block ends. Raises HubError where it cannot be written."""
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(headings)
            yield lambda row: writer.writerow([safe(value) for value in row])
    except OSError as error:
        raise HubError(f"{file} cannot be written: {error.strerror}", "check the path") from None


def safe(value: Any) -> Any:
    """A text that begins like a formula gets an apostrophe before it, as OWASP advises; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINNINGS) else value
