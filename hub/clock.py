"""Time as a parameter: what the hub takes for now, and how a rehearsal jumps over waits.

Two kinds of time are kept apart. `now()` is the hub's time: facts, waits, list windows. `wall()` is real
time: signatures, token expiry, anything that another machine also measures. Leases and retry pauses run on
the database's own clock and never ask this module.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What every stage asks for the time. Both answers are aware datetimes in UTC."""

    def now(self) -> datetime: ...

    def wall(self) -> datetime: ...


class SystemClock:
    """Real time, for production."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return datetime.now(UTC)


class SteppedClock:
    """Real time plus an offset that lives in a file, so that several processes jump together.

    The file holds one number, the offset in seconds. It survives kill -9 of every process that reads it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def offset_seconds(self) -> float:
        try:
            return float(self.path.read_text() or 0)
        except FileNotFoundError:
            return 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset_seconds())

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def jump(self, by: timedelta) -> None:
        """Move every reader of this file forward by `by` (replaced in one step, never half-written)."""
        new = self.offset_seconds() + by.total_seconds()
        partial = self.path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
        partial.write_text(repr(new))
        partial.replace(self.path)


class ManualClock:
    """A clock that moves only when a test says so."""

    def __init__(self, start: datetime | None = None) -> None:
        self.current = start or datetime(2026, 11, 24, 9, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.current

    def wall(self) -> datetime:
        return self.current

    def advance(self, **parts: float) -> None:
        """`clock.advance(days=3, minutes=1)`; the keywords are those of `timedelta`."""
        self.current += timedelta(**parts)


def from_environment() -> Clock:
    """`HUB_CLOCK=stepped:/path/to/file` gives a stepped clock; unset gives the system's."""
    setting = os.environ.get("HUB_CLOCK", "")
    if setting.startswith("stepped:"):
        return SteppedClock(Path(setting.removeprefix("stepped:")))
    return SystemClock()


UNITS = {
    "s": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip


MAX_DURATION = timedelta(days=36_525)
"""So that a moment plus or minus a duration is always one that Python and PostgreSQL can hold."""


def parse_duration(value: object) -> object:
    """`90s`, `5m`, `3 days`, `1 week` -> timedelta. Raises ValueError with the words to use."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(value))
    if not match or match[2] not in UNITS:
        raise ValueError(f"{value!r} is no duration; write for example 90s, 5m, 2 hours, 3 days or 1 week")
    seconds = float(match[1]) * UNITS[match[2]]
    if seconds > MAX_DURATION.total_seconds():
        raise ValueError(f"{value!r} is longer than 100 years; write a shorter duration")
    return timedelta(seconds=seconds)
