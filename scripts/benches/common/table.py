"""What every bench ends with: a table for people, one JSON object for machines; and the progress before it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

TABLE_COLUMNS = 140  # where output goes to a file


@dataclass(frozen=True)
class Column:
    """A figure of the rows: its key, its heading, and how many decimals are shown."""

    key: str
    title: str
    decimals: int = 0


@dataclass(frozen=True)
class Aim:
    """What a ratio is held to: it must reach `floor` and should reach `aim`; with `at_most`, stay under them."""

    floor: float | None = None
    aim: float | None = None
    at_most: bool = False

    def verdict(self, value: float) -> str:
        def reached(mark: float | None) -> bool:
            return mark is None or (value <= mark if self.at_most else value >= mark)

        if not reached(self.floor):
            return "missed"
        return "reached" if reached(self.aim) else "short of the aim"


class Said:
    """Progress on standard error: a line for each step, with the time since the start. Quiet steps follow each other
    on one line of a terminal."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._open = False

    def step(self, text: str) -> None:
        """A step that begins now."""
        self._end_line()
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def passing(self, text: str) -> None:
        """How far a long step is; shown only where it can be written over."""
        if self._terminal:
            print(
                f"\r[{time.monotonic() - self.started:6.1f} s] {text}\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )
            self._open = True

    def _end_line(self) -> None:
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr)
            self._open = False


def median(values: Iterable[float]) -> float:
    """The median, or nan of nothing."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def ratio(above: float | None, below: float | None) -> float | None:
    """`above / below` to three decimals; None where a figure is missing."""
    return round(above / below, 3) if above and below else None


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name
            )
    except OSError:
        pass  # not Linux
    return {
        "cpu": name, "cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def show(title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table. A row has a `name` and the columns' keys; what it lacks stays blank."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in columns:
        table.add_column(column.title, justify="right")
    for row in rows:
        table.add_row(str(row["name"]), *(_shown(row.get(column.key), column.decimals) for column in columns))
    if rows:
        _console().print(table)


def finish(
    bench: str,
    rows: Sequence[Mapping[str, Any]],
    ratios: Mapping[str, float | None],
    aims: Mapping[str, Aim],
    *,
    notes: Sequence[str] = (),
    as_json: bool = False,
    **more: Any,
) -> None:
    """Print the ratios with their aims, and the notes.

    With `as_json` the last line of standard output is one object: `bench`, `rows`, `ratios`, and what else is given.
    """
    table = Table(title="Ratios", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "now", "at least", "aim", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, value in ratios.items():
        aim = aims.get(name, Aim())
        floor = "" if aim.floor is None else f"{'< ' if aim.at_most else ''}{aim.floor:g}"
        wished = "" if aim.aim is None else f"{aim.aim:g}"
        verdict = "" if value is None or name not in aims else aim.verdict(value)
        table.add_row(name, "not measured" if value is None else f"{value:g}", floor, wished, verdict)
    _console().print(table)
    for note in notes:
        _console().print(f"- {note}", markup=False)
    if as_json:
        told = {"bench": bench, "rows": list(rows), "ratios": dict(ratios), "machine": machine(), **more}
        print(json.dumps(told), flush=True)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS, highlight=False)


def _shown(value: Any, decimals: int) -> str:
    if value is None:
        return ""
    return f"{value:,.{decimals}f}" if isinstance(value, int | float) else str(value)
