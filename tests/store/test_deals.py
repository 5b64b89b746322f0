"""Deals: several contacts with roles, contacts that come later or are merged, and blanks by their policy."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.model import Link
from hub.store import contacts, deals, merging
from hub.store.database import Database
from hub.store.deals import DealRow
from tests.store.test_contacts import KEEP, row


class Crm:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def deal(
        self, *people: tuple[str, str], on_blank: dict[str, str] | None = None, untold: tuple[str, ...] = (),
        fill: dict[str, Any] | None = None, custom: dict[str, Any] | None = None, **columns: Any,
    ) -> None:  # fmt: skip
        links = tuple(Link("contact", ref, role) for ref, role in people)
        digest = hashlib.sha256(repr((people, columns, fill, custom, untold)).encode()).digest()[:16]
        made = DealRow("d1", columns, custom or {}, digest, links=links, fill=fill or {}, untold=untold)
        policies = dict.fromkeys(columns, "keep") | (on_blank or {})
        async with self.db.transaction() as conn:
            await deals.merge(conn, "crm", [made], on_blank=policies, now=self.clock.now())

    async def contact(self, *ids: str) -> None:
        async with self.db.transaction() as conn:
            rows = [row(id, email=f"{id}@example.com") for id in ids]
            await contacts.merge(conn, "crm", rows, on_blank=KEEP, run_id=None, now=self.clock.now())

    async def all(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())

    async def roles(self) -> list[tuple[Any, ...]]:
        return await self.all("SELECT contact_id, role, name FROM contact_deal ORDER BY 1, 2")


@pytest.fixture
def crm(database: Database, clock: ManualClock) -> Crm:
    return Crm(database, clock)


async def test_a_deal_has_several_contacts_each_with_its_role(crm: Crm) -> None:
    await crm.contact("a", "b")
    await crm.deal(("a", "Decision maker"), ("a", "Billing"), ("b", ""), ("later", "Champion"), name="Roof")
    assert await crm.roles() == [(1, "Billing", "Roof"), (1, "Decision maker", "Roof"), (2, "", "Roof")]
    await crm.contact("later")
    assert (3, "Champion", "Roof") in await crm.roles()
    await crm.deal(("b", "Decision maker"), name="Roof")
    assert await crm.roles() == [(2, "Decision maker", "Roof")]


async def test_deals_go_with_their_people_through_a_merge_and_back(crm: Crm) -> None:
    await crm.contact("a", "b")
    await crm.deal(("a", "Buyer"), ("b", "User"), name="Roof")
    async with crm.db.transaction() as conn:
        await merging.merge(conn, 2, 1, standing=(), now=crm.clock.now())
    assert await crm.roles() == [(1, "Buyer", "Roof"), (1, "User", "Roof")]
    async with crm.db.transaction() as conn:
        await merging.unmerge(conn, 2, standing=(), now=crm.clock.now())
    assert await crm.roles() == [(1, "Buyer", "Roof"), (2, "User", "Roof")]


@pytest.mark.parametrize(
    ("policy", "value", "stands"),
    [
        ("keep", None, "open"),
        ("keep", "won", "won"),
        ("fill", "won", "open"),
        ("clear", None, None),
        ("clear", "won", "won"),
    ],
)
async def test_a_blank_does_what_the_policy_says(
    crm: Crm, policy: str, value: str | None, stands: str | None
) -> None:
    await crm.deal(name="Roof", stage="open")
    await crm.deal(name="Roof", stage=value, on_blank={"stage": policy})
    assert await crm.all("SELECT name, stage FROM deal") == [("Roof", stands)]


async def test_what_cannot_be_read_or_is_not_mapped_clears_nothing(crm: Crm) -> None:
    await crm.deal(name="Roof", stage="open", custom={"x": 1}, fill={"y": 1})
    await crm.deal(
        name="Roof",
        stage=None,
        on_blank={"stage": "clear"},
        untold=("stage",),
        custom={"z": 2},
        fill={"y": 2},
    )
    await crm.deal(name="Wall")
    assert await crm.all("SELECT name, stage, fields FROM deal") == [
        ("Wall", "open", {"x": 1, "y": 1, "z": 2})
    ]
