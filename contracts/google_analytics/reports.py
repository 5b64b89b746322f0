"""Tables out of events, as the Data API v1beta makes them: all values are texts, fields without a value are left out.

Sources: the Data API's discovery document, "Dimensions & metrics", "Realtime dimensions and metrics", "Error responses".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from contracts.google_analytics.hits import Event

Json = dict[str, Any]
DEFAULT_LIMIT, MAX_LIMIT = 10_000, 250_000
MAX_DIMENSIONS, MAX_METRICS, MAX_DATE_RANGES = 9, 10, 4
SEE = "For a list of valid dimensions and metrics, see the API's schema page"
SHARED_FIELDS = frozenset(
    {"dimensions", "metrics", "dimensionFilter", "orderBys", "limit", "returnPropertyQuota"}
)
REPORT_FIELDS = SHARED_FIELDS | {"dateRanges", "offset", "keepEmptyRows", "property"}
REALTIME_FIELDS = SHARED_FIELDS | {"minuteRanges"}


class BadQuery(Exception):
    """400 INVALID_ARGUMENT with this text."""


class NotRebuilt(Exception):
    """Google may know it; this stand-in does not."""


@dataclass(frozen=True)
class Registered:
    """A custom dimension. Events that came before it was registered have no value in it, and never will."""

    name: str
    scope: str  # event or user
    since: datetime


@dataclass(frozen=True)
class Property:
    """What reports need to know of a property."""

    dimensions: Sequence[Registered]
    zone: ZoneInfo
    processing: timedelta = timedelta()  # until an event is in reports; 24 to 48 hours at Google


Pick = Callable[[Event], str]
Count = Callable[[list[Event]], int]


def _clients(events: Iterable[Event]) -> int:
    return len({e.client_id for e in events})


REALTIME_METRICS: dict[str, Count] = {
    "eventCount": len,
    "activeUsers": lambda events: _clients(e for e in events if e.active),
}
METRICS: dict[str, Count] = {**REALTIME_METRICS, "totalUsers": _clients}


def run_report(prop: Property, events: Sequence[Event], query: Json, now: datetime) -> Json:
    """`properties.runReport`. Raises `BadQuery` and `NotRebuilt`."""
    _only(query, REPORT_FIELDS)
    ranges = query.get("dateRanges") or []
    if not ranges:
        raise BadQuery("Please specify a date range.")
    if len(ranges) > MAX_DATE_RANGES:
        raise BadQuery(f"Requests are limited to {MAX_DATE_RANGES} date ranges.")
    ready = [e for e in events if e.reported and now - e.received_at >= prop.processing]
    groups: list[tuple[str, list[Event]]] = []
    today = now.astimezone(prop.zone).date()
    for number, wish in enumerate(ranges):
        start, end = _day(wish.get("startDate"), today), _day(wish.get("endDate"), today)
        if start > end:
            raise BadQuery(f"The start date {start} is after the end date {end}.")
        inside = [e for e in ready if start <= e.at.astimezone(prop.zone).date() <= end]
        groups.append((wish.get("name") or f"date_range_{number}", inside))
    table = _table(query, groups, _dimensions(prop, realtime=False), METRICS, extra="dateRange")
    table["metadata"] = {"currencyCode": "EUR", "timeZone": prop.zone.key}
    return {**table, "kind": "analyticsData#runReport"}


def run_realtime(prop: Property, events: Sequence[Event], query: Json, now: datetime) -> Json:
    """`properties.runRealtimeReport`: the last 30 minutes. Raises `BadQuery` and `NotRebuilt`."""
    _only(query, REALTIME_FIELDS)
    ranges = query.get("minuteRanges") or [{}]
    if len(ranges) > 1:
        raise NotRebuilt("more than one minute range")
    start, end = int(ranges[0].get("startMinutesAgo", 29)), int(ranges[0].get("endMinutesAgo", 0))
    if not 0 <= end <= start <= 29:
        raise BadQuery("Minute ranges lie between 29 and 0 minutes ago, the start before the end.")
    inside = [e for e in events if end <= (now - e.at) // timedelta(minutes=1) <= start]
    table = _table(query, [("", inside)], _dimensions(prop, realtime=True), REALTIME_METRICS, extra="")
    return {**table, "kind": "analyticsData#runRealtimeReport"}


def _only(query: Json, known: frozenset[str]) -> None:
    for name in query:
        if name not in known:
            raise NotRebuilt(f"the field {name}")


def _day(given: object, today: date) -> date:
    text = str(given or "")
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    if match := re.fullmatch(r"(\d+)daysAgo", text):
        return today - timedelta(days=int(match[1]))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadQuery(f"Invalid date {text!r}: use YYYY-MM-DD, NdaysAgo, yesterday or today.") from None


def _dimensions(prop: Property, *, realtime: bool) -> dict[str, Pick]:
    known: dict[str, Pick] = {"eventName": lambda e: e.name}
    if not realtime:
        known["date"] = lambda e: e.at.astimezone(prop.zone).strftime("%Y%m%d")
    for each in prop.dimensions:
        if each.scope == "user":
            known[f"customUser:{each.name}"] = _custom(each, lambda e: e.user_properties)
        elif not realtime:
            known[f"customEvent:{each.name}"] = _custom(each, lambda e: e.params)
    return known


def _custom(registered: Registered, values: Callable[[Event], Json]) -> Pick:
    def pick(event: Event) -> str:
        early = event.received_at < registered.since
        value = None if early else values(event).get(registered.name)
        return "(not set)" if value in (None, "") else str(value)

    return pick


# -- the table ----------------------------------------------------------------------------------------------------


def _table(
    query: Json,
    groups: Sequence[tuple[str, list[Event]]],
    known: dict[str, Pick],
    counts: dict[str, Count],
    extra: str,
) -> Json:
    names = _names(query.get("dimensions"), known, "dimension", MAX_DIMENSIONS)
    metrics = _names(query.get("metrics"), counts, "metric", MAX_METRICS)
    if not metrics:
        raise BadQuery("Please add at least one metric.")
    keep = _filter(query.get("dimensionFilter"), known)
    rows: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    for label, events in groups:
        bins: dict[tuple[str, ...], list[Event]] = {}
        for event in filter(keep, events):
            bins.setdefault(tuple(known[n](event) for n in names), []).append(event)
        tail = (label,) if len(groups) > 1 else ()
        rows += [(key + tail, tuple(counts[m](found) for m in metrics)) for key, found in bins.items()]
    headers = [*names, *([extra] if len(groups) > 1 else [])]
    rows = _ordered([r for r in rows if any(r[1])], query.get("orderBys") or [], headers, metrics)
    offset, limit = _number(query, "offset", 0), _number(query, "limit", DEFAULT_LIMIT)
    if limit < 1:
        raise BadQuery("The limit must be positive.")
    page = rows[offset : offset + min(limit, MAX_LIMIT)]
    table: Json = {
        "dimensionHeaders": [{"name": n} for n in headers],
        "metricHeaders": [{"name": m, "type": "TYPE_INTEGER"} for m in metrics],
        "rows": [
            {
                "dimensionValues": [{"value": v} for v in key],
                "metricValues": [{"value": str(n)} for n in values],
            }
            for key, values in page
        ],
        "rowCount": len(rows),
    }
    return {name: value for name, value in table.items() if value}


def _names(given: object, known: Iterable[str], kind: str, most: int) -> list[str]:
    names = [str(each.get("name", "")) for each in given] if isinstance(given, list) else []
    for name in names:
        if name not in known:
            raise BadQuery(f"Field {name} is not a valid {kind}. {SEE}.")
    if len(names) > most:
        raise BadQuery(f"Requests are limited to {most} {kind}s.")
    return names


def _number(query: Json, name: str, default: int) -> int:
    given = query.get(name, default)
    try:
        number = int(given)
    except (TypeError, ValueError):
        raise BadQuery(f"Invalid value at '{name}' (TYPE_INT64), {given!r}") from None
    if number < 0:
        raise BadQuery(f"The {name} must not be negative.")
    return number


def _ordered(
    rows: list[tuple[tuple[str, ...], tuple[int, ...]]],
    wishes: Sequence[Json],
    names: list[str],
    metrics: list[str],
) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Sorted as asked; unasked, the first metric's greatest come first."""
    for wish in reversed(wishes or [{"metric": {"metricName": metrics[0]}, "desc": True}]):
        if "metric" in wish:
            place = _place(wish["metric"].get("metricName"), metrics, "metric")
            rows = sorted(rows, key=lambda row: row[1][place], reverse=bool(wish.get("desc")))
        elif "dimension" in wish:
            place = _place(wish["dimension"].get("dimensionName"), names, "dimension")
            by = _sort_key(wish["dimension"].get("orderType"))
            rows = sorted(rows, key=lambda row: by(row[0][place]), reverse=bool(wish.get("desc")))
        else:
            raise NotRebuilt("an order that is neither by metric nor by dimension")
    return rows


def _place(name: object, among: list[str], kind: str) -> int:
    if name not in among:
        raise BadQuery(f"The {kind} {name} in orderBys is not among the report's {kind}s.")
    return among.index(str(name))


def _named(given: object, names: Sequence[str], default: str) -> str:
    """An enum's name. Google's own client sends its number; 0 is unspecified."""
    if isinstance(given, int) and 0 <= given <= len(names):
        return ("", *names)[given] or default
    return default if given is None else str(given)


def _sort_key(given: object) -> Callable[[str], Any]:
    keys: dict[str, Callable[[str], Any]] = {
        "ALPHANUMERIC": str,
        "CASE_INSENSITIVE_ALPHANUMERIC": str.lower,
        "NUMERIC": lambda v: (0, float(v)) if re.fullmatch(r"-?\d+(\.\d+)?", v) else (-1, 0.0),
    }
    order = _named(given, list(keys), "ALPHANUMERIC")
    if order not in keys:
        raise BadQuery(f"Invalid value at 'order_bys.dimension.order_type', {order!r}")
    return keys[order]


# -- filters ------------------------------------------------------------------------------------------------------

_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "EXACT": str.__eq__,
    "BEGINS_WITH": str.startswith,
    "ENDS_WITH": str.endswith,
    "CONTAINS": str.__contains__,
}


def _filter(wish: Json | None, known: dict[str, Pick]) -> Callable[[Event], bool]:
    if not wish:
        return lambda event: True
    if len(wish) != 1:
        raise BadQuery("A filter expression needs exactly one of andGroup, orGroup, notExpression, filter.")
    (kind, inner) = next(iter(wish.items()))
    if kind in ("andGroup", "orGroup"):
        parts = [_filter(each, known) for each in inner.get("expressions") or []]
        combine = all if kind == "andGroup" else any
        return lambda event: combine(part(event) for part in parts)
    if kind == "notExpression":
        part = _filter(inner, known)
        return lambda event: not part(event)
    if kind != "filter":
        raise NotRebuilt(f"the filter {kind}")
    return _leaf(inner, known)


def _leaf(wish: Json, known: dict[str, Pick]) -> Callable[[Event], bool]:
    name = str(wish.get("fieldName", ""))
    if name not in known:
        raise BadQuery(f"Field {name} is not a valid dimension. {SEE}.")
    pick = known[name]
    if (text := wish.get("stringFilter")) is not None:
        kind = _named(text.get("matchType"), list(_MATCHES), "EXACT")
        if (match := _MATCHES.get(kind)) is None:
            raise NotRebuilt(f"the match type {kind}")
        fold = _fold(text)
        value = fold(str(text.get("value", "")))
        return lambda event: match(fold(pick(event)), value)
    if (among := wish.get("inListFilter")) is not None:
        fold = _fold(among)
        values = {fold(str(v)) for v in among.get("values") or []}
        return lambda event: fold(pick(event)) in values
    raise NotRebuilt("a filter that is neither stringFilter nor inListFilter")


def _fold(wish: Json) -> Callable[[str], str]:
    return str if wish.get("caseSensitive") else str.lower
