"""Refreshed lists: only differences are written, in the order in which lists build on each other; and why somebody is on one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.config.settings import ListSection
from hub.errors import RuleError
from hub.lists import Refreshed, in_order, refresh_all
from hub.rules import Catalog, parse
from hub.store import lists
from hub.store.database import Database


class Town:
    """People with a city, and the lists over them."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(query.encode(), values or None)
            return list(await cursor.fetchall()) if cursor.description else []

    async def settle(self, *names: str, city: str = "Berlin") -> None:
        for name in names:
            await self.all(
                "INSERT INTO contact (email, first_name, city, created_at, changed_at) VALUES (%s, %s, %s, %s, %s)",
                f"{name}@example.com", name, city, self.clock.now(), self.clock.now(),
            )  # fmt: skip

    async def refresh(self, **rules: str) -> dict[str, Refreshed]:
        found = await refresh_all(self.db, self.clock, sections(**rules), catalog(*rules), {})
        return {one.name: one for one in found}

    async def members(self, name: str) -> set[str]:
        rows = await self.all(
            """SELECT c.first_name FROM list_member m JOIN list l ON l.id = m.list_id JOIN contact c ON c.id = m.contact_id
               WHERE l.name = %s""",
            name,
        )
        return {row[0] for row in rows}

    async def changes(self) -> list[tuple[str, str, str]]:
        """(list, person, change) in the order in which they were written."""
        return [  # type: ignore[return-value]
            tuple(row)
            for row in await self.all(
                """SELECT l.name, c.first_name, ch.change FROM list_change ch JOIN list l ON l.id = ch.list_id
                   JOIN contact c ON c.id = ch.contact_id ORDER BY ch.id"""
            )
        ]


def sections(**rules: str) -> dict[str, ListSection]:
    return {name: ListSection(where=rule) for name, rule in rules.items()}


def catalog(*names: str) -> Catalog:
    return Catalog(lists=frozenset(names))


@pytest.fixture
def town(database: Database, clock: ManualClock) -> Town:
    return Town(database, clock)


async def test_only_who_joined_and_left_is_written(town: Town, clock: ManualClock) -> None:
    await town.settle("ann", "bob")
    await town.settle("cid", city="Wien")
    assert (await town.refresh(berlin="city = 'Berlin'"))["berlin"] == Refreshed("berlin", 2, 2, 0)
    before = await town.all("SELECT contact_id, joined_at, xmin::text FROM list_member ORDER BY 1")

    clock.advance(hours=1)
    assert (await town.refresh(berlin="city = 'Berlin'"))["berlin"] == Refreshed("berlin", 2, 0, 0)
    assert await town.all("SELECT contact_id, joined_at, xmin::text FROM list_member ORDER BY 1") == before
    assert len(await town.changes()) == 2

    await town.all("UPDATE contact SET city = CASE first_name WHEN 'ann' THEN 'Wien' ELSE 'Berlin' END")
    clock.advance(hours=1)
    assert (await town.refresh(berlin="city = 'Berlin'"))["berlin"] == Refreshed("berlin", 2, 1, 1)
    assert await town.members("berlin") == {"bob", "cid"}
    assert sorted((await town.changes())[2:]) == [("berlin", "ann", "left"), ("berlin", "cid", "joined")]
    assert await town.all("SELECT DISTINCT at FROM list_change WHERE id > 2") == [(clock.now(),)]
    assert await town.all(
        "SELECT m.xmin::text FROM list_member m JOIN contact c ON c.id = contact_id WHERE first_name = 'bob'"
    ) == [(before[1][2],)]  # who stays is not touched


async def test_a_changed_rule_moves_people_at_once(town: Town) -> None:
    await town.settle("ann")
    await town.settle("cid", city="Wien")
    await town.refresh(chosen="city = 'Berlin'")
    assert (await town.refresh(chosen="city = 'Wien'"))["chosen"] == Refreshed("chosen", 1, 1, 1)
    assert await town.members("chosen") == {"cid"}
    assert await town.all("SELECT rule FROM list") == [("city = 'Wien'",)]


@pytest.mark.parametrize("state", ["archived", "deleted", "merged"])
async def test_who_is_gone_leaves_and_may_come_back(town: Town, state: str) -> None:
    await town.settle("ann", "bob")
    await town.refresh(berlin="city = 'Berlin'")
    await town.all("UPDATE contact SET state = %s WHERE first_name = 'ann'", state)
    assert (await town.refresh(berlin="city = 'Berlin'"))["berlin"] == Refreshed("berlin", 1, 0, 1)
    await town.all("UPDATE contact SET state = 'live'")
    assert (await town.refresh(berlin="city = 'Berlin'"))["berlin"] == Refreshed("berlin", 2, 1, 0)
    assert [change for _, name, change in await town.changes() if name == "ann"] == [
        "joined",
        "left",
        "joined",
    ]


async def test_time_alone_moves_people(town: Town, clock: ManualClock) -> None:
    await town.settle("ann")
    rule = "days_since(created_at) <= 2"
    await town.refresh(fresh=rule)
    clock.advance(days=2)
    assert (await town.refresh(fresh=rule))["fresh"] == Refreshed("fresh", 1, 0, 0)
    clock.advance(seconds=1)
    assert (await town.refresh(fresh=rule))["fresh"] == Refreshed("fresh", 0, 0, 1)


async def test_a_list_comes_after_those_it_uses(town: Town) -> None:
    await town.settle("ann", "bob")
    await town.settle("cid", city="Wien")
    rules = {
        "z": "in_list('y') AND first_name = 'ann'",  # written first, refreshed last
        "y": "NOT in_list('x')",
        "x": "city = 'Wien'",
    }
    found = await town.refresh(**rules)
    assert list(found) == ["x", "y", "z"]
    assert await town.members("y") == {"ann", "bob"}
    assert await town.members("z") == {"ann"}
    await town.all("UPDATE contact SET city = 'Wien' WHERE first_name = 'ann'")
    await town.refresh(**rules)  # one call carries a change through all of them
    assert await town.members("z") == set()


@pytest.mark.parametrize(
    ("rules", "circle"),
    [
        ({"a": "in_list('a')"}, "a -> a"),
        ({"a": "in_list('b')", "b": "vip IS NULL OR NOT in_list('a')"}, "a -> b -> a"),
        ({"x": "in_list('b')", "b": "in_list('c')", "c": "in_list('d')", "d": "in_list('b')"}, "b -> c -> d -> b"),
    ],
)  # fmt: skip
async def test_a_circle_is_told_and_nothing_is_written(
    town: Town, rules: dict[str, str], circle: str
) -> None:
    rules = {name: rule.replace("vip", "city") for name, rule in rules.items()}
    await town.settle("ann")
    with pytest.raises(RuleError, match=f"in a circle: {circle};"):
        await town.refresh(**rules)
    assert await town.changes() == []


def test_two_ways_to_one_list_are_no_circle() -> None:
    rules = {
        name: parse(text, catalog("a", "b", "c", "d"))
        for name, text in {
            "d": "in_list('b') AND in_list('c')", "b": "in_list('a')", "c": "in_list('a')", "a": "true",
        }.items()
    }  # fmt: skip
    assert in_order(rules) == ["a", "b", "c", "d"]


async def test_a_list_that_is_taken_out_is_kept_and_comes_back(town: Town, clock: ManualClock) -> None:
    await town.settle("ann", "bob")
    await town.refresh(berlin="city = 'Berlin'", all="true")
    await town.refresh(all="true")
    assert await town.all("SELECT name, retired_at FROM list ORDER BY name") == [
        ("all", None),
        ("berlin", clock.now()),
    ]
    async with town.db.connection() as conn:
        assert [one["name"] for one in await lists.all_sizes(conn, now=clock.now())] == ["all"]
    await town.all("UPDATE contact SET city = 'Wien' WHERE first_name = 'bob'")
    assert (await town.refresh(berlin="city = 'Berlin'", all="true"))["berlin"] == Refreshed(
        "berlin", 1, 0, 1
    )


async def test_two_processes_write_a_difference_once(
    town: Town, database_url: str, clock: ManualClock
) -> None:
    await town.settle(*(f"p{n}" for n in range(40)))
    async with Database(database_url) as second:
        other = Town(second, clock)
        for city in ("Wien", "Berlin", "Wien"):
            done = await asyncio.gather(
                *(t.refresh(berlin="city = 'Berlin'") for t in (town, other) for _ in range(4))
            )
            assert sum(one["berlin"].joined + one["berlin"].left for one in done) == 40
            await town.all("UPDATE contact SET city = %s", city)
    assert len(await town.changes()) == 120


async def test_a_rule_that_is_wrong_changes_no_list(town: Town) -> None:
    await town.settle("ann")
    with pytest.raises(RuleError, match="unknown field 'citi'"):
        await town.refresh(berlin="city = 'Berlin'", wrong="citi = 'x'")
    assert await town.all("SELECT count(*) FROM list") == [(0,)]


async def test_newest_changes_first(town: Town, clock: ManualClock) -> None:
    await town.settle("ann")
    await town.refresh(berlin="city = 'Berlin'")
    clock.advance(hours=1)
    await town.all("UPDATE contact SET city = 'Wien'")
    await town.refresh(berlin="city = 'Berlin'")
    async with town.db.connection() as conn:
        found = await lists.newest_changes(conn, "berlin")
        assert [(one["change"], one["email"]) for one in found] == [
            ("left", "ann@example.com"),
            ("joined", "ann@example.com"),
        ]
        assert len(await lists.newest_changes(conn, "berlin", limit=1)) == 1
