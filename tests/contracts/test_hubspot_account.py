"""The account around the records: tokens, scopes, limits, consent, lists, faults on demand, the demo's seed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.hubspot.limits import Counter, Limits, TooMany
from contracts.hubspot.preferences import define_subscription
from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.hubspot.seed import PRODUCT_NEWS, seed_demo
from hub.clock import ManualClock
from tests.contracts.conftest import ROOT, Serve
from tests.contracts.hubspot_case import Case, hubspot_case

CONTACTS = "/crm/v3/objects/contacts"


@pytest.fixture
def case(serve_recorded: Serve) -> Iterator[Case]:
    with hubspot_case(serve_recorded) as served:
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# -- tokens -------------------------------------------------------------------------------------------------


def app(case: Case, **more: str) -> dict[str, str]:
    return {"client_id": case.sandbox.client_id, "client_secret": case.sandbox.client_secret, **more}


def test_an_oauth_app_gets_in_is_shut_out_and_renews(case: Case) -> None:
    query = {
        "client_id": case.sandbox.client_id,
        "redirect_uri": "http://127.0.0.1/back",
        "scope": "oauth crm.objects.contacts.read",
        "state": "s1",
    }
    back = httpx.get(f"{case.url}/oauth/authorize", params=query, follow_redirects=False)
    target = httpx.URL(back.headers["location"])
    assert (back.status_code, target.params["state"]) == (302, "s1")
    form = app(
        case,
        grant_type="authorization_code",
        code=target.params["code"],
        redirect_uri="http://127.0.0.1/back",
    )
    tokens = case.http.post("/oauth/v1/token", data=form).json()
    assert (
        case.http.post("/oauth/v1/token", data=form).json()["status"] == "BAD_AUTH_CODE"
    )  # a code works once
    with_token = bearer(tokens["access_token"])
    assert case.http.get(CONTACTS, headers=with_token).status_code == 200
    refused = case.http.get("/crm/v3/objects/deals", headers=with_token)
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.deals.read"]
    case.clock.advance(seconds=1800)
    late = case.http.get(CONTACTS, headers=with_token)
    assert (late.status_code, late.json()["category"]) == (401, "EXPIRED_AUTHENTICATION")
    renewed = case.http.post(
        "/oauth/v1/token", data=app(case, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    ).json()
    assert case.http.get(CONTACTS, headers=bearer(renewed["access_token"])).status_code == 200


def test_refresh_tokens_may_rotate(case: Case) -> None:
    case.sandbox.tokens.rotate = True
    first = case.http.post(
        "/oauth/v1/token",
        data=app(case, grant_type="authorization_code", code=case.sandbox.tokens.issue_code()),
    ).json()
    form = app(case, grant_type="refresh_token", refresh_token=first["refresh_token"])
    second = case.http.post("/oauth/v1/token", data=form).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert case.http.post("/oauth/v1/token", data=form).status_code == 400


@pytest.mark.parametrize(
    "wrong", [{"client_id": "x"}, {"client_secret": "x"}, {"code": "x"}, {"grant_type": "password"}]
)
def test_a_wrong_token_request_is_refused(wrong: dict[str, str], case: Case) -> None:
    form = app(case, grant_type="authorization_code", code=case.sandbox.tokens.issue_code()) | wrong
    answer = case.http.post("/oauth/v1/token", data=form)
    assert answer.status_code == 400
    assert answer.json()["status"].startswith("BAD_")


def test_a_code_is_good_for_a_minute(case: Case) -> None:
    code = case.sandbox.tokens.issue_code()
    case.clock.advance(seconds=60)
    assert (
        case.http.post(
            "/oauth/v1/token", data=app(case, grant_type="authorization_code", code=code)
        ).status_code
        == 400
    )


def test_tokens_can_be_let_run_out_from_outside(case: Case) -> None:
    form = app(case, grant_type="authorization_code", code=case.sandbox.tokens.issue_code())
    token = case.http.post("/oauth/v1/token", data=form).json()["access_token"]
    assert case.http.post("/_sandbox/token-expire").json() == {"expired": 1}
    assert case.http.get(CONTACTS, headers=bearer(token)).json()["category"] == "EXPIRED_AUTHENTICATION"


@pytest.mark.parametrize("header", [{"Authorization": ""}, {"Authorization": "Bearer pat-na1-wrong"}])
def test_without_a_known_token_nobody_gets_in(header: dict[str, str], case: Case) -> None:
    answer = case.http.get(CONTACTS, headers=header)
    assert (answer.status_code, answer.json()["category"]) == (401, "INVALID_AUTHENTICATION")


def test_a_private_token_has_its_scopes_only(case: Case) -> None:
    case.sandbox.tokens.add_private("pat-na1-lists", ("crm.lists.write",))
    answer = case.http.put("/crm/v3/lists/1/memberships/add", headers=bearer("pat-na1-lists"), json=["1"])
    assert answer.status_code == 403  # writing members wants reading lists, too
    assert case.http.get("/account-info/v3/details", headers=bearer("pat-na1-lists")).status_code == 200


# -- limits -------------------------------------------------------------------------------------------------


def test_the_burst_limit_answers_429_with_hubspots_headers(serve_recorded: Serve) -> None:
    with hubspot_case(serve_recorded, limits=Limits(private_per_10_s=3)) as case:
        answers = [case.http.get(CONTACTS) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a.headers["X-HubSpot-RateLimit-Remaining"] for a in answers] == ["2", "1", "0", "0"]
    last = answers[-1]
    assert last.json()["policyName"] == "TEN_SECONDLY_ROLLING"
    assert last.json()["errorType"] == "RATE_LIMIT"
    assert last.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
    assert "X-HubSpot-RateLimit-Daily" in last.headers
    assert "Retry-After" not in last.headers


def test_search_has_its_own_limit_and_no_headers(serve_recorded: Serve) -> None:
    with hubspot_case(serve_recorded, limits=Limits(search_per_second=2, private_per_10_s=1)) as case:
        answers = [case.http.post(f"{CONTACTS}/search", json={"filterGroups": []}) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert answers[-1].json()["message"] == "You have reached your secondly limit."
        assert not [h for a in answers for h in a.headers if "ratelimit" in h]
        assert case.http.get(CONTACTS).status_code == 200


def test_the_daily_limit_stops_all(serve_recorded: Serve) -> None:
    with hubspot_case(serve_recorded, limits=Limits(daily=2)) as case:
        answers = [case.http.get(CONTACTS) for _ in range(3)]
    assert answers[-1].json()["policyName"] == "DAILY"
    assert [a.headers["X-HubSpot-RateLimit-Daily-Remaining"] for a in answers] == ["1", "0", "0"]


def test_windows_roll_and_apps_are_counted_apart() -> None:
    now = [100.0]
    counter = Counter(Limits(private_per_10_s=2, oauth_per_10_s=1), lambda: now[0])
    counter.burst("a", oauth=False)
    now[0] += 6
    counter.burst("a", oauth=False)
    assert counter.burst("b", oauth=True).get("X-HubSpot-RateLimit-Daily") is None
    for name, oauth in (("a", False), ("b", True)):
        with pytest.raises(TooMany):
            counter.burst(name, oauth=oauth)
    now[0] += 4  # the first of the two is ten seconds old
    assert counter.burst("a", oauth=False)["X-HubSpot-RateLimit-Remaining"] == "0"


# -- consent ------------------------------------------------------------------------------------------------


def test_consent_hangs_on_the_address_and_outlives_the_contact(case: Case) -> None:
    define_subscription(case.sandbox.account, 5, "News", "All the news")
    made, one = case.contact("ann@example.com"), "/communication-preferences/v4/statuses/Ann@Example.com"
    case.clock.advance(minutes=1)
    assert case.http.post(f"{one}/unsubscribe-all", params={"channel": "EMAIL"}).json()["results"] == []
    names = ["hs_email_optout", "hs_email_optout_5"]
    shown = case.sdk.crm.contacts.basic_api.get_by_id(made, properties=names).properties
    assert (shown["hs_email_optout"], shown["hs_email_optout_5"]) == ("true", "true")
    assert shown["lastmodifieddate"] == "2026-11-24T09:01:00.000Z"  # a poll finds it
    case.sdk.crm.contacts.basic_api.archive(made)
    again = case.contact("ann@example.com")
    assert (
        case.sdk.crm.contacts.basic_api.get_by_id(again, properties=names).properties["hs_email_optout"]
        == "true"
    )
    moved = case.sdk.crm.contacts.basic_api.update(again, {"properties": {"email": "new@example.com"}})
    assert (
        "hs_email_optout"
        not in case.sdk.crm.contacts.basic_api.get_by_id(moved.id, properties=names).properties
    )


def test_v4_takes_a_no_back(case: Case) -> None:
    for number in (5, 6):
        define_subscription(case.sandbox.account, number, f"News {number}", "News")
    made, one = case.contact("ann@example.com"), "/communication-preferences/v4/statuses/ann@example.com"
    case.sandbox.opt_out("ann@example.com")
    wish = {"channel": "EMAIL", "subscriptionId": 5, "statusState": "SUBSCRIBED"}
    assert (
        case.http.post(one, json=wish).json()["results"][0]["setStatusSuccessReason"]
        == "RESUBSCRIBE_OCCURRED"
    )
    states = {
        s["subscriptionId"]: s["status"]
        for s in case.http.get(one, params={"channel": "EMAIL"}).json()["results"]
    }
    assert states == {5: "SUBSCRIBED", 6: "UNSUBSCRIBED"}
    shown = case.sdk.crm.contacts.basic_api.get_by_id(made, properties=["hs_email_optout"]).properties
    assert "hs_email_optout" not in shown
    assert case.http.post(one, json=wish).json()["results"][0]["setStatusSuccessReason"] == "NO_STATUS_CHANGE"


@pytest.mark.parametrize(
    "wrong", [{"channel": "SMS"}, {"subscriptionId": 99}, {"statusState": "MAYBE"}, {"legalBasis": "WHIM"}]
)
def test_a_wrong_status_is_refused(wrong: dict[str, Any], case: Case) -> None:
    define_subscription(case.sandbox.account, 5, "News", "All the news")
    body = {"channel": "EMAIL", "subscriptionId": 5, "statusState": "UNSUBSCRIBED"} | wrong
    assert (
        case.http.post("/communication-preferences/v4/statuses/a@example.com", json=body).status_code == 400
    )


def test_with_privacy_settings_a_legal_basis_is_required(case: Case) -> None:
    define_subscription(case.sandbox.account, 5, "News", "All the news")
    case.sandbox.account.preferences.privacy_settings = True
    body, one = (
        {"channel": "EMAIL", "subscriptionId": 5, "statusState": "SUBSCRIBED"},
        "/communication-preferences/v4/statuses/a@example.com",
    )
    assert case.http.post(one, json=body).status_code == 400
    basis = {"legalBasis": "CONSENT_WITH_NOTICE", "legalBasisExplanation": "double opt-in of 24 November"}
    assert case.http.post(one, json=body | basis).json()["results"][0]["legalBasis"] == "CONSENT_WITH_NOTICE"


# -- lists --------------------------------------------------------------------------------------------------

GERMANS = {
    "filterBranchType": "OR",
    "filterBranches": [
        {
            "filterBranchType": "AND",
            "filters": [
                {
                    "filterType": "PROPERTY",
                    "property": "country",
                    "operation": {"operator": "IS_EQUAL_TO", "values": ["DE"]},
                }
            ],
        }
    ],
}


def make_list(case: Case, kind: str, name: str = "L") -> str:
    body = {"name": name, "objectTypeId": "0-1", "processingType": kind, "filterBranch": GERMANS}
    made: str = case.http.post("/crm/v3/lists", json=body).json()["list"]["listId"]
    return made


def members(case: Case, number: str) -> list[str]:
    return [m["recordId"] for m in case.http.get(f"/crm/v3/lists/{number}/memberships").json()["results"]]


def test_a_dynamic_list_follows_its_filter_and_a_snapshot_does_not(case: Case) -> None:
    ann = case.contact("ann@example.com", country="DE")
    dynamic, snapshot = make_list(case, "DYNAMIC"), make_list(case, "SNAPSHOT", "S")
    bob = case.contact("bob@example.com", country="DE")
    case.sandbox.edit("contacts", ann, {"country": "AT"})
    assert (members(case, dynamic), members(case, snapshot)) == ([bob], [ann])
    refused = case.http.put(f"/crm/v3/lists/{dynamic}/memberships/add", json=[ann])
    assert refused.status_code == 400
    assert case.http.put(f"/crm/v3/lists/{snapshot}/memberships/add", json=[bob]).json()[
        "recordsIdsAdded"
    ] == [bob]


def test_a_dynamic_list_may_lag(case: Case) -> None:
    case.sandbox.segments.dynamic_lag_seconds = 60
    number = make_list(case, "DYNAMIC")
    ann = case.contact("ann@example.com", country="DE")
    assert members(case, number) == []
    case.clock.advance(seconds=60)
    assert members(case, number) == [ann]


def test_a_list_name_is_taken_once_and_bad_requests_are_refused(case: Case) -> None:
    make_list(case, "DYNAMIC")
    twice = case.http.post(
        "/crm/v3/lists", json={"name": "L", "objectTypeId": "0-1", "processingType": "MANUAL"}
    )
    assert (twice.status_code, twice.json()["subCategory"]) == (400, "ILS.DUPLICATE_LIST_NAMES")
    assert case.http.put("/crm/v3/lists/1/memberships/add", json=["ann@example.com"]).status_code == 400
    assert case.http.get("/crm/v3/lists/1/memberships", params={"limit": "251"}).status_code == 400
    assert case.http.get("/crm/v3/lists/99").status_code == 404
    assert case.http.post("/crm/v3/lists/search", json={"count": 501}).status_code == 400


# -- faults -------------------------------------------------------------------------------------------------


@pytest.fixture
def broken() -> Iterator[tuple[HubSpotSandbox, httpx.Client]]:
    sandbox = HubSpotSandbox(limits=Limits.generous())
    with sandbox.serve() as url, httpx.Client(base_url=url, headers=bearer(sandbox.token)) as http:
        yield sandbox, http


@pytest.mark.parametrize("kind", ["lost_answer", "truncated"])
def test_a_cut_answer_is_a_protocol_error_after_the_work_was_done(
    kind: str, broken: tuple[HubSpotSandbox, httpx.Client]
) -> None:
    sandbox, http = broken
    sandbox.faults.plan(kind, path="/contacts$")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(CONTACTS, json={"properties": {"email": "a@example.com"}})
    assert http.post(CONTACTS, json={"properties": {"email": "a@example.com"}}).status_code == 409


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("429", 429, "TEN_SECONDLY_ROLLING"),
        ("500", 500, "internal error"),
        ("html", 502, "<html>"),
        ("expired_token", 401, "EXPIRED_AUTHENTICATION"),
    ],
)
def test_a_fault_comes_once_where_it_was_planned(
    kind: str, status: int, said: str, broken: tuple[HubSpotSandbox, httpx.Client]
) -> None:
    _, http = broken
    assert http.post("/_sandbox/fault", json={"kind": kind, "path": "/contacts", "skip": 1}).json() == {
        "planned": 1
    }
    answers = [http.get(path) for path in ("/crm/v3/owners", CONTACTS, CONTACTS, CONTACTS)]
    assert [a.status_code for a in answers] == [200, 200, status, 200]
    assert said in answers[2].text
    assert http.get("/_sandbox/seen", params={"path": "contacts", "status": str(status)}).json() == {
        "count": 1
    }


def test_any_status_with_a_pause(broken: tuple[HubSpotSandbox, httpx.Client]) -> None:
    sandbox, http = broken
    sandbox.faults.plan("status", status=477, seconds=30)
    sandbox.faults.plan("status", status=423, seconds=0)
    answers = [http.get(CONTACTS) for _ in range(3)]
    assert [(a.status_code, a.headers.get("Retry-After")) for a in answers] == [
        (477, "30"),
        (423, None),
        (200, None),
    ]


def test_a_search_that_is_too_fast_is_told_so(broken: tuple[HubSpotSandbox, httpx.Client]) -> None:
    sandbox, http = broken
    sandbox.faults.plan("429")
    answer = http.post(f"{CONTACTS}/search", json={})
    assert (answer.status_code, answer.json()["policyName"]) == (429, "SECONDLY")


# -- the demo's account -------------------------------------------------------------------------------------


def test_the_seed_is_the_same_each_time_and_as_promised() -> None:
    one, two = (
        HubSpotSandbox(clock=ManualClock(), seed=lambda s: seed_demo(s, contacts=400)) for _ in range(2)
    )
    people = one.account.store("contacts").live
    assert {n: r.properties for n, r in people.items()} == {
        n: r.properties for n, r in two.account.store("contacts").live.items()
    }
    assert {n: s.members for n, s in one.segments.all.items()} == {
        n: s.members for n, s in two.segments.all.items()
    }
    other = HubSpotSandbox(clock=ManualClock(), seed=lambda s: seed_demo(s, contacts=400, seed=8))
    assert people[1001].properties != other.account.store("contacts").live[1001].properties
    assert len(people) == len({r.properties["email"] for r in people.values()}) == 400
    assert len(one.account.store("deals").live) == 120
    assert any("firstname" not in r.properties for r in people.values())
    assert any(not r.properties["lastname"].isascii() for r in people.values())
    assert all(r.properties["email"].isascii() for r in people.values())
    assert {s.type for s in one.segments.all.values()} == {"MANUAL", "DYNAMIC", "SNAPSHOT"}
    assert all(s.members for s in one.segments.all.values())
    assert list(one.account.preferences.definitions) == [PRODUCT_NEWS]


def test_two_thousand_contacts_are_seeded_and_read_quickly(serve_recorded: Serve) -> None:
    started = time.perf_counter()
    sandbox = HubSpotSandbox(seed=seed_demo, limits=Limits.generous())
    seeded = time.perf_counter() - started
    opted_out = sum(
        r.properties.get("hs_email_optout") == "true" for r in sandbox.account.store("contacts").live.values()
    )
    assert 10 <= opted_out <= 60
    with sandbox.serve() as url, httpx.Client(base_url=url, headers=bearer(sandbox.token)) as http:
        started, after, ids = time.perf_counter(), "", set()
        while after is not None:
            query = {"limit": "100", "properties": "email,firstname,lastname,country"} | (
                {"after": after} if after else {}
            )
            page = http.get(CONTACTS, params=query).json()
            ids |= {r["id"] for r in page["results"]}
            after = page.get("paging", {}).get("next", {}).get("after")
        read = time.perf_counter() - started
    assert len(ids) == 2000
    assert seeded < 3
    assert read < 3  # some twenty milliseconds on an idle machine


def test_it_serves_alone_until_it_is_told_to_stop(tmp_path: Path) -> None:
    offset = tmp_path / "clock"
    offset.write_text("86400")
    command = [
        sys.executable,
        "-m",
        "contracts.hubspot.sandbox",
        "--port",
        "0",
        "--demo",
        "--contacts",
        "50",
        "--clock",
        f"stepped:{offset}",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        made = httpx.post(
            f"{url}{CONTACTS}",
            headers=bearer("pat-na1-sandbox"),
            json={"properties": {"email": "z@example.com"}},
        ).json()
        assert made["createdAt"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 80_000))
        edit = {"object_type": "contacts", "id": "z@example.com", "properties": {"city": "Wien"}}
        assert httpx.post(f"{url}/_sandbox/edit", json=edit).json() == {"id": made["id"]}
        assert httpx.post(f"{url}/_sandbox/edit", json=edit | {"id": "nobody@example.com"}).status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
