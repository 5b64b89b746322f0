"""POST .../search: filters, one sort, an integer offset, and a wall at 10,000 results.

Range filters on the modified instant and the record id use the store's indexes; a finished result is kept
until the next write, so that paging does not search again. Source: HubSpot developer docs "Search".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

import msgspec

from contracts.hubspot.answers import Json, bad_request, field_of, iso, to_ms
from contracts.hubspot.properties import Property, ValueProblem, parse_instant
from contracts.hubspot.records import ObjectStore, Record

MAX_LIMIT, WALL, MAX_BODY = 200, 10_000, 3_000
MAX_GROUPS, MAX_FILTERS, MAX_ALL = 5, 6, 18
Test = Callable[[Record], bool]
Key = str | float
SPANS = {"EQ", "GT", "GTE", "LT", "LTE", "BETWEEN"}


def search(store: ObjectStore, request: Any, size_bytes: int, visible_ms: int | None = None) -> Json:
    """`{total, results, paging}` with records in `results`. `visible_ms` hides what the index has not seen yet."""
    if size_bytes > MAX_BODY:
        raise bad_request(f"The request body is longer than {MAX_BODY} characters")
    limit, after = _window(request)
    groups = _groups(request)
    found = _found(store, groups, _sort(request), str(field_of(request, "query", str, "") or ""), visible_ms)
    page = found[after : after + limit]
    body: Json = {"total": len(found), "results": page}
    if after + limit < len(found):
        body["paging"] = {"next": {"after": str(after + limit)}}
    return body


def _window(request: Any) -> tuple[int, int]:
    limit = field_of(request, "limit", int, 10) or 10
    if not 1 <= limit <= MAX_LIMIT:
        raise bad_request(f"limit must be between 1 and {MAX_LIMIT}, not {limit}")
    after = str(field_of(request, "after", (str, int), "0") or "0")  # type: ignore[arg-type]
    if not after.isdecimal() or int(after) >= 2**31:
        raise bad_request(f'Invalid input JSON: Cannot deserialize value of type `int` from String "{after}"')
    if int(after) + limit > WALL:
        raise bad_request(
            f"There was a problem with the request: no more than {WALL} results can be paged through"
        )
    return limit, int(after)


def _groups(request: Any) -> list[list[Json]]:
    groups = [field_of(g, "filters", list) for g in field_of(request, "filterGroups", list, []) or []]
    if (
        len(groups) > MAX_GROUPS
        or any(len(g) > MAX_FILTERS for g in groups)
        or sum(map(len, groups)) > MAX_ALL
    ):
        raise bad_request(f"Too many filters: {MAX_GROUPS} groups of {MAX_FILTERS}, {MAX_ALL} in all")
    return groups


def _sort(request: Any) -> tuple[str, bool]:
    """(property, descending). Sorts given as text are ignored, as HubSpot ignores them."""
    sorts = field_of(request, "sorts", list, []) or []
    if len(sorts) > 1:
        raise bad_request("Only one sort is supported")
    if not sorts or not isinstance(sorts[0], dict):
        return "", False
    return str(field_of(sorts[0], "propertyName", str)), sorts[0].get("direction") == "DESCENDING"


def _found(
    store: ObjectStore, groups: list[list[Json]], sort: tuple[str, bool], query: str, visible: int | None
) -> list[Record]:
    bounds: tuple[int | None, int | None] = (None, None)
    kept = groups
    if len(groups) == 1 and sort in (("hs_object_id", False), ("", False)):
        bounds, rest = _id_bounds(groups[0])
        kept = [rest] if rest else []
    key = msgspec.json.encode([kept, sort, query, visible])
    cached = store.search_cache.get(key)
    if cached is None or cached[0] != store.version:
        found = _sorted(store, _matching(store, kept, query, visible), sort)
        if len(store.search_cache) >= 8:
            store.search_cache.clear()
        cached = store.search_cache[key] = (store.version, found)
    records = cached[1]
    low, high = bounds
    if low is not None or high is not None:
        start = 0 if low is None else bisect_right(records, low, key=lambda r: r.number)
        end = len(records) if high is None else bisect_left(records, high, key=lambda r: r.number)
        return records[start : max(start, end)]
    return records


def _id_bounds(filters: list[Json]) -> tuple[tuple[int | None, int | None], list[Json]]:
    """Open bounds on the record id, and the filters that are none."""
    low: int | None = None
    high: int | None = None
    rest = []
    for f in filters:
        value = str(f.get("value", ""))
        if (
            f.get("propertyName") != "hs_object_id"
            or f.get("operator") not in ("GT", "GTE", "LT", "LTE")
            or not value.isdecimal()
        ):
            rest.append(f)
            continue
        number = int(value)
        if f["operator"][0] == "G":
            number -= f["operator"] == "GTE"
            low = number if low is None else max(low, number)
        else:
            number += f["operator"] == "LTE"
            high = number if high is None else min(high, number)
    return (low, high), rest


def _matching(store: ObjectStore, groups: list[list[Json]], query: str, visible: int | None) -> list[Record]:
    """All records that one of the groups lets through, in id order unless narrowed by the modified instant."""
    live = store.live
    if len(groups) == 1:
        span, rest = _modified_span(store, groups[0])
        numbers = [number for _, number in store.by_updated[span]] if span else store.order
        tests = [_test(store, f) for f in rest]
    else:
        numbers, tests = store.order, []
        alternatives = [[_test(store, f) for f in group] for group in groups]
        if alternatives:
            tests.append(lambda r: any(all(t(r) for t in group) for group in alternatives))
    if query:
        tests.append(_query_test(store, query))
    if visible is not None:
        tests.append(lambda r: r.updated_ms <= visible)
    records = [live[n] for n in numbers]
    for test in tests:
        records = [r for r in records if test(r)]
    return records


def _modified_span(store: ObjectStore, filters: list[Json]) -> tuple[slice | None, list[Json]]:
    """The stretch of the change index that range filters on the modified instant leave, and the other filters."""
    index, rest, narrowed = store.by_updated, [], False
    start, end = 0, len(index)
    for f in filters:
        if f.get("propertyName") != store.kind.modified or f.get("operator") not in SPANS:
            rest.append(f)
            continue
        narrowed, operator = True, f["operator"]
        low = _instant_ms(f.get("value"))
        high = _instant_ms(f.get("highValue")) if operator == "BETWEEN" else low
        if operator in ("EQ", "GT", "GTE", "BETWEEN"):
            start = max(start, bisect_left(index, (low + (operator == "GT"), -1)))
        if operator in ("EQ", "LT", "LTE", "BETWEEN"):
            end = min(end, bisect_left(index, (high + (operator != "LT"), -1)))
    return (slice(start, max(start, end)) if narrowed else None), rest


def _instant_ms(value: object) -> int:
    try:
        return to_ms(parse_instant(str(value)))
    except ValueProblem as e:
        raise bad_request(f"There was a problem with the request: {e.message}") from None


def _sorted(store: ObjectStore, records: list[Record], sort: tuple[str, bool]) -> list[Record]:
    name, descending = sort
    if name == store.kind.modified:
        return sorted(records, key=lambda r: (r.updated_ms, r.number), reverse=descending)
    if name in ("", "hs_object_id"):
        return sorted(records, key=lambda r: r.number, reverse=descending)
    prop = _known(store, name)
    have = [r for r in records if name in r.properties]
    have.sort(key=lambda r: (_comparable(prop, r.properties[name]), r.number), reverse=descending)
    return have + [r for r in records if name not in r.properties]


def _known(store: ObjectStore, name: object) -> Property:
    prop = store.properties.get(str(name))
    if prop is None:
        raise bad_request(
            f'There was a problem with the request: Property "{name}" does not exist',
            errors=[{"message": f"{name} does not exist", "code": "PROPERTY_DOESNT_EXIST"}],
        )
    return prop


def _comparable(prop: Property, text: str) -> Key:
    if prop.type == "number":
        return float(text)
    return text if prop.type in ("enumeration", "date", "datetime", "bool") else text.lower()


def _wanted(prop: Property, value: object) -> Key:
    """A filter's value in the form that stored values compare with."""
    text = str(value)
    try:
        if prop.type == "number":
            return float(text)
        if prop.type == "datetime":
            return iso(to_ms(parse_instant(text)))
        if prop.type == "date" and "-" not in text[1:]:
            return parse_instant(text).strftime("%Y-%m-%d")
    except (ValueError, ValueProblem):
        raise bad_request(
            f"There was a problem with the request: {text} is no {prop.type} for {prop.name}"
        ) from None
    return text if prop.type in ("enumeration", "bool") else text.lower()


def _test(store: ObjectStore, f: Json) -> Test:
    prop, operator = _known(store, field_of(f, "propertyName", str)), field_of(f, "operator", str)
    name = prop.name
    if operator == "HAS_PROPERTY":
        return lambda r: name in r.properties
    if operator == "NOT_HAS_PROPERTY":
        return lambda r: name not in r.properties
    if operator in ("IN", "NOT_IN"):
        return _among(prop, field_of(f, "values", list), operator == "IN")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        return _token(name, str(field_of(f, "value", (str, int))), operator == "CONTAINS_TOKEN")  # type: ignore[arg-type]
    low = _wanted(prop, field_of(f, "value", (str, int, float)))  # type: ignore[arg-type]
    high = _wanted(prop, field_of(f, "highValue", (str, int, float))) if operator == "BETWEEN" else low  # type: ignore[arg-type]
    compare: dict[str, Callable[[Any], bool]] = {
        "EQ": lambda v: v == low,
        "NEQ": lambda v: v != low,
        "GT": lambda v: v > low,
        "GTE": lambda v: v >= low,
        "LT": lambda v: v < low,
        "LTE": lambda v: v <= low,
        "BETWEEN": lambda v: low <= v <= high,
    }
    if operator not in compare:
        raise bad_request(
            f"Invalid input JSON: Cannot deserialize value of type `OperatorEnum` from String {operator}"
        )
    holds = compare[operator]
    return lambda r: name in r.properties and holds(_comparable(prop, r.properties[name]))


def _among(prop: Property, values: list[Any], inside: bool) -> Test:
    """IN compares a lower-cased text with the values as they were given: capitals never match."""
    name = prop.name
    wanted = {str(v) for v in values} if prop.type == "string" else {_wanted(prop, v) for v in values}
    return lambda r: name in r.properties and (_comparable(prop, r.properties[name]) in wanted) is inside


def _token(name: str, value: str, inside: bool) -> Test:
    wanted = value.strip("*").lower()
    return lambda r: name in r.properties and (wanted in r.properties[name].lower()) is inside


def _query_test(store: ObjectStore, query: str) -> Test:
    names = (
        "email",
        "firstname",
        "lastname",
        "phone",
        "company",
        "name",
        "domain",
        "dealname",
        "hs_email_subject",
    )
    searched = [n for n in names if n in store.properties]
    wanted = query.lower().split()
    return lambda r: all(any(w in r.properties.get(n, "").lower() for n in searched) for w in wanted)
