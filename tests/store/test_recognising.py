"""Whom a record means: its id, an absorbed id, or a hint that is unambiguous; who comes again is the same person."""

from __future__ import annotations

from typing import Any

import pytest

from hub.clock import ManualClock
from hub.mapping import Hint
from hub.store import contacts
from hub.store.contacts import Merged
from hub.store.database import Database
from tests.store.test_contacts import KEEP, row

PHONE, SALES_ID = (Hint("phone"),), (Hint("sales_id", "sales"),)


class Hub:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def tell(self, connection: str, *rows: Any, match: tuple[Hint, ...] = (Hint("email"),)) -> Merged:
        async with self.db.transaction() as conn:
            return await contacts.merge(
                conn, connection, rows, on_blank=KEEP, run_id=None, now=self.clock.now(), match=match
            )

    async def who(self, connection: str, id: str) -> int:
        return int((await self.all("SELECT contact_id FROM contact_identity WHERE connection = %s AND external_id = %s",
                                   connection, id))[0][0])  # fmt: skip

    async def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode(), values or None)).fetchall())


@pytest.fixture
def hub(database: Database, clock: ManualClock) -> Hub:
    return Hub(database, clock)


@pytest.mark.parametrize("state", ["archived", "deleted"])
async def test_who_was_removed_and_is_created_again_is_the_same_person(hub: Hub, state: str) -> None:
    await hub.tell("crm", row("1", email="a@example.com", city="Wien"))
    await hub.tell("crm", row("1", email="a@example.com", state=state))
    again = await hub.tell("crm", row("2", email="a@example.com", city="Graz"))
    assert again.created == 0
    assert await hub.all("SELECT id, state, city FROM contact") == [(1, "live", "Graz")]
    assert (await hub.who("crm", "1"), await hub.who("crm", "2")) == (1, 1)
    kinds = [kind for (kind,) in await hub.all("SELECT kind FROM contact_change ORDER BY id")]
    assert kinds == ["created", state, "restored"]


async def test_who_is_created_beside_a_live_record_is_somebody_else(hub: Hub) -> None:
    await hub.tell("crm", row("1", email="a@example.com"))
    assert (await hub.tell("crm", row("2", email="a@example.com"))).created == 1


async def test_a_live_person_goes_before_one_who_is_gone(hub: Hub) -> None:
    await hub.tell("crm", row("1", email="a@example.com"))
    await hub.tell("crm", row("1", email="a@example.com", state="deleted"))
    await hub.tell("shop", row("s", email="a@example.com"), match=())
    await hub.tell("sales", row("x", email="a@example.com"))
    assert await hub.who("sales", "x") == await hub.who("shop", "s") == 2


async def test_an_address_change_keeps_one_person_whom_the_old_address_still_means(hub: Hub) -> None:
    await hub.tell("crm", row("1", email="a@example.com"))
    await hub.tell("crm", row("1", email="b@example.com"))
    await hub.tell("sales", row("x", email="a@example.com"))
    assert await hub.who("sales", "x") == 1
    assert await hub.all("SELECT count(*) FROM contact") == [(1,)]


async def test_an_address_that_moved_on_to_somebody_else_means_nobody(hub: Hub) -> None:
    await hub.tell("crm", row("1", email="office@example.com"))
    await hub.tell("crm", row("1", email="b@example.com"))
    await hub.tell("crm", row("2", email="office@example.com"))
    await hub.tell("sales", row("x", email="office@example.com"))
    assert await hub.who("sales", "x") == 3


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("+43 660 123 45 67", "0043-660-1234567", True), ("0660 1234567", "660/1234567", True), ("+43 660 1", "+43 660 2", False),
        ("", "", False), ("-", "0", False),
    ],
)  # fmt: skip
async def test_by_phone(hub: Hub, ours: str, theirs: str, same: bool) -> None:
    await hub.tell("crm", row("1", email="a@example.com", phone=ours))
    await hub.tell("sales", row("x", email="b@example.com", phone=theirs), match=PHONE)
    assert (await hub.who("sales", "x") == 1) is same


async def test_by_the_id_of_another_system(hub: Hub) -> None:
    await hub.tell("sales", row("s-1", email="a@example.com"), row("s-2", email="b@example.com"))
    await hub.tell(
        "crm", row("1", email="new@example.com", sales_id="s-2"), row("2", sales_id="s-9"), match=SALES_ID
    )
    assert await hub.who("crm", "1") == await hub.who("sales", "s-2")
    assert await hub.all("SELECT count(*) FROM contact") == [(3,)]


async def test_by_a_field_of_ones_own(hub: Hub) -> None:
    await hub.tell("sales", row("s-1", customer="K-7"), row("s-2", customer="K-8"))
    await hub.tell("crm", row("1", customer="K-8"), match=(Hint("customer"),))
    assert await hub.who("crm", "1") == await hub.who("sales", "s-2")


async def test_hints_are_tried_in_their_order(hub: Hub) -> None:
    await hub.tell(
        "sales",
        row("s-1", email="a@example.com", phone="1"),
        row("s-2", email="b@example.com", phone="1234567"),
    )
    match = (Hint("phone"), Hint("email"))
    await hub.tell(
        "crm", row("1", email="a@example.com", phone="1234567"), row("2", email="c@example.com"), match=match
    )
    assert await hub.who("crm", "1") == await hub.who("sales", "s-2")
    await hub.tell("crm", row("3", email="a@example.com"), match=match)
    assert await hub.who("crm", "3") == await hub.who("sales", "s-1")


async def test_what_is_ambiguous_on_either_side_means_nobody(hub: Hub) -> None:
    await hub.tell(
        "sales", row("s-1", phone="1234567"), row("s-2", phone="1234567"), row("s-3", phone="7654321")
    )
    await hub.tell(
        "crm", row("1", phone="1234567"), row("2", phone="7654321"), row("3", phone="7654321"), match=PHONE
    )
    assert await hub.all("SELECT count(*) FROM contact") == [(6,)]


async def test_without_hints_everybody_is_new(hub: Hub) -> None:
    await hub.tell("sales", row("s-1", email="a@example.com"))
    assert (await hub.tell("crm", row("1", email="a@example.com"), match=())).created == 1


async def test_a_record_that_we_know_by_its_id_needs_no_hint(hub: Hub) -> None:
    await hub.tell("sales", row("s-1", email="a@example.com"))
    await hub.tell("crm", row("1", email="b@example.com"))
    await hub.tell(
        "crm", row("1", email="a@example.com")
    )  # now the address that sales knows: still two people
    assert (await hub.who("crm", "1"), await hub.who("sales", "s-1")) == (2, 1)
