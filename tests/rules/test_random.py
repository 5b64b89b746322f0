"""Random rules over random people: PostgreSQL and a few lines of plain Python agree on whom they hold for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.rules import parse
from tests.rules.conftest import CATALOG, NOW, World

Person = dict[str, Any]
TEXTS = ["", "a", "A", "ab", "Berlin", "b%", "a_b", "it's", "Ä", "äb", "\\", "%(p0)s"]
NUMBERS = [-2, -0.5, 0, 1, 1.5, 3, 10, 1000]
HOURS = [-30, 0, 1, 24, 48, 49, 1000]
DAYS = ["2026-11-22", "2026-11-23", "2026-11-24", "1999-12-31"]


@dataclass(frozen=True)
class Made:
    """A rule's text, and what it means: true, false or None (unknown), as SQL has it."""

    text: str
    holds: Callable[[Person], bool | None]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def when(hours: int) -> datetime:
    return NOW - timedelta(hours=hours)


def midnight(day: str) -> datetime:
    return datetime.fromisoformat(day + "T00:00:00+00:00")


def known(test: Callable[[Any], bool], value: Any) -> bool | None:
    return None if value is None else test(value)


@st.composite
def people(draw: st.DrawFn) -> list[Person]:
    def maybe(values: list[Any]) -> Any:
        return draw(st.sampled_from([None, *values]))

    return [
        {
            "city": maybe(TEXTS), "company": maybe(TEXTS), "created_at": maybe(HOURS),
            "nick": maybe(TEXTS), "score": maybe(NUMBERS), "vip": maybe([True, False]), "birthday": maybe(DAYS),
            "seen_at": maybe(HOURS), "tags": maybe([[], ["a"], ["a", "Ä"], ["it's", "ab"]]),
        }
        for _ in range(draw(st.integers(1, 6)))
    ]  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, Callable[[Person], str | None]]:
    field = draw(st.sampled_from(["city", "company", "nick"]))
    wrapped = draw(st.sampled_from(["", "", "lower", "upper"]))
    if wrapped:
        change = str.lower if wrapped == "lower" else str.upper
        return f"{wrapped}({field})", lambda p: None if p[field] is None else change(p[field])
    return field, lambda p: p[field]


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, Callable[[Person], float | None]]:
    kind = draw(st.sampled_from(["score", "length", "days_since"]))
    if kind == "score":
        return "score", lambda p: p["score"]
    if kind == "length":
        text, value = draw(texts())
        return f"length({text})", lambda p: known(len, value(p))  # type: ignore[arg-type,return-value]
    field = draw(st.sampled_from(["created_at", "seen_at", "birthday"]))
    if field == "birthday":
        return (
            "days_since(birthday)",
            lambda p: p["birthday"] and (NOW - midnight(p["birthday"])).total_seconds() / 86400,
        )
    return f"days_since({field})", lambda p: None if p[field] is None else p[field] / 24


@st.composite
def comparisons(draw: st.DrawFn) -> Made:
    kind = draw(st.sampled_from(["text", "number", "boolean", "time", "date"]))
    literal: str
    read: Callable[[Person], Any]
    if kind == "text":
        left, read = draw(texts())
        value: Any = draw(st.sampled_from(TEXTS))
        literal = quoted(value)
    elif kind == "number":
        left, read = draw(numbers())
        value = draw(st.sampled_from(NUMBERS))
        literal = str(value)
    elif kind == "boolean":
        left, read = "vip", lambda p: p["vip"]
        value = draw(st.booleans())
        literal = str(value).lower()
    elif kind == "time":
        left, read = draw(
            st.sampled_from(
                [
                    ("created_at", lambda p: known(when, p["created_at"])),
                    ("seen_at", lambda p: known(when, p["seen_at"])),
                ]
            )
        )
        value = when(draw(st.sampled_from(HOURS)))
        literal = quoted(value.isoformat())
    else:
        left, read = "birthday", lambda p: p["birthday"]
        value = draw(st.sampled_from(DAYS))
        literal = draw(st.sampled_from(["", "DATE "])) + quoted(value)
    signs = ["=", "<>", "!="] if kind == "boolean" else ["=", "<>", "!=", "<", "<=", ">", ">="]
    sign = draw(st.sampled_from(signs))
    tests: dict[str, Callable[[Any], bool]] = {
        "=": lambda x: x == value, "<": lambda x: x < value, "<=": lambda x: x <= value,
        ">": lambda x: x > value, ">=": lambda x: x >= value,
    }  # fmt: skip
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    text = draw(st.sampled_from([f"{left} {sign} {literal}", f"{literal} {turned} {left}"]))
    if sign in ("<>", "!="):
        return Made(text, lambda p: read(p) != value)
    return Made(text, lambda p: known(tests[sign], read(p)))


def like(pattern: str, *, any_case: bool) -> Callable[[str], bool]:
    found, escaped = "", False
    for char in pattern:
        if escaped or char not in "\\%_":
            found, escaped = found + re.escape(char), False
        elif char == "\\":
            escaped = True
        else:
            found += ".*" if char == "%" else "."
    compiled = re.compile(found, re.DOTALL | (re.IGNORECASE if any_case else 0))
    return lambda text: compiled.fullmatch(text) is not None


@st.composite
def others(draw: st.DrawFn) -> Made:
    negated = draw(st.booleans())
    word = "NOT " if negated else ""

    def turned(test: Callable[[Person], bool | None]) -> Callable[[Person], bool | None]:
        return (lambda p: not test(p)) if negated else test

    match draw(st.sampled_from(["like", "in", "between", "null", "is", "field", "tags", "tags_in", "both"])):
        case "like":
            left, read = draw(texts())
            pattern = draw(st.sampled_from(["%", "a%", "%b", "_", "a\\_b", "%\\%", "A_", "Ä%", "%'%", ""]))
            any_case = draw(st.booleans())
            test = like(pattern, any_case=any_case)
            text = f"{left} {word}{'ILIKE' if any_case else 'LIKE'} {quoted(pattern)}"
            return Made(text, turned(lambda p: known(test, read(p))))
        case "in":
            left, read = draw(texts())
            values = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3))
            return Made(
                f"{left} {word}IN ({', '.join(map(quoted, values))})",
                turned(lambda p: known(lambda x: x in values, read(p))),
            )
        case "between":
            left, number = draw(numbers())
            low, high = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(NUMBERS))
            return Made(
                f"{left} {word}BETWEEN {low} AND {high}",
                turned(lambda p: known(lambda x: low <= x <= high, number(p))),
            )
        case "null":
            field = draw(st.sampled_from(["city", "nick", "score", "vip", "birthday", "created_at", "tags"]))
            blank = (None,) if field in ("score", "vip") else (None, "", [])
            return Made(f"{field} IS {word}NULL", turned(lambda p: p[field] in blank))
        case "is":
            value = draw(st.booleans())
            return Made(f"vip IS {word}{str(value).upper()}", turned(lambda p: p["vip"] is value))
        case "field":
            return Made(f"{word}vip", turned(lambda p: bool(p["vip"])))
        case "tags":
            tag = draw(st.sampled_from(TEXTS))
            return Made(
                f"tags {'<>' if negated else '='} {quoted(tag)}", turned(lambda p: tag in (p["tags"] or ()))
            )
        case "tags_in":
            tags = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3))
            return Made(
                f"tags {word}IN ({', '.join(map(quoted, tags))})",
                turned(lambda p: any(tag in (p["tags"] or ()) for tag in tags)),
            )
        case _:
            return Made(
                "city = nick", lambda p: None if None in (p["city"], p["nick"]) else p["city"] == p["nick"]
            )


def joined(word: str, parts: list[Made]) -> Made:
    def holds(person: Person) -> bool | None:
        found = [part.holds(person) for part in parts]
        end = word == "OR"
        if end in found:
            return end
        return None if None in found else not end

    return Made(f" {word} ".join(f"({part.text})" for part in parts), holds)


def extended(inner: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    return st.one_of(
        st.builds(joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=4)),
        st.builds(lambda part: Made(f"NOT ({part.text})", lambda p: not part.holds(p)), inner),
    )


RULES = st.recursive(st.one_of(comparisons(), others()), extended, max_leaves=8)


def stored(number: int, one: Person) -> dict[str, Any]:
    own = {name: one[name] for name in ("nick", "score", "vip", "birthday", "tags") if one[name] is not None}
    if one["seen_at"] is not None:
        own["seen_at"] = when(one["seen_at"]).isoformat()
    return {
        "id": number, "city": one["city"], "company": one["company"], "fields": own, "state": "live",
        "created_at": None if one["created_at"] is None else when(one["created_at"]).isoformat(),
        "changed_at": NOW.isoformat(),
    }  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(rule=RULES, persons=people())
def test_a_random_rule_holds_for_whom_python_says(world: World, rule: Made, persons: list[Person]) -> None:
    made = parse(rule.text, CATALOG)
    numbered = dict(enumerate(persons, 1_000_001))
    with world.conn.transaction(force_rollback=True):
        world.conn.execute(
            "INSERT INTO contact SELECT * FROM jsonb_populate_recordset(NULL::contact, %s::jsonb)",
            [json.dumps([stored(number, one) for number, one in numbered.items()])],
        )
        found = world.conn.execute(
            made.select(only_contacts=True).encode(), made.values(NOW, contacts=list(numbered))
        ).fetchall()
    assert {n for (n,) in found} == {n for n, one in numbered.items() if rule.holds(one) is True}
