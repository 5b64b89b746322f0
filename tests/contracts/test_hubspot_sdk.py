"""The official SDK over the whole surface that we use. Every answer is held against the contract meanwhile.

What the SDK does not have yet (consent v4, OAuth v3, account information) is driven over plain HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.hubspot.preferences import define_subscription
from tests.contracts.conftest import Serve
from tests.contracts.hubspot_case import Case, hubspot_case

LINK = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 3}


def records(case: Case) -> None:
    crm = case.sdk.crm
    ann = case.contact("Ann@Example.com", firstname="Ann")
    bob = case.contact("bob@example.com", firstname="Bob")
    assert (
        crm.contacts.basic_api.get_by_id(ann, properties=["email"]).properties["email"] == "ann@example.com"
    )
    crm.contacts.basic_api.update(bob, {"properties": {"city": "Köln"}})
    assert (
        crm.contacts.basic_api.get_by_id(
            "bob@example.com", id_property="email", properties=["city"]
        ).properties["city"]
        == "Köln"
    )
    read = crm.contacts.batch_api.read(_read([ann, bob], ["firstname"]))
    assert {r.properties["firstname"] for r in read.results} == {"Ann", "Bob"}
    made = crm.contacts.batch_api.create({"inputs": [_new(f"c{n}@example.com") for n in range(3)]})
    ids = [r.id for r in made.results]
    crm.contacts.batch_api.update({"inputs": [{"id": i, "properties": {"lastname": "Weiß"}} for i in ids]})
    upserted = crm.contacts.batch_api.upsert(
        {"inputs": [_upsert("c0@example.com"), _upsert("new@example.com")]}
    )
    assert sorted(r.new for r in upserted.results) == [False, True]
    assert len(crm.contacts.get_all(limit=50)) == 6
    found = crm.contacts.search_api.do_search(_search("lastname", "EQ", "weiß"))
    assert found.total == 4
    merged = crm.contacts.basic_api.merge({"primaryObjectId": ann, "objectIdToMerge": bob})
    assert merged.id not in (ann, bob)
    crm.contacts.batch_api.archive({"inputs": [{"id": ids[0]}]})
    crm.contacts.basic_api.archive(ids[1])
    assert {r.id for r in crm.contacts.basic_api.get_page(archived=True).results} == {ids[0], ids[1]}
    crm.contacts.basic_api.purge({"objectId": ids[2]})
    assert ids[2] not in {r.id for r in crm.contacts.basic_api.get_page(archived=True).results}


def _new(email: str) -> dict[str, object]:
    return {"properties": {"email": email}, "associations": []}


def _upsert(email: str) -> dict[str, object]:
    return {"id": email, "idProperty": "email", "properties": {"lastname": "Weiß"}}


def _read(ids: list[str], names: list[str]) -> dict[str, object]:
    return {"inputs": [{"id": i} for i in ids], "properties": names, "propertiesWithHistory": []}


def _search(name: str, operator: str, value: str) -> dict[str, object]:
    return {
        "filterGroups": [{"filters": [{"propertyName": name, "operator": operator, "value": value}]}],
        "sorts": [{"propertyName": name, "direction": "ASCENDING"}],
        "properties": [name],
        "limit": 100,
    }


def deals(case: Case) -> None:
    crm, contact = case.sdk.crm, case.contact("buyer@example.com")
    values = {
        "dealname": "Pilot",
        "pipeline": "default",
        "dealstage": "appointmentscheduled",
        "amount": "900",
    }
    linked = {"properties": values, "associations": [{"to": {"id": contact}, "types": [LINK]}]}
    one = crm.deals.basic_api.create(linked)
    shown = crm.deals.basic_api.get_by_id(one.id, associations=["contacts"])
    assert [a.id for a in shown.associations["contacts"].results] == [contact]
    more = crm.deals.batch_api.create(
        {"inputs": [linked, {"properties": values, "associations": []}]}
    ).results
    crm.deals.basic_api.update(one.id, {"properties": {"dealstage": "closedwon"}})
    crm.deals.batch_api.update({"inputs": [{"id": d.id, "properties": {"amount": "1"}} for d in more]})
    assert len(crm.deals.batch_api.read(_read([d.id for d in more], ["amount"])).results) == 2
    assert crm.deals.search_api.do_search(_search("dealstage", "EQ", "closedwon")).total == 1
    assert (
        crm.deals.batch_api.upsert(
            {"inputs": [{"id": one.id, "idProperty": "hs_object_id", "properties": {"amount": "5"}}]}
        )
        .results[0]
        .new
        is False
    )
    assert len(crm.deals.get_all()) == 3
    merged = crm.deals.basic_api.merge({"primaryObjectId": one.id, "objectIdToMerge": more[0].id})
    crm.deals.batch_api.archive({"inputs": [{"id": more[1].id}]})
    crm.deals.basic_api.archive(merged.id)
    assert crm.deals.get_all() == []


def companies(case: Case) -> None:
    crm = case.sdk.crm
    made = crm.companies.basic_api.create(
        {"properties": {"name": "Kleeblatt", "domain": "example.org"}, "associations": []}
    )
    assert crm.companies.basic_api.get_by_id(made.id).properties["name"] == "Kleeblatt"
    assert crm.companies.get_all()[0].id == made.id
    assert crm.companies.search_api.do_search(_search("domain", "EQ", "example.org")).total == 1
    assert crm.companies.batch_api.read(_read([made.id], ["name"])).results[0].id == made.id
    crm.companies.basic_api.update(made.id, {"properties": {"industry": "RETAIL"}})
    other = case.sandbox.create("companies", {"name": "Kleeblatt again"})
    whole = case.http.post(
        "/crm/v3/objects/companies/merge", json={"primaryObjectId": made.id, "objectIdToMerge": other.id}
    ).json()
    assert crm.companies.basic_api.get_by_id(other.id).id == whole["id"]
    crm.companies.basic_api.archive(whole["id"])
    assert [each.id for each in crm.companies.basic_api.get_page(archived=True).results] == [whole["id"]]


def emails(case: Case) -> None:
    api, contact = case.sdk.crm.objects.emails, case.contact("reader@example.com")
    headers = '{"from":{"email":"ann@example.com"},"to":[{"email":"reader@example.com"}],"cc":[],"bcc":[]}'
    values = {
        "hs_timestamp": "1764000000000",
        "hs_email_direction": "EMAIL",
        "hs_email_status": "SENT",
        "hs_email_headers": headers,
    }
    link = {
        "to": {"id": contact},
        "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 198}],
    }
    key = {
        "name": "mailyard_key",
        "label": "Key",
        "type": "string",
        "fieldType": "text",
        "groupName": "emailinformation",
        "hasUniqueValue": True,
    }
    case.sdk.crm.properties.core_api.create("emails", key)
    one = api.basic_api.create({"properties": values | {"mailyard_key": "k1"}, "associations": [link]})
    two = api.batch_api.create({"inputs": [{"properties": values, "associations": [link]}]}).results[0]
    shown = api.basic_api.get_by_id(one.id, properties=["hs_email_to_email"], associations=["contacts"])
    assert shown.properties["hs_email_to_email"] == "reader@example.com"
    api.basic_api.update(one.id, {"properties": {"hs_email_status": "BOUNCED"}})
    api.batch_api.update({"inputs": [{"id": two.id, "properties": {"hs_email_subject": "Hello"}}]})
    upserted = api.batch_api.upsert(
        {"inputs": [{"id": "k1", "idProperty": "mailyard_key", "properties": {"hs_email_subject": "Hi"}}]}
    )
    assert (upserted.results[0].id, upserted.results[0].new) == (one.id, False)
    assert len(api.batch_api.read(_read([one.id, two.id], ["hs_email_subject"])).results) == 2
    assert api.search_api.do_search(_search("hs_email_status", "EQ", "BOUNCED")).total == 1
    assert len(api.basic_api.get_page(limit=10).results) == 2
    api.basic_api.archive(one.id)
    api.batch_api.archive({"inputs": [{"id": two.id}]})
    assert api.basic_api.get_page(archived=True).results == []  # engagements have no recycle bin


def properties(case: Case) -> None:
    api = case.sdk.crm.properties
    group = api.groups_api.create("contacts", {"name": "mailyard", "label": "Mailyard"})
    assert api.groups_api.get_by_name("contacts", "mailyard").label == group.label
    assert "mailyard" in [g.name for g in api.groups_api.get_all("contacts").results]
    base = {"groupName": "mailyard", "type": "enumeration", "fieldType": "select"}
    options = [{"label": "Sent", "value": "sent", "hidden": False}]
    api.core_api.create(
        "contacts", {**base, "name": "last_result", "label": "Last result", "options": options}
    )
    batch = {
        "inputs": [
            {
                "groupName": "mailyard",
                "type": "datetime",
                "fieldType": "date",
                "name": "last_open",
                "label": "Last open",
            }
        ]
    }
    assert api.batch_api.create("contacts", batch).results[0].name == "last_open"
    changed = api.core_api.update(
        "contacts", "last_result", {"options": [{"label": "Opened", "value": "opened", "hidden": False}]}
    )
    assert [o.value for o in changed.options] == ["opened"]
    names = {"inputs": [{"name": "last_open"}], "archived": False, "dataSensitivity": "non_sensitive"}
    assert api.batch_api.read("contacts", names).results[0].type == "datetime"
    assert api.core_api.get_by_name("contacts", "email").has_unique_value
    api.core_api.archive("contacts", "last_result")
    assert "last_result" not in [p.name for p in api.core_api.get_all("contacts").results]
    again = api.core_api.create(
        "contacts", {**base, "name": "last_result", "label": "Back", "options": options}
    )
    assert again.label == "Back"


def segments(case: Case) -> None:
    api = case.sdk.crm.lists
    ids = [case.contact(f"m{n}@example.com") for n in range(5)]
    made = api.lists_api.create({"name": "Readers", "objectTypeId": "0-1", "processingType": "MANUAL"}).list
    changed = api.memberships_api.add(made.list_id, [*ids, "999999"])
    assert (changed.records_ids_added, changed.record_ids_missing) == (ids, ["999999"])
    page = api.memberships_api.get_page(made.list_id, limit=3)
    rest = api.memberships_api.get_page(made.list_id, limit=3, after=page.paging.next.after)
    assert [m.record_id for m in page.results + rest.results] == ids
    assert api.memberships_api.remove(made.list_id, ids[:1]).record_ids_removed == ids[:1]
    both = {"recordIdsToAdd": ids[:1], "recordIdsToRemove": ids[1:2]}
    api.memberships_api.add_and_remove(made.list_id, both)
    joined = api.memberships_api.get_page_ordered_by_added_to_list_date(made.list_id, limit=10)
    assert {m.record_id for m in joined.results} == {ids[0], *ids[2:]}
    assert api.memberships_api.get_lists("0-1", ids[0]).results[0].list_id == made.list_id
    found = api.lists_api.do_search(
        {"offset": 0, "count": 10, "additionalProperties": ["hs_list_size"], "query": "read"}
    )
    assert found.lists[0].additional_properties["hs_list_size"] == "4"
    assert api.lists_api.get_by_id(made.list_id).list.size == 4
    assert api.lists_api.get_by_name("Readers", "0-1").list.list_id == made.list_id
    assert len(api.lists_api.get_all(list_ids=[made.list_id]).lists) == 1
    api.lists_api.remove(made.list_id)
    assert api.lists_api.do_search({"offset": 0, "additionalProperties": []}).total == 0
    api.lists_api.restore(made.list_id)
    assert api.lists_api.do_search({"offset": 0, "additionalProperties": []}).total == 1


def associations(case: Case) -> None:
    api, contact = case.sdk.crm.associations.v4, case.contact("linked@example.com")
    deal = case.sdk.crm.deals.basic_api.create({"properties": {"dealname": "D"}, "associations": []}).id
    pair = {"from": {"id": deal}, "to": {"id": contact}}
    made = api.batch_api.create("deals", "contacts", {"inputs": [{**pair, "types": [LINK]}]})
    assert made.results[0].to_object_id == contact
    read = api.batch_api.get_page("deals", "contacts", {"inputs": [{"id": deal}]})
    assert read.results[0].to[0].association_types[0].type_id == 3
    back = api.basic_api.get_page("contacts", contact, "deals")
    assert (back.results[0].to_object_id, back.results[0].association_types[0].type_id) == (deal, 4)
    api.batch_api.archive("deals", "contacts", {"inputs": [{"from": {"id": deal}, "to": [{"id": contact}]}]})
    assert api.basic_api.get_page("deals", deal, "contacts").results == []
    api.basic_api.create("deals", deal, "contacts", contact, [LINK])
    api.basic_api.archive("deals", deal, "contacts", contact)
    api.basic_api.create_default("deals", deal, "contacts", contact)
    assert len(api.basic_api.get_page("deals", deal, "contacts").results) == 1
    links = case.sandbox.account.links
    decides = links.define("deals", "contacts", "Decision maker")
    links.add("deals", int(deal), "contacts", int(contact), [decides])
    read = api.batch_api.get_page("deals", "contacts", {"inputs": [{"id": deal}]})
    told = [(t.category, t.label) for t in read.results[0].to[0].association_types]
    assert told == [("HUBSPOT_DEFINED", None), ("USER_DEFINED", "Decision maker")]
    one, two = (case.sandbox.create("companies", {"name": name}).number for name in ("One", "Two"))
    for company in (one, two):  # a contact has one primary company: the second takes the place of the first
        links.add("companies", company, "contacts", int(contact), [2])
    read = api.basic_api.get_page("contacts", contact, "companies")
    assert [(r.to_object_id, [t.label for t in r.association_types]) for r in read.results] == [
        (str(one), [None]), (str(two), ["Primary", None]),
    ]  # fmt: skip


def directory(case: Case) -> None:
    crm = case.sdk.crm
    stages = crm.pipelines.pipelines_api.get_all("deals").results[0].stages
    assert stages[0].label == "Trial"
    assert crm.pipelines.pipelines_api.get_by_id("deals", "default").label
    assert len(crm.pipelines.pipeline_stages_api.get_all("deals", "default").results) == len(stages)
    instant = "2026-11-24T09:00:00.000Z"
    owner = {
        "id": "77",
        "email": "o@example.com",
        "type": "PERSON",
        "createdAt": instant,
        "updatedAt": instant,
        "archived": False,
    }
    case.sandbox.account.owners["77"] = owner
    assert crm.owners.owners_api.get_page(limit=10).results[0].id == "77"
    assert crm.owners.owners_api.get_by_id(77).email == "o@example.com"
    assert case.http.get("/account-info/v3/details").json()["portalId"] == case.sandbox.account.portal_id


def consent(case: Case) -> None:
    define_subscription(case.sandbox.account, 5, "News", "All the news")
    base, address = "/communication-preferences/v4", "who@example.com"
    assert case.http.get(f"{base}/definitions").json()["results"][0]["id"] == "5"
    one, query = f"{base}/statuses/{address}", {"channel": "EMAIL"}
    assert case.http.get(one, params=query).json()["results"][0]["status"] == "NOT_SPECIFIED"
    wish = {"channel": "EMAIL", "subscriptionId": 5, "statusState": "UNSUBSCRIBED"}
    assert case.http.post(one, json=wish).json()["results"][0]["status"] == "UNSUBSCRIBED"
    assert case.http.get(f"{one}/unsubscribe-all", params=query).json()["results"] == []
    assert (
        case.http.post(f"{one}/unsubscribe-all", params=query | {"verbose": "true"}).json()["results"] != []
    )
    assert (
        case.http.get(f"{one}/unsubscribe-all", params=query).json()["results"][0]["status"] == "UNSUBSCRIBED"
    )


def oauth(case: Case) -> None:
    box = case.sandbox
    app = {"client_id": box.client_id, "client_secret": box.client_secret}
    code = box.tokens.issue_code()
    asked = {"client_id": box.client_id, "redirect_uri": "http://127.0.0.1/back", "scope": "oauth"}
    assert "code=" in case.http.get("/oauth/authorize", params=asked).headers["location"]
    tokens = case.sdk.oauth.tokens_api.create(grant_type="authorization_code", code=code, **app)
    facts = case.sdk.oauth.access_tokens_api.get(tokens.access_token)
    assert facts.hub_id == box.account.portal_id
    assert case.sdk.oauth.refresh_tokens_api.get(tokens.refresh_token).client_id == box.client_id
    form = app | {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    newer = case.http.post("/oauth/v3/token", data=form).json()
    assert newer["hub_id"] == box.account.portal_id
    question = app | {"token": newer["access_token"], "token_type_hint": "access_token"}
    assert case.http.post("/oauth/v3/token/introspect", data=question).json()["active"] is True
    assert case.http.post("/oauth/v3/token/revoke", data=question).status_code == 204
    assert case.http.post("/oauth/v3/token/introspect", data=question).json() == {"active": False}
    case.sdk.oauth.refresh_tokens_api.archive(tokens.refresh_token)
    assert case.http.post("/oauth/v1/token", data=form).json()["status"] == "BAD_REFRESH_TOKEN"


def webhooks(case: Case) -> None:
    base, key = f"/webhooks/v3/{case.sandbox.app_id}", {"hapikey": case.sandbox.tokens.developer_key}
    settings = {"targetUrl": "https://hub.example.com/hooks/crm", "throttling": {"maxConcurrentRequests": 5}}
    assert (
        case.http.put(f"{base}/settings", params=key, json=settings).json()["targetUrl"]
        == settings["targetUrl"]
    )
    assert case.http.get(f"{base}/settings", params=key).status_code == 200
    wish = {"eventType": "contact.propertyChange", "propertyName": "email"}
    made = case.http.post(f"{base}/subscriptions", params=key, json=wish).json()
    assert made["active"] is False
    one = f"{base}/subscriptions/{made['id']}"
    assert case.http.patch(one, params=key, json={"active": True}).json()["active"] is True
    batch = {"inputs": [{"id": int(made["id"]), "active": False}]}
    assert (
        case.http.post(f"{base}/subscriptions/batch/update", params=key, json=batch).json()["results"][0][
            "active"
        ]
        is False
    )
    assert case.http.get(one, params=key).json()["propertyName"] == "email"
    assert len(case.http.get(f"{base}/subscriptions", params=key).json()["results"]) == 1
    assert case.http.delete(one, params=key).status_code == 204
    assert case.http.get(one, params=key).status_code == 404
    assert case.http.get(one).json()["category"] == "INVALID_AUTHENTICATION"


ROOMS = [
    records,
    deals,
    companies,
    emails,
    properties,
    segments,
    associations,
    directory,
    consent,
    oauth,
    webhooks,
]


@pytest.mark.parametrize("walk", ROOMS)
def test_the_sdk_works_against_the_sandbox(walk: Callable[[Case], None], serve_recorded: Serve) -> None:
    with hubspot_case(serve_recorded) as case:
        walk(case)


def test_every_operation_of_the_contract_was_answered(serve_recorded: Serve) -> None:
    seen = set()
    for walk in ROOMS:
        with hubspot_case(serve_recorded) as case:
            walk(case)
            seen |= case.conformance.seen
    case.conformance.seen = seen
    assert case.conformance.never_answered() == []
