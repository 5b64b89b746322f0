"""People whom nobody knew go straight into their tables: nothing of them is lost or guessed on that way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.store import contacts, touches
from hub.store.contacts import ContactRow, Merged
from hub.store.database import Database

KEEP = dict.fromkeys(contacts.COLUMNS, "keep")
Merge = Callable[..., Coroutine[Any, Any, Merged]]


def row(
    external_id: str, *, merged: tuple[str, ...] = (), fill: dict[str, Any] | None = None, **fields: Any
) -> ContactRow:
    columns = {name: value for name, value in fields.items() if name in contacts.COLUMNS}
    custom = {name: value for name, value in fields.items() if name not in contacts.COLUMNS}
    digest = contacts.Digest("test").of(
        contacts.text(columns, custom, fill or {}), custom, fill or {}, merged
    )
    return ContactRow(
        external_id, columns, custom, digest, fill or {}, merged_ids=merged, vendor_changed_at=datetime(2026, 1, 2, tzinfo=UTC)
    )  # fmt: skip


@pytest.fixture
def merge(database: Database, clock: ManualClock) -> Merge:
    async def merge(*rows: ContactRow, connection: str = "crm") -> Merged:
        async with database.transaction() as conn:
            return await contacts.merge(conn, connection, rows, on_blank=KEEP, run_id=7, now=clock.now())

    return merge


async def rows_of(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.connection() as conn:
        return list(await (await conn.execute(query.encode())).fetchall())


@pytest.mark.parametrize("odd", ["a\tb", "a\\b", "a\nb\r", '"', "{}", "\\N", "ä'", "\\.", "NULL"])
async def test_no_sign_is_lost(database: Database, merge: Merge, odd: str) -> None:
    born = datetime(1999, 12, 31, 23, 59, 59, 123456, tzinfo=UTC)
    told = row(odd, first_name=odd, created_at=born, note=[odd], fill={"hint": odd})
    assert await merge(told) == Merged(created=1)
    assert await merge(told) == Merged(unchanged=1)
    assert await rows_of(
        database,
        """SELECT i.external_id, i.vendor_changed_at, c.first_name, c.created_at, c.fields, c.city, h.kind, h.run_id, h.connection
           FROM contact c JOIN contact_identity i ON i.contact_id = c.id JOIN contact_change h ON h.contact_id = c.id""",
    ) == [
        (
            odd,
            datetime(2026, 1, 2, tzinfo=UTC),
            odd,
            born,
            {"note": [odd], "hint": odd},
            None,
            "created",
            7,
            "crm",
        )
    ]


async def test_who_shares_an_address_in_one_batch_is_not_one(database: Database, merge: Merge) -> None:
    assert await merge(row("1", email="x@example.com"), row("2", email="x@example.com")) == Merged(created=2)


async def test_known_and_new_come_together(database: Database, merge: Merge) -> None:
    await merge(row("1", email="ann@example.com"), row("2", email="bob@example.com", city="Wien"))
    told = await merge(
        row("a", email="ann@example.com"), row("b", email="new@example.com"), connection="other"
    )
    assert (told.created, told.changed) == (1, 0)
    again = await merge(
        row("1", email="ann@example.com"), row("2", email="bob@example.com", city="Graz"), row("3")
    )
    assert again == Merged(created=1, changed=1, unchanged=1)
    assert await rows_of(database, "SELECT count(*), count(DISTINCT contact_id) FROM contact_identity") == [
        (5, 4)
    ]


async def test_who_was_absorbed_in_the_same_batch_is_one_with_the_survivor(
    database: Database, merge: Merge
) -> None:
    await merge(row("old", email="ann@example.com"), row("new", email="ann@work.example", merged=("old",)))
    people = await rows_of(database, "SELECT DISTINCT contact_id FROM contact_identity")
    assert len(people) == 1
    assert await rows_of(database, "SELECT count(*) FROM contact WHERE state = 'live'") == [(1,)]


async def test_lists_hear_of_everybody(database: Database, merge: Merge) -> None:
    await merge(*(row(str(n)) for n in range(700)))
    ids = {id for (id,) in await rows_of(database, "SELECT id FROM contact")}
    assert await rows_of(database, "SELECT count(DISTINCT contact_id) FROM touched") == [(700,)]
    async with database.transaction() as conn:
        await touches.add(conn, [min(ids)], "list:vip")
        taken = await touches.take(conn, ["contact", "identity", "list:vip"], 1_000)
    assert {what: set(found or ()) for what, found in taken.items()} == {
        "contact": ids, "identity": ids, "list:vip": {min(ids)},
    }  # fmt: skip


async def test_what_goes_with_a_contact_goes(database: Database, merge: Merge) -> None:
    await merge(row("1"), row("2"))
    async with database.transaction() as conn:
        await conn.execute(
            "DELETE FROM contact WHERE id = (SELECT contact_id FROM contact_identity WHERE external_id = '1')"
        )
    count = "SELECT (SELECT count(*) FROM contact_identity), (SELECT count(*) FROM contact_change)"
    assert await rows_of(database, count) == [(1, 1)]
    async with database.transaction() as conn:
        await conn.execute("TRUNCATE contact CASCADE")
    assert await rows_of(database, count) == [(0, 0)]
