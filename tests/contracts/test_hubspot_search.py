"""Search: operators, offsets, the wall at 10,000, the right modified property, lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contracts.hubspot.answers import to_ms
from tests.contracts.conftest import Serve
from tests.contracts.hubspot_case import Case, hubspot_case

Json = dict[str, Any]
PEOPLE = (
    {
        "email": "ann@example.com",
        "firstname": "Ann",
        "city": "Wien",
        "annualrevenue": "900",
        "lifecyclestage": "lead",
    },
    {
        "email": "bob@example.org",
        "firstname": "Bob",
        "city": "Köln",
        "annualrevenue": "10000",
        "lifecyclestage": "customer",
    },
    {"email": "cem@example.com", "firstname": "Cem", "annualrevenue": "50"},
)


@pytest.fixture
def case(serve_recorded: Serve) -> Iterator[Case]:
    with hubspot_case(serve_recorded) as served:
        for values in PEOPLE:
            served.clock.advance(minutes=1)
            served.sandbox.create("contacts", dict(values))
        yield served


def ask(case: Case, *filters: Json, status: int = 200, kind: str = "contacts", **more: Any) -> Json:
    body = {"filterGroups": [{"filters": list(filters)}], "properties": ["firstname"], "limit": 100, **more}
    answer = case.http.post(f"/crm/v3/objects/{kind}/search", json=body)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


def names(found: Json) -> str:
    return "".join(r["properties"]["firstname"][0] for r in found["results"])


def where(name: str, operator: str, **values: Any) -> Json:
    return {"propertyName": name, "operator": operator, **values}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (where("city", "EQ", value="wien"), "A"),  # text ignores case
        (where("lifecyclestage", "EQ", value="lead"), "A"),
        (where("lifecyclestage", "EQ", value="Lead"), ""),  # options do not
        (where("city", "NEQ", value="Wien"), "B"),
        (where("annualrevenue", "GT", value="900"), "B"),  # as numbers, not as text
        (where("annualrevenue", "GTE", value="900"), "AB"),
        (where("annualrevenue", "LT", value="900"), "C"),
        (where("annualrevenue", "LTE", value="900"), "AC"),
        (where("annualrevenue", "BETWEEN", value="40", highValue="901"), "AC"),
        (where("firstname", "IN", values=["ann", "cem"]), "AC"),
        (where("firstname", "IN", values=["Ann"]), ""),  # capitals never match
        (where("firstname", "NOT_IN", values=["ann"]), "BC"),
        (where("city", "HAS_PROPERTY"), "AB"),
        (where("city", "NOT_HAS_PROPERTY"), "C"),
        (where("email", "CONTAINS_TOKEN", value="*example.com"), "AC"),
        (where("email", "NOT_CONTAINS_TOKEN", value="*example.com"), "B"),
        (where("hs_object_id", "GT", value="1001"), "BC"),
    ],
)
def test_an_operator_finds_what_it_should(condition: Json, expected: str, case: Case) -> None:
    found = ask(case, condition)
    assert (names(found), found["total"]) == (expected, len(expected))


def test_filters_are_joined_by_and_groups_by_or(case: Case) -> None:
    assert names(ask(case, where("annualrevenue", "LT", value="1000"), where("city", "HAS_PROPERTY"))) == "A"
    groups = [
        {"filters": [where("city", "EQ", value="Köln")]},
        {"filters": [where("city", "NOT_HAS_PROPERTY")]},
    ]
    assert names(ask(case, filterGroups=groups)) == "BC"
    assert names(ask(case, filterGroups=[], query="bob")) == "B"


def test_the_modified_instant_of_contacts_has_its_own_name(case: Case) -> None:
    since = str(to_ms(case.clock.now()))
    assert names(ask(case, where("lastmodifieddate", "GTE", value=since))) == "C"
    assert ask(case, where("hs_lastmodifieddate", "GTE", value="0"))["total"] == 0  # no error: just nothing
    case.sandbox.create("deals", {"dealname": "D"})
    assert (
        ask(case, where("hs_lastmodifieddate", "GTE", value="0"), kind="deals", properties=["dealname"])[
            "total"
        ]
        == 1
    )
    assert ask(case, where("lastmodifieddate", "GTE", value="0"), kind="deals")["total"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lastmodifieddate", "BCA"), ("annualrevenue", "CAB"), ("hs_object_id", "ABC"), ("city", "BAC")],
)
def test_one_sort_in_both_directions(name: str, expected: str, case: Case) -> None:
    case.clock.advance(minutes=1)
    case.sandbox.edit("contacts", "ann@example.com", {"firstname": "Ann"})
    up = ask(case, where("email", "HAS_PROPERTY"), sorts=[{"propertyName": name, "direction": "ASCENDING"}])
    down = ask(
        case, where("email", "HAS_PROPERTY"), sorts=[{"propertyName": name, "direction": "DESCENDING"}]
    )
    assert names(up) == expected
    assert names(down) == (expected[::-1] if name != "city" else "ABC")  # without a value: last, either way


def test_a_sort_given_as_text_is_ignored_and_two_are_refused(case: Case) -> None:
    assert names(ask(case, where("email", "HAS_PROPERTY"), sorts=["-annualrevenue"])) == "ABC"
    ask(case, sorts=[{"propertyName": n, "direction": "ASCENDING"} for n in ("city", "email")], status=400)


def test_offsets_page_through_and_stop(case: Case) -> None:
    first = ask(case, where("email", "HAS_PROPERTY"), limit=2)
    assert first["paging"]["next"]["after"] == "2"
    last = ask(case, where("email", "HAS_PROPERTY"), limit=2, after="2")
    assert (names(last), "paging" in last) == ("C", False)


def test_a_search_sees_writes_made_between_pages(case: Case) -> None:
    condition = where("hs_object_id", "GT", value="1000")
    assert ask(case, condition)["total"] == 3
    case.sandbox.archive("contacts", "bob@example.org")
    assert names(ask(case, condition)) == "AC"


@pytest.mark.parametrize(
    "bad",
    [
        {"limit": 201},
        {"after": "9950", "limit": 100},
        {"after": "12345678901"},
        {"after": "abc"},
        {"filterGroups": [{"filters": [where("city", "EQ", value="x")] * 7}]},
        {"filterGroups": [{"filters": []}] * 6},
        {"filterGroups": [{"filters": [where("no_such", "EQ", value="x")]}]},
        {"filterGroups": [{"filters": [where("city", "LIKE", value="x")]}]},
        {"filterGroups": [{"filters": [where("annualrevenue", "GT", value="lots")]}]},
        {"filterGroups": [{"filters": [where("lastmodifieddate", "GT", value="yesterday")]}]},
        {"query": "x" * 3000},
    ],
)
def test_what_is_beyond_the_limits_is_refused(bad: Json, case: Case) -> None:
    ask(case, status=400, **bad)


def test_equal_instants_over_the_wall_need_the_id_as_second_key(serve_recorded: Serve) -> None:
    with hubspot_case(serve_recorded) as case:
        for n in range(10_050):
            case.sandbox.account.create("companies", {"name": str(n)})
        instant = str(to_ms(case.clock.now()))
        window = where("hs_lastmodifieddate", "BETWEEN", value=instant, highValue=instant)
        by_id: Json = {
            "kind": "companies",
            "limit": 200,
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        }
        wall = ask(case, window, after="9800", **by_id)
        assert (wall["total"], wall["paging"]["next"]["after"]) == (10_050, "10000")
        ask(case, window, after="10000", status=400, **by_id)
        rest = ask(case, window, where("hs_object_id", "GT", value=wall["results"][-1]["id"]), **by_id)
        assert (rest["total"], len(rest["results"])) == (50, 50)


def test_the_index_may_lag_behind_writes(case: Case) -> None:
    from contracts.hubspot.objects import Quirks

    quirks: Quirks = case.sandbox.quirks
    quirks.search_lag_seconds = 10
    assert names(ask(case, where("email", "HAS_PROPERTY"))) == "AB"
    case.clock.advance(seconds=10)
    assert names(ask(case, where("email", "HAS_PROPERTY"))) == "ABC"
