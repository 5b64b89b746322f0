"""A list waits until what it builds on was read once: half of a CRM puts people where they do not belong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.jobs import stages
from hub.sync import pull as pull_stage
from tests.support.rig import HUB_YAML, Rig, hubspot_account, opened

LISTS = """\
lists:
  trial: {{where: "has_deal(stage => 'trial')"}}
  others: {{where: "city = 'Berlin' AND NOT in_list('trial')"}}
  berlin: {{where: "city = 'Berlin'"}}
"""
YAML = HUB_YAML.replace("lists:\n  berlin: {{where: \"city = 'Berlin'\"}}\n", LISTS)


async def state(rig: Rig) -> dict[str, tuple[int, list[str]]]:
    """list -> (members, what it waits for)."""
    rows = await rig.rows(
        """SELECT l.name, count(m.contact_id), l.waits_for FROM list l LEFT JOIN list_member m ON m.list_id = l.id
           GROUP BY l.id ORDER BY l.name"""
    )
    return {name: (members, waits) for name, members, waits in rows}


async def due(rig: Rig, kind: str) -> list[str]:
    return [w.key for w in await stages.waiting(rig.runtime) if w.kind == kind]


@pytest.fixture
async def world(tmp_path: Path, database_url: str, redis_url: str) -> Any:
    clock = ManualClock()
    with hubspot_account(clock) as hubspot:
        for n in range(30):
            hubspot.create("contacts", {"email": f"p{n}@example.com", "city": "Berlin"})
        async with opened(
            tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, yaml=YAML
        ) as rig:
            yield rig


async def test_lists_come_alive_when_their_streams_are_loaded(world: Rig) -> None:
    await world.run("pull:contacts", "lists", "funnels")
    assert await state(world) == {
        "trial": (0, ["crm/deals"]),
        "others": (0, ["crm/deals"]),  # through the list that it builds on
        "berlin": (30, []),
    }
    assert await world.value("SELECT count(*) FROM list_change") == 30
    assert await due(world, "lists") == []  # the pull to come will wake them

    await world.run("pull:deals")
    assert await due(world, "lists") == [""]
    await world.run("lists")
    assert await state(world) == {"trial": (0, []), "others": (30, []), "berlin": (30, [])}
    assert await due(world, "lists") == []


async def test_a_first_load_that_stops_early_keeps_the_lists_waiting(
    world: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    monkeypatch.setattr(pull_stage, "BATCH_RECORDS", 10)
    world.hubspot.faults.plan("500", times=50, path="/crm/v3/objects/contacts")
    await world.run("pull:contacts", "pull:deals", "lists")
    assert (await world.last_run())["stream"] == "deals"
    assert {waits[0] for _, waits in (await state(world)).values()} == {"crm/contacts"}

    world.hubspot.faults.planned.clear()
    world.clock.advance(minutes=5)
    await world.run("pull:contacts", "lists")
    assert await state(world) == {"trial": (0, []), "others": (30, []), "berlin": (30, [])}


async def test_a_full_re_sync_does_not_stop_the_lists(world: Rig) -> None:
    await world.run("pull:contacts", "pull:deals", "lists")
    await stages.sync_now(world.runtime, "crm", full=True, push_too=False)
    assert (await state(world))["others"] == (30, [])
    world.hubspot.faults.plan("500", times=50, path="/crm/v3/objects/deals")
    world.clock.current += timedelta(hours=1)
    await world.run("pull:deals", "lists")
    assert (await state(world))["others"] == (30, [])


async def test_who_joined_waits_for_the_funnels_whose_wake_up_was_lost(rig: Rig) -> None:
    rig.hubspot.create("contacts", {"email": "ann@example.com", "city": "Berlin"})
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists")
    assert await due(rig, "funnels") == [""]
    await rig.run("funnels")
    assert await due(rig, "funnels") == []
    assert await rig.value("SELECT count(*) FROM delivery") == 1
