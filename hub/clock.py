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
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones


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


def parse_speed(value: object) -> object:
    """`5000 per hour` -> mails a second. Raises ValueError with the words to use."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:per|/|an?)\s*([a-z]+)\s*", str(value))
    if not match or match[2] not in UNITS or not float(match[1]):
        raise ValueError(f"{value!r} is no speed; write for example 10 per second or 5000 per hour")
    return float(match[1]) / UNITS[match[2]]


def parse_wall_time(value: object) -> object:
    """`2026-12-01 09:00` -> a datetime without a zone. Raises ValueError with the words to use."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is not None or not 1970 < value.year < 9999:
        raise ValueError("this is no date and time of day; write for example 2026-12-01 09:00")
    return value


# --- clocks on walls -------------------------------------------------------------------------------------------


@cache
def _zones() -> dict[str, str]:
    """IANA names by how they are compared: HubSpot, for one, writes `europe_slash_vienna`."""
    return {name.lower(): name for name in available_timezones()}


@lru_cache(10_000)  # what contacts hold has no end
def zone_named(text: str) -> ZoneInfo | None:
    """The IANA zone that a text means; None when it means none."""
    name = _zones().get(text.strip().lower().replace("_slash_", "/"))
    return ZoneInfo(name) if name else None


@cache
def _zones_of_countries() -> dict[str, list[ZoneInfo]]:
    """ISO 3166-1 code -> the zones of that country, by the time zone database's zone.tab."""
    found: dict[str, list[ZoneInfo]] = {}
    for line in (resources.files("tzdata") / "zoneinfo" / "zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            country, _, name, *_ = line.split("\t")
            found.setdefault(country, []).append(ZoneInfo(name))
    return found


def moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks of a zone show `wall`, in UTC: of two such moments the first, and where they skip it (the hour that
    summer time takes) the first one after it."""
    first = wall.replace(tzinfo=zone, fold=0)
    at = first.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    # Skipped. Read with the offset after the change it lies before the change, with the one before the change after it.
    low, high = sorted((at, wall.replace(tzinfo=zone, fold=1).astimezone(UTC)))
    offset = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == offset else (low, middle)
    return high.replace(microsecond=0)


def moment_for(wall: datetime, time_zone: str, country: str) -> datetime | None:
    """When it is `wall` for a person of whom so much is known. A country answers only if all its clocks agree then;
    None when nobody can tell."""
    if (zone := zone_named(time_zone)) is not None:
        return moment(wall, zone)
    moments = {moment(wall, zone) for zone in _zones_of_countries().get(country.strip().upper(), ())}
    return moments.pop() if len(moments) == 1 else None
