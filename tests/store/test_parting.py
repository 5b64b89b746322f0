"""Records that a system had made one and has as two again: two people, with their past where it can be told."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from hub.clock import ManualClock
from hub.store import contacts, duplicates
from hub.store.database import Database
from tests.store.test_contacts import KEEP, row


class Crm:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def tell(self, *rows: contacts.ContactRow, connection: str = "crm") -> contacts.Merged:
        self.clock.advance(minutes=1)
        async with self.db.transaction() as conn:
            return await contacts.merge(
                conn, connection, rows, on_blank=KEEP, run_id=None, now=self.clock.now()
            )

    def person(
        self, id: str, at: datetime | None = None, merged: tuple[str, ...] = (), **columns: Any
    ) -> contacts.ContactRow:
        made = row(id, email=f"{id}@example.com", **columns)
        digest = hashlib.sha256(repr((columns, merged, at)).encode()).digest()[:16]
        return msgspec.structs.replace(
            made,
            merged_ids=merged,
            content_hash=digest,
            vendor_changed_at=at or self.clock.now() + timedelta(minutes=1),
        )

    async def all(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())

    async def who(self) -> dict[str, int]:
        return dict(
            await self.all("SELECT external_id, contact_id FROM contact_identity WHERE state = 'live'")
        )

    async def parted(self) -> list[tuple[int, int, bool]]:
        async with self.db.connection() as conn:
            return [(p["contact"], p["other"], p["restored"]) for p in await duplicates.parted(conn, limit=9)]


@pytest.fixture
async def crm(database: Database, clock: ManualClock) -> Crm:
    made = Crm(database, clock)
    await made.tell(made.person("a", city="Wien"), made.person("b", city="Graz"))
    async with database.transaction() as conn:
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, state)
               VALUES ('news', 1, 'x', 'n', now(), 'accepted'), ('offer', 2, 'x', 'n', now(), 'accepted')"""
        )
    return made


async def test_an_id_that_lives_again_has_its_own_person_and_past(crm: Crm) -> None:
    before = crm.clock.now()
    await crm.tell(crm.person("a", merged=("b",), city="Wien"))
    assert await crm.who() == {"a": 1}
    late = crm.person("b", at=before, city="Late")
    await crm.tell(late)  # a page that was read before the merge
    assert await crm.who() == {"a": 1}
    assert await crm.all("SELECT state, city FROM contact ORDER BY id") == [
        ("live", "Wien"),
        ("merged", "Graz"),
    ]

    await crm.tell(crm.person("b", city="Linz"))
    assert await crm.who() == {"a": 1, "b": 2}
    assert await crm.all("SELECT id, state, merged_into, email, city FROM contact ORDER BY id") == [
        (1, "live", None, "a@example.com", "Wien"),
        (2, "live", None, "b@example.com", "Linz"),
    ]
    assert await crm.all("SELECT message, contact_id FROM delivery ORDER BY 1") == [("news", 1), ("offer", 2)]
    assert await crm.parted() == [(2, 1, True)]
    assert await crm.all("SELECT undone_by FROM contact_merge") == [("crm",)]
    async with crm.db.connection() as conn:
        assert await duplicates.merged(conn, limit=9) == await duplicates.suspected(conn, limit=9) == []
    await crm.tell(crm.person("b", city="Wels"))
    assert len(await crm.parted()) == 1


async def test_one_whose_past_cannot_be_told_is_new(crm: Crm) -> None:
    await crm.tell(
        crm.person("c", merged=("a", "b", "z"), city="Wien")
    )  # a new id for both, and one never seen
    assert await crm.who() == {"c": 1}
    await crm.tell(crm.person("a", city="Bonn"), crm.person("z", city="Köln"))
    who = await crm.who()
    assert (who["c"], who["a"], who["z"]) == (1, 3, 4)
    assert await crm.all("SELECT email, city, state FROM contact WHERE id > 2 ORDER BY id") == [
        ("a@example.com", "Bonn", "live"), ("z@example.com", "Köln", "live"),
    ]  # fmt: skip
    assert sorted(await crm.parted()) == [(3, 1, False), (4, 1, False)]
    kinds = await crm.all("SELECT kind FROM contact_change WHERE contact_id = 3 ORDER BY id")
    assert [kind for (kind,) in kinds] == ["created", "separated", "changed"]


async def test_what_another_record_of_the_batch_absorbs_stays_merged(crm: Crm) -> None:
    await crm.tell(crm.person("a", merged=("b",), city="Wien"))
    await crm.tell(crm.person("b", city="Linz"), crm.person("a", merged=("b",), city="Wels"))
    assert await crm.who() == {"a": 1}
    assert await crm.parted() == []
    await crm.tell(crm.person("b", city="Linz"))
    await crm.tell(crm.person("a", merged=("b",), city="Wels", phone="1"))  # and it merges them once more
    assert await crm.who() == {"a": 1}
    assert await crm.all("SELECT state FROM contact ORDER BY id") == [("live",), ("merged",)]
