"""Increments equal the whole: under random changes a list that looks at touched contacts only holds whom its rule names."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hub import embedded
from hub.clock import ManualClock
from hub.config.settings import ListSection
from hub.lists import compiled, refresh_all
from hub.model import CONTACT_FIELDS, DEAL_FIELDS, FieldType, HubField
from hub.rules import Catalog
from hub.store import consent, merging
from hub.store.database import Database

OWN = {"score": FieldType.NUMBER, "seen_at": FieldType.TIME, "birthday": FieldType.DATE}
RULES: dict[str, dict[str, Any]] = {
    # written before those that they use
    "last": {"where": "in_list('some') AND NOT in_list('trial')", "exclude": ["fair"]},
    "some": {"where": "in_list('berlin') OR in_list('recent') OR random_percent(40)"},
    "berlin": {"where": "city = 'Berlin' AND (score IS NULL OR score > 3)"},
    "trial": {"where": "has_deal('trial')"},
    "big": {"where": "has_deal(stage = 'won' AND amount > 100 AND owner IS NULL)"},
    "partners": {"where": "in_segment('Partners') AND NOT in_segment('Leads', connection => 'other')"},
    "recent": {"where": "opened('welcome', within => '2 days') OR has_deal(within => '3 days')"},
    "often": {"where": "clicked(times => 2, within => '5 days')"},
    "sleepers": {"where": "received() AND NOT opened(within => '4 days') AND days_since(created_at) >= 2"},
    "young": {"where": "days_since(created_at) BETWEEN 1 AND 6 OR seen_at > now() - interval '36 hours'"},
    "soon": {"where": "has_deal(close_at BETWEEN now() AND now() + interval '2 days')"},
    "odd": {"where": "days_since(seen_at) > score OR birthday < now() - interval '3 days'"},
    "news": {"where": "consented('news') AND NOT opted_out('offers')"},
    "fair": {"static": True, "exclude": ["trial"]},
}
SECTIONS = {name: ListSection(**section) for name, section in RULES.items()}
CATALOG = Catalog(
    {**CONTACT_FIELDS, **{name: HubField(name, kind) for name, kind in OWN.items()}},
    lists=frozenset(RULES), messages=frozenset({"welcome", "other"}), purposes=frozenset({"news", "offers"}),
    segments=frozenset({"Partners", "Leads"}), deal_fields=DEAL_FIELDS,
)  # fmt: skip
PEOPLE = range(1, 9)
CITIES = ["Berlin", "Wien", None]
STAGES = ["trial", "won", "lost"]


def who() -> st.SearchStrategy[int]:
    return st.sampled_from(PEOPLE)


def hours() -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.integers(-80, 200))


CHANGES = st.one_of(
    st.tuples(st.just("contact"), who(), st.sampled_from(CITIES), st.sampled_from([None, 1, 2.5, 9]), hours(), hours()),
    st.tuples(st.just("address"), who(), st.integers(1, 10)),
    st.tuples(st.just("state"), who(), st.sampled_from(["live", "archived", "deleted"])),
    st.tuples(st.just("fold"), who(), who()),
    st.tuples(st.just("identity"), who(), who()),
    st.tuples(st.just("deal"), st.integers(1, 4), st.sampled_from(STAGES), st.sampled_from([None, 50, 500]), hours(), hours()),
    st.tuples(st.just("deal_state"), st.integers(1, 4), st.sampled_from(["live", "archived"])),
    st.tuples(st.just("link"), st.integers(1, 4), st.sets(who(), max_size=3)),
    st.tuples(st.just("segment"), st.integers(1, 3), st.sampled_from(["Partners", "Leads"]),
              st.sampled_from(["live", "archived"])),
    st.tuples(st.just("members"), st.integers(1, 3), st.sets(who(), max_size=4)),
    st.tuples(st.just("event"), who(), st.sampled_from(["sent", "opened", "clicked"]), st.sampled_from(["welcome", "other"]),
              st.integers(-5, 150)),
    st.tuples(st.just("consent"), st.integers(1, 10), st.sampled_from(["news", "offers", "*"]), st.sampled_from(["in", "out"]),
              st.sampled_from(["", "form"]), st.integers(0, 50)),
    st.tuples(st.just("import"), st.integers(1, 10)),
    st.tuples(st.just("forget"), st.integers(1, 10)),
    st.tuples(st.just("time"), st.integers(0, 60 * 50)),
)  # fmt: skip
STEPS = st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=15, max_size=25)
FULL_OF_LIFE: list[tuple[Any, ...]] = [
    ("contact", 1, "Berlin", 9, 30, 10), ("contact", 2, "Wien", 1, 100, 100), ("contact", 3, "Berlin", None, 100, None),
    ("event", 1, "opened", "welcome", 5), ("event", 2, "sent", "other", 5), ("event", 1, "clicked", "other", 5),
    ("event", 1, "clicked", "welcome", 5), ("event", 4, "sent", "welcome", 140), ("event", 5, "opened", "welcome", 40),
    ("deal", 1, "trial", 500, 10, -10), ("deal", 2, "won", 500, 100, 100), ("deal", 3, "won", 500, 30, -40),
    ("link", 1, {3}), ("link", 2, {4}), ("link", 3, {6, 7}), ("members", 1, {1, 2}), ("members", 3, {3}),
    ("consent", 1, "news", "in", "form", 5), ("consent", 2, "*", "in", "", 5), ("import", 5), ("import", 9), ("import", 4),
]  # fmt: skip


class World:
    """Real tables, changed as the hub changes them."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def execute(self, query: str, *values: Any) -> list[Any]:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(query.encode(), values or None)
            return list(await cursor.fetchall()) if cursor.description else []

    def ago(self, hours: int | None) -> datetime | None:
        return None if hours is None else self.clock.now() - timedelta(hours=hours)

    async def empty(self) -> None:
        await self.execute(
            """TRUNCATE contact, deal, segment, delivery, event, consent, consent_verdict, list, list_touch, run
               RESTART IDENTITY CASCADE"""
        )
        for number in PEOPLE:
            await self.execute(
                "INSERT INTO contact (id, email, changed_at) VALUES (%s, %s, now())",
                number,
                f"p{number}@example.com",
            )
            await self.execute(
                "INSERT INTO contact_identity VALUES ('crm', 'contact', %s, %s, NULL, NULL, 'live', now())",
                f"r{number}",
                number,
            )
        for number in (1, 2, 3):
            await self.execute(
                "INSERT INTO segment (connection, external_id, name, changed_at) VALUES (%s, %s, 'Partners', now())",
                "other" if number == 3 else "crm",
                str(number),
            )

    async def apply(self, change: tuple[Any, ...]) -> None:
        await getattr(self, f"on_{change[0]}")(*change[1:])

    async def on_contact(
        self, id: int, city: str | None, score: Any, created: int | None, seen: int | None
    ) -> None:
        own: dict[str, Any] = {} if score is None else {"score": score}
        if seen is not None:
            at = self.ago(seen)
            assert at
            own |= {"seen_at": at.isoformat(), "birthday": at.date().isoformat()}
        await self.execute(
            "UPDATE contact SET city = %s, fields = %s, created_at = %s WHERE id = %s",
            city, json.dumps(own), self.ago(created), id,
        )  # fmt: skip

    async def on_address(self, id: int, number: int) -> None:
        await self.execute("UPDATE contact SET email = %s WHERE id = %s", f"p{number}@example.com", id)

    async def on_state(self, id: int, state: str) -> None:
        await self.execute("UPDATE contact SET state = %s WHERE id = %s AND state <> 'merged'", state, id)

    async def on_fold(self, loser: int, survivor: int) -> None:
        states = dict(await self.execute("SELECT id, state FROM contact"))
        if loser != survivor and "merged" not in (states[loser], states[survivor]):
            async with self.db.transaction() as conn:
                values = {"connection": "crm", "run_id": None, "now": self.clock.now()}
                await merging.fold(conn, loser, survivor, values)

    async def on_identity(self, ref: int, id: int) -> None:
        await self.execute(
            "UPDATE contact_identity SET contact_id = %s WHERE external_id = %s", id, f"r{ref}"
        )

    async def on_deal(self, id: int, stage: str, amount: Any, created: int | None, close: int | None) -> None:
        await self.execute(
            """INSERT INTO deal (connection, external_id, stage, amount, created_at, close_at, changed_at)
               VALUES ('crm', %s, %s, %s, %s, %s, now())
               ON CONFLICT (connection, external_id) DO UPDATE SET (stage, amount, created_at, close_at) =
                   (SELECT excluded.stage, excluded.amount, excluded.created_at, excluded.close_at)""",
            str(id), stage, amount, self.ago(created), self.ago(close),
        )  # fmt: skip

    async def on_deal_state(self, id: int, state: str) -> None:
        await self.execute("UPDATE deal SET state = %s WHERE external_id = %s", state, str(id))

    async def on_link(self, id: int, refs: set[int]) -> None:
        await self.execute(
            "DELETE FROM deal_contact USING deal WHERE deal_id = deal.id AND external_id = %s", str(id)
        )
        await self.execute(
            "INSERT INTO deal_contact SELECT d.id, 'crm', r FROM deal d, unnest(%s::text[]) r WHERE d.external_id = %s",
            [f"r{ref}" for ref in refs], str(id),
        )  # fmt: skip

    async def on_segment(self, id: int, name: str, state: str) -> None:
        await self.execute(
            "UPDATE segment SET name = %s, state = %s WHERE external_id = %s", name, state, str(id)
        )

    async def on_members(self, id: int, refs: set[int]) -> None:
        await self.execute(
            "DELETE FROM segment_member USING segment s WHERE segment_id = s.id AND external_id = %s", str(id)
        )
        await self.execute(
            "INSERT INTO segment_member SELECT s.id, 'crm', r, now() FROM segment s, unnest(%s::text[]) r WHERE external_id = %s",
            [f"r{ref}" for ref in refs], str(id),
        )  # fmt: skip

    async def on_event(self, id: int, kind: str, message: str, hours: int) -> None:
        await self.execute(
            """WITH d AS (INSERT INTO delivery (message, contact_id, occurrence, purpose, state, queued_at)
                          VALUES (%s, %s, gen_random_uuid()::text, 'news', 'accepted', now()) RETURNING id)
               INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
               SELECT id, %s, %s, %s, now(), 'web', gen_random_uuid()::text FROM d""",
            message, id, id, kind, self.ago(hours),
        )  # fmt: skip

    async def on_consent(self, number: int, purpose: str, status: str, proof: str, hours: int) -> None:
        at = self.ago(hours)
        assert at
        said = consent.Statement(f"p{number}@example.com", purpose, status, "crm", at, proof=proof)
        async with self.db.transaction() as conn:
            await consent.record(conn, [said])

    async def on_import(self, number: int) -> None:
        await self.execute(
            """INSERT INTO list_import (list_id, address, contact_id, at)
               SELECT l.id, %s, (SELECT min(c.id) FROM contact c WHERE c.email = %s AND c.state = 'live'), now()
               FROM list l WHERE l.name = 'fair' ON CONFLICT DO NOTHING""",
            f"p{number}@example.com", f"p{number}@example.com",
        )  # fmt: skip

    async def on_forget(self, number: int) -> None:
        await self.execute("DELETE FROM list_import WHERE address = %s", f"p{number}@example.com")

    async def on_time(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)

    async def refresh(self) -> None:
        done = await refresh_all(self.db, self.clock, SECTIONS, CATALOG, {})
        assert not any(one.problem for one in done)
        assert all(one.looked_at is not None for one in done), "a list was built as a whole"
        await self.compare()

    async def compare(self) -> None:
        found, wanted = await self.members(), await self.whole()
        assert found == wanted
        sizes = dict(await self.execute("SELECT name, size FROM list"))
        assert sizes == {name: len(people) for name, people in wanted.items()}
        # The changes tell the members, too: whoever's last word is "joined" is one.
        told = await self.execute(
            """SELECT l.name, t.contact_id FROM list l JOIN LATERAL (
                   SELECT DISTINCT ON (contact_id) contact_id, change FROM list_change ch WHERE ch.list_id = l.id
                   ORDER BY contact_id, ch.id DESC) t ON t.change = 'joined'"""
        )
        assert {name: {c for n, c in told if n == name} for name in RULES} == wanted

    async def members(self) -> dict[str, set[int]]:
        rows = await self.execute(
            "SELECT l.name, m.contact_id FROM list l JOIN list_member m ON m.list_id = l.id"
        )
        return {name: {c for n, c in rows if n == name} for name in RULES}

    async def whole(self) -> dict[str, set[int]]:
        """Whom each rule names now. Rules on lists read the members, which are right: those come first."""
        found: dict[str, set[int]] = {}
        async with self.db.connection() as conn:
            for name, section in SECTIONS.items():
                rule = compiled(name, section, CATALOG)
                cursor = await conn.execute(rule.select().encode(), rule.values(self.clock.now()))
                found[name] = {row[0] for row in await cursor.fetchall()}
        return found


@pytest.fixture(scope="module")
def url(servers: embedded.Urls, template: str) -> Iterator[str]:
    """A database that all examples of this file empty and use."""
    with psycopg.connect(servers.database, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS hub_increments")
        admin.execute(f"CREATE DATABASE hub_increments TEMPLATE {template}".encode())
        base, _, query = servers.database.partition("?")
        yield f"{base.rsplit('/', 1)[0]}/hub_increments" + (f"?{query}" if query else "")
        admin.execute("DROP DATABASE hub_increments WITH (FORCE)")


async def played(url: str, steps: list[list[tuple[Any, ...]]]) -> set[str]:
    """Make the changes, the lists being brought up to date after each step. Returns which lists moved."""
    clock = ManualClock()
    async with Database(url, size=2) as db:
        world = World(db, clock)
        await world.empty()
        await refresh_all(db, clock, SECTIONS, CATALOG, {})
        for step in [FULL_OF_LIFE, *steps, [("time", 60 * 24 * 30)]]:
            for change in step:
                await world.apply(change)
            await world.refresh()
        return {
            name
            for (name,) in await world.execute(
                "SELECT DISTINCT l.name FROM list_change ch JOIN list l ON l.id = ch.list_id"
            )
        }


@settings(
    max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]
)  # fmt: skip
@given(steps=STEPS)
def test_increments_equal_the_whole(url: str, steps: list[list[tuple[Any, ...]]]) -> None:
    asyncio.run(played(url, steps))


def test_every_list_moves_and_time_alone_moves_them(url: str) -> None:
    steps: list[list[tuple[Any, ...]]] = [[("time", 60)] for _ in range(60)]
    assert asyncio.run(played(url, steps)) == set(RULES)


def test_changes_that_are_committed_while_lists_are_refreshed_are_not_lost(url: str) -> None:
    """Writers commit at any moment, out of order and late; two processes refresh. In the end every list is right."""
    chance = random.Random(7)
    busy = True

    async def write(world: World, number: int) -> None:
        for _ in range(25):
            id, city = chance.choice(PEOPLE), chance.choice(CITIES)
            async with world.db.transaction() as conn:
                await conn.execute("UPDATE contact SET city = %s WHERE id = %s", [city, id])
                for _ in range(chance.randrange(4)):  # a transaction that begins early may commit late
                    await conn.execute("SELECT pg_sleep(0.005)")
            await world.on_deal(number, chance.choice(STAGES), 500, None, None)
            await world.on_link(number, {chance.choice(PEOPLE)})
            await world.on_event(id, "opened", "welcome", chance.randrange(60))

    async def keep_fresh(db: Database, clock: ManualClock) -> None:
        while busy:
            done = await refresh_all(db, clock, SECTIONS, CATALOG, {})
            assert not any(one.problem for one in done)

    async def play() -> None:
        nonlocal busy
        clock = ManualClock()
        async with Database(url, size=6) as db, Database(url, size=2) as other:
            world = World(db, clock)
            await world.empty()
            await refresh_all(db, clock, SECTIONS, CATALOG, {})
            refreshing = [asyncio.ensure_future(keep_fresh(each, clock)) for each in (db, other)]
            await asyncio.gather(*(write(world, number) for number in (1, 2, 3)))
            busy = False
            await asyncio.gather(*refreshing)
            await world.refresh()
            assert await world.execute("SELECT count(*) FROM list_touch") == [(0,)]

    asyncio.run(play())
