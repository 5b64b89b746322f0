"""The limits of a relay's windows on a given day, its warm-up plan among them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from hub.config.settings import DomainLimits, RelayLimits, RelaySection, WarmUp


class Warming(NamedTuple):
    """Where a warm-up plan stands. `day` counts from 1 and is 0 before the start; `allowance` is None after the end."""

    day: int
    allowance: int | None


def warming(plan: WarmUp, now: datetime) -> Warming:
    """Where the plan stands at a moment of hub time; its days are UTC."""
    day = (now.astimezone(UTC).date() - plan.start).days + 1
    if day < 1:
        return Warming(0, 0)
    return Warming(day, plan.plan[day - 1] if day <= len(plan.plan) else None)


def relay_limits(section: RelaySection, now: datetime) -> dict[str, int]:
    """span -> mails, for the relay as a whole; see `hub.store.relays.SPANS`."""
    found = _spans(section.limits, section.limits.day)
    if section.warm_up and (allowance := warming(section.warm_up, now).allowance) is not None:
        found["date"] = min(allowance, found.get("date", allowance))
    return found


def receiver_limits(section: RelaySection, limits: DomainLimits) -> dict[str, int]:
    """span -> mails, for one receiver through this relay."""
    return _spans(limits, section.limits.day)


def has_windows(section: RelaySection) -> bool:
    """Whether the relay as a whole has any limit that workers share."""
    return section.warm_up is not None or bool(_spans(section.limits, "utc"))


def _spans(limits: RelayLimits | DomainLimits, day: str) -> dict[str, int]:
    spans = {
        "minute": limits.per_minute,
        "hour": limits.per_hour,
        "date" if day == "utc" else "day": limits.per_day,
    }
    return {span: limit for span, limit in spans.items() if limit is not None}
