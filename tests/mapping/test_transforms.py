"""Every transform and type with a blank, good values and bad ones, by way of a mapping that uses it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hub.document import load
from hub.mapping import Mapped, build
from hub.mapping.transforms import BY_TYPE, PLAIN, TAKING
from hub.model import FieldType

BAD = object()


def pulled(entry: str, value: Any) -> Mapped:
    mapping = build([load(Path("m.yaml"), f"contact:\n  x: {entry}\n")])
    return mapping.pull("contact")({"v": value} if value is not ... else {})


TRANSFORMS: dict[str, list[tuple[Any, Any]]] = {
    "trim": [("  a b \n", "a b"), ("   ", None), ("a", "a"), (5, "5")],
    "lower": [("ÄB", "äb"), (True, "true")],
    "upper": [("äb", "ÄB"), ("straße", "STRASSE")],
    "title": [("ann-marie o", "Ann-Marie O")],
    "country_code": [
        ("de", "DE"), ("DE", "DE"), (" Germany ", "DE"), ("ÖSTERREICH", "AT"), ("United Kingdom", "GB"), ("Atlantis", "Atlantis"),
        ("D1", "D1"), (5, "5"),
    ],
    "squeeze": [("  a \t b\n", "a b"), ("   ", None)],
    "digits": [("a1-2", "12"), ("none", None), (5, "5")],
    "phone": [
        ("+43 (0)660 12-3", "+43660123"), ("0043660", "+43660"), ("0660/123", "0660123"),
        ("1+2", "12"), ("-", None),
    ],
    "domain": [("Ann@Example.COM", "example.com"), ("https://www.a.example:8080/x?y@z", "a.example"), ("a.example", "a.example")],
    "language_tag": [("DE", "de"), ("de_AT", "de-AT"), ("pt-br", "pt-BR"), ("zh-Hant-tw", "zh-Hant-TW"), (" en ", "en")],
}  # fmt: skip

TAKEN: list[tuple[str, Any, Any]] = [
    ("{blank_if: [n/a, '-']}", " N/A ", None), ("{blank_if: none}", "None", None), ("{blank_if: none}", "nonesuch", "nonesuch"),
    ("{replace: {a: b, b: a, ab: x}}", "abab ba", "xx ab"),
    ("{replace: {'.': ''}}", "a.b.", "ab"), ("{replace: {a: ''}}", "aa", None),
    ("{before: '@'}", "ann@x", "ann"), ("{before: '@'}", "ann", "ann"), ("{before: '@'}", "@x", None),
    ("{after: '@'}", "ann@x@y", "x@y"), ("{after: '@'}", "ann", None), ("{cut: 3}", "äöüß", "äöü"),
    ("{join: '+'}", ["a", "b"], "a+b"),
    ("{join: '+'}", "a", "a"), ("{date_from: '%d.%m.%Y'}", " 24.11.2026 ", "2026-11-24"),
    ("{date_from: '%d.%m.%Y'}", "2026-11-24", BAD), ("[{split: ','}, {join: '|'}]", "a, b,,c", "a|b|c"),
    ("[{split: ','}, upper, {blank_if: B}, {join: '|'}]", "a,b", "A"), ("{split: ','}", " , ", None),
]  # fmt: skip

TYPES: dict[str, list[tuple[Any, Any]]] = {
    "text": [("a", "a"), (5, "5"), (True, "true"), (False, "false"), ("a\x00b", BAD)],
    "enum": [("a", "a"), ("a\x00b", BAD)],
    "number": [
        ("1", 1), (" 1.5 ", 1.5), ("-0.25", -0.25), ("1e3", 1000), (7, 7), (7.5, 7.5), ("2026.0", 2026), ("1,5", BAD),
        ("many", BAD), ("NaN", BAD), ("-Infinity", BAD), ("1e999", BAD), ("0x10", BAD), (True, BAD), ([1], BAD),
    ],
    "boolean": [
        (True, True), ("TRUE", True), ("yes", True), ("1", True), (1, True), ("on", True), (False, False), ("No", False),
        (0, False), ("off", False), ("maybe", BAD), (2, BAD), ([], BAD),
    ],
    "date": [
        ("2026-11-24", "2026-11-24"), ("2026-11-24T23:59:59-11:00", "2026-11-24"), ("1764000000000", "2025-11-24"),
        (1764000000000, "2025-11-24"), ("24.11.2026", BAD), ("2026-02-30", BAD), ("soon", BAD),
    ],
    "time": [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)), ("2026-11-24T10:00:00+02:00", datetime(2026, 11, 24, 8, tzinfo=UTC)),
        ("2026-11-24T10:00:00.5Z", datetime(2026, 11, 24, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("1764000000000", datetime(2025, 11, 24, 16, tzinfo=UTC)), (-1764000000000, datetime(1914, 2, 7, 8, tzinfo=UTC)),
        ("yesterday", BAD), ("99999999999999999", BAD), ("9999999999999999", BAD), ("2026-11-24T25:00", BAD),
        ("9999-12-31T23:59:59-10:00", BAD), ("0001-01-01T00:00:00+10:00", BAD),
    ],
    "list": [
        ("a;b", ["a", "b"]), (["a", 1, None, ""], ["a", "1"]), (";a;;", ["a"]), (";", []), ("a", ["a"]), ("a;b\x00", BAD),
    ],
}  # fmt: skip


def test_every_transform_and_type_is_here() -> None:
    assert set(TRANSFORMS) == set(PLAIN)
    assert set(TYPES) == {kind.value for kind in FieldType} == {kind.value for kind in BY_TYPE}


@pytest.mark.parametrize(
    ("name", "given", "expected"), [(name, *case) for name, cases in TRANSFORMS.items() for case in cases]
)
def test_a_transform(name: str, given: Any, expected: Any) -> None:
    mapped = pulled(f"{{field: v, transform: {name}}}", given)
    assert mapped.errors == []
    assert mapped.custom.get("x") == expected


@pytest.mark.parametrize(("steps", "given", "expected"), TAKEN)
def test_a_transform_that_takes_something(steps: str, given: Any, expected: Any) -> None:
    mapped = pulled(f"{{field: v, transform: {steps}}}", given)
    assert bool(mapped.errors) == (expected is BAD)
    assert mapped.custom.get("x") == (None if expected is BAD else expected)


def test_every_transform_that_takes_something_is_here() -> None:
    assert {name for name in TAKING if any(f"{{{name}:" in steps for steps, *_ in TAKEN)} == set(TAKING) - {
        "times"
    }
    assert pulled("{field: v, type: number, transform: {times: 0.01}}", "1999").custom == {"x": 19.99}
    assert pulled("{field: v, type: number, transform: {times: 1000}}", "1.1").custom == {"x": 1100}
    assert (
        pulled("{field: v, type: number, transform: {times: 2}}", "x").errors[0].message == "v is no number"
    )


@pytest.mark.parametrize(
    ("kind", "given", "expected"), [(kind, *case) for kind, cases in TYPES.items() for case in cases]
)
def test_a_type(kind: str, given: Any, expected: Any) -> None:
    mapped = pulled(f"{{field: v, type: {kind}}}", given)
    if expected is BAD:
        (error,) = mapped.errors
        assert (error.field, error.value) == ("x", str(given)[:200].replace("\x00", "\ufffd"))
        assert error.message.startswith("v ")
        assert error.fix
        assert "x" not in mapped.custom
    else:
        assert mapped.errors == []
        assert mapped.custom["x"] == expected
        assert type(mapped.custom["x"]) is type(expected)


@pytest.mark.parametrize("blank", [None, "", ...], ids=["null", "empty", "missing"])
@pytest.mark.parametrize(
    "words", [*(f"transform: {name}" for name in PLAIN), *(f"type: {kind}" for kind in FieldType)]
)
def test_a_blank_stays_blank_or_becomes_the_default(words: str, blank: Any) -> None:
    mapped = pulled(f"{{field: v, {words}}}", blank)
    assert (mapped.custom, mapped.errors) == ({}, [])
    default = {"type: number": 5, "type: boolean": True, "type: list": ["a"], "type: date": "2026-01-01",
               "type: time": datetime(2026, 1, 1, tzinfo=UTC)}.get(words, "d")  # fmt: skip
    written = {"type: list": "[a]", "type: boolean": "yes", "type: time": "2026-01-01T00:00:00Z"}.get(
        words, default
    )
    assert pulled(f"{{field: v, {words}, default: {written}}}", blank).custom == {"x": default}


def test_transforms_go_in_their_order_and_before_the_table() -> None:
    entry = "{field: v, transform: [trim, upper], map: {GOLD: first, '1': number one}, default: none at all}"
    assert pulled(entry, " gold ").custom == {"x": "first"}
    assert pulled(entry, "silver").custom == {"x": "SILVER"}
    assert pulled(entry, 1).custom == {"x": "number one"}
    assert pulled(entry, "  ").custom == {"x": "none at all"}
    assert pulled("{field: v, type: list, map: {r: red, 'r;g': both}}", "r;x").custom == {"x": ["red", "x"]}
    assert pulled("{field: v, type: list, map: {r: red}, unknown: blank}", "r;x").custom == {"x": ["red"]}
    assert pulled("{field: v, type: boolean, map: {J: yes, N: no}}", "J").custom == {"x": True}
