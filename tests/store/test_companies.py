"""Companies: what became of them, who belongs to them in which role, and whose lists are looked at again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.model import Link
from hub.store import companies, contacts
from hub.store.companies import CompanyRow
from hub.store.database import Database
from tests.store.test_contacts import KEEP, row


class Crm:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def tell(self, *rows: CompanyRow, on_blank: dict[str, str] | None = None) -> companies.Merged:
        policies = {"name": "keep", "industry": "keep"} | (on_blank or {})
        async with self.db.transaction() as conn:
            return await companies.merge(
                conn, "crm", rows, on_blank=policies, run_id=None, now=self.clock.now()
            )

    async def people(self, *ids: str) -> None:
        async with self.db.transaction() as conn:
            rows = [row(id, email=f"{id}@example.com") for id in ids]
            await contacts.merge(conn, "crm", rows, on_blank=KEEP, run_id=None, now=self.clock.now())

    async def all(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())

    async def touched(self) -> set[int]:
        """The contacts that were touched by companies since it was asked last."""
        async with self.db.transaction() as conn:
            found = await conn.execute("DELETE FROM list_touch RETURNING what, contact_id")
            return {id for what, id in await found.fetchall() if what == "companies"}


def firm(
    id: str, *links: Link, state: str = "live", merged: tuple[str, ...] = (), **columns: Any
) -> CompanyRow:
    digest = hashlib.sha256(repr((columns, links, merged)).encode()).digest()[:16]
    return CompanyRow(id, columns, {}, digest, state=state, merged_ids=merged, links=links)


def of(id: str, role: str = "", *, primary: bool = False) -> Link:
    return Link("contact", id, role, primary)


@pytest.fixture
async def crm(database: Database, clock: ManualClock) -> Crm:
    made = Crm(database, clock)
    await made.people("a", "b", "c")
    await made.touched()
    return made


async def test_people_belong_to_several_companies_one_of_them_primary_each_with_roles(crm: Crm) -> None:
    await crm.tell(
        firm("1", of("a"), of("b", "Owner", primary=True), of("b", "Billing", primary=True), name="One"),
        firm("2", of("a", primary=True), Link("deal", "d1", "", True), name="Two"),
    )
    rows = await crm.all("SELECT contact_id, name, role, is_primary FROM contact_company ORDER BY 1, 2, 3")
    assert rows == [
        (1, "One", "", False), (1, "Two", "", True), (2, "One", "Billing", True), (2, "One", "Owner", True),
    ]  # fmt: skip
    assert await crm.all("SELECT contact_id, name FROM main_company ORDER BY 1") == [(1, "Two"), (2, "One")]
    assert await crm.all("SELECT deal_ref, is_primary FROM company_deal") == [("d1", True)]
    async with crm.db.connection() as conn:
        found = await companies.of_contact(conn, 1)
        assert [(each["name"], each["primary"]) for each in found] == [("Two", True), ("One", False)]
        assert (await companies.of_contact(conn, 2))[0]["roles"] == ["Billing", "Owner"]


async def test_a_change_touches_the_people_of_the_company_and_nobody_else(crm: Crm) -> None:
    one = firm("1", of("a"), of("b"), name="One")
    await crm.tell(one, firm("2", of("c"), name="Two"))
    assert await crm.touched() == {1, 2, 3}
    assert await crm.tell(one) == companies.Merged(unchanged=1)
    assert await crm.touched() == set()
    await crm.tell(firm("1", of("a"), of("b"), name="One", industry="retail"))
    assert await crm.touched() == {1, 2}


async def test_only_differences_of_who_belongs_are_written(crm: Crm) -> None:
    await crm.tell(firm("1", of("a"), of("b"), name="One"))
    before = await crm.all("SELECT contact_ref, xmin::text FROM company_contact WHERE contact_ref = 'a'")
    await crm.tell(firm("1", of("a"), of("c", primary=True), name="One"))
    assert (
        await crm.all("SELECT contact_ref, xmin::text FROM company_contact WHERE contact_ref = 'a'") == before
    )
    assert await crm.all("SELECT contact_ref, is_primary FROM company_contact ORDER BY 1") == [
        ("a", False),
        ("c", True),
    ]


async def test_blanks_follow_their_policy_and_changes_leave_their_lineage(crm: Crm) -> None:
    await crm.tell(firm("1", name="One", industry="retail"))
    await crm.tell(firm("1", name="Uno", industry=None))
    assert await crm.all("SELECT name, industry FROM company") == [("Uno", "retail")]
    await crm.tell(firm("1", name="Uno", industry=None, city="Graz"), on_blank={"industry": "clear"})
    assert await crm.all("SELECT kind, diff FROM company_change ORDER BY id") == [
        ("created", {}), ("changed", {"name": ["One", "Uno"]}), ("changed", {"industry": ["retail", None]}),
    ]  # fmt: skip


async def test_a_company_that_is_gone_is_nobodys_and_comes_back_with_its_people(crm: Crm) -> None:
    one = firm("1", of("a"), name="One")
    await crm.tell(one)
    await crm.touched()
    assert (await crm.tell(firm("1", state="archived"))).gone == 1
    assert await crm.all("SELECT * FROM contact_company") == []
    assert await crm.touched() == {1}
    assert await crm.all("SELECT name, state FROM company") == [("One", "archived")]
    assert (await crm.tell(firm("1", state="archived"))).gone == 0
    await crm.tell(one)
    assert await crm.all("SELECT contact_id, name FROM contact_company") == [(1, "One")]
    assert [kind for (kind,) in await crm.all("SELECT kind FROM company_change ORDER BY id")] == [
        "created", "archived", "restored",
    ]  # fmt: skip


async def test_a_merge_keeps_the_old_ids_as_names_of_the_survivor(crm: Crm) -> None:
    await crm.tell(firm("1", of("a"), name="One"), firm("2", of("b"), name="Two"))
    await crm.touched()
    done = await crm.tell(firm("3", of("a"), of("b"), merged=("1", "2", "0"), name="Both"))
    assert (done.created, done.gone) == (1, 2)
    assert await crm.all("SELECT contact_id, name FROM contact_company ORDER BY 1") == [
        (1, "Both"),
        (2, "Both"),
    ]
    assert await crm.touched() == {1, 2}
    rows = await crm.all(
        """SELECT k.external_id, k.state, s.external_id FROM company k JOIN company s ON s.id = k.merged_into ORDER BY 1"""
    )
    assert rows == [("0", "merged", "3"), ("1", "merged", "3"), ("2", "merged", "3")]
    assert await crm.all("SELECT count(*) FROM company_change WHERE kind = 'merged'") == [(3,)]
    # A late word that an old id is gone changes nothing, and the survivor told again absorbs nobody again.
    assert (await crm.tell(firm("1", state="deleted"))).gone == 0
    assert (await crm.tell(firm("3", of("a"), of("b"), merged=("1", "2", "0"), name="Both"))).gone == 0
    assert await crm.all("SELECT count(*) FROM company_change WHERE kind = 'merged'") == [(3,)]


async def test_a_contact_that_comes_later_or_is_merged_is_found_by_its_ids(crm: Crm) -> None:
    await crm.tell(firm("1", of("late"), name="One"))
    assert await crm.all("SELECT * FROM contact_company") == []
    await crm.people("late")
    assert await crm.all("SELECT contact_id FROM contact_company") == [(4,)]
