"""What HubSpot does with records: paging, values, conflicts, batches, merges, deletions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hubspot.crm.contacts.exceptions import ApiException

from contracts.hubspot.answers import Refusal
from contracts.hubspot.records import ObjectStore
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from tests.contracts.conftest import Serve
from tests.contracts.hubspot_case import Case, hubspot_case, problems_of

CONTACTS = "/crm/v3/objects/contacts"
Json = dict[str, Any]


@pytest.fixture
def case(serve_recorded: Serve) -> Iterator[Case]:
    with hubspot_case(serve_recorded) as served:
        yield served


def upsert(case: Case, *inputs: Json) -> tuple[int, Json]:
    answer = case.http.post(f"{CONTACTS}/batch/upsert", json={"inputs": list(inputs)})
    return answer.status_code, answer.json()


def item(email: str, trace: str = "", **values: str) -> Json:
    body: Json = {"id": email, "idProperty": "email", "properties": values}
    return body | {"objectWriteTraceId": trace} if trace else body


def codes(refused: Exception) -> list[str]:
    return [e["code"] for e in problems_of(refused)["errors"]]


# -- reading ------------------------------------------------------------------------------------------------


def test_a_list_pages_by_the_next_id_and_survives_a_deletion_between_pages(case: Case) -> None:
    ids = [case.contact(f"c{n}@example.com") for n in range(5)]
    api = case.sdk.crm.contacts.basic_api
    first = api.get_page(limit=2)
    assert first.paging.next.after == ids[2]
    api.archive(ids[2])
    assert [r.id for r in api.get_page(limit=2, after=first.paging.next.after).results] == ids[3:]


def test_only_named_properties_come_and_empty_ones_are_absent(case: Case) -> None:
    made = case.contact("a@example.com", firstname="Ann", city="Wien")
    shown = case.sdk.crm.contacts.basic_api.get_by_id(
        made, properties=["city", "phone", "no_such"]
    ).properties
    assert set(shown) == {"city", "createdate", "lastmodifieddate", "hs_object_id"}
    case.sandbox.account.store("contacts")
    raw = case.http.get(f"{CONTACTS}/{made}").json()["properties"]
    assert set(raw) == {"email", "firstname", "createdate", "lastmodifieddate", "hs_object_id"}


@pytest.mark.parametrize(
    "query",
    [{"limit": "101"}, {"limit": "0"}, {"after": "abc"}, {"limit": "51", "propertiesWithHistory": "email"}],
)
def test_bad_paging_is_refused(query: dict[str, str], case: Case) -> None:
    assert case.http.get(CONTACTS, params=query).status_code == 400


def test_history_holds_every_value_with_its_author(case: Case) -> None:
    made = case.contact("a@example.com", city="Wien")
    case.clock.advance(minutes=5)
    case.sandbox.edit("contacts", made, {"city": "Graz"})
    versions = case.http.get(f"{CONTACTS}/{made}", params={"propertiesWithHistory": "city"}).json()[
        "propertiesWithHistory"
    ]["city"]
    assert [(v["value"], v["sourceType"]) for v in versions] == [("Graz", "CRM_UI"), ("Wien", "INTEGRATION")]
    assert versions[0]["timestamp"] == "2026-11-24T09:05:00.000Z"


def test_a_url_beyond_the_edge_s_length_is_refused_with_a_page() -> None:
    with HubSpotSandbox().serve() as url:
        answer = httpx.get(f"{url}{CONTACTS}", params={"properties": "x" * 17_000})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (414, "text/html")


# -- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("no_such", "x", "PROPERTY_DOESNT_EXIST"),
        ("email", "not an address", "INVALID_EMAIL"),
        ("annualrevenue", "lots", "INVALID_DOUBLE"),
        ("lifecyclestage", "Lead", "INVALID_OPTION"),
        ("date_of_birth", "1990-02-30", "INVALID_DATE"),
        ("date_of_birth", "1764000000000", "INVALID_DATE"),
        ("hs_email_optout", "true", "READ_ONLY_VALUE"),
        ("hubspot_owner_id", "404", "INVALID_OWNER_ID"),
    ],
)
def test_a_bad_value_is_refused_with_its_code(name: str, value: str, code: str, case: Case) -> None:
    with pytest.raises(ApiException) as refused:
        case.contact("a@example.com", **{name: value}) if name != "email" else case.contact(value)
    assert refused.value.status == 400
    assert codes(refused.value) == [code]
    assert f'"error":"{code}"' in problems_of(refused.value)["message"]  # JSON text inside the message


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("date_of_birth", "1990-02-03", "1990-02-03"),
        ("date_of_birth", "1763942400000", "2025-11-24"),
        ("annualrevenue", "1.5e6", "1.5e6"),
        ("email", " Ann.Weiß@Example.COM ", "ann.weiß@example.com"),
    ],
)
def test_a_good_value_is_stored_in_hubspots_form(name: str, value: str, stored: str, case: Case) -> None:
    made = case.http.post(CONTACTS, json={"properties": {name: value}}).json()
    assert made["properties"][name] == stored


def test_a_stage_must_belong_to_its_pipeline(case: Case) -> None:
    for values in ({"dealstage": "won"}, {"pipeline": "other", "dealstage": "closedwon"}):
        assert case.http.post("/crm/v3/objects/deals", json={"properties": values}).status_code == 400
    made = case.http.post("/crm/v3/objects/deals", json={"properties": {"dealstage": "closedwon"}}).json()
    shown = case.http.get(f"/crm/v3/objects/0-3/{made['id']}").json()  # the type id is the same thing
    assert shown["properties"]["pipeline"] == "default"


def test_lifecycle_goes_forward_only_and_says_success_anyway(case: Case) -> None:
    made, api = case.contact("a@example.com", lifecyclestage="customer"), case.sdk.crm.contacts.basic_api
    back = {"properties": {"lifecyclestage": "lead"}}
    assert api.update(made, back).properties["lifecyclestage"] == "customer"
    api.update(made, {"properties": {"lifecyclestage": ""}})
    assert api.update(made, back).properties["lifecyclestage"] == "lead"


def test_every_write_moves_the_modified_instant_of_its_kind(case: Case) -> None:
    made = case.contact("a@example.com")
    case.clock.advance(hours=1)
    shown = case.sdk.crm.contacts.basic_api.update(made, {"properties": {"email": "a@example.com"}}).to_dict()
    assert shown["properties"]["lastmodifieddate"] == "2026-11-24T10:00:00.000Z"
    assert shown["properties"]["createdate"] == "2026-11-24T09:00:00.000Z"


def test_an_engagement_needs_its_time_and_direction(case: Case) -> None:
    answer = case.http.post("/crm/v3/objects/emails", json={"properties": {"hs_email_subject": "Hi"}})
    assert answer.status_code == 400
    assert {e["context"]["propertyName"][0] for e in answer.json()["errors"]} == {
        "hs_timestamp",
        "hs_email_direction",
    }


def test_values_of_a_unique_property_are_one_records_only(case: Case) -> None:
    prop = {
        "name": "crm_no",
        "label": "No",
        "type": "string",
        "fieldType": "text",
        "groupName": "contactinformation",
        "hasUniqueValue": True,
    }
    case.sdk.crm.properties.core_api.create("contacts", prop)
    one, two = case.contact("a@example.com", crm_no="7"), case.contact("b@example.com")
    with pytest.raises(ApiException) as refused:
        case.sdk.crm.contacts.basic_api.update(two, {"properties": {"crm_no": "7"}})
    assert f"on {two}. {one} already has that value" in problems_of(refused.value)["message"]
    case.sdk.crm.contacts.basic_api.update(one, {"properties": {"crm_no": ""}})
    case.sdk.crm.contacts.basic_api.update(two, {"properties": {"crm_no": "7"}})
    found = case.sdk.crm.contacts.basic_api.get_by_id("7", id_property="crm_no")
    assert found.id == two


# -- conflicts and batches ----------------------------------------------------------------------------------


def test_a_known_address_is_a_conflict_that_names_the_holder_in_its_text(case: Case) -> None:
    made = case.contact("a@example.com")
    with pytest.raises(ApiException) as refused:
        case.contact("A@EXAMPLE.com")
    assert refused.value.status == 409
    assert problems_of(refused.value)["message"] == f"Contact already exists. Existing ID: {made}"


def test_one_bad_input_without_trace_ids_refuses_and_undoes_all(case: Case) -> None:
    known = case.contact("known@example.com", city="Wien")
    status, body = upsert(case, item("known@example.com", city="Graz"), item("new@example.com", nope="1"))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    store = case.sandbox.account.store("contacts")
    assert store.live[int(known)].properties["city"] == "Wien"
    assert store.find("new@example.com", "email") is None
    assert len(store.by_updated) == len(store.order) == 1


def test_with_trace_ids_the_good_inputs_are_written_and_the_others_told(case: Case) -> None:
    status, body = upsert(
        case,
        item("A@example.com", "1", city="Wien"),
        item("b@example.com", "2", nope="1"),
        item("c@example.com", "3"),
    )
    assert (status, body["numErrors"]) == (207, 1)
    assert body["errors"][0]["context"]["objectWriteTraceId"] == ["2"]
    written = {r["objectWriteTraceId"]: r["properties"]["email"] for r in body["results"]}
    assert written == {"1": "a@example.com", "3": "c@example.com"}
    assert [r["objectWriteTraceId"] for r in body["results"]] != ["1", "3"]  # never by place


def test_repeated_trace_ids_are_as_good_as_none(case: Case) -> None:
    status, _ = upsert(case, item("a@example.com", "1"), item("b@example.com", "1", nope="1"))
    assert status == 400


@pytest.mark.parametrize("path", ["batch/upsert", "batch/update"])
def test_the_same_id_twice_refuses_the_batch(path: str, case: Case) -> None:
    case.contact("a@example.com")
    twice = {"inputs": [item("a@example.com", "1"), item("A@example.com", "2")]}
    answer = case.http.post(f"{CONTACTS}/{path}", json=twice)
    assert (answer.status_code, answer.json()["message"]) == (400, "Duplicate IDs found in batch input")


def test_batches_have_limits_and_know_unique_properties_only(case: Case) -> None:
    assert upsert(case, *[item(f"c{n}@example.com") for n in range(101)])[0] == 400
    assert upsert(case, {"id": "Ann", "idProperty": "firstname", "properties": {}})[0] == 400
    assert upsert(case, *[item(f"c{n}@example.com") for n in range(100)])[0] == 200


def test_unknown_ids_are_told_beside_the_known_ones(case: Case) -> None:
    made = case.contact("a@example.com")
    for path, body in (
        ("batch/read", {"inputs": [{"id": made}, {"id": "99"}], "properties": []}),
        ("batch/update", {"inputs": [{"id": i, "properties": {"city": "Wien"}} for i in (made, "99")]}),
    ):
        answer = case.http.post(f"{CONTACTS}/{path}", json=body)
        assert answer.status_code == 207
        assert [r["id"] for r in answer.json()["results"]] == [made]
        assert answer.json()["errors"][0]["category"] == "OBJECT_NOT_FOUND"
        assert answer.json()["errors"][0]["context"]["ids"] == ["99"]


def test_a_new_record_with_a_bad_link_is_not_made(case: Case) -> None:
    link = {"to": {"id": "99"}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 4}]}
    answer = case.http.post(CONTACTS, json={"properties": {"email": "a@example.com"}, "associations": [link]})
    assert answer.status_code == 404
    assert case.sandbox.account.store("contacts").order == []


# -- merging and going away ---------------------------------------------------------------------------------


def test_a_merge_makes_a_third_id_that_both_old_ones_answer_with(case: Case) -> None:
    one, two = (
        case.contact("one@example.com", city="Wien"),
        case.contact("two@example.com", city="Graz", phone="1"),
    )
    merged = case.sdk.crm.contacts.basic_api.merge({"primaryObjectId": one, "objectIdToMerge": two})
    assert merged.id not in (one, two)
    names = ["email", "city", "phone", "hs_merged_object_ids", "hs_additional_emails"]
    for old in (one, two):
        shown = case.sdk.crm.contacts.basic_api.get_by_id(old, properties=names)
        assert shown.id == merged.id
        assert shown.properties["hs_merged_object_ids"] == f"{one};{two}"
        assert (shown.properties["city"], shown.properties["phone"]) == (
            "Wien",
            "1",
        )  # the primary's values win
    by_address = case.sdk.crm.contacts.basic_api.get_by_id("two@example.com", id_property="email")
    assert by_address.id == merged.id
    update = {"inputs": [{"id": one, "properties": {"city": "Linz"}}]}
    assert (
        case.http.post(f"{CONTACTS}/batch/update", json=update).status_code == 207
    )  # batches know no old ids
    assert case.sdk.crm.contacts.basic_api.update(two, {"properties": {"city": "Linz"}}).id == merged.id


def test_a_chain_of_merges_names_all_and_carries_links_and_memberships(case: Case) -> None:
    ids = [case.contact(f"c{n}@example.com") for n in range(3)]
    link = {
        "to": {"id": ids[1]},
        "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 3}],
    }
    deal = case.sdk.crm.deals.basic_api.create({"properties": {"dealname": "D"}, "associations": [link]}).id
    readers = case.sandbox.segments.create("Readers", "MANUAL")
    case.sandbox.segments.change(readers, ids[1:2], [])
    first = case.sandbox.merge("contacts", ids[0], ids[1])
    last = case.sandbox.merge("contacts", ids[2], first.id)
    assert set(last.properties["hs_merged_object_ids"].split(";")) == {*ids, first.id}
    assert case.sdk.crm.contacts.basic_api.get_by_id(ids[1]).id == last.id
    linked = case.sdk.crm.associations.v4.basic_api.get_page("deals", deal, "contacts")
    assert [r.to_object_id for r in linked.results] == [last.id]
    assert list(readers.members) == [last.number]


def test_archiving_does_not_move_the_modified_instant(case: Case) -> None:
    made = case.contact("a@example.com")
    case.clock.advance(days=1)
    case.sdk.crm.contacts.basic_api.archive(made)
    shown = case.http.get(CONTACTS, params={"archived": "true"}).json()["results"][0]
    assert shown["archivedAt"] == "2026-11-25T09:00:00.000Z"
    assert shown["updatedAt"] == "2026-11-24T09:00:00.000Z"
    assert case.http.get(f"{CONTACTS}/{made}").status_code == 404
    assert case.contact("a@example.com") != made  # the address is free again


def test_an_erased_contact_leaves_no_trace_and_an_unknown_address_is_blocked(case: Case) -> None:
    made = case.contact("gone@example.com")
    for body in (
        {"objectId": "gone@example.com", "idProperty": "email"},
        {"objectId": "never@example.com", "idProperty": "email"},
    ):
        assert case.http.post(f"{CONTACTS}/gdpr-delete", json=body).status_code == 204
    assert case.http.get(CONTACTS, params={"archived": "true"}).json()["results"] == []
    assert case.http.get(f"{CONTACTS}/{made}", params={"archived": "true"}).status_code == 404
    assert case.http.post(CONTACTS, json={"properties": {"email": "never@example.com"}}).status_code == 400


def test_a_further_address_is_taken_as_well_and_a_restore_respects_it(case: Case) -> None:
    made = case.contact("a@example.com", hs_additional_emails="Second@example.com")
    answer = case.http.post(CONTACTS, json={"properties": {"email": "second@example.com"}})
    assert (answer.status_code, answer.json()["message"]) == (
        409,
        f"Contact already exists. Existing ID: {made}",
    )
    case.sandbox.archive("contacts", made)
    other = case.contact("second@example.com")
    with pytest.raises(Refusal, match=f"Existing ID: {other}"):
        case.sandbox.account.restore("contacts", int(made))
    case.sandbox.archive("contacts", other)
    assert case.sandbox.account.restore("contacts", int(made)).id == made


# -- the indexes behind it all ------------------------------------------------------------------------------


def assert_whole(store: ObjectStore) -> None:
    """Every index says the same as the records themselves."""
    assert store.order == sorted(store.live)
    assert store.by_updated == sorted((r.updated_ms, r.number) for r in store.live.values())
    owned: dict[str, int] = {}
    for record in store.live.values():
        addresses = [
            record.properties.get("email", ""),
            *record.properties.get("hs_additional_emails", "").split(";"),
        ]
        owned |= {address: record.number for address in addresses if address}
    assert store.unique["email"] == owned


@pytest.mark.parametrize("seed", range(6))
def test_any_mix_of_writes_leaves_the_indexes_whole(seed: int) -> None:
    rng, clock = random.Random(seed), ManualClock()
    sandbox = HubSpotSandbox(clock=clock)
    account, store = sandbox.account, sandbox.account.store("contacts")
    refused = 0
    for _ in range(250):
        clock.advance(seconds=rng.choice((0, 0, 1, 60)))
        some = [rng.choice(list(store.live.values())) for _ in range(2)] if store.live else []
        act = rng.choice(("create", "create", "edit", "edit", "archive", "restore", "merge", "batch"))
        values = {"email": f"c{rng.randrange(40)}@example.com", "city": rng.choice(("", "Wien", "Graz"))}
        try:
            if act == "create" or not some:
                sandbox.create("contacts", values)
            elif act == "edit":
                sandbox.edit("contacts", some[0].id, values)
            elif act == "archive":
                sandbox.archive("contacts", some[0].id)
            elif act == "restore" and store.archived:
                account.restore("contacts", rng.choice(list(store.archived)))
            elif act == "merge":
                sandbox.merge("contacts", some[0].id, some[1].id)
            elif act == "batch":
                with account.transaction():
                    account.update("contacts", some[0], {"city": "Linz"})
                    account.create("contacts", {"email": f"new{rng.random()}@example.com"})
                    account.create("contacts", values)
        except Refusal:
            refused += 1
        assert_whole(store)
    assert refused > 0
