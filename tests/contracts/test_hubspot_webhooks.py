"""Webhooks: signatures with HubSpot's own vectors, batches, echoes, doubles, retries, what each change tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.hubspot.webhooks import sign_v1, sign_v2, sign_v3
from hub.sdk.sandbox import serve_app
from tests.contracts.conftest import Serve
from tests.contracts.hubspot_case import CONTRACT, Case, hubspot_case
from tests.contracts.spec_check import Conformance

Json = dict[str, Any]
SECRET, URI = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy", "https://www.example.com/webhook_uri"


def test_signature_v3_as_the_official_clients_compute_it() -> None:
    body = b"{'example_field':'example_value'}"
    assert sign_v3(SECRET, "POST", URI, body, 1693657560000) == "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="
    assert (
        sign_v3(SECRET, "POST", URI, body + b" ", 1693657560000)
        != "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="
    )


def test_signature_v2_as_the_official_clients_compute_it() -> None:
    body = b'{"example_field":"example_value"}'
    expected = "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900"
    assert sign_v2(SECRET, "POST", URI, body) == expected


def test_the_sdk_accepts_what_we_sign() -> None:
    from hubspot.utils.signature import Signature

    body, stamp = '[{"eventId":1}]', 4_102_444_800_000
    signed = {
        "v1": sign_v1(SECRET, body.encode()),
        "v2": sign_v2(SECRET, "POST", URI, body.encode()),
        "v3": sign_v3(SECRET, "POST", URI, body.encode(), stamp),
    }
    for version, signature in signed.items():
        given = {
            "client_secret": SECRET,
            "request_body": body,
            "http_uri": URI,
            "signature_version": version,
            "timestamp": str(stamp),
        }
        assert Signature.is_valid(signature=signature, **given)
        assert not Signature.is_valid(signature=signature, **{**given, "request_body": body + " "})


def test_v3_decodes_certain_escapes_of_the_uri_only() -> None:
    plain = "https://hub.example.com/hooks/a:b@c?x=(1)&y=%20%5B"
    escaped = "https://hub.example.com/hooks/a%3Ab%40c?x=%281%29&y=%20%5B"
    assert sign_v3(SECRET, "POST", escaped, b"", 1) == sign_v3(SECRET, "POST", plain, b"", 1)
    assert sign_v3(SECRET, "POST", plain, b"", 1) != sign_v3(
        SECRET, "POST", plain.replace("%20", " "), b"", 1
    )
    assert quote("ü") == "%C3%BC"
    assert sign_v3(SECRET, "POST", f"{URI}/%C3%BC", b"", 1) != sign_v3(SECRET, "POST", f"{URI}/ü", b"", 1)


# -- delivery -----------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """A hub that takes webhooks and keeps them; `refuse` answers 500 to the next n."""

    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refuse: int = 0

    async def take(self, request: Request) -> Response:
        self.requests.append((dict(request.headers), await request.body()))
        if self.refuse > 0:
            self.refuse -= 1
            return Response(status_code=500)
        return Response(status_code=204)

    def events(self) -> list[Json]:
        return [event for _, body in self.requests for event in msgspec.json.decode(body)]

    def told(self) -> list[str]:
        return [e["subscriptionType"] for e in self.events()]


@contextmanager
def listening(serve: Serve) -> Iterator[tuple[Case, Receiver, str]]:
    receiver = Receiver()
    hub_app = Starlette(routes=[Route("/hooks/crm", receiver.take, methods=["POST"])])
    with serve_app(hub_app) as hub, hubspot_case(serve, webhook_url=f"{hub}/hooks/crm") as case:
        yield case, receiver, f"{hub}/hooks/crm"


@pytest.fixture
def pair(serve_recorded: Serve) -> Iterator[tuple[Case, Receiver, str]]:
    with listening(serve_recorded) as served:
        yield served


Pair = tuple[Case, Receiver, str]


def test_events_come_signed_and_as_the_contract_says(pair: Pair) -> None:
    case, receiver, url = pair
    made = case.contact("a@example.com", city="Wien")
    assert case.sandbox.flush_webhooks() == 3
    headers, body = receiver.requests[0]
    stamp = int(headers["x-hubspot-request-timestamp"])
    assert headers["x-hubspot-signature-v3"] == sign_v3(case.sandbox.client_secret, "POST", url, body, stamp)
    assert headers["x-hubspot-signature"] == sign_v1(case.sandbox.client_secret, body)
    held = Conformance({**CONTRACT, "paths": {}})
    for event in receiver.events():
        assert held._errors({"$ref": "#/components/schemas/Event"}, event) == []
        assert (str(event["objectId"]), event["occurredAt"]) == (made, 1795510800000)
    assert receiver.told() == ["contact.creation", "contact.propertyChange", "contact.propertyChange"]


def test_an_echo_names_the_writing_app_and_a_person_is_told_apart(pair: Pair) -> None:
    case, receiver, _ = pair
    made = case.contact("a@example.com")
    case.sandbox.edit("contacts", made, {"city": "Graz"})
    case.sandbox.flush_webhooks()
    sources = {e.get("propertyName", ""): (e["changeSource"], e["sourceId"]) for e in receiver.events()}
    assert sources["email"] == ("INTEGRATION", str(case.sandbox.app_id))
    assert sources["city"] == ("CRM_UI", "userId:9586504")


def test_a_merge_tells_the_merge_and_the_loser_s_deletion(pair: Pair) -> None:
    case, receiver, _ = pair
    one, two = case.contact("one@example.com"), case.contact("two@example.com", phone="1")
    case.sandbox.flush_webhooks()
    receiver.requests.clear()
    merged = case.sandbox.merge("contacts", one, two)
    case.sandbox.flush_webhooks()
    merge, deletion = receiver.events()
    assert (merge["primaryObjectId"], merge["mergedObjectIds"], merge["newObjectId"]) == (
        int(one),
        [int(two)],
        merged.number,
    )
    assert (deletion["subscriptionType"], deletion["objectId"]) == ("contact.deletion", int(two))


def test_erasing_tells_privacy_deletion_and_deletion(pair: Pair) -> None:
    case, receiver, _ = pair
    made = case.contact("a@example.com")
    case.sandbox.flush_webhooks()
    receiver.requests.clear()
    case.sdk.crm.contacts.basic_api.purge({"objectId": made})
    case.sandbox.flush_webhooks()
    assert receiver.told() == ["contact.privacyDeletion", "contact.deletion"]


def test_a_link_is_told_from_both_sides(pair: Pair) -> None:
    case, receiver, _ = pair
    made = case.contact("a@example.com")
    deal = case.sdk.crm.deals.basic_api.create({"properties": {"dealname": "D"}, "associations": []}).id
    case.sandbox.flush_webhooks()
    receiver.requests.clear()
    case.sdk.crm.associations.v4.basic_api.create_default("deals", deal, "contacts", made)
    case.sandbox.flush_webhooks()
    assert {e["associationType"] for e in receiver.events()} == {"DEAL_TO_CONTACT", "CONTACT_TO_DEAL"}


def test_a_refused_batch_tells_nothing(pair: Pair) -> None:
    case, receiver, _ = pair
    inputs = [{"properties": {"email": "a@example.com"}}, {"properties": {"nope": "1"}}]
    assert case.http.post("/crm/v3/objects/contacts/batch/create", json={"inputs": inputs}).status_code == 400
    case.sandbox.flush_webhooks()
    assert receiver.requests == []


def test_a_hundred_events_a_request(pair: Pair) -> None:
    case, receiver, _ = pair
    for n in range(60):
        case.sandbox.create("contacts", {"email": f"c{n}@example.com"})
    assert case.sandbox.flush_webhooks() == 120
    assert [len(msgspec.json.decode(body)) for _, body in receiver.requests] == [100, 20]


def test_doubles_and_disorder_on_demand(pair: Pair) -> None:
    case, receiver, _ = pair
    wish = {"batches": 1, "disorder": True}
    assert case.http.post("/_sandbox/duplicates", json=wish).json() == wish
    case.contact("a@example.com")
    assert case.http.post("/_sandbox/flush-webhooks").json() == {"delivered": 2}
    assert receiver.told() == ["contact.propertyChange", "contact.creation"] * 2
    assert receiver.requests[0][1] == receiver.requests[1][1]


def test_a_refused_delivery_comes_again_with_its_attempt_counted(pair: Pair) -> None:
    case, receiver, _ = pair
    receiver.refuse = 2
    case.contact("a@example.com")
    assert [case.sandbox.flush_webhooks() for _ in range(4)] == [0, 0, 2, 0]
    assert [e["attemptNumber"] for e in receiver.events()] == [0, 0, 1, 1, 2, 2]


def test_after_ten_attempts_the_vendor_gives_up(pair: Pair) -> None:
    case, receiver, _ = pair
    receiver.refuse = 99
    case.contact("a@example.com")
    for _ in range(12):
        case.sandbox.flush_webhooks()
    assert len(receiver.requests) == 10
    assert len(case.sandbox.webhooks.given_up) == 2


def test_opting_out_changes_the_contact_and_is_told(pair: Pair) -> None:
    case, receiver, _ = pair
    made = case.contact("a@example.com")
    case.sandbox.opt_out("A@example.com")
    case.sandbox.flush_webhooks()
    last = receiver.events()[-1]
    assert (last["propertyName"], last["propertyValue"], str(last["objectId"])) == (
        "hs_email_optout",
        "true",
        made,
    )


def test_while_serving_events_go_out_by_themselves_and_refused_ones_again() -> None:
    receiver = Receiver(refuse=1)
    hub_app = Starlette(routes=[Route("/hooks/crm", receiver.take, methods=["POST"])])
    with serve_app(hub_app) as hub:
        sandbox = HubSpotSandbox(webhook_url=f"{hub}/hooks/crm")
        sandbox.webhooks.retry_seconds = 0.01
        with sandbox.serve():
            sandbox.create("contacts", {"email": "a@example.com"})
            eventually(lambda: {e["attemptNumber"] for e in receiver.events()} == {0, 1})
            eventually(lambda: not sandbox.webhooks.queue)


def eventually(holds: Callable[[], bool], within_seconds: float = 5.0) -> None:
    """Poll until a condition holds, and fail when it does not in time."""
    deadline = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
