"""Funnels on a clock: who enters, what each step causes, when it is over, and that nothing happens to anybody twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.config.settings import FunnelSection, ListSection, MessageSection
from hub.errors import RuleError
from hub.funnels import Advanced, advance, compiled
from hub.lists import refresh_all
from hub.rules import Catalog
from hub.store import contacts, funnels, merging, outbox
from hub.store.database import Database

CATALOG = Catalog(lists=frozenset({"berlin"}), messages=frozenset({"hello", "again"}))
LISTS = {"berlin": ListSection(where="city = 'Berlin'")}
MESSAGES = {
    name: MessageSection.model_validate({"subject": "x", "from": "a@example.com", "purpose": "news"})
    for name in ("hello", "again")
}
WON = {"when": "lifecycle = 'customer'"}


class Walk:
    """A funnel `f` that people of the list `berlin` enter, and what became of them."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock
        self.section = funnel({"send": "hello"})

    async def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(query.encode(), values or None)
            return list(await cursor.fetchall()) if cursor.description else []

    async def settle(self, *names: str, city: str = "Berlin") -> None:
        async with self.db.transaction() as conn, conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO contact (email, first_name, city, changed_at) VALUES (%s, %s, %s, %s)",
                [(f"{name}@example.com", name, city, self.clock.now()) for name in names],
            )
        await self.refresh()

    async def move(self, name: str, city: str) -> None:
        await self.all("UPDATE contact SET city = %s WHERE first_name = %s", city, name)
        await self.refresh()

    async def set(self, name: str, **columns: Any) -> None:
        for column, value in columns.items():
            await self.all(f"UPDATE contact SET {column} = %s WHERE first_name = %s", value, name)

    async def refresh(self) -> None:
        await refresh_all(self.db, self.clock, LISTS, CATALOG, {})

    async def advance(self, **more: Any) -> Advanced:
        return await advance(self.db, self.clock, {"f": self.section}, CATALOG, MESSAGES, **more)

    async def entries(self) -> list[tuple[Any, ...]]:
        """(person, occurrence, state, next position, reason)"""
        return await self.all(
            """SELECT c.first_name, e.occurrence, e.state, CASE e.state WHEN 'active' THEN e.position END, e.reason
               FROM funnel_entry e JOIN contact c ON c.id = e.contact_id ORDER BY c.first_name, e.occurrence"""
        )

    async def mails(self) -> list[tuple[str, str]]:
        return [  # type: ignore[return-value]
            tuple(row)
            for row in await self.all(
                "SELECT c.first_name, d.message FROM delivery d JOIN contact c ON c.id = d.contact_id ORDER BY 1, d.id"
            )
        ]

    async def story(self, name: str) -> list[tuple[str, str]]:
        """(position, what) of everything that one person met."""
        return [  # type: ignore[return-value]
            tuple(row)
            for row in await self.all(
                """SELECT l.position, l.what FROM funnel_log l JOIN funnel_entry e ON e.id = l.entry_id
                   JOIN contact c ON c.id = e.contact_id WHERE c.first_name = %s ORDER BY l.id""",
                name,
            )
        ]


def funnel(*steps: dict[str, Any], leave: dict[str, str] | None = None, again: str = "once") -> FunnelSection:
    given = {"enter": {"list": "berlin", "again": again}, "steps": list(steps), "leave": leave}
    return FunnelSection.model_validate({key: value for key, value in given.items() if value is not None})


@pytest.fixture
def walk(database: Database, clock: ManualClock) -> Walk:
    return Walk(database, clock)


# --- entering ------------------------------------------------------------------------------------------------


async def test_who_joins_enters_once_and_only_once(walk: Walk) -> None:
    await walk.settle("ann", "bob")
    await walk.settle("cid", city="Wien")
    told = await walk.advance()
    assert (told.entered, told.mails, told.done, told.taken) == (2, 2, 2, 2)
    assert await walk.mails() == [("ann", "hello"), ("bob", "hello")]
    assert await walk.advance() == Advanced()
    await walk.move("ann", "Wien")
    await walk.move("ann", "Berlin")
    assert await walk.advance() == Advanced()
    assert await walk.entries() == [("ann", 1, "done", None, ""), ("bob", 1, "done", None, "")]
    assert await walk.story("ann") == [("0", "entered"), ("0", "send"), ("end", "done")]


async def test_each_time_enters_again_but_never_while_on_the_way(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"}, again="each_time")
    await walk.settle("ann")
    await walk.advance()
    for city in ("Wien", "Berlin"):  # out and in again while she waits
        await walk.move("ann", city)
    assert (await walk.advance()).entered == 0
    clock.advance(days=1)
    assert (await walk.advance()).done == 1
    for city in ("Wien", "Berlin"):
        await walk.move("ann", city)
    assert (await walk.advance()).entered == 1
    assert [entry[:3] for entry in await walk.entries()] == [("ann", 1, "done"), ("ann", 2, "active")]
    assert await walk.mails() == [("ann", "hello"), ("ann", "hello")]


async def test_who_has_left_the_list_before_a_funnel_looks_does_not_enter(walk: Walk) -> None:
    """Also a new funnel on an old list: those enter who are on it, not everybody who ever was."""
    await walk.settle("ann", "bob")
    await walk.move("bob", "Wien")
    assert (await walk.advance()).entered == 1
    assert [entry[0] for entry in await walk.entries()] == ["ann"]
    await walk.move("bob", "Berlin")
    assert (await walk.advance()).entered == 1


async def test_a_funnel_that_is_taken_out_stands_still_and_goes_on_when_put_back(
    walk: Walk, clock: ManualClock
) -> None:
    walk.section = funnel({"wait": "1 day"}, {"send": "hello"})
    await walk.settle("ann")
    await walk.advance()
    clock.advance(days=3)
    assert await advance(walk.db, clock, {}, CATALOG, MESSAGES) == Advanced()
    assert await walk.all("SELECT retired_at FROM funnel") == [(clock.now(),)]
    assert (await walk.advance()).mails == 1
    assert await walk.all("SELECT retired_at FROM funnel") == [(None,)]


async def test_a_funnel_on_a_list_that_was_never_refreshed_waits(walk: Walk) -> None:
    assert await walk.advance() == Advanced()


# --- steps ---------------------------------------------------------------------------------------------------


async def test_a_wait_ends_to_the_second(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel(
        {"send": "hello"}, {"wait": "3 days"}, {"send": "again"}, {"wait": "90s"}, {"send": "hello"}
    )
    await walk.settle("ann")
    await walk.advance()
    assert await walk.entries() == [("ann", 1, "active", "2", "")]
    assert await walk.all("SELECT wake_at FROM funnel_entry") == [(clock.now() + timedelta(days=3),)]
    clock.advance(days=3, seconds=-1)
    assert await walk.advance() == Advanced()
    clock.advance(seconds=1)
    assert (await walk.advance()).mails == 1
    clock.advance(seconds=89)
    assert (await walk.advance()).taken == 0
    clock.advance(seconds=1)
    told = await walk.advance()
    assert (told.mails, told.done) == (1, 1)
    assert await walk.mails() == [("ann", "hello"), ("ann", "again"), ("ann", "hello")]


async def test_a_wait_counts_from_when_it_is_reached_not_from_when_it_was_due(
    walk: Walk, clock: ManualClock
) -> None:
    walk.section = funnel({"wait": "1 day"}, {"wait": "1 day"}, {"send": "hello"})
    await walk.settle("ann")
    await walk.advance()
    clock.advance(days=5)  # the hub was off
    assert (await walk.advance()).mails == 0
    clock.advance(days=1)
    assert (await walk.advance()).mails == 1


async def test_a_branch_takes_everybody_the_right_way(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel(
        {
            "when": "lifecycle = 'lead'",
            "then": [{"send": "hello"}, {"wait": "1 day"}, {"set": {"crm": {"city": "then"}}}],
            "else": [{"when": "lifecycle IS NULL", "then": [{"set": {"crm": {"city": "blank"}}}]}],
        },
        {"send": "again"},
    )
    await walk.settle("ann", "bob", "cid")
    await walk.set("ann", lifecycle="lead")
    await walk.set("bob", lifecycle="other")
    told = await walk.advance()
    assert (told.mails, told.writes, told.done) == (3, {"crm": 1}, 2)
    assert await walk.mails() == [("ann", "hello"), ("bob", "again"), ("cid", "again")]
    assert await walk.entries() == [
        ("ann", 1, "active", "0.then.2", ""), ("bob", 1, "done", None, ""), ("cid", 1, "done", None, ""),
    ]  # fmt: skip
    await walk.set("ann", lifecycle="other")  # she stays on the way that she took
    clock.advance(days=1)
    assert (await walk.advance()).writes == {"crm": 1}
    assert [what for _, what in await walk.story("ann")] == [
        "entered",
        "branch",
        "send",
        "wait",
        "set",
        "send",
        "done",
    ]
    assert [p for p, _ in await walk.story("cid")] == ["0", "0", "0.else.0", "0.else.0.then.0", "1", "end"]
    detail = await walk.all("SELECT detail ->> 'holds' FROM funnel_log WHERE what = 'branch' ORDER BY id")
    assert Counter(detail) == {("true",): 2, ("false",): 3}


async def test_a_branch_sees_what_is_known_when_it_is_taken(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"wait": "1 day"}, {"when": "lifecycle = 'lead'", "then": [{"send": "hello"}]})
    await walk.settle("ann", "bob")
    await walk.set("ann", lifecycle="lead")
    await walk.advance()
    await walk.set("ann", lifecycle="other")
    await walk.set("bob", lifecycle="lead")
    clock.advance(days=1)
    await walk.advance()
    assert await walk.mails() == [("bob", "hello")]


async def test_a_set_makes_one_write(walk: Walk) -> None:
    walk.section = funnel({"set": {"crm": {"lifecycle": "lead", "city": "Wien"}, "shop": {"city": "Wien"}}})
    await walk.settle("ann", "bob")
    told = await walk.advance()
    assert told.writes == {"crm": 2, "shop": 2}
    rows = await walk.all(
        "SELECT c.first_name, o.connection, o.kind, o.payload FROM outbox o JOIN contact c ON c.id = o.contact_id ORDER BY 1, 2"
    )
    both = {"fields": {"lifecycle": "lead", "city": "Wien"}}
    assert rows == [
        ("ann", "crm", "field", both), ("ann", "shop", "field", {"fields": {"city": "Wien"}}),
        ("bob", "crm", "field", both), ("bob", "shop", "field", {"fields": {"city": "Wien"}}),
    ]  # fmt: skip
    await walk.all("UPDATE funnel_entry SET state = 'active', position = '0'")  # as after a restored backup
    await walk.advance()
    assert await walk.all("SELECT count(*) FROM outbox") == [(4,)]


async def test_a_mail_is_queued_once_with_what_the_ledger_needs(walk: Walk, clock: ManualClock) -> None:
    await walk.settle("ann")
    await walk.advance()
    await walk.all("UPDATE funnel_entry SET state = 'active', position = '0'")
    assert (await walk.advance()).mails == 0
    assert await walk.all("SELECT message, occurrence, purpose, funnel, state, queued_at FROM delivery") == [
        ("hello", "funnel:f:1:0", "news", "f", "queued", clock.now())
    ]


# --- leaving -------------------------------------------------------------------------------------------------


async def test_the_leave_rule_is_asked_before_each_step_that_is_due(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"}, {"send": "again"}, leave=WON)
    await walk.settle("ann", "bob", "cid")
    await walk.set("cid", lifecycle="customer")
    told = await walk.advance()
    assert (told.left, told.mails) == (1, 2)
    await walk.set("ann", lifecycle="customer")
    clock.advance(days=1)
    told = await walk.advance()
    assert (told.left, told.done, told.mails) == (1, 1, 1)
    reason = "leave rule: lifecycle = 'customer'"
    assert await walk.entries() == [
        ("ann", 1, "left", None, reason), ("bob", 1, "done", None, ""), ("cid", 1, "left", None, reason),
    ]  # fmt: skip
    assert await walk.mails() == [("ann", "hello"), ("bob", "hello"), ("bob", "again")]
    assert await walk.story("cid") == [("0", "entered"), ("0", "left")]


async def test_who_left_may_enter_again_each_time_only(walk: Walk) -> None:
    walk.section = funnel({"send": "hello"}, leave=WON, again="each_time")
    await walk.settle("ann")
    await walk.set("ann", lifecycle="customer")
    assert (await walk.advance()).left == 1
    await walk.set("ann", lifecycle=None)
    for city in ("Wien", "Berlin"):
        await walk.move("ann", city)
    assert (await walk.advance()).mails == 1


@pytest.mark.parametrize("state", ["archived", "deleted", "merged"])
async def test_a_contact_that_is_gone_ends_there(walk: Walk, clock: ManualClock, state: str) -> None:
    walk.section = funnel({"wait": "1 day"}, {"send": "hello"}, {"set": {"crm": {"city": "x"}}})
    await walk.settle("ann")
    await walk.advance()
    await walk.set("ann", state=state)
    clock.advance(days=1)
    told = await walk.advance()
    assert (told.left, told.mails, told.writes) == (1, 0, {})
    assert await walk.entries() == [("ann", 1, "left", None, "the contact is gone")]


async def fold(walk: Walk, loser: str, survivor: str) -> None:
    ids = dict(await walk.all("SELECT first_name, id FROM contact"))
    async with walk.db.transaction() as conn:
        values = {"connection": "crm", "run_id": None, "now": walk.clock.now()}
        await merging.fold(conn, ids[loser], ids[survivor], values)
    await walk.refresh()


async def test_two_in_one_funnel_go_on_both_after_a_merge_is_undone(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"}, {"send": "again"})
    await walk.settle("ann")
    await walk.settle("bob")
    await walk.advance()
    ids = dict(await walk.all("SELECT first_name, id FROM contact"))
    async with walk.db.transaction() as conn:
        await merging.merge(conn, ids["bob"], ids["ann"], standing=(), now=clock.now())
    await walk.refresh()
    clock.advance(days=2)
    told = await walk.advance()  # bob leaves: he is ann now
    assert (told.left, told.mails) == (1, 1)
    async with walk.db.transaction() as conn:
        await merging.unmerge(conn, ids["bob"], standing=(), now=clock.now())
    await walk.refresh()
    told = await walk.advance()
    assert (told.entered, told.mails) == (0, 1)  # his own second mail; nobody is taken in again
    sent = await walk.all("SELECT contact_id, message, count(*) FROM delivery GROUP BY 1, 2 ORDER BY 1, 2")
    assert sent == [(id, message, 1) for id in sorted(ids.values()) for message in ("again", "hello")]


async def test_merged_in_the_middle_goes_on_as_the_survivor(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel(
        {"send": "hello"}, {"wait": "1 day"}, {"send": "again"}, {"set": {"crm": {"city": "x"}}}
    )
    await walk.settle("ann")
    await walk.settle("new", city="Wien")
    await walk.advance()
    await fold(walk, "ann", "new")
    clock.advance(days=1)
    assert (await walk.advance()).done == 1
    assert await walk.mails() == [("new", "hello"), ("new", "again")]
    assert await walk.entries() == [("new", 1, "done", None, "")]


async def test_two_on_the_way_become_one_and_get_one_mail(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"wait": "1 day"}, {"send": "hello"})
    await walk.settle("ann", "bob")
    await walk.advance()
    await fold(walk, "ann", "bob")
    clock.advance(days=1)
    told = await walk.advance()
    assert (told.done, told.left, told.mails) == (1, 1, 1)
    assert await walk.mails() == [("bob", "hello")]


async def test_a_write_that_waits_goes_with_its_contact_when_that_is_merged(walk: Walk) -> None:
    """Under the old contact nobody would find an id to write it to."""
    walk.section = funnel({"set": {"crm": {"city": "x"}}})
    await walk.settle("ann")
    await walk.settle("new", city="Wien")
    await walk.all(
        "INSERT INTO contact_identity SELECT 'crm', 'contact', first_name, id, NULL, NULL, 'live', now() FROM contact"
    )
    await walk.advance()
    await fold(walk, "ann", "new")
    async with walk.db.transaction() as conn:
        (claimed,) = await outbox.claim(conn, "crm", 10)
        assert claimed.contact_id is not None
        assert set(await contacts.refs(conn, "crm", [claimed.contact_id])) == {claimed.contact_id}


# --- a changed definition ------------------------------------------------------------------------------------


async def test_a_step_that_no_longer_exists_ends_the_way(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"when": "city = 'Berlin'", "then": [{"wait": "1 day"}, {"send": "hello"}]})
    await walk.settle("ann")
    await walk.advance()
    walk.section = funnel({"send": "again"})
    clock.advance(days=1)
    told = await walk.advance()
    assert (told.left, told.mails) == (1, 0)
    assert await walk.entries() == [("ann", 1, "left", None, "the step no longer exists in hub.yaml")]


async def test_steps_added_at_the_end_are_taken_by_those_who_wait(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"wait": "1 day"}, {"send": "hello"})
    await walk.settle("ann")
    await walk.advance()
    walk.section = funnel({"wait": "1 week"}, {"send": "hello"}, {"send": "again"})
    clock.advance(days=1)  # the wait that was begun is not made longer
    assert (await walk.advance()).mails == 2


async def test_who_waits_at_the_very_end_is_done_after_a_change(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"})
    await walk.settle("ann")
    await walk.advance()
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"}, {"send": "again"})
    clock.advance(days=1)
    assert (await walk.advance()).done == 1


async def test_a_rule_that_is_wrong_stops_before_anything_is_done(walk: Walk) -> None:
    await walk.settle("ann")
    walk.section = funnel({"send": "hello"}, {"when": "citi = 'x'", "then": [{"send": "again"}]})
    with pytest.raises(RuleError, match="unknown field 'citi'"):
        await walk.advance()
    walk.section = funnel({"send": "hello"}, leave={"when": "opened('nobody')"})
    with pytest.raises(RuleError, match="unknown message 'nobody'"):
        await walk.advance()
    assert await walk.mails() == []


def test_where_each_step_leads() -> None:
    made = compiled(
        "f",
        funnel(
            {
                "when": "true",
                "then": [{"send": "hello"}, {"when": "true", "else": [{"wait": "1s"}]}],
                "else": [],
            },
            {"when": "false"},
            {"send": "again"},
        ),
        CATALOG,
    )
    assert dict(made.after) == {
        "0": "1", "0.then.0": "0.then.1", "0.then.1": "1", "0.then.1.else.0": "1", "1": "2", "2": "end",
    }  # fmt: skip
    assert made.branch("0", holds=True) == "0.then.0"
    assert made.branch("0", holds=False) == "1"
    assert made.branch("0.then.1", holds=True) == "1"
    assert made.branch("0.then.1", holds=False) == "0.then.1.else.0"
    assert made.branch("1", holds=True) == made.branch("1", holds=False) == "2"


# --- many ----------------------------------------------------------------------------------------------------


async def test_more_people_than_one_transaction_takes(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"send": "hello"}, {"wait": "1 day"}, {"send": "again"})
    await walk.settle(*(f"p{n}" for n in range(23)))
    assert (await walk.advance(batch=5)).mails == 23
    clock.advance(days=1)
    told = await walk.advance(batch=5)
    assert (told.taken, told.mails, told.done) == (23, 23, 23)
    assert await walk.all("SELECT count(*) FROM (SELECT DISTINCT xmin::text FROM funnel_entry) AS x") == [
        (5,)
    ]
    assert set(Counter(await walk.mails()).values()) == {1}


async def test_a_batch_is_taken_whole_or_not_at_all(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    walk.section = funnel({"send": "hello"}, {"set": {"crm": {"city": "x"}}})
    await walk.settle(*(f"p{n}" for n in range(8)))
    real, calls = outbox.enqueue, 0

    async def failing(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError("the process was killed here")
        return await real(*arguments)

    monkeypatch.setattr(outbox, "enqueue", failing)
    with pytest.raises(ConnectionError):
        await walk.advance(batch=5)
    assert Counter(state for _, _, state, *_ in await walk.entries()) == {"done": 5, "active": 3}
    assert len(await walk.mails()) == 5
    told = await walk.advance(batch=5)
    assert (told.entered, told.mails, told.done) == (0, 3, 3)
    assert await walk.all("SELECT count(*) FROM outbox") == [(8,)]


async def test_two_workers_never_take_a_person_twice(
    walk: Walk, database_url: str, clock: ManualClock
) -> None:
    walk.section = funnel(
        {"send": "hello"}, {"wait": "1 day"}, {"send": "again"}, {"set": {"crm": {"city": "x"}}}
    )
    await walk.settle(*(f"p{n}" for n in range(120)))
    async with Database(database_url) as second:
        other = Walk(second, clock)
        other.section = walk.section
        workers = [walk, other, walk, other]
        told = await asyncio.gather(*(one.advance(batch=7) for one in workers))
        assert sum(one.entered for one in told) == 120
        assert sum(one.mails for one in told) == sum(one.taken for one in told) == 120
        clock.advance(days=1)
        told = await asyncio.gather(*(one.advance(batch=7) for one in workers))
    assert sum(one.done for one in told) == sum(one.taken for one in told) == 120
    assert sum(1 for one in told if one.taken) > 1  # the work was shared
    assert len(await walk.mails()) == len(set(await walk.mails())) == 240
    assert await walk.all("SELECT count(*) FROM outbox") == [(120,)]
    assert await walk.all("SELECT what, count(*) FROM funnel_log GROUP BY 1 ORDER BY 1") == [
        ("done", 120), ("entered", 120), ("send", 240), ("set", 120), ("wait", 120),
    ]  # fmt: skip


async def test_the_overview(walk: Walk, clock: ManualClock) -> None:
    walk.section = funnel({"wait": "1 day"}, {"send": "hello"}, leave=WON)
    await walk.settle("ann", "bob", "cid")
    await walk.set("cid", lifecycle="customer")
    await walk.advance()
    async with walk.db.connection() as conn:
        assert await funnels.overview(conn) == [
            {
                "funnel": "f",
                "state": "active",
                "position": "1",
                "people": 2,
                "next_wake": clock.now() + timedelta(days=1),
            },
            {"funnel": "f", "state": "left", "position": "", "people": 1, "next_wake": None},
        ]
