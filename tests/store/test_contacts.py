"""Contacts: identity, blanks, lineage, merges; each against a real PostgreSQL."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.store import contacts
from hub.store.contacts import ContactRow, Merged
from hub.store.database import Database

KEEP = dict.fromkeys(contacts.COLUMNS, "keep")


def row(external_id: str, *, state: str = "live", merged: tuple[str, ...] = (), **fields: Any) -> ContactRow:
    columns = {name: value for name, value in fields.items() if name in contacts.COLUMNS}
    custom = {name: value for name, value in fields.items() if name not in contacts.COLUMNS}
    digest = hashlib.sha256(repr((sorted(fields.items()), merged)).encode()).digest()[:16]
    return ContactRow(external_id, columns, custom, digest, state=state, merged_ids=merged)


class People:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def merge(
        self, *rows: ContactRow, connection: str = "crm", on_blank: dict[str, str] | None = None
    ) -> Merged:
        async with self.db.transaction() as conn:
            return await contacts.merge(
                conn,
                connection,
                rows,
                on_blank={**KEEP, **(on_blank or {})},
                run_id=None,
                now=self.clock.now(),
            )

    async def all(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())


@pytest.fixture
def people(database: Database, clock: ManualClock) -> People:
    return People(database, clock)


async def test_first_pull_creates_and_second_changes_nothing(people: People) -> None:
    rows = [row(str(n), email=f"p{n}@example.com", first_name="Änn", score=n) for n in range(50)]
    first = await people.merge(*rows)
    assert (first.created, first.changed, first.unchanged) == (50, 0, 0)
    second = await people.merge(*rows)
    assert (second.created, second.changed, second.unchanged) == (0, 0, 50)
    assert await people.all("SELECT count(*), sum((fields ->> 'score')::int) FROM contact") == [(50, 1225)]
    assert await people.all("SELECT kind, count(*) FROM contact_change GROUP BY kind") == [("created", 50)]


async def test_a_change_is_kept_as_lineage(people: People) -> None:
    await people.merge(row("1", email="a@example.com", city="Graz", score=1))
    changed = await people.merge(row("1", email="b@example.com", city="Graz", score=2))
    assert changed.changed == 1
    assert await people.all("SELECT id, email FROM contact") == [(1, "b@example.com")]
    (diff,) = (await people.all("SELECT diff FROM contact_change WHERE kind = 'changed'"))[0]
    assert diff == {"email": ["a@example.com", "b@example.com"], "score": [1, 2]}


@pytest.mark.parametrize(("policy", "city"), [("keep", "Graz"), ("clear", None), ("fill", "Graz")])
async def test_a_blank_does_what_the_policy_says(people: People, policy: str, city: str | None) -> None:
    await people.merge(row("1", email="a@example.com", city="Graz"))
    await people.merge(row("1", email="a@example.com", city=None), on_blank={"city": policy})
    assert await people.all("SELECT city FROM contact") == [(city,)]


async def test_fill_never_overwrites(people: People) -> None:
    await people.merge(row("1", email="a@example.com", city="Graz"))
    await people.merge(row("1", email="a@example.com", city="Wien"), on_blank={"city": "fill"})
    assert await people.all("SELECT city FROM contact") == [("Graz",)]


async def test_a_field_that_is_not_mapped_is_left_alone(
    people: People, database: Database, clock: ManualClock
) -> None:
    await people.merge(row("1", email="a@example.com", city="Graz"))
    async with database.transaction() as conn:
        await contacts.merge(
            conn,
            "crm",
            [row("1", email="b@example.com", city=None)],
            on_blank={"email": "clear"},
            run_id=None,
            now=clock.now(),
        )
    assert await people.all("SELECT email, city FROM contact") == [("b@example.com", "Graz")]


async def test_the_same_address_twice_in_one_system_is_two_people(people: People) -> None:
    await people.merge(row("1", email="family@example.com"), row("2", email="family@example.com"))
    assert await people.all("SELECT count(*) FROM contact") == [(2,)]


async def test_an_address_known_from_another_system_is_one_person(people: People) -> None:
    await people.merge(row("1", email="a@example.com", first_name="Ann"))
    second = await people.merge(row("x9", email="a@example.com", last_name="Lee"), connection="sales")
    assert second.created == 0
    assert await people.all("SELECT first_name, last_name FROM contact") == [("Ann", "Lee")]
    assert await people.all("SELECT connection, contact_id FROM contact_identity ORDER BY 1") == [
        ("crm", 1),
        ("sales", 1),
    ]


async def test_an_ambiguous_address_links_nobody(people: People) -> None:
    await people.merge(row("1", email="a@example.com"), row("2", email="a@example.com"))
    assert (await people.merge(row("x9", email="a@example.com"), connection="sales")).created == 1


async def test_archived_and_restored(people: People) -> None:
    await people.merge(row("1", email="a@example.com"))
    assert (await people.merge(row("1", state="archived"))).gone == 1
    assert await people.all("SELECT state, email FROM contact") == [("archived", "a@example.com")]
    await people.merge(row("1", email="a@example.com"))
    assert await people.all("SELECT state FROM contact") == [("live",)]
    kinds = [kind for (kind,) in await people.all("SELECT kind FROM contact_change ORDER BY id")]
    assert kinds == ["created", "archived", "restored"]


async def test_a_person_whom_another_system_keeps_stays(people: People) -> None:
    await people.merge(row("1", email="a@example.com"))
    await people.merge(row("x9", email="a@example.com"), connection="sales")
    assert (await people.merge(row("1", state="deleted"))).gone == 0
    assert await people.all("SELECT state FROM contact") == [("live",)]


async def test_a_record_first_seen_as_gone_makes_nobody(people: People) -> None:
    assert (await people.merge(row("1", state="archived"))).created == 0
    assert await people.all("SELECT count(*) FROM contact") == [(0,)]


async def test_a_merge_into_a_new_id_keeps_the_oldest_person(people: People) -> None:
    await people.merge(row("1", email="a@example.com"), row("2", email="b@example.com"))
    merged = await people.merge(row("3", merged=("1", "2"), email="a@example.com", city="Linz"))
    assert (merged.created, merged.gone) == (0, 1)
    assert await people.all("SELECT id, state, merged_into, city FROM contact ORDER BY id") == [
        (1, "live", None, "Linz"),
        (2, "merged", 1, None),
    ]
    assert await people.all("SELECT DISTINCT contact_id FROM contact_identity") == [(1,)]
    again = await people.merge(row("3", merged=("1", "2"), email="a@example.com", city="Linz"))
    assert (again.unchanged, again.gone) == (1, 0)


async def test_after_a_merge_the_old_ids_still_mean_the_person(people: People) -> None:
    await people.merge(row("1", email="a@example.com"))
    await people.merge(row("3", merged=("1", "77"), email="a@example.com"))
    assert await people.all("SELECT external_id, contact_id FROM contact_identity ORDER BY 1") == [
        ("1", 1),
        ("3", 1),
        ("77", 1),
    ]


async def test_the_last_of_two_rows_in_a_batch_wins(people: People) -> None:
    await people.merge(
        row("1", email="a@example.com", city="Graz"), row("1", email="a@example.com", city="Linz")
    )
    assert await people.all("SELECT city FROM contact") == [("Linz",)]


async def test_refs_prefer_the_live_id(people: People, database: Database) -> None:
    await people.merge(row("1", email="a@example.com"))
    await people.merge(row("3", merged=("1",), email="a@example.com"))
    async with database.connection() as conn:
        assert await contacts.refs(conn, "crm", [1]) == {1: "3"}
        assert await contacts.refs(conn, "sales", [1]) == {}


@pytest.mark.parametrize(
    "text",
    [
        "a\tb",
        "a\nb",
        "a\r\nb",
        "a\\b",
        "\\N",
        "\\.",
        'a"b',
        "{a,b}",
        "ä€😀",
        " ",
        "\x02",
        "'; DROP TABLE contact",
    ],
)
async def test_a_text_comes_in_as_it_is(people: People, text: str) -> None:
    await people.merge(
        row(f"id{text}", email="a@example.com", city=text, note=text, merged=(f"old{text}", "b"))
    )
    assert await people.all("SELECT city, fields ->> 'note', phone FROM contact") == [(text, text, None)]
    ids = await people.all("SELECT external_id FROM contact_identity")
    assert sorted(ids) == sorted([(f"id{text}",), (f"old{text}",), ("b",)])
