"""Mappings: both directions, blanks, files that extend each other, and every mistake with its place."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from hub.document import Document, Problems, load
from hub.errors import HubError
from hub.mapping import Hint, Mapped, Mapping, build, conflicts, problems, shipped, together
from hub.model import CONTACT_FIELDS, DEAL_FIELDS, FieldType, VendorField
from hub.sdk import registry

KNOWN = {
    "contact": {
        name: VendorField(name=name, read_only=read_only)
        for name, read_only in (
            ("mail", False),
            ("town", False),
            ("level", False),
            ("made", True),
            ("no_mail", False),
        )
    },
    "deal": {"title": VendorField(name="title")},
}


def file(text: str, name: str = "m.yaml") -> Document:
    return load(Path(name), text)


def mapping(*texts: str) -> Mapping:
    return build([file(text) for text in texts])


# --- pulling -------------------------------------------------------------------------------------------------


def test_columns_and_fields_of_ones_own_are_kept_apart() -> None:
    made = mapping("contact:\n  city: town\n  score: {field: points, type: number}\n")
    mapped = made.pull("contact")({"town": "Wien", "points": "7", "other": "x"})
    assert mapped.columns == {"city": "Wien"}
    assert mapped.custom == {"score": 7}
    assert made.contact_fields.keys() - CONTACT_FIELDS.keys() == {"score"}
    assert (made.contact_fields["score"].type, made.contact_fields["score"].column) == (FieldType.NUMBER, "")
    assert made.deal_fields == DEAL_FIELDS


def test_a_bad_value_costs_that_field_only() -> None:
    made = mapping(
        "contact:\n  city: town\n  score: {field: points, type: number}\n  vip: {field: vip, type: boolean}\n"
    )
    mapped = made.pull("contact")({"town": "Wien", "points": "many", "vip": "perhaps"})
    assert (mapped.columns, mapped.custom) == ({"city": "Wien"}, {})
    assert [(e.field, e.value, e.message) for e in mapped.errors] == [
        ("score", "many", "points is no number"),
        ("vip", "perhaps", "vip is neither true nor false"),
    ]


@pytest.mark.parametrize(
    ("policy", "value", "custom", "fill"),
    [
        ("keep", "5", {"x": 5}, {}), ("keep", "", {}, {}), ("keep", "bad", {}, {}),
        ("fill", "5", {}, {"x": 5}), ("fill", None, {}, {}), ("fill", "bad", {}, {}),
        ("clear", "5", {"x": 5}, {}), ("clear", "", {"x": None}, {}), ("clear", "bad", {}, {}),
    ],
)  # fmt: skip
def test_what_a_blank_does_to_a_field_of_ones_own(
    policy: str, value: Any, custom: dict[str, Any], fill: dict[str, Any]
) -> None:
    mapped = mapping(f"contact:\n  x: {{field: v, type: number, on_blank: {policy}}}\n").pull("contact")(
        {"v": value}
    )
    assert (mapped.custom, mapped.fill) == (custom, fill)


def test_what_a_blank_does_to_a_column_is_told_to_the_store() -> None:
    made = mapping(
        "contact:\n  city: {field: a, on_blank: clear}\n  phone: {field: b, on_blank: fill}\n  company: c\n"
        "  language: {field: d, direction: push}\n  own: {field: e, on_blank: clear}\n"
    )
    assert made.on_blank("contact") == {"city": "clear", "phone": "fill", "company": "keep"}


def test_the_vendors_fields_are_asked_for_once_each() -> None:
    made = mapping(
        "contact:\n  city: town\n  town: {field: town}\n  phone: {field: tel, direction: push}\n"
        'consent:\n  "*": {field: no_mail, means: out}\n  news: {field: town, means: out}\ndeal:\n  name: title\n'
    )
    assert made.vendor_fields("contact") == ("town", "no_mail")
    assert made.vendor_fields("deal") == ("title",)


@pytest.mark.parametrize("value", [True, "true", "TRUE", "1", 1, "yes"])
def test_an_opt_out_is_heard_however_it_is_said(value: Any) -> None:
    made = mapping('consent:\n  "*": {field: no_mail, means: out}\n  news: {field: no_news, means: out}\n')
    assert made.pull("contact")({"no_mail": value}).consent == {"*": "out"}
    assert made.pull("contact")({"no_news": value, "no_mail": False}).consent == {"news": "out"}


@pytest.mark.parametrize("value", [None, "", False, "false", "0", 0, "no"])
def test_no_opt_out_is_no_opt_in(value: Any) -> None:
    made = mapping('consent:\n  "*": {field: no_mail, means: out}\n')
    mapped = made.pull("contact")({"no_mail": value})
    assert (mapped.consent, mapped.errors) == ({}, [])
    assert made.pull("deal")({"no_mail": True}).consent == {}


def test_a_word_on_consent_that_nobody_understands_is_told() -> None:
    (error,) = mapping('consent:\n  "*": {field: f, means: out}\n').pull("contact")({"f": "perhaps"}).errors
    assert (error.field, error.message) == ("consent", "f is neither true nor false")


# --- pushing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Wien", "Wien"), (None, ""), ("", ""), (True, "true"), (False, "false"), (5, "5"), (1.5, "1.5"),
        (["a", "b"], "a;b"), ([], ""),
        (datetime(2026, 11, 24, 9, tzinfo=UTC), "2026-11-24T09:00:00.000Z"), (date(2026, 11, 24), "2026-11-24"),
    ],
)  # fmt: skip
def test_a_value_as_the_vendor_takes_it(value: Any, written: str) -> None:
    made = mapping("contact:\n  x: {field: v, direction: both}\n")
    assert made.push("contact", {"x": value}) == {"v": written}


def test_a_table_is_read_backwards() -> None:
    made = mapping("contact:\n  tier: {field: level, direction: both, map: {A: gold, B: silver, '1': yes}}\n")
    assert made.pull("contact")({"level": "A"}).custom == {"tier": "gold"}
    assert made.push("contact", {"tier": "gold"}) == {"level": "A"}
    assert made.push("contact", {"tier": "bronze"}) == {"level": "bronze"}


@pytest.mark.parametrize(
    ("unknown", "pulled", "error", "written"),
    [
        ("pass", "C", "", "bronze"),
        ("blank", "none", "", None),
        ("reject", None, "level holds a value that its `map` does not know", None),
    ],
)
def test_what_a_table_does_not_know(
    unknown: str, pulled: str | None, error: str, written: str | None
) -> None:
    made = mapping(
        f"contact:\n  tier: {{field: level, direction: both, map: {{A: gold}}, unknown: {unknown}, default: none}}\n"
    )
    mapped = made.pull("contact")({"level": "C"})
    assert mapped.custom.get("tier") == pulled
    assert [e.message for e in mapped.errors] == ([error] if error else [])
    assert made.pull("contact")({"level": "A"}).custom == {"tier": "gold"}
    assert made.push("contact", {"tier": ""}) == {"level": ""}  # a blank is always known
    if written is None:
        with pytest.raises(
            HubError, match=r"contact field 'tier' holds a value that its `map` does not know; mend"
        ):
            made.push("contact", {"tier": "bronze"})
    else:
        assert made.push("contact", {"tier": "bronze"}) == {"level": written}


def test_of_several_of_theirs_the_first_is_written() -> None:
    made = mapping("contact:\n  tier: {field: level, direction: both, map: {A: gold, B: gold}}\n")
    assert [made.pull("contact")({"level": each}).custom["tier"] for each in "AB"] == ["gold", "gold"]
    assert made.push("contact", {"tier": "gold"}) == {"level": "A"}


def test_several_values_go_through_the_table_one_by_one() -> None:
    made = mapping("contact:\n  c: {field: v, type: list, direction: both, map: {r: red, g: green}}\n")
    assert made.pull("contact")({"v": "r;g;b"}).custom == {"c": ["red", "green", "b"]}
    assert made.push("contact", {"c": ["green", "b"]}) == {"v": "g;b"}
    assert made.push("contact", {"c": "red"}) == {"v": "r"}


def test_a_pushed_value_is_transformed_before_the_table() -> None:
    made = mapping(
        "contact:\n  t: {field: v, direction: push, push_transform: [trim, lower, {cut: 4}], map: {A: gold}}\n"
    )
    assert made.push("contact", {"t": " GOLDEN "}) == {"v": "A"}
    assert made.push("contact", {"t": None}) == {"v": ""}


def test_what_may_not_be_pushed_is_said() -> None:
    made = mapping("contact:\n  city: town\n  phone: {field: tel, direction: push}\n")
    with pytest.raises(HubError, match=r"contact field 'city' is only pulled; set direction: both"):
        made.push("contact", {"phone": "1", "city": "Wien"})
    with pytest.raises(HubError, match=r"contact field 'company' is not mapped; add it"):
        made.push("contact", {"company": "x"})
    assert made.push("contact", {"phone": "1"}) == {"tel": "1"}
    assert made.pull("contact")({"tel": "1", "town": "x"}).columns == {"city": "x"}


# --- files ---------------------------------------------------------------------------------------------------


def test_an_admins_file_extends_the_shipped_one_entry_by_entry() -> None:
    base = (
        "contact:\n  city: {field: town, transform: trim}\n  phone: tel\n"
        'consent:\n  "*": {field: no_mail, means: out}\n'
    )
    own = 'contact:\n  phone: null\n  city: {field: place}\n  own: mine\nconsent:\n  "*": null\n  news: {field: n, means: out}\n'
    made = mapping(base, own)
    mapped = made.pull("contact")(
        {"town": "a", "place": " b ", "tel": "1", "mine": "x", "no_mail": True, "n": True}
    )
    assert mapped.columns == {"city": " b "}  # the entry is replaced as a whole
    assert (mapped.custom, mapped.consent) == ({"own": "x"}, {"news": "out"})
    assert mapping(base, "").pull("contact")({"tel": "1"}).columns == {"city": None, "phone": "1"}


def test_an_entry_without_a_field_changes_what_it_names() -> None:
    made = mapping(
        "contact:\n  city: {field: town, transform: trim, direction: both}\n",
        "contact:\n  city: {on_blank: clear, authority: crm}\n",
    )
    entry = made.entries["contact"]["city"]
    assert (entry.field, entry.transforms, entry.direction) == ("town", (("trim", None),), "both")
    assert (entry.on_blank, entry.authority) == ("clear", ("crm",))


def test_a_value_that_cannot_be_read_is_told_apart_from_a_blank() -> None:
    made = mapping("contact:\n  created_at: {field: made, on_blank: clear}\n  city: town\n")
    bad = made.pull("contact")({"made": "soon", "town": "Wien"})
    assert (bad.columns, bad.untold) == ({"created_at": None, "city": "Wien"}, ("created_at",))
    assert made.pull("contact")({"made": None}).untold == ()


def test_the_hints_of_a_file_take_the_place_of_those_before() -> None:
    base = "contact:\n  email: mail\n  phone: tel\n  sf: {field: sf_id}\n"
    assert mapping(base).match == (Hint("email"),)
    assert mapping(base, "match: [phone, {field: sf, of: sales}]\n").match == (
        Hint("phone"),
        Hint("sf", "sales"),
    )
    assert mapping(base, "match: [phone]\n", "match: []\n").match == ()


def test_without_a_field_nothing_is_said_of_it() -> None:
    made = mapping(
        'contact:\n  city: {field: town, on_blank: clear}\n  phone: tel\nconsent:\n  "*": {field: no_mail, means: out}\n'
    ).without("contact", ["town", "no_mail"])
    assert made.pull("contact")({"town": "", "tel": "1", "no_mail": True}) == Mapped(columns={"phone": "1"})
    assert (made.vendor_fields("contact"), made.on_blank("contact")) == (("tel",), {"phone": "keep"})


# --- who wins ------------------------------------------------------------------------------------------------


def test_authority_is_said_once_and_holds_for_all() -> None:
    both = together(
        {
            "crm": mapping("contact:\n  city: {field: town, authority: [sales, crm]}\n  phone: tel\n"),
            "sales": mapping(
                "contact:\n  city: place\n  phone: {field: nr, direction: push}\n  company: {field: c, authority: newest}\n"
            ),
        }
    )
    assert both["crm"].standing == both["sales"].standing
    assert [(s.connection, s.field, s.rank, s.order) for s in both["crm"].standing] == [
        ("crm", "city", 1, 0), ("crm", "phone", 0, 0), ("sales", "city", 0, 1), ("sales", "company", 1, 1),
    ]  # fmt: skip
    assert conflicts(both) == []


def test_authority_that_cannot_be() -> None:
    found = conflicts(
        {
            "crm": mapping(
                "contact:\n  city: {field: town, authority: [slaes]}\n  phone: {field: t, authority: crm}\n"
            ),
            "sales": build([file("contact:\n  phone: {field: t, authority: newest}\n", "s.yaml")]),
        }
    )
    assert [str(p) for p in found] == [
        "m.yaml:2:34: authority names 'slaes', which is no connection; hub.yaml has crm, sales; or write newest",
        "s.yaml:2:32: another mapping gives authority over phone to crm; say it once; it holds for all connections",
    ]


@pytest.mark.parametrize("name", ["hubspot", "google_analytics"])
def test_a_shipped_mapping_is_sound(name: str) -> None:
    document = shipped(name, registry.module(name))
    if document is None:
        assert registry.connectors()[name].known_fields == {}
        return
    assert problems([document], registry.connectors()[name].known_fields) == []


def test_hubspots_own() -> None:
    document = shipped("hubspot")
    assert document
    mapped = build([document]).pull("contact")(
        {"email": "  Ann@Example.COM ", "country": "Deutschland", "hs_language": "de_at", "hs_email_optout": "true",
         "createdate": "2026-11-24T09:00:00Z"}
    )  # fmt: skip
    found = {name: value for name, value in mapped.columns.items() if value is not None}
    assert found == {
        "email": "ann@example.com", "country": "DE", "language": "de-AT", "created_at": datetime(2026, 11, 24, 9, tzinfo=UTC),
    }  # fmt: skip
    assert mapped.consent == {"*": "out"}


# --- mistakes ------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, list[str]]] = [
    ("contcat:\n  city: town\n", ["1:1: unknown section 'contcat'; did you mean 'contact'?"]),
    ("5:\n  city: town\n", ["1:1: unknown section 5; known are lead, contact, company, deal, consent, match"]),
    ("- a\n", ["1:1: a mapping file holds lead, contact, company, deal, consent and match; see docs/mapping.md"]),
    ("contact: town\n", ["1:10: contact holds one entry a field; write `field: vendor_field`"]),
    ("contact:\n  city: [town]\n", ["2:9: city must name a vendor field; write `field: vendor_field`"]),
    ("contact:\n  city: {fild: town}\n", [
        "2:10: unknown key 'fild'; did you mean 'field'?", "2:9: the entry names no vendor field; add `field: ...`"]),
    ("contact:\n  city: {field: ''}\n", ["2:9: the entry names no vendor field; add `field: ...`"]),
    ("contact:\n  x: {field: town, type: colour}\n",
     ["2:26: type 'colour' is unknown; known are text, number, boolean, date, time, enum, list"]),
    ("contact:\n  city: {field: town, direction: bth}\n", ["2:34: direction 'bth' is unknown; did you mean 'both'?"]),
    ("contact:\n  city: {field: town, on_blank: cler}\n", ["2:33: on_blank 'cler' is unknown; did you mean 'clear'?"]),
    ("contact:\n  city: {field: town, transform: trm}\n", ["2:34: unknown transform 'trm'; did you mean 'trim'?"]),
    ("contact:\n  city: {field: town, transform: [trim, lowr]}\n", ["2:41: unknown transform 'lowr'; did you mean 'lower'?"]),
    ("contact:\n  city: {field: town, transform: {a: b}}\n", ["2:34: unknown transform {'a': 'b'}; see docs/mapping.md"]),
    ("contact:\n  city: {field: town, transform: cut}\n", ["2:34: the transform cut needs something: write {cut: ...}; see"]),
    ("contact:\n  city: {field: town, transform: [trim, {cut: 0}]}\n",
     ["2:41: the transform cut needs a number of characters, 1 or more; see"]),
    ("contact:\n  city: {field: town, transform: {trim: 1}}\n",
     ["2:34: unknown transform {'trim': 1}; write it as a word: trim"]),
    ("contact:\n  city: {field: town, push_transform: {replace: {}}}\n", ["2:39: the transform replace needs a table of"]),
    ("contact:\n  city: {field: town, transform: {date_from: '%Q'}}\n", ["2:34: the transform date_from cannot read dates by"]),
    ("contact:\n  city: {field: town, map: {a: b}, unknown: psas}\n", ["2:45: unknown 'psas' is unknown; did you mean 'pass'?"]),
    ("contact:\n  city: {field: town, unknown: reject}\n", ["2:32: unknown says nothing without a map; add a map"]),
    ("contact:\n  city: {field: town, authority: {a: b}}\n", ["2:34: authority is a connection's name, several of them, or"]),
    ("deal:\n  name: {field: title, authority: crm}\n", ["2:24: a deal belongs to one connection, which has the last word"]),
    ("contact:\n  city: town\nmatch: [email]\n", ["3:9: match names 'email', which is not pulled; known are city"]),
    ("contact:\n  city: town\nmatch: {fild: city}\n", ["3:8: match holds contact fields, or {field: ..., of: connection}"]),
    ("contact:\n  city: {field: town, map: [a]}\n", ["2:28: map holds `vendor value: our value`; write it as a table"]),
    ("contact:\n  city: twon\n", [
        "2:9: the vendor has no contact field 'twon'; did you mean 'town'?, or say `custom: true` if it is your own"]),
    ("contact:\n  city:\n    field: twon\n", [
        "3:12: the vendor has no contact field 'twon'; did you mean 'town'?, or say `custom: true` if it is your own"]),
    ("contact:\n  created_at: {field: made, direction: both}\n",
     ["2:23: the vendor's field 'made' cannot be written; set direction: pull"]),
    ("contact:\n  city: {field: town, direction: both}\n  own: {field: town, direction: push}\n",
     ["3:8: own and city both write the vendor's 'town'; let one of them only pull"]),
    ("contact:\n  city: {field: town, type: number}\n",
     ["2:29: the hub's field city is always of type text; leave `type` out, or map to a field of your own"]),
    ("contact:\n  x: {field: town, type: number, default: many}\n",
     ["2:43: the default is no number; write one of the field's type"]),
    ("contact:\n  state: town\n", ["2:3: 'state' cannot be the name of a field of your own; choose another one, e.g. region"]),
    ("contact:\n  5: town\n", ["2:3: 5 cannot be the name of a field of your own"]),
    ("consent:\n  '*': no_mail\n", ["2:8: a consent entry is {field: ..., means: out}; only opt-outs are taken from a field"]),
    ("consent:\n  '*': {field: no_mail, means: in}\n", ["2:8: a consent entry is {field: ..., means: out}"]),
    ("consent:\n  '*': {field: no_mial, means: out}\n",
     ["2:16: the vendor has no contact field 'no_mial'; did you mean 'no_mail'?"]),
    ("contact:\n  city: {field: twon, colour: red}\n  phone: {field: 5}\ndeal:\n  name: titel\n", [
        "2:23: unknown key 'colour'; known are field, type",
        "3:10: the entry names no vendor field",
        "5:9: the vendor has no deal field 'titel'; did you mean 'title'?"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), MISTAKES, ids=[text.splitlines()[-1].strip() for text, _ in MISTAKES]
)
def test_a_mistake(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = [str(problem) for problem in problems([load(tmp_path / "m.yaml", text)], KNOWN)]
    for words in expected:
        assert any(one.startswith(f"m.yaml:{words}") for one in found), found
    assert len(found) == len(expected)


def test_a_field_of_the_admins_own_is_not_asked_of_the_vendors_schema() -> None:
    assert problems([file("contact:\n  x: {field: mine, custom: true}\n")], KNOWN) == []
    assert problems([file("contact:\n  x: mine\n")]) == []  # nothing is known of this vendor


def test_every_file_is_checked_and_told_at_once() -> None:
    with pytest.raises(Problems) as raised:
        build([file("contact:\n  city: twon\n", "a.yaml"), file("contact:\n  x: {}\n", "b.yaml")], KNOWN)
    assert [str(p.position.file) for p in raised.value.problems] == ["a.yaml", "b.yaml"]
