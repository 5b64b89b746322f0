"""One person of two, and two of one: values, records, mails, funnels, lists, opt-outs; nothing lost, nothing sent twice."""

from __future__ import annotations

from typing import Any

import pytest

from hub.clock import ManualClock
from hub.errors import HubError
from hub.model import ResultKind
from hub.store import addresses, consent, contacts, duplicates, events, ledger, merging
from hub.store.database import Database
from tests.store.test_contacts import KEEP, row

FUNNEL = "INSERT INTO funnel (name) VALUES ('onboarding'), ('second') RETURNING id"


class People:
    """Contacts of two systems, and everything that hangs on them."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def tell(self, connection: str, id: str, **fields: Any) -> None:
        async with self.db.transaction() as conn:
            made = row(id, **fields)
            await contacts.merge(conn, connection, [made], on_blank=KEEP, run_id=None, now=self.clock.now())

    async def merge(self, loser: int, survivor: int) -> None:
        async with self.db.transaction() as conn:
            await merging.merge(conn, loser, survivor, standing=(), now=self.clock.now())

    async def unmerge(self, loser: int) -> int:
        async with self.db.transaction() as conn:
            return await merging.unmerge(conn, loser, standing=(), now=self.clock.now())

    async def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(query.encode(), values or None)
            return list(await cursor.fetchall()) if cursor.description else []

    async def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that says who somebody is and what happened to them."""
        tables = {
            "contact": "SELECT to_jsonb(c) - 'changed_at' FROM contact c ORDER BY id",
            "identity": "SELECT connection, external_id, contact_id, state FROM contact_identity ORDER BY 1, 2",
            "delivery": "SELECT id, contact_id, state FROM delivery ORDER BY 1",
            "event": "SELECT id, contact_id, kind FROM event ORDER BY 1",
            "outbox": "SELECT id, contact_id, state FROM outbox ORDER BY 1",
            "funnel": "SELECT id, contact_id, state, position FROM funnel_entry ORDER BY 1",
            "address": "SELECT contact_id, email, kind FROM contact_address ORDER BY 1, 2",
        }
        return {name: await self.all(query) for name, query in tables.items()}


@pytest.fixture
async def people(database: Database, clock: ManualClock) -> People:
    """Ann twice: 1 by the CRM, 2 by sales; both got mails, both are in funnels, one opened, one is to be told of."""
    made = People(database, clock)
    await made.tell("crm", "a", email="ann@example.com", first_name="Ann", city="Wien", score=1)
    clock.advance(minutes=1)
    await made.tell("sales", "b", email="ann.lee@example.com", last_name="Lee", city="Graz", tier="gold")
    await made.all(FUNNEL)
    await made.all(
        """INSERT INTO funnel_entry (funnel_id, contact_id, wake_at, entered_at, position)
           VALUES (1, 1, now(), now(), '1'), (1, 2, now(), now(), '2'), (2, 2, now(), now(), '3')"""
    )
    async with database.transaction() as conn:
        at = clock.now()
        new = [("hello", 1, "f:1"), ("hello", 2, "f:1"), ("offer", 2, "c:1"), ("news", 2, "c:2")]
        await ledger.queue(conn, [ledger.NewDelivery(message=m, contact_id=c, occurrence=o, purpose="news", queued_at=at)
                                  for m, c, o in new])  # fmt: skip
        await conn.execute(
            "UPDATE delivery SET state = 'accepted', sent_at = %s, email = c.email FROM contact c "
            "WHERE c.id = contact_id AND message <> 'news'",
            [at],
        )
        seen = events.Evidence(3, ResultKind.OPENED, at, "web", "o3", {})
        assert await events.record(conn, seen, now=at)
        await conn.execute(
            """INSERT INTO outbox (connection, kind, dedupe_key, payload, created_at, contact_id)
               VALUES ('sales', 'result', 'r1', '{}', now(), 2)"""
        )
    return made


async def test_a_merge_makes_one_person_of_all_that_both_have(people: People) -> None:
    await people.merge(2, 1)
    found = await people.everything()
    (one,), (two,) = found["contact"]
    assert (one["first_name"], one["last_name"], one["email"]) == (
        "Ann",
        "Lee",
        "ann.lee@example.com",
    )  # the newest word
    assert (one["fields"], one["state"]) == ({"score": 1, "tier": "gold"}, "live")
    assert (two["state"], two["merged_into"]) == ("merged", 1)
    assert found["identity"] == [("crm", "a", 1, "live"), ("sales", "b", 1, "live")]
    assert [contact for _, contact, _ in found["delivery"]] == [
        1,
        2,
        1,
        1,
    ]  # the mail that both had stays with each
    assert [contact for _, contact, _ in found["event"]] == [1]
    assert [contact for _, contact, _ in found["outbox"]] == [1]
    assert [(id, contact) for id, contact, *_ in found["funnel"]] == [(1, 1), (2, 2), (3, 1)]
    assert found["address"] == [
        (1, "ann.lee@example.com", "other"),
        (1, "ann@example.com", "former"),
    ] or found["address"] == [(1, "ann.lee@example.com", "other")]


async def test_an_unmerge_restores_both_with_everything(people: People) -> None:
    before = await people.everything()
    await people.merge(2, 1)
    assert await people.everything() != before
    assert await people.unmerge(2) == 1
    after = await people.everything()
    former = after.pop("address")
    assert former == [] or {kind for _, _, kind in former} == {"former"}
    assert after == {k: v for k, v in before.items() if k != "address"}


async def test_what_came_while_they_were_one_belongs_to_whom_its_record_means(people: People) -> None:
    await people.merge(2, 1)
    people.clock.advance(hours=1)
    await people.tell("sales", "b", email="ann.lee@example.com", last_name="Lee", city="Bonn", tier="gold")
    await people.tell("crm", "a", email="ann@example.com", first_name="Anna", city="Wien", score=1)
    async with people.db.transaction() as conn:
        at = people.clock.now()
        assert await events.record(conn, events.Evidence(3, ResultKind.CLICKED, at, "web", "c3", {}), now=at)
        await conn.execute(  # the next mail of a funnel that came with the loser
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, funnel_entry_id, state)
               VALUES ('later', 1, 'f:3', 'news', now(), 3, 'accepted')"""
        )
    await people.unmerge(2)
    values = await people.all("SELECT email, first_name, last_name, city, fields FROM contact ORDER BY id")
    assert values == [
        ("ann@example.com", "Anna", None, "Wien", {"score": 1}),
        ("ann.lee@example.com", None, "Lee", "Bonn", {"tier": "gold"}),
    ]
    assert await people.all("SELECT kind, contact_id FROM event ORDER BY id") == [
        ("opened", 2),
        ("clicked", 2),
    ]
    assert await people.all("SELECT contact_id FROM delivery WHERE message = 'later'") == [(2,)]


async def test_a_person_merged_out_of_a_funnel_goes_on_after_the_unmerge(people: People) -> None:
    await people.merge(2, 1)
    await people.all(
        "UPDATE funnel_entry SET state = 'left', reason = 'gone', reason_code = 'contact-gone', finished_at = now() WHERE id = 2"
    )
    await people.unmerge(2)
    assert await people.all("SELECT contact_id, state, position, reason FROM funnel_entry WHERE id = 2") == [
        (2, "active", "2", "")
    ]


async def test_nothing_is_sent_again_by_a_merge_or_an_unmerge(people: People) -> None:
    async def claimed() -> list[tuple[str, int]]:
        async with people.db.transaction() as conn:
            found = await ledger.claim(conn, {"news": False}, worker="w", limit=99, now=people.clock.now())
            return [(c.message, c.contact_id) for c in found]

    await people.merge(2, 1)
    assert await claimed() == [("news", 1)]
    await people.unmerge(2)
    assert await people.all("SELECT message, contact_id FROM delivery WHERE message = 'news'") == [
        ("news", 2)
    ]
    assert await claimed() == []
    async with people.db.transaction() as conn:  # the same campaign planned once more
        again = [
            ledger.NewDelivery(
                message="offer", contact_id=2, occurrence="c:1", purpose="news", queued_at=people.clock.now()
            )
        ]
        assert await ledger.queue(conn, again) == 0


async def test_an_opt_out_of_either_address_holds_for_the_one_person(
    people: People, database: Database
) -> None:
    async with database.transaction() as conn:
        said = consent.Statement("ann@example.com", "news", "out", "web", people.clock.now())
        await consent.record(conn, [said])
    await people.merge(2, 1)
    assert await people.all("SELECT email FROM contact WHERE id = 1") == [("ann.lee@example.com",)]
    async with database.connection() as conn:
        story = await consent.story(conn, "ann.lee@example.com")
    assert [(s["purpose"], s["status"], s["proof"]) for s in story] == [
        ("news", "out", "said under another address of this person")
    ]


async def test_an_opt_out_follows_a_change_of_address_and_comes_also_later(
    people: People, database: Database
) -> None:
    people.clock.advance(hours=1)
    await people.tell("crm", "a", email="new@example.com", first_name="Ann", city="Wien", score=1)
    assert await people.all("SELECT contact_id, email, kind FROM contact_address") == [
        (1, "ann@example.com", "former")
    ]
    async with database.transaction() as conn:  # the button of a mail that went to the old address
        seen = events.Evidence(1, ResultKind.UNSUBSCRIBED, people.clock.now(), "web", "u1", {})
        assert await events.record(conn, seen, now=people.clock.now())
    async with database.connection() as conn:
        assert [s["status"] for s in await consent.story(conn, "new@example.com")] == ["out"]


async def test_a_newer_proven_opt_in_is_not_undone_by_an_old_opt_out(
    people: People, database: Database
) -> None:
    at = people.clock.now()
    async with database.transaction() as conn:
        await consent.record(conn, [consent.Statement("ann@example.com", "news", "out", "web", at)])
        people.clock.advance(hours=1)
        lifted = consent.Statement(
            "new@example.com", "news", "in", "web", people.clock.now(), proof="double opt-in"
        )
        await consent.record(conn, [lifted])
    await people.tell("crm", "a", email="new@example.com", first_name="Ann", city="Wien", score=1)
    async with database.connection() as conn:
        assert [s["status"] for s in await consent.story(conn, "new@example.com")] == ["in"]


async def test_further_addresses_are_kept_and_match(people: People) -> None:
    await people.tell("crm", "a", email="ann@example.com", other_emails=["Ann@Home.example", "a@x.example"])
    assert await people.all("SELECT email, kind FROM contact_address ORDER BY 1") == [
        ("a@x.example", "other"), ("ann@home.example", "other")
    ]  # fmt: skip
    await people.tell("shop", "s1", email="ann@home.example", city="Linz")
    assert await people.all("SELECT contact_id FROM contact_identity WHERE connection = 'shop'") == [(1,)]
    await people.tell("crm", "a", email="ann@example.com", other_emails=["a@x.example"], city="Rom")
    assert ("ann@home.example",) not in await people.all(
        "SELECT email FROM contact_address WHERE kind = 'other'"
    )


@pytest.mark.parametrize(
    ("loser", "survivor", "words"),
    [
        (1, 1, "cannot be merged with itself"),
        (9, 1, "there is no contact 9"),
        (1, 9, "there is no contact 9"),
    ],
)
async def test_merges_that_cannot_be(people: People, loser: int, survivor: int, words: str) -> None:
    with pytest.raises(HubError, match=words):
        await people.merge(loser, survivor)


async def test_a_chain_of_merges_is_undone_from_its_end(people: People) -> None:
    await people.tell("shop", "c", email="third@example.com", city="Rom")
    before = await people.everything()
    await people.merge(3, 2)
    await people.merge(2, 1)
    with pytest.raises(HubError, match=r"contact 3 is merged"):
        await people.merge(3, 1)
    with pytest.raises(
        HubError, match=r"contact 2 was itself merged into 1 later; `hub duplicates unmerge 2` first"
    ):
        await people.unmerge(3)
    assert (await people.unmerge(2), await people.unmerge(3)) == (1, 2)
    after = await people.everything()
    assert {k: v for k, v in after.items() if k != "address"} == {
        k: v for k, v in before.items() if k != "address"
    }
    with pytest.raises(HubError, match="contact 3 is not merged into another"):
        await people.unmerge(3)


async def test_what_a_vendor_merged_is_not_undone(people: People) -> None:
    await people.tell("crm", "z", email="zed@example.com")
    await people.tell("crm", "a", email="ann@example.com", merged=("z",))
    with pytest.raises(HubError, match="crm itself made one record of contacts 3 and 1"):
        await people.unmerge(3)


async def test_merged_again_after_an_unmerge(people: People) -> None:
    await people.merge(2, 1)
    await people.unmerge(2)
    before = await people.everything()
    await people.merge(1, 2)
    await people.unmerge(1)
    after = await people.everything()
    assert {k: v for k, v in after.items() if k != "address"} == {
        k: v for k, v in before.items() if k != "address"
    }


# --- who is suspected ----------------------------------------------------------------------------------------


async def suspects(people: People) -> list[tuple[int, int, list[str]]]:
    async with people.db.connection() as conn:
        found = await duplicates.suspected(conn, limit=50)
    return [(pair["one"], pair["other"], pair["because"]) for pair in found]


async def test_who_looks_like_one_person(people: People) -> None:
    assert await suspects(people) == []
    await people.tell(
        "crm",
        "c",
        email="c@example.com",
        first_name="Bo",
        last_name="Li",
        company="X",
        phone="+43 660 1234567",
    )
    await people.tell(
        "crm", "d", email="C@example.com".lower(), first_name="bo", last_name="LI", company="x", phone="1"
    )
    await people.tell("crm", "e", email="e@example.com", phone="0043 (660) 12 34 567")
    await people.tell("crm", "f", email="f@example.com", phone="1")  # too short to mean anybody
    assert await suspects(people) == [(3, 4, ["address", "name and company"]), (3, 5, ["phone"])]
    async with people.db.transaction() as conn:
        await duplicates.tell_apart(conn, 5, 3, people.clock.now())
    assert await suspects(people) == [(3, 4, ["address", "name and company"])]
    await people.merge(4, 3)
    assert await suspects(people) == []
    await people.unmerge(4)
    assert await suspects(people) == []  # a person has told them apart


async def test_addresses_are_carried_once(people: People, database: Database) -> None:
    async with database.transaction() as conn:
        await consent.record(
            conn, [consent.Statement("old@example.com", "*", "out", "crm", people.clock.now())]
        )
        await conn.execute(
            "INSERT INTO contact_address (contact_id, email, kind, connection, since) "
            "VALUES (1, 'old@example.com', 'former', 'crm', now())"
        )
        assert await addresses.carry_opt_outs(conn, [1]) == 1
        assert await addresses.carry_opt_outs(conn, [1]) == 0
        assert await addresses.carry_opt_outs(conn, []) == 0
