"""A list kept as a static segment of HubSpot: made once, differences only, held against HubSpot's own membership at night."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.hubspot.lists import Segment
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from hub.jobs import lists as list_jobs
from hub.jobs import plan, stages
from tests.support.rig import HUB_YAML, Rig, opened

YAML = HUB_YAML.replace("city = 'Berlin'\"", "city = 'Berlin'\", mirror: {{crm: Mailyard Berlin}}")


@pytest.fixture
async def rig(
    tmp_path: Path, clock: ManualClock, hubspot: HubSpotSandbox, database_url: str, redis_url: str
) -> AsyncIterator[Rig]:
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, yaml=YAML
    ) as rig:
        yield rig


def segment(rig: Rig) -> Segment:
    return next(s for s in rig.hubspot.segments.all.values() if s.name == "Mailyard Berlin")


def people(rig: Rig, *names: str, city: str = "Berlin") -> list[str]:
    return [
        rig.hubspot.create("contacts", {"email": f"{name}@example.com", "city": city}).id for name in names
    ]


async def bring(rig: Rig) -> int:
    """Pull, refresh and mirror. Returns the calls that changed members."""
    rig.clock.advance(minutes=10)
    before = rig.hubspot.faults.count("/memberships/", "PUT")
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists")
    await stages.run(rig.runtime, "mirror", "crm")
    return rig.hubspot.faults.count("/memberships/", "PUT") - before


async def runs(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT state, reason, counts FROM run WHERE kind = 'mirror' ORDER BY id")


async def prepare(rig: Rig) -> list[str]:
    return await list_jobs.prepared(rig.runtime, "crm", dry=False)


async def test_it_is_made_once_and_follows_the_list_by_differences(rig: Rig) -> None:
    ann, bob, cid = people(rig, "ann", "bob", "cid")
    assert await list_jobs.prepared(rig.runtime, "crm", dry=True) == ["segment 'Mailyard Berlin' is missing"]
    assert await prepare(rig) == ["segment 'Mailyard Berlin' created"]
    assert await prepare(rig) == []
    assert await bring(rig) == 1
    assert set(segment(rig).members) == {int(ann), int(bob), int(cid)}
    assert await bring(rig) == 0

    rig.hubspot.edit("contacts", ann, {"city": "Wien"})
    (dot,) = people(rig, "dot")
    assert await bring(rig) == 1
    assert set(segment(rig).members) == {int(bob), int(cid), int(dot)}
    assert (await runs(rig))[-1] == ("done", "", {"written": 2})
    body = {m["segment"]: m["members"] for m in (await list_jobs.one(rig.runtime, "berlin"))["mirrors"]}
    assert body == {"Mailyard Berlin": 3}


async def test_people_who_go_or_are_merged_leave_and_come(rig: Rig) -> None:
    ann, bob, cid = people(rig, "ann", "bob", "cid")
    await prepare(rig)
    await bring(rig)
    rig.hubspot.archive("contacts", ann)
    both = rig.hubspot.merge("contacts", bob, cid).id
    rig.clock.advance(hours=2)
    await bring(rig)
    await bring(rig)
    assert set(segment(rig).members) == {int(both)}
    assert await rig.rows("SELECT ref FROM mirror_member") == [(both,)]


async def test_at_night_it_is_held_against_the_vendors_own_membership(rig: Rig) -> None:
    ann, bob = people(rig, "ann", "bob")
    (eve,) = people(rig, "eve", city="Wien")
    await prepare(rig)
    await bring(rig)
    rig.hubspot.segments.change(segment(rig), [eve], [ann])  # somebody's hand
    assert await bring(rig) == 0
    rig.clock.advance(days=1)
    assert {(w.kind, w.key) for w in await stages.waiting(rig.runtime)} >= {("mirror", "crm")}
    assert await bring(rig) == 1
    assert set(segment(rig).members) == {int(ann), int(bob)}
    (state, _, counts) = (await runs(rig))[-1]
    assert (state, counts) == ("partial", {"written": 2, "rejected": 1})
    (row,) = await rig.rows("SELECT code, message FROM run_reject")
    assert row[0] == "DRIFT"
    assert "1 of the members that the hub put into 'Mailyard Berlin' were gone, 1 were there" in row[1]
    assert await bring(rig) == 0


async def test_what_is_missing_or_fills_itself_is_told_once_and_mended(rig: Rig) -> None:
    people(rig, "ann")
    for _ in range(2):
        assert await bring(rig) == 0
    ((state, reason, _),) = await runs(rig)
    assert state == "failed"
    assert "there is no segment 'Mailyard Berlin'" in reason
    assert "hub connections prepare crm" in reason
    branch = {
        "filterBranchType": "OR", "filters": [],
        "filterBranches": [{"filterBranchType": "AND", "filterBranches": [], "filters": [
            {"filterType": "PROPERTY", "property": "city",
             "operation": {"operationType": "MULTISTRING", "operator": "IS_EQUAL_TO", "values": ["Berlin"]}}]}],
    }  # fmt: skip
    rig.hubspot.segments.create("Mailyard Berlin", "DYNAMIC", branch=branch)
    await bring(rig)
    assert "fills itself by a filter" in (await runs(rig))[-1][1]
    segment(rig).deleted_ms = 1
    await prepare(rig)
    assert await bring(rig) == 1


async def test_a_fault_in_between_loses_and_doubles_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.sync.mirroring.BATCH", 2)
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    ids = people(rig, "a", "b", "c", "d", "e")
    await prepare(rig)
    rig.hubspot.faults.plan("500", times=5, skip=1, path="/memberships/add-and-remove")
    await bring(rig)
    assert len(segment(rig).members) == 2
    assert (await runs(rig))[-1][0] == "failed"
    assert {(w.kind, w.key) for w in await stages.waiting(rig.runtime)} >= {("mirror", "crm")}
    await bring(rig)
    assert {str(n) for n in segment(rig).members} == set(ids)


async def test_the_plan_counts_it_and_a_list_that_waits_takes_nobody_out(rig: Rig) -> None:
    people(rig, "ann", "bob")
    await prepare(rig)
    found = await plan.plan(rig.runtime, pull=True, samples=1)
    assert found["mirrors"] == [
        {"list": "berlin", "connection": "crm", "segment": "Mailyard Berlin", "add": 2, "remove": 0}
    ]
    assert segment(rig).members == {}
    await bring(rig)
    await rig.rows("UPDATE list SET needs_rebuild = true, waits_for = '{crm/deals}' RETURNING id")
    await rig.rows("DELETE FROM list_member RETURNING contact_id")
    await stages.run(rig.runtime, "mirror", "crm")
    assert len(segment(rig).members) == 2
