"""Events and their consequences: once each, in any order, and never a dead address by mistake."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.model import BounceClass, ResultKind
from hub.results import engagement
from hub.results.engagement import Visit, Watch
from hub.results.plan import Target, plan
from hub.store import events, obligations
from hub.store.database import Database
from hub.store.obligations import Told

READER = Visit("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.0", "203.0.113.9")
AT_ONCE = Watch(soon=timedelta())


class Post:
    """One contact with one delivery, ready for things to come back."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def sent(
        self, state: str = "accepted", email: str = "ann@example.com", known_to: str = "crm"
    ) -> int:
        async with self.db.transaction() as conn:
            cursor = await conn.execute(
                "INSERT INTO contact (email, changed_at) VALUES (%s, %s) RETURNING id",
                [email, self.clock.now()],
            )
            (contact_id,) = await cursor.fetchone() or (0,)
            await conn.execute(
                "INSERT INTO contact_identity VALUES (%s, 'contact', %s, %s, NULL, NULL, 'live', %s)",
                [known_to, str(contact_id), contact_id, self.clock.now()],
            )
            cursor = await conn.execute(
                """INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, lease_until, queued_at, sent_at)
                   VALUES ('welcome', %s, 'x', 'news', %s, %s, CASE WHEN %s = 'claimed' THEN now() END, %s, %s) RETURNING id""",
                [
                    contact_id,
                    email,
                    state,
                    state,
                    self.clock.now(),
                    self.clock.now() if state == "accepted" else None,
                ],
            )
            row = await cursor.fetchone()
            assert row
            return int(row[0])

    async def tell(self, delivery: int, kind: ResultKind, key: str, **detail: Any) -> bool:
        async with self.db.transaction() as conn:
            evidence = events.Evidence(delivery, kind, self.clock.now(), "dsn", key, detail)
            return await events.record(conn, evidence, now=self.clock.now())

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())


@pytest.fixture
def post(database: Database, clock: ManualClock) -> Post:
    return Post(database, clock)


async def test_a_repeated_event_changes_nothing(post: Post) -> None:
    delivery = await post.sent()
    told = [await post.tell(delivery, ResultKind.BOUNCED, "k", **{"class": "address"}) for _ in range(3)]
    assert told == [True, False, False]
    assert await post.rows("SELECT count(*) FROM event") == [(1,)]


@pytest.mark.parametrize("kind", list(BounceClass))
async def test_only_a_dead_address_is_suppressed(post: Post, kind: BounceClass) -> None:
    delivery = await post.sent()
    await post.tell(delivery, ResultKind.BOUNCED, "k", **{"class": kind.value, "reason": "550"})
    suppressed = await post.rows(
        "SELECT count(*) FROM suppression WHERE email_hash = address_hash('ANN@example.com')"
    )
    assert suppressed == [(1 if kind is BounceClass.ADDRESS else 0,)]


async def test_evidence_settles_an_uncertain_send(post: Post, database: Database, clock: ManualClock) -> None:
    delivery = await post.sent(state="uncertain")
    assert await engagement.opened(database, clock, delivery, READER, AT_ONCE)
    assert await post.rows("SELECT state FROM delivery") == [("accepted",)]
    assert await post.rows("SELECT kind FROM event ORDER BY kind") == [("opened",), ("sent",)]


async def test_an_unsubscription_stops_the_purpose_at_once(
    post: Post, database: Database, clock: ManualClock
) -> None:
    delivery = await post.sent()
    assert await engagement.unsubscribed(database, clock, delivery, how="one-click")
    assert await post.rows("SELECT purpose, status, source FROM consent") == [("news", "out", "web")]


async def test_unsubscribing_again_after_coming_back_counts(
    post: Post, database: Database, clock: ManualClock
) -> None:
    delivery = await post.sent()
    await engagement.unsubscribed(database, clock, delivery, how="page")
    clock.advance(hours=1)
    async with database.transaction() as conn:
        await conn.execute(
            """INSERT INTO consent (email_hash, purpose, status, source, at, proof)
               VALUES (address_hash('ann@example.com'), 'news', 'in', 'web', %s, 'form')""",
            [clock.now()],
        )
    clock.advance(hours=1)
    await engagement.unsubscribed(database, clock, delivery, how="page")
    assert await post.rows("SELECT status FROM consent ORDER BY at") == [("out",), ("in",), ("out",)]


async def test_quiet_mails_are_delivered_and_bounced_ones_are_not(
    post: Post, database: Database, clock: ManualClock
) -> None:
    quiet, bounced = await post.sent(), await post.sent(email="bob@example.com")
    await post.tell(bounced, ResultKind.BOUNCED, "k", **{"class": "policy"})
    clock.advance(hours=25)
    fresh = await post.sent(email="new@example.com")
    async with database.transaction() as conn:
        before = clock.now() - timedelta(hours=24)
        assert await events.settle_delivered(conn, sent_before=before, now=clock.now()) == 1
        assert await events.settle_delivered(conn, sent_before=before, now=clock.now()) == 0
    assert await post.rows("SELECT delivery_id FROM event WHERE kind = 'delivered'") == [(quiet,)]
    assert fresh != quiet


async def test_each_system_is_told_the_first_of_a_kind_once(
    post: Post, database: Database, clock: ManualClock
) -> None:
    delivery = await post.sent()
    async with database.transaction() as conn:
        await obligations.know(conn, [Told("crm", "news", "42"), Told("other", "news", "1")])
    for link in ("https://a.example/1", "https://a.example/2"):
        clock.advance(minutes=1)
        await engagement.clicked(database, clock, delivery, link, READER)
    await engagement.unsubscribed(database, clock, delivery, how="one-click")
    clock.advance(seconds=10)
    targets = [
        Target("crm", results=True),
        Target("analytics", results=True, needs_contact=False),
        Target("other", results=True),  # knows nobody
    ]
    assert await plan(database, clock, targets) == {"crm", "analytics"}
    assert await plan(database, clock, targets) == set()
    assert await post.rows("SELECT connection, kind, count(*) FROM outbox GROUP BY 1, 2 ORDER BY 1, 2") == [
        ("analytics", "result", 2),
        ("crm", "consent", 1),
        ("crm", "result", 2),
    ]
    payloads = await post.rows("SELECT payload FROM outbox WHERE connection = 'analytics'")
    assert all("example.com" not in str(p) for (p,) in payloads)  # analytics learns no address


# --- where a mail stands ---------------------------------------------------------------------------------------------

KINDS = [ResultKind.DELIVERED, ResultKind.DELAYED, ResultKind.BOUNCED, ResultKind.OPENED, ResultKind.CLICKED]


@pytest.mark.parametrize("state", ["uncertain", "claimed", "queued", "held", "accepted"])
async def test_every_order_leaves_the_same_row(post: Post, clock: ManualClock, state: str) -> None:
    stand = set()
    for number, order in enumerate(permutations(KINDS[:4])):
        delivery = await post.sent(state=state, email=f"{number}@example.com")
        for kind in (*order, *order):
            await post.tell(delivery, kind, f"{delivery}:{kind}", **{"class": "policy"})
        stand.update(
            await post.rows(
                f"SELECT state, result, settled_at IS NOT NULL FROM delivery WHERE id = {delivery}"
            )
        )
    assert stand == {("accepted", "delivered", True)}


async def test_a_mail_that_waits_to_be_sent_again_is_not_when_it_arrived(post: Post) -> None:
    delivery = await post.sent(state="queued")
    await post.tell(delivery, ResultKind.DELIVERED, "k")
    assert await post.rows("SELECT state, result, reason FROM delivery") == [
        ("accepted", "delivered", "settled by evidence: delivered")
    ]
    assert await post.rows("SELECT kind FROM event ORDER BY kind") == [("delivered",), ("sent",)]


async def test_what_was_excluded_or_refused_stays_so(post: Post) -> None:
    for state in ("excluded", "rejected"):
        delivery = await post.sent(state=state, email=f"{state}@example.com")
        await post.tell(delivery, ResultKind.BOUNCED, f"{delivery}", **{"class": "policy"})
    assert await post.rows("SELECT state, result FROM delivery ORDER BY id") == [
        ("excluded", "bounced"),
        ("rejected", "bounced"),
    ]


async def test_a_delayed_mail_counts_as_delivered_only_when_nobody_tries_it_any_more(
    post: Post, database: Database, clock: ManualClock
) -> None:
    delivery = await post.sent()
    await post.tell(delivery, ResultKind.DELAYED, "k")

    async def settled() -> int:
        async with database.transaction() as conn:
            before = clock.now() - timedelta(hours=24)
            return await events.settle_delivered(conn, sent_before=before, now=clock.now())

    clock.advance(hours=30)
    assert await settled() == 0
    clock.advance(hours=4 * 24)
    assert await settled() == 1
    assert await post.rows("SELECT result FROM delivery") == [("delivered",)]


async def test_a_complaint_suppresses_and_opts_out_of_everything(post: Post) -> None:
    delivery = await post.sent()
    await post.tell(delivery, ResultKind.COMPLAINED, "k", type="abuse")
    assert await post.rows("SELECT reason FROM suppression") == [("complained: called a mail spam",)]
    assert await post.rows("SELECT purpose, status, source, proof FROM consent") == [
        ("*", "out", "complaint", f"called delivery {delivery} spam")
    ]
