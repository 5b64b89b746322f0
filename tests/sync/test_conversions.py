"""Leads that become contacts: one person before and after, whichever of both is read first, by a stranger's connector."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hub import mapping as mappings
from hub.clock import ManualClock
from hub.document import load
from hub.mapping import Mapping, together
from hub.sdk.connector import Context
from hub.sdk.http import Http
from hub.sdk.oauth import MemoryTokens
from hub.sdk.quota import MemoryQuota
from hub.store import words
from hub.store.database import Database
from hub.sync import pull as sync

ACME = Path(__file__).parents[1] / "thirdparty" / "acme-crm"
if TYPE_CHECKING:
    from acme_crm.sandbox import AcmeSandbox


class World:
    def __init__(
        self, db: Database, clock: ManualClock, sandbox: AcmeSandbox, connector: Any, mapping: Mapping
    ) -> None:
        self.db, self.clock, self.sandbox, self.connector, self.mapping = (
            db,
            clock,
            sandbox,
            connector,
            mapping,
        )

    async def pull(self, *streams: str) -> None:
        self.clock.advance(minutes=5)
        for stream in streams:
            done = await sync.pull(self.db, self.clock, self.connector, self.mapping, stream)
            assert done.state == "done", done.reason

    async def event(self, object: str, id: str) -> None:
        await sync.refresh_records(self.db, self.clock, self.connector, self.mapping, object, [id])

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(query.encode(), values or None)
            return list(await cursor.fetchall()) if cursor.description else []

    async def person(self, object: str, id: str) -> int | None:
        rows = await self.rows(
            "SELECT contact_id FROM contact_identity WHERE object = %s AND external_id = %s", object, id
        )
        return rows[0][0] if rows else None

    async def known(self) -> list[tuple[Any, ...]]:
        """(object, id, state) of everything that means the person of lead l1."""
        return await self.rows(
            """SELECT i.object, i.external_id, i.state FROM contact_identity i WHERE i.contact_id =
               (SELECT contact_id FROM contact_identity WHERE object = 'lead' AND external_id = 'l1') ORDER BY 1, 2"""
        )

    async def live(self) -> int:
        return int((await self.rows("SELECT count(*) FROM contact WHERE state = 'live'"))[0][0])


@pytest.fixture
def acme(clock: ManualClock) -> Iterator[AcmeSandbox]:
    sys.path.insert(0, str(ACME))
    try:
        from acme_crm.sandbox import AcmeSandbox

        sandbox = AcmeSandbox(clock=clock)
        for stream in sandbox.records:
            sandbox.records[stream].clear()
        sandbox.put("leads", "l1", mail="ann@example.com", given_name="Ann", town="Linz")
        sandbox.put("leads", "l2", mail="bob@example.com", given_name="Bob", town="Wels")
        with sandbox.serve():
            yield sandbox
    finally:
        sys.path.remove(str(ACME))


@pytest.fixture
async def world(database: Database, clock: ManualClock, acme: AcmeSandbox) -> AsyncIterator[World]:
    from acme_crm import AcmeCrm

    http = Http(quota=MemoryQuota(), account="crm")
    settings = AcmeCrm.Settings(base_url=acme.url, token=acme.token)
    connector = AcmeCrm("crm", settings, Context(http=http, clock=clock, tokens=MemoryTokens()))
    made = mappings.build([load(ACME / "acme_crm" / "mapping.yaml")], AcmeCrm.known_fields)
    yield World(database, clock, acme, connector, together({"crm": made})["crm"])
    await connector.http.close()


async def with_a_history(world: World) -> int:
    """The person of lead l1, on a list, in a funnel, with a mail, what came back of it, and an opt-out."""
    await world.pull("leads", "contacts")
    id = await world.person("lead", "l1")
    assert id is not None
    await world.rows(
        """WITH l AS (INSERT INTO list (name, rule) VALUES ('all', '') RETURNING id) INSERT INTO list_member
           SELECT id, %s, now() FROM l""",
        id,
    )
    await world.rows(
        """WITH f AS (INSERT INTO funnel (name) VALUES ('f') RETURNING id)
           INSERT INTO funnel_entry (funnel_id, contact_id, wake_at, entered_at) SELECT id, %s, now(), now() FROM f""",
        id,
    )
    await world.rows(
        """WITH d AS (INSERT INTO delivery (message, contact_id, occurrence, purpose, state, queued_at)
                      VALUES ('hello', %s, 'x', 'news', 'accepted', now()) RETURNING id, contact_id)
           INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
           SELECT id, contact_id, 'opened', now(), now(), 'web', 'k' FROM d""",
        id,
    )
    await world.rows(
        """INSERT INTO consent (email_hash, contact_id, purpose, status, source, at)
           VALUES (address_hash('ann@example.com'), %s, '*', 'out', 'web', now())""",
        id,
    )
    return id


async def holds_all(world: World, id: int) -> None:
    for table in ("list_member", "funnel_entry", "delivery", "event", "consent"):
        assert await world.rows(f"SELECT DISTINCT contact_id FROM {table}") == [(id,)], table


@pytest.mark.parametrize("order", [("leads", "contacts"), ("contacts", "leads")])
@pytest.mark.parametrize("address", ["ann@example.com", "ann@new.example"])
async def test_one_person_before_and_after(world: World, order: tuple[str, str], address: str) -> None:
    id = await with_a_history(world)
    world.clock.advance(minutes=1)
    world.sandbox.convert("l1")
    world.sandbox.put("contacts", "c-l1", mail=address, town="Graz")
    await world.pull(*order, "deals")
    assert await world.person("contact", "c-l1") == await world.person("lead", "l1") == id
    assert await world.known() == [("contact", "c-l1", "live"), ("lead", "l1", "converted")]
    assert await world.live() == 2
    await holds_all(world, id)
    assert await world.rows("SELECT email, city, state FROM contact WHERE id = %s", id) == [
        (address, "Graz", "live")
    ]
    assert await world.rows("SELECT diff FROM contact_change WHERE kind = 'converted'") == [
        ({"lead": ["l1", None], "contact": [None, "c-l1"], "deal": [None, "d-l1"]},)
    ]
    assert await world.rows("SELECT contact_id FROM contact_deal") == [(id,)]
    if address != "ann@example.com":  # an opt-out holds under the new address, too
        assert (
            await world.rows("SELECT count(*) FROM consent WHERE email_hash = address_hash(%s)", address)
        )[0][0] == 1


async def test_late_rows_and_events_of_the_lead_find_the_person_and_change_nothing(world: World) -> None:
    id = await with_a_history(world)
    became = world.sandbox.convert("l1")
    await world.pull("leads", "contacts")
    before = await world.rows("SELECT to_jsonb(c) FROM contact c WHERE id = %s", id)
    late = {**world.sandbox.records["leads"]["l1"], "became": {}}  # as a page that was read before said it
    late["fields"] = {**late["fields"], "town": "Old", "given_name": "Old"}
    world.sandbox._move("leads", late)
    await world.pull("leads")
    world.sandbox._move("leads", {**late, "became": became})
    await world.event("lead", "l1")
    world.sandbox.remove("leads", "l1")
    await world.pull("leads")
    assert await world.rows("SELECT to_jsonb(c) FROM contact c WHERE id = %s", id) == before
    assert await world.known() == [("contact", "c-l1", "live"), ("lead", "l1", "converted")]
    assert (await world.rows("SELECT count(*) FROM contact_change WHERE kind = 'converted'"))[0][0] == 1
    world.sandbox.put("contacts", "c-l1", town="Steyr")
    await world.pull("contacts")
    assert await world.rows("SELECT city, first_name FROM contact WHERE id = %s", id) == [("Steyr", "Ann")]
    world.sandbox.remove("contacts", "c-l1")
    await world.pull("contacts")
    assert await world.rows("SELECT state FROM contact WHERE id = %s", id) == [("deleted",)]


async def test_a_lead_may_become_a_contact_who_was_known_longer(world: World) -> None:
    world.sandbox.put("contacts", "7", mail="ann.old@example.com", given_name="Anna", town="Wien")
    await world.pull("contacts", "leads")
    contact, lead = await world.person("contact", "7"), await world.person("lead", "l1")
    assert contact != lead
    world.sandbox._move("leads", {**world.sandbox.records["leads"]["l1"], "became": {"contact": "7"}})
    await world.pull("leads")
    assert (
        await world.person("lead", "l1") == await world.person("contact", "7") == min(contact or 0, lead or 0)
    )
    rows = await world.rows("SELECT email, first_name, city FROM contact WHERE id = %s", contact)
    assert rows == [
        ("ann.old@example.com", "Anna", "Wien")
    ]  # the contact's word stands, the lead has none any more
    assert (await world.rows("SELECT email FROM contact_address WHERE contact_id = %s", contact)) == [
        ("ann@example.com",)
    ]
    assert await world.live() == 2


async def test_a_lead_whom_nobody_knew_is_only_a_name(world: World) -> None:
    world.sandbox.convert("l1")
    await world.pull("leads")
    assert await world.person("lead", "l1") is None
    await world.pull("contacts")
    await world.event("lead", "l1")
    assert await world.person("lead", "l1") == await world.person("contact", "c-l1")
    assert await world.live() == 2
    world.sandbox._move("leads", {**world.sandbox.records["leads"]["l2"], "became": {"company": "k1"}})
    await world.pull("leads")
    assert await world.live() == 1  # it became nobody
    assert await world.rows("SELECT state FROM contact WHERE email = 'bob@example.com'") == [("archived",)]


async def test_what_only_the_lead_said_stays(world: World) -> None:
    await world.pull("leads")
    world.sandbox.convert("l1")
    world.sandbox.records["contacts"]["c-l1"]["fields"]["town"] = ""
    await world.pull("contacts", "leads")
    assert await world.rows("SELECT first_name, city FROM contact WHERE email = 'ann@example.com'") == [
        ("Ann", "Linz")
    ]
    async with world.db.connection() as conn:
        found = await conn.execute(
            f"SELECT key FROM ({words.WORDS}) w".encode(),
            {"people": [await world.person("lead", "l1")], **words.ranks(world.mapping.standing)},
        )
        assert "city" not in {row[0] for row in await found.fetchall()}
