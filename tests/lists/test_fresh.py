"""What wakes a list: what was touched, time, the night; and what a list that cannot be evaluated does to the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.config.settings import ListSection
from hub.jobs import stages
from hub.lists import Refreshed, refresh, refresh_all
from hub.rules import Catalog
from hub.store import imports, merging, touches
from hub.store.database import Database
from tests.lists.test_refresh import Town, sections
from tests.support.rig import Rig


@pytest.fixture
def town(database: Database, clock: ManualClock) -> Town:
    return Town(database, clock)


async def due(rig: Rig) -> list[str]:
    return [w.key for w in await stages.waiting(rig.runtime) if w.kind == "lists"]


async def looked_at(town: Town, given: dict[str, ListSection]) -> dict[str, int | None]:
    done = await refresh_all(town.db, town.clock, given, Catalog(lists=frozenset(given)), {})
    return {one.name: one.looked_at for one in done}


async def test_only_the_touched_are_looked_at_and_only_by_rules_that_may_care(town: Town) -> None:
    await town.settle(*(f"p{n}" for n in range(9)))
    given = sections(
        berlin="city = 'Berlin'", dealt="has_deal()", mailed="opened()", both="in_list('berlin')"
    )
    assert set((await looked_at(town, given)).values()) == {None}  # new lists are built as a whole
    assert set((await looked_at(town, given)).values()) == {0}
    await town.all("UPDATE contact SET city = 'Wien' WHERE first_name IN ('p1', 'p2')")
    assert set((await looked_at(town, given)).values()) == {2}
    await town.all(
        """WITH d AS (INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at)
                      SELECT 'hello', id, 'x', 'news', now() FROM contact WHERE first_name = 'p3' RETURNING id, contact_id)
           INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
           SELECT id, contact_id, 'opened', now(), now(), 'web', 'x' FROM d"""
    )
    assert await looked_at(town, given) == {"berlin": 0, "dealt": 0, "mailed": 1, "both": 0}
    assert await town.members("mailed") == {"p3"}
    given = sections(berlin="city = 'Wien'", dealt="has_deal()", mailed="opened()", both="in_list('berlin')")
    found = await looked_at(town, given)
    assert found == {"berlin": None, "dealt": 0, "mailed": 0, "both": 9}  # a new rule builds one list anew
    assert await town.members("both") == {"p1", "p2"}


async def test_too_many_touches_build_a_list_as_a_whole(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    async def few(conn: Any) -> int:
        return 2

    await town.settle("ann", "bob", "cid")
    given = sections(berlin="city = 'Berlin'", both="in_list('berlin')")
    await looked_at(town, given)
    monkeypatch.setattr(touches, "too_many", few)
    await town.all("UPDATE contact SET city = 'Wien'")
    assert await looked_at(town, given) == {"berlin": None, "both": None}
    assert await town.members("both") == set()
    assert await town.all("SELECT count(*) FROM list_touch") == [(0,)]


async def test_the_sweep_finds_touches_whose_wake_up_was_lost(rig: Rig) -> None:
    rig.hubspot.create("contacts", {"email": "ann@example.com", "city": "Berlin"})
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists")
    assert await due(rig) == []
    await rig.rows("UPDATE contact SET city = 'Wien' RETURNING id")
    assert await due(rig) == [""]
    await rig.run("lists")
    assert await due(rig) == []
    assert await rig.value("SELECT size FROM list") == 0
    rig.clock.advance(minutes=5)  # its age is shown, so it is looked after even when nothing happens
    assert await due(rig) == [""]


async def test_time_wakes_a_list_at_the_moment_when_it_changes_it(town: Town, rig: Rig) -> None:
    await town.settle("ann")
    given = sections(fresh="created_at > now() - interval '3 minutes'", old="NOT in_list('fresh')")
    await looked_at(town, given)
    moment = town.clock.now() + timedelta(minutes=3)
    assert await town.all("SELECT name, due_at FROM list WHERE due_at IS NOT NULL") == [("fresh", moment)]
    rig.clock.current = moment - timedelta(seconds=1)
    assert await due(rig) == []
    rig.clock.current = moment
    assert await due(rig) == [""]
    town.clock.current = moment
    assert await looked_at(town, given) == {"fresh": 1, "old": 1}
    assert await town.members("old") == {"ann"}
    assert await town.all("SELECT count(*) FROM list WHERE due_at > %s", moment + timedelta(days=1)) == [(0,)]
    town.clock.advance(days=9)
    assert await looked_at(town, given) == {
        "fresh": 1,
        "old": 0,
    }  # a moment belongs to the time before it and after it
    assert await looked_at(town, given) == {"fresh": 0, "old": 0}


async def test_the_night_proves_the_lists_and_puts_right_what_drifted(rig: Rig) -> None:
    for name in ("ann", "bob", "cid"):
        rig.hubspot.create("contacts", {"email": f"{name}@example.com", "city": "Berlin"})
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists")
    rig.clock.current = datetime(2026, 11, 25, 2, 59, 59, tzinfo=UTC)
    assert "verify" not in await due(rig)
    rig.clock.current = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
    assert await due(rig) == ["", "verify"]
    await stages.run(rig.runtime, "lists", "verify")
    assert await due(rig) == []
    run = await rig.last_run("lists")
    assert (run["state"], run["counts"]) == ("done", {"read": 1})

    await rig.rows("DELETE FROM list_member WHERE contact_id = (SELECT min(id) FROM contact) RETURNING 1")
    await rig.rows("INSERT INTO contact (email, changed_at) VALUES ('dot@example.com', now()) RETURNING 1")
    await rig.run("lists")
    await rig.rows(
        "INSERT INTO list_member SELECT l.id, c.id, now() FROM list l, contact c WHERE email LIKE 'dot%%' RETURNING 1"
    )
    await stages.run(rig.runtime, "lists", "verify")
    run = await rig.last_run("lists")
    assert (run["state"], run["counts"]["rejected"]) == ("partial", 2)
    told = await rig.rows("SELECT message FROM run_reject WHERE code = 'DRIFT' ORDER BY 1")
    assert told == [
        ("list berlin: belongs on it and was not",),
        ("list berlin: was on it and does not belong there",),
    ]
    await stages.run(rig.runtime, "lists", "verify")
    assert (await rig.last_run("lists"))["state"] == "done"
    assert await rig.value("SELECT count(*) FROM list_member") == 3


async def test_a_rule_that_takes_too_long_stops_no_other_list(
    town: Town, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "EVALUATION_SECONDS", 0.1)
    await town.settle("ann", "bob")
    await town.all("UPDATE contact SET company = repeat('a', 1000000) WHERE first_name = 'ann'")
    given = sections(
        bomb=" OR ".join(f"company ILIKE '%x{n}%'" for n in range(100)),
        uses="NOT in_list('bomb')",
        berlin="city = 'Berlin'",
        late="in_list('uses')",
    )

    async def bring() -> dict[str, Refreshed]:
        done = await refresh_all(town.db, clock, given, Catalog(lists=frozenset(given)), {})
        return {one.name: one for one in done}

    done = await bring()
    assert done["bomb"].problem == "its rule took longer than 0.1 s"
    assert done["uses"].problem == "it uses bomb, which could not be evaluated"
    assert done["late"].problem == "it uses uses, which could not be evaluated"
    assert done["berlin"] == Refreshed("berlin", 2, 2, 0)
    assert await town.members("uses") == set()
    assert (await bring())["bomb"].problem  # it is not tried at once again

    clock.advance(minutes=16)
    await town.all("UPDATE contact SET company = 'x'")
    done = await bring()
    assert not any(one.problem for one in done.values())
    assert await town.members("late") == {"ann", "bob"}


async def test_an_import_follows_its_person_through_a_merge(town: Town) -> None:
    await town.settle("ann", "bob")
    given = {"fair": ListSection(static=True)}
    await looked_at(town, given)
    ann, bob = (row[0] for row in await town.all("SELECT id FROM contact ORDER BY id"))
    async with town.db.transaction() as conn:
        assert await imports.add(
            conn, "fair", ["ann@example.com", "new@example.com"], 1, now=town.clock.now()
        ) == (2, 1)
    assert await looked_at(town, given) == {"fair": 1}
    async with town.db.transaction() as conn:
        await merging.fold(conn, ann, bob, {"connection": "crm", "run_id": None, "now": town.clock.now()})
    await looked_at(town, given)
    assert await town.members("fair") == {"bob"}
    await town.settle("new")
    await looked_at(town, given)
    assert await town.members("fair") == {"bob", "new"}
