"""A mapping against live schemas: what is told, and that what is suggested is a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.document import load
from hub.mapping import Mapping, build, problems
from hub.mapping.drift import Finding, against, fits, suggest
from hub.model import CONTACT_FIELDS, FieldType, VendorField

T, N, B, D, M, E, L = (FieldType(t) for t in ("text", "number", "boolean", "date", "time", "enum", "list"))


def schema(**fields: Any) -> dict[str, VendorField]:
    """name -> a type, or the keys of a field."""
    return {
        name: VendorField(name=name, **(given if isinstance(given, dict) else {"type": given}))
        for name, given in fields.items()
    }


def mapping(text: str) -> Mapping:
    return build([load(Path("m.yaml"), f"contact:\n{text}")])


def told(text: str, live: dict[str, VendorField], before: dict[str, VendorField] | None = None) -> list[str]:
    found = against(mapping(text), "contact", live, before or {})
    return [f"{f.level} {f.name}: {f.what}" + (f"; {f.fix}" if f.fix else "") for f in found]


def test_a_mapping_that_fits_is_fine() -> None:
    live = schema(town=T, points=N, level={"type": E, "options": ("A", "B")})
    text = "  city: town\n  score: {field: points, type: number}\n  tier: {field: level, map: {A: gold, B: silver}}\n"
    assert told(text, live, live) == []


@pytest.mark.parametrize(
    ("before", "live", "fix"),
    [
        ({}, schema(town_name=T, zip=T), "it may be 'town_name' now: map city to it"),
        ({}, schema(city_name=T), "it may be 'city_name' now: map city to it"),  # like the hub's own name
        ({}, schema(towns=N), "it may be 'towns' now: map city to it"),  # a number can be a text
        ({}, schema(zip=T), "map city to another, or to null"),
        ({}, schema(phone=T), "map city to another, or to null"),
        (schema(town={"label": "Place"}), schema(x1={"label": "Place"}, town_2=T), "it may be 'x1' now: map city to it"),
    ],
)  # fmt: skip
def test_a_field_that_is_gone(before: dict[str, VendorField], live: dict[str, VendorField], fix: str) -> None:
    assert told("  city: town\n", live, before) == [
        f"wrong city: the vendor has no contact field 'town' any more; city keeps what it has; {fix}"
    ]


def test_a_suggestion_fits_in_type_and_is_free() -> None:
    text = "  score: {field: points, type: number}\n  city: points_town\n"
    live = schema(points_b=B, points_town=T, points_made={"type": N, "read_only": True})
    (line,) = told(text, live)
    assert "'points_made'" in line
    (line,) = told(text.replace("type: number", "type: number, direction: both"), live)
    assert "map score to another" in line


def test_what_can_no_longer_be_written() -> None:
    assert told("  city: {field: town, direction: both}\n", schema(town={"read_only": True})) == [
        "wrong city: the vendor's field 'town' cannot be written; set direction: pull"
    ]


def test_a_type_that_changed() -> None:
    text = "  score: {field: points, type: number}\n  note: points\n"
    assert told(text, schema(points=B), schema(points=N)) == [
        "wrong score: the vendor's field 'points' holds a boolean, score a number; "
        "map it to a field of your own with type: boolean",
        "note note: the vendor's field 'points' was a number and is a boolean now",
    ]


def test_a_picklist_against_the_table() -> None:
    live = schema(level={"type": E, "options": ("A", "C", "D")})
    text = "  tier: {field: level, map: {A: gold, Aa: silver}}\n"
    assert told(text, live) == [
        "wrong tier: 'Aa' is no value of the vendor's 'level' any more; did you mean 'A'?",
        "note tier: the map does not know 'C', 'D' of 'level': what it does not know is passed as it is; add it to the map",
    ]
    strict = told(text.replace("}}", "}, unknown: reject}"), live)
    assert strict[1].startswith(
        "wrong tier: the map does not know 'C', 'D' of 'level': what it does not know is rejected"
    )


def test_a_picklist_against_what_it_was() -> None:
    before = schema(stage={"type": E, "options": ("lead", "customer")})
    assert told("  lifecycle: stage\n", schema(stage={"type": E, "options": ("lead", "fan")}), before) == [
        "note lifecycle: the vendor's 'stage' has lost values: 'customer'; see to rules and `set` steps that name them",
        "note lifecycle: the vendor's 'stage' has new values: 'fan'",
    ]


def test_what_the_vendor_requires_and_nothing_writes() -> None:
    live = schema(
        name={"required": True}, town={"required": True}, made={"required": True, "read_only": True}
    )
    assert told("  city: {field: town, direction: both}\n  last_name: name\n", live) == [
        "note : the vendor requires 'name', and nothing writes it; map a field to it with direction: both"
    ]


def test_an_opt_out_that_is_no_longer_read() -> None:
    made = build([load(Path("m.yaml"), 'consent:\n  "*": {field: no_mail, means: out}\n')])
    assert against(made, "contact", schema(mail=T), {}) == [
        Finding("wrong", "contact", "consent *", "no_mail",
                "the vendor has no contact field 'no_mail' any more: its opt-outs are not heard", "map another")
    ]  # fmt: skip
    assert against(made, "deal", schema(title=T), {}) == []


@pytest.mark.parametrize("theirs", list(FieldType))
@pytest.mark.parametrize("ours", list(FieldType))
def test_types_that_fit(theirs: FieldType, ours: FieldType) -> None:
    never = {(N, B), (B, N), *((a, b) for a in (N, B) for b in (D, M, L)), *((b, a) for a in (N, B) for b in (D, M, L)),
             (D, L), (L, D), (M, L), (L, M)}  # fmt: skip
    assert fits(theirs, ours) == ((theirs, ours) not in never)


def test_suggestions_are_entries_that_can_be_pasted() -> None:
    text = "  city: town\n  country: land\n  score: {field: points, type: number}\n"
    live = schema(
        town_name=T, points=N, xyz=T, jobtitle=T, own={"type": N, "custom": True, "label": "Own number"},
        phone={"custom": True}, standard=T, land_code={"custom": True},
    )  # fmt: skip
    found = suggest(mapping(text), "contact", live, {})
    lines = [f"{s.line}  # {s.why}" for s in found]
    assert lines == [
        "city: {field: town_name}  # was town, which is gone",
        "country: {field: land_code, custom: true}  # was land, which is gone",
        "job_title: {field: jobtitle}  # not filled yet",
        "phone: {field: phone, custom: true}  # not filled yet",
        "own: {field: own, type: number, custom: true}  # Own number",
    ]
    pasted = "contact:\n" + "".join(f"  {line}\n" for line in lines)
    assert problems([load(Path("p.yaml"), pasted)], {"contact": live}) == []
    again = build([load(Path("m.yaml"), f"contact:\n{text}"), load(Path("p.yaml"), pasted)])
    assert [f for f in against(again, "contact", live, {}) if f.level == "wrong"] == []
    assert suggest(again, "contact", live, {}) == []


def test_a_field_of_the_accounts_own_takes_no_name_that_is_taken() -> None:
    live = schema(city={"custom": True}, town=T, state={"custom": True})
    lines = [s.line for s in suggest(mapping("  city: town\n"), "contact", live, {})]
    assert lines == ["crm_city: {field: city, custom: true}", "crm_state: {field: state, custom: true}"]
    pasted = "contact:\n" + "".join(f"  {line}\n" for line in lines)
    assert problems([load(Path("p.yaml"), pasted)], {"contact": live}) == []


def test_what_is_gone_without_a_successor_is_taken_out() -> None:
    (found,) = suggest(mapping("  city: town\n"), "contact", schema(zip=N), {})
    assert (found.line, found.why) == ("city: null", "town is gone, and nothing is like it")
    assert "city" in CONTACT_FIELDS
