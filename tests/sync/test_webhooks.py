"""Webhooks: refused when not HubSpot's own, kept once, and worked by reading the record again."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from contracts.hubspot.webhooks import sign_v3
from hub.clock import ManualClock
from hub.errors import FixNeeded, Retry
from hub.store import inbox
from hub.web.app import application
from hub.web.bodies import MAX_BODY_BYTES
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
    assert await rig.rows("SELECT state, attempts FROM inbox") == [("new", 0)]
    await rig.run("inbox")  # not before the pause is over
    assert await rig.rows("SELECT state FROM inbox") == [("new",)]
    await rig.rows("UPDATE inbox SET due_at = '-infinity' RETURNING 1")
    await rig.run("inbox")
    assert await rig.rows("SELECT state FROM inbox") == [("done",)]
    assert await rig.value("SELECT email FROM contact") == "ann@example.com"


async def test_what_cannot_be_worked_is_set_aside_with_its_reason_and_can_be_replayed(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    await deliver(
        web, clock, event("7", kind="company.creation"), event("8", number=2, kind="contact.creation")
    )
    await rig.run("inbox")
    assert await rig.rows("SELECT object, state, reason FROM inbox ORDER BY id") == [
        ("company", "set_aside", "the hub keeps no object of this kind"),
        ("contact", "done", ""),
    ]
    hour, now = timedelta(hours=1), clock.now()

    async def replayed(**chosen: Any) -> int:
        async with rig.runtime.db.connection() as conn:
            count = await inbox.replay(conn, "crm", **chosen)
            await conn.rollback()
            return count

    everything = ("set_aside", "done")
    assert await replayed() == 1
    assert await replayed(states=everything) == 2
    assert await replayed(states=everything, object="contact") == 1
    assert await replayed(states=everything, since=now + hour) == 0
    assert await replayed(states=everything, until=now) == 0
    assert await replayed(states=everything, since=now - hour, until=now + hour) == 2


async def test_a_call_that_is_not_understood_is_kept_whole_and_read_again_when_the_connector_knows_more(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = await rig.runtime.connector("crm")

    def fails(_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(connector, "events", fails)
        for _ in range(2):  # the vendor repeats it: it is kept once
            answer = await deliver(web, clock, event("8", kind="contact.creation"))
            assert (answer.status_code, answer.json()) == (
                200,
                {"stored": 0, "repeated": 0, "kept_whole": True},
            )
    kept = await rig.rows("SELECT action, state, reason, body IS NOT NULL, headers FROM inbox")
    assert [row[:4] for row in kept] == [
        ("unread", "set_aside", "the connector failed: ZeroDivisionError", True)
    ]
    assert "content-type" in kept[0][4] and not any("signature" in name for name in kept[0][4])
    async with rig.runtime.db.transaction() as conn:
        assert await inbox.replay(conn, "crm") == 1
    await rig.run("inbox")
    assert await rig.rows("SELECT action, object, state, body FROM inbox ORDER BY id") == [
        ("unread", "", "done", None),
        ("changed", "contact", "done", None),
    ]


async def test_one_bad_event_of_many_costs_no_other(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    events = [event(str(n), number=n) for n in range(1, 6)]
    events[1]["occurredAt"] = 10**30
    events[3]["propertyName"] = "a\0b"
    answer = await deliver(web, clock, *events)
    assert (answer.status_code, answer.json()) == (200, {"stored": 3, "repeated": 0, "kept_whole": True})
    assert await rig.rows("SELECT external_id, state FROM inbox WHERE action <> 'unread' ORDER BY id") == [
        ("1", "new"), ("3", "new"), ("5", "new"),
    ]  # fmt: skip
    assert await rig.rows("SELECT state, reason FROM inbox WHERE action = 'unread'") == [
        ("set_aside", "1 of 5 events: an event is not as it should be: OverflowError")
    ]


async def test_a_record_that_the_vendor_refuses_to_read_keeps_no_other_from_being_read(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(rig.hubspot.create("contacts", {"email": f"{n}@example.com"}).id) for n in range(20)]
    connector = await rig.runtime.connector("crm")
    read = connector.read

    async def refuses(object: str, asked: Any) -> Any:
        if ids[7] in asked:
            raise FixNeeded("that record is locked", code="LOCKED")
        return await read(object, asked)

    monkeypatch.setattr(connector, "read", refuses)
    await deliver(web, clock, *(event(id, number=n) for n, id in enumerate(ids)))
    await rig.run("inbox")
    assert await rig.value("SELECT count(*) FROM contact") == 19
    for attempt in range(1, inbox.MAX_ATTEMPTS):
        assert await rig.rows(
            "SELECT attempts, extract(epoch FROM due_at - clock_timestamp()) > 30 FROM inbox WHERE state = 'new'"
        ) == [(attempt, True)]
        await rig.rows("UPDATE inbox SET due_at = '-infinity' RETURNING 1")
        await rig.run("inbox")
    assert await rig.rows("SELECT external_id, state, reason FROM inbox WHERE state <> 'done'") == [
        (ids[7], "set_aside", "LOCKED: that record is locked")
    ]


async def test_events_wait_as_long_as_the_vendor_is_away(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = await rig.runtime.connector("crm")

    async def away(object: str, asked: Any) -> Any:
        raise Retry("the vendor is away", retry_after_seconds=7)

    with monkeypatch.context() as patched:
        patched.setattr(connector, "read", away)
        await deliver(web, clock, event("8", kind="contact.creation"))
        for _ in range(inbox.MAX_ATTEMPTS * 2):
            await rig.run("inbox")
            await rig.rows("UPDATE inbox SET due_at = '-infinity' RETURNING 1")
    assert await rig.rows("SELECT state, attempts, reason FROM inbox") == [("new", 0, "the vendor is away")]
    await rig.run("inbox")
    assert await rig.rows("SELECT state, attempts, reason FROM inbox") == [("done", 0, "")]


async def test_refusals_are_told_and_keep_nothing(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    huge = b" " * (MAX_BODY_BYTES + 1)
    assert (await web.post("/webhooks/crm", content=huge, headers=signed(huge, clock))).status_code == 413
    assert (await web.post("/webhooks/nobody", content=b"[]")).status_code == 404
    for asked in (await web.get("/webhooks/crm"), await web.get("/webhooks/crm/below?challenge=abc")):
        assert (asked.status_code, asked.headers["allow"], asked.text) == (405, "POST", "")
    assert await entries(rig) == []


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_body_is_unpacked_before_its_signature_is_checked(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, coding: str
) -> None:
    body = json.dumps([event("8")]).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    headers = {**signed(body, clock), "Content-Encoding": coding}
    assert (await web.post("/webhooks/crm", content=packed, headers=headers)).json() == {
        "stored": 1,
        "repeated": 0,
    }


async def test_bombs_and_broken_packings_are_refused_without_unpacking_them(
    web: httpx.AsyncClient, clock: ManualClock
) -> None:
    body = json.dumps([event("8")]).encode()
    bomb = gzip.compress(b"[" * 500_000_000, 9)
    assert len(bomb) < MAX_BODY_BYTES
    for coding, packed, status in (
        ("gzip", bomb, 413),
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-9], 400),
        ("gzip", gzip.compress(body) + b"more", 400),
        ("deflate", gzip.compress(body), 400),
        ("br", body, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(body)), 415),
    ):
        tracemalloc.start()
        headers = {**signed(body, clock), "Content-Encoding": coding}
        answer = await web.post("/webhooks/crm", content=packed, headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (answer.status_code, coding) == (status, coding)
        assert peak < 5 * MAX_BODY_BYTES


async def test_a_database_that_does_not_answer_is_told_to_the_vendor_in_time(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.web.intake.PATIENCE_SECONDS", 0.3)
    async with rig.runtime.db.transaction() as conn:
        await conn.execute("LOCK TABLE inbox")
        answer = await deliver(web, clock, event("8"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    for _ in range(
        100
    ):  # what was told to come again is stored nevertheless, and the repetition changes nothing
        if await entries(rig):
            break
        await asyncio.sleep(0.05)
    assert (await deliver(web, clock, event("8"))).json() == {"stored": 0, "repeated": 1}
    assert len(await entries(rig)) == 1


async def test_calls_that_come_together_are_committed_together_and_each_is_told_its_own_count(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    before = await rig.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    posts = [
        [event(str(n), number=n) for n in range(first, first + 1 + first % 3)] for first in range(1, 301)
    ]
    answers = await asyncio.gather(*(deliver(web, clock, *events) for events in posts))
    told = [answer.json() for answer in answers]
    assert [t["stored"] + t["repeated"] for t in told] == [len(events) for events in posts]
    assert sum(t["stored"] for t in told) == await rig.value("SELECT count(*) FROM inbox") == 301
    await asyncio.sleep(1.1)  # a backend tells its statistics at most once a second
    after = await rig.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    assert after - before < 100
