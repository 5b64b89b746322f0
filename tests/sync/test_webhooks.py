"""Webhooks: refused when not HubSpot's own, kept once, and worked by reading the record again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from contracts.hubspot.webhooks import sign_v3
from hub.clock import ManualClock
from hub.store import inbox
from hub.web.app import application
from tests.support.rig import Rig

URL = "https://hub.example/webhooks/crm"


@pytest.fixture
async def web(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    """The hub's web application without a network between."""
    transport = httpx.ASGITransport(app=application(rig.runtime))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        yield client


def event(
    contact: str, *, number: int = 1, kind: str = "contact.propertyChange", **more: Any
) -> dict[str, Any]:
    return {
        "eventId": number, "subscriptionId": 11, "portalId": 44100200, "appId": 4411002, "occurredAt": 1795510800000 + number,
        "subscriptionType": kind, "attemptNumber": 0, "objectId": int(contact), "propertyName": "city",
        "propertyValue": "Berlin", "changeSource": "CRM_UI", **more,
    }  # fmt: skip


def signed(
    body: bytes,
    clock: ManualClock,
    *,
    secret: str = "sandbox-client-secret",
    age: timedelta = timedelta(),
    url: str = URL,
) -> dict[str, str]:
    stamp = int((clock.wall() - age).timestamp() * 1000)
    return {
        "X-HubSpot-Signature-v3": sign_v3(secret, "POST", url, body, stamp),
        "X-HubSpot-Request-Timestamp": str(stamp),
        "Content-Type": "application/json",
    }


async def deliver(
    web: httpx.AsyncClient, clock: ManualClock, *events: dict[str, Any], **how: Any
) -> httpx.Response:
    body = json.dumps(list(events)).encode()
    return await web.post("/webhooks/crm", content=body, headers=signed(body, clock, **how))


async def entries(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT object, external_id, action, state FROM inbox ORDER BY id")


@pytest.mark.parametrize(
    "how",
    [
        {"secret": "somebody-else's"},
        {"age": timedelta(minutes=6)},
        {"age": timedelta(minutes=-6)},
        {"url": "https://evil.example/webhooks/crm"},
    ],
    ids=["wrong secret", "old", "from the future", "signed for another address"],
)
async def test_a_call_that_is_not_the_vendors_is_refused_and_not_kept(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, how: dict[str, Any]
) -> None:
    answer = await deliver(web, clock, event("101"), **how)
    assert answer.status_code == 401
    assert await entries(rig) == []


async def test_a_changed_body_and_missing_headers_are_refused(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    body = json.dumps([event("101")]).encode()
    headers = signed(body, clock)
    assert (await web.post("/webhooks/crm", content=body + b" ", headers=headers)).status_code == 401
    assert (await web.post("/webhooks/crm", content=body)).status_code == 401
    headers["X-HubSpot-Request-Timestamp"] = "9" * 40
    assert (await web.post("/webhooks/crm", content=body, headers=headers)).status_code == 401
    assert await entries(rig) == []


async def test_a_repeated_event_changes_nothing(rig: Rig, web: httpx.AsyncClient, clock: ManualClock) -> None:
    contact = str(rig.hubspot.create("contacts", {"email": "ann@example.com", "city": "Wien"}).id)
    await rig.run("pull:contacts")
    rig.hubspot.edit("contacts", contact, {"city": "Berlin"})
    assert (await deliver(web, clock, event(contact))).json() == {"stored": 1, "repeated": 0}
    await rig.run("inbox")
    after = await rig.rows("SELECT city, changed_at FROM contact")
    changes = await rig.value("SELECT count(*) FROM contact_change")
    reads = rig.hubspot.faults.count("batch/read")
    # HubSpot's own repetition of a call counts its attempts; the event stays the same.
    assert (await deliver(web, clock, event(contact, attemptNumber=1))).json() == {"stored": 0, "repeated": 1}
    await rig.run("inbox")
    assert await rig.rows("SELECT city, changed_at FROM contact") == after == [("Berlin", clock.now())]
    assert await rig.value("SELECT count(*) FROM contact_change") == changes
    assert rig.hubspot.faults.count("batch/read") == reads
    assert await entries(rig) == [("contact", contact, "changed", "done")]


async def test_the_sandboxs_own_deliveries_are_taken_and_each_record_is_read_once(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    contact = str(rig.hubspot.create("contacts", {"email": "ann@example.com"}).id)
    await rig.run("pull:contacts")
    events = [event(contact, number=n) for n in range(1, 21)]
    assert (await deliver(web, clock, *reversed(events))).json() == {"stored": 20, "repeated": 0}
    before = rig.hubspot.faults.count("batch/read")
    await rig.run("inbox")
    assert rig.hubspot.faults.count("batch/read") - before == 1


async def test_a_deletion_ends_the_contact_and_a_merge_moves_it(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    ids = [
        str(rig.hubspot.create("contacts", {"email": f"{name}@example.com", "city": "Berlin"}).id)
        for name in ("ann", "bob", "cid")
    ]
    await rig.run("pull:contacts")
    rig.hubspot.archive("contacts", ids[2])
    await deliver(web, clock, event(ids[2], kind="contact.deletion"))
    new = rig.hubspot.merge("contacts", ids[0], ids[1])
    merge = event(ids[0], number=2, kind="contact.merge", primaryObjectId=int(ids[0]), mergedObjectIds=[int(ids[1])],
                  newObjectId=new.id, numberOfPropertiesMoved=1)  # fmt: skip
    await deliver(web, clock, merge)
    await rig.run("inbox")
    assert await rig.rows("SELECT email, state FROM contact ORDER BY email") == [
        ("ann@example.com", "live"),
        ("bob@example.com", "merged"),
        ("cid@example.com", "archived"),
    ]
    await rig.run("lists")
    assert await rig.rows("SELECT c.email FROM list_member m JOIN contact c ON c.id = m.contact_id") == [
        ("ann@example.com",)
    ]


async def test_events_of_a_vendor_that_is_away_wait_and_are_worked_later(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    contact = str(rig.hubspot.create("contacts", {"email": "ann@example.com"}).id)
    await deliver(web, clock, event(contact))
    rig.hubspot.faults.plan("500", times=5)
    await rig.run("inbox")
    assert await rig.rows("SELECT state, attempts FROM inbox") == [("new", 1)]
    await rig.run("inbox")
    assert await rig.rows("SELECT state FROM inbox") == [("done",)]
    assert await rig.value("SELECT email FROM contact") == "ann@example.com"


async def test_what_cannot_be_worked_is_set_aside_with_its_reason_and_can_be_replayed(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    await deliver(
        web, clock, event("7", kind="ticket.creation"), event("8", number=2, kind="contact.creation")
    )
    await rig.run("inbox")
    assert await rig.rows("SELECT object, state, reason FROM inbox ORDER BY id") == [
        ("ticket", "set_aside", "the hub keeps no object of this kind"),
        ("contact", "done", ""),
    ]
    async with rig.runtime.db.transaction() as conn:
        assert await inbox.replay(conn, "crm", clock.now() - timedelta(hours=1)) == 2
    assert {row[3] for row in await entries(rig)} == {"new"}


async def test_nonsense_is_answered_and_never_kept(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    for body in (b"no json", b'{"eventId": 1}', b"[1, 2]"):
        assert (await web.post("/webhooks/crm", content=body, headers=signed(body, clock))).status_code == 400
    huge = b" " * 1_000_001
    assert (await web.post("/webhooks/crm", content=huge, headers=signed(huge, clock))).status_code == 413
    assert (await web.post("/webhooks/nobody", content=b"[]")).status_code == 404
    assert (await web.get("/webhooks/crm")).status_code == 405
    assert await entries(rig) == []
