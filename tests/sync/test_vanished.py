"""A field that vanishes at the vendor fails alone and loudly; what we hold of it stays, and all else goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest.mock import ANY

import pytest

from contracts.hubspot.properties import Property, option
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from hub.errors import FixNeeded
from hub.jobs import runtime as runtimes
from hub.model import Record
from hub.sdk.connector import Cursor, Page
from hub.store import outbox
from hub.sync import pull as pull_stage
from hub.sync.pull import refresh_records
from tests.support.rig import Rig

PEOPLE = 350
MINE = """\
contact:
  tier: {field: customer_tier, custom: true, on_blank: clear}
  city: {on_blank: clear}
"""


def properties(hubspot: HubSpotSandbox) -> dict[str, Property]:
    return hubspot.account.store("contacts").properties


@pytest.fixture
async def mapped(rig: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A rig whose connection has a field of the account's own, and batches of one page."""
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    monkeypatch.setattr(pull_stage, "BATCH_RECORDS", 100)
    properties(rig.hubspot)["customer_tier"] = Property(
        "customer_tier",
        "Tier",
        "enumeration",
        "select",
        options=[option("A"), option("B")],
        hubspot_defined=False,
    )
    for n in range(PEOPLE):
        rig.hubspot.create(
            "contacts",
            {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": "Wien", "customer_tier": "A"},
        )
    (rig.folder / "mine.yaml").write_text(MINE)
    config = rig.folder / "hub.yaml"
    config.write_text(
        config.read_text().replace("connector: hubspot", "connector: hubspot\n    mapping: mine.yaml")
    )
    async with runtimes.opened(config, rig.environ, clock=clock) as runtime:
        yield Rig(runtime, rig.hubspot, clock, rig.folder, rig.environ)


async def tiers(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT fields ->> 'tier', count(*) FROM contact GROUP BY 1 ORDER BY 1")


async def gone(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT object, external_id, code, message, fix FROM run_reject ORDER BY id")


LOST = (
    "contact", "", "FIELD_GONE", "the vendor has no contact field 'customer_tier' any more; tier keeps what it has",
    "map tier to another, or to null; see `hub mapping check crm`",
)  # fmt: skip


async def test_between_two_pulls(mapped: Rig, clock: ManualClock) -> None:
    await mapped.run("pull:contacts")
    assert (await mapped.last_run())["state"] == "done"
    properties(mapped.hubspot)["customer_tier"].archived = True
    clock.advance(minutes=5)
    for n in range(3):
        mapped.hubspot.edit("contacts", f"p{n}@example.com", {"city": "Graz"})
    await mapped.run("pull:contacts")
    run = await mapped.last_run()
    assert (run["state"], run["counts"]["rejected"]) == ("partial", 1)
    assert await gone(mapped) == [LOST]
    assert await tiers(mapped) == [("A", PEOPLE)]  # nothing was cleared
    assert await mapped.value("SELECT count(*) FROM contact WHERE city = 'Graz'") == 3  # the others went on


async def test_in_the_middle_of_a_pull(mapped: Rig, clock: ManualClock) -> None:
    await mapped.run("pull:contacts")
    assert await tiers(mapped) == [("A", PEOPLE)]
    for record in mapped.hubspot.account.store("contacts").live.values():
        mapped.hubspot.edit("contacts", record.id, {"city": "Graz", "customer_tier": "B"})

    def vanish(connection: str, stream: str, counts: Any) -> None:
        properties(mapped.hubspot)["customer_tier"].archived = True

    mapped.runtime.progress = vanish
    clock.advance(minutes=5)
    connector = await mapped.runtime.connector("crm", pulling=True)
    done = await pull_stage.pull(
        mapped.runtime.db,
        clock,
        connector,
        mapped.runtime.mapping("crm"),
        "contacts",
        full=True,
        progress=vanish,
    )
    assert (done.state, done.counts.rejected) == ("partial", 1)
    assert await gone(mapped) == [LOST]
    found = dict(await tiers(mapped))
    assert found.pop("B") >= 100  # what was read before
    assert found.keys() == {"A"}  # and what stood before that for the rest: nobody was cleared
    assert await mapped.value("SELECT count(*) FROM contact WHERE city = 'Graz'") == PEOPLE


async def test_while_webhooks_are_worked(mapped: Rig, clock: ManualClock) -> None:
    await mapped.run("pull:contacts")
    properties(mapped.hubspot)["customer_tier"].archived = True
    clock.advance(minutes=5)
    connector = await mapped.runtime.connector("crm")
    one = str(mapped.hubspot.account.store("contacts").order[0])
    mapped.hubspot.edit("contacts", one, {"city": "Graz"})
    await refresh_records(
        mapped.runtime.db, clock, connector, mapped.runtime.mapping("crm"), "contact", [one]
    )
    assert (await mapped.last_run("webhook"))["state"] == "partial"
    assert await gone(mapped) == [LOST]
    assert (
        await mapped.value("SELECT count(*) FROM contact WHERE city = 'Graz' AND fields ->> 'tier' = 'A'")
        == 1
    )


async def test_a_field_that_nobody_has_filled_is_not_gone(mapped: Rig, clock: ManualClock) -> None:
    for record in mapped.hubspot.account.store("contacts").live.values():
        mapped.hubspot.edit("contacts", record.id, {"customer_tier": ""})
    await mapped.run("pull:contacts")
    assert (await mapped.last_run())["state"] == "done"
    assert await gone(mapped) == []


async def test_a_blank_of_a_field_that_is_there_still_clears(mapped: Rig, clock: ManualClock) -> None:
    await mapped.run("pull:contacts")
    for record in mapped.hubspot.account.store("contacts").live.values():
        mapped.hubspot.edit("contacts", record.id, {"city": "", "customer_tier": ""})
    clock.advance(minutes=5)
    await mapped.run("pull:contacts")
    assert await tiers(mapped) == [(None, PEOPLE)]
    assert await mapped.value("SELECT count(*) FROM contact WHERE city IS NOT NULL") == 0


async def test_nothing_is_emptied_on_a_guess(mapped: Rig, clock: ManualClock) -> None:
    await mapped.run("pull:contacts")
    properties(mapped.hubspot)["customer_tier"].archived = True
    mapped.hubspot.edit("contacts", "p0@example.com", {"city": "Graz"})
    clock.advance(minutes=5)
    mapped.hubspot.faults.plan("500", times=50, path="/crm/v3/properties")
    await mapped.run("pull:contacts")
    ((_, _, code, message, fix),) = await gone(mapped)
    assert code == "FIELD_UNCLEAR"
    assert message.startswith(
        "the contact field 'customer_tier' is blank or gone, and the schema cannot be read: nothing"
    )
    assert fix == "the next run asks again"
    assert await tiers(mapped) == [("A", PEOPLE)]
    assert await mapped.value("SELECT count(*) FROM contact WHERE city = 'Graz'") == 1


async def test_a_vendor_that_refuses_to_read_with_it_is_read_without_it(
    mapped: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some vendors do: a query that names a field which is not there is refused as a whole."""
    kind = type(await mapped.runtime.connector("crm", pulling=True))
    pulled, read = kind.pull, kind.read

    def refuse(self: Any, object: str) -> None:
        lost = [n for n in self.wanted(object) if (p := properties(mapped.hubspot).get(n)) and p.archived]
        if lost:
            raise FixNeeded(f"no such column '{lost[0]}'", code="INVALID_FIELD", status=400)

    async def strict_pull(self: Any, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        refuse(self, "contact")
        async for page in pulled(self, stream, cursor):
            yield page

    async def strict_read(self: Any, object: str, ids: Sequence[str]) -> list[Record]:
        refuse(self, object)
        return await read(self, object, ids)

    monkeypatch.setattr(kind, "pull", strict_pull)
    monkeypatch.setattr(kind, "read", strict_read)
    properties(mapped.hubspot)["customer_tier"].archived = True
    await mapped.run("pull:contacts")
    run = await mapped.last_run()
    assert (run["state"], run["counts"]["created"], run["counts"]["rejected"]) == ("partial", PEOPLE, 1)
    assert await gone(mapped) == [LOST]
    one = str(mapped.hubspot.account.store("contacts").order[0])
    connector = await mapped.runtime.connector("crm")
    await refresh_records(
        mapped.runtime.db, clock, connector, mapped.runtime.mapping("crm"), "contact", [one]
    )
    assert await gone(mapped) == [LOST, LOST]


async def test_an_opt_out_that_can_no_longer_be_heard_is_told(mapped: Rig, clock: ManualClock) -> None:
    properties(mapped.hubspot)["hs_email_optout"].archived = True
    await mapped.run("pull:contacts")
    (row,) = await gone(mapped)
    assert row[3] == "the vendor has no contact field 'hs_email_optout' any more: its opt-outs are not heard"


async def test_a_write_of_several_fields_goes_on_without_the_one_that_is_gone(
    mapped: Rig, clock: ManualClock
) -> None:
    (mapped.folder / "mine.yaml").write_text(MINE.replace("custom: true", "custom: true, direction: both"))
    async with runtimes.opened(mapped.folder / "hub.yaml", mapped.environ, clock=clock) as runtime:
        again = Rig(runtime, mapped.hubspot, clock, mapped.folder, mapped.environ)
        await again.run("pull:contacts")
        properties(again.hubspot)["customer_tier"].archived = True
        people = await again.rows("SELECT id FROM contact ORDER BY id LIMIT 3")
        writes = [{"city": "Graz", "tier": "B"}, {"tier": "B"}, {"city": "Linz"}]
        async with runtime.db.transaction() as conn:
            await outbox.enqueue(conn, [
                outbox.NewPush("crm", "field", f"k{n}", {"fields": fields}, clock.now(), contact_id=people[n][0])
                for n, fields in enumerate(writes)
            ])  # fmt: skip
        await again.run("push")
        assert await again.rows("SELECT state, code, message FROM outbox ORDER BY id") == [
            (
                "done",
                "FIELD_GONE",
                "the vendor has no contact field 'customer_tier' any more; the others are written",
            ),
            ("dead", "VALIDATION_ERROR", ANY),
            ("done", "", ""),
        ]
        cities = [again.hubspot.record("contacts", f"p{n}@example.com").properties["city"] for n in range(3)]
        assert cities == ["Graz", "Wien", "Linz"]
        run = await again.last_run("push")
        assert (run["state"], run["counts"]["written"], run["counts"]["rejected"]) == ("partial", 2, 2)
        assert [row[2] for row in await gone(again)] == ["FIELD_GONE", "VALIDATION_ERROR"]
