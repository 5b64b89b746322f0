"""Bounces that are about us: what they suppressed is let go with a reason; dead addresses stay dead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.model import ResultKind
from hub.store import decisions, events, incidents
from hub.store.database import Database

HOUR = timedelta(hours=1)
TEXT = "550 5.1.1 <{}>: user unknown in relay table (mx{}.example.net)"


class Day:
    """A morning's sending to one receiver."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock, self.count = db, clock, 0

    async def sent(self, number: int, *, receiver: str = "example.net", relay: str = "main") -> list[int]:
        async with self.db.transaction() as conn:
            values = {
                "receiver": receiver, "n": number, "now": self.clock.now(), "relay": relay, "occurrence": str(self.count),
            }  # fmt: skip
            await conn.execute(
                """INSERT INTO contact (email, changed_at) SELECT 'p' || g || '@' || %(receiver)s, %(now)s
                   FROM generate_series(1, %(n)s) g
                   WHERE NOT EXISTS (SELECT FROM contact WHERE email = 'p' || g || '@' || %(receiver)s)""",
                values,
            )
            cursor = await conn.execute(
                """INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, relay, queued_at, sent_at)
                   SELECT 'hello', id, %(occurrence)s, 'news', email, 'accepted', %(relay)s, %(now)s, %(now)s FROM contact
                   WHERE email LIKE '%%@' || %(receiver)s ORDER BY id LIMIT %(n)s RETURNING id""",
                values,
            )
            self.count += 1
            found = [row[0] for row in await cursor.fetchall()]
        for id in found:
            await self.tell(id, ResultKind.SENT)
        return found

    async def tell(self, id: int, kind: ResultKind, **detail: Any) -> None:
        async with self.db.transaction() as conn:
            now = self.clock.now()
            await events.record(conn, events.Evidence(id, kind, now, "dsn", f"{id}:{kind}", detail), now=now)

    async def dead(self, ids: Sequence[int], text: str = TEXT) -> None:
        for id in ids:
            await self.tell(
                id,
                ResultKind.BOUNCED,
                **{"class": "address", "reason": text.format(f"p{id}@example.net", id)},
            )

    async def watch(self) -> list[incidents.Incident]:
        async with self.db.transaction() as conn:
            return await incidents.watch(conn, now=self.clock.now(), mails=10, within=HOUR)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())

    async def suppressed(self) -> int:
        return int((await self.rows("SELECT count(*) FROM suppression"))[0][0])


@pytest.fixture
def day(database: Database, clock: ManualClock) -> Day:
    return Day(database, clock)


async def test_addresses_that_had_taken_mail_before_are_let_go(day: Day, clock: ManualClock) -> None:
    before = await day.sent(30)
    for id in before:
        await day.tell(id, ResultKind.DELIVERED)
    clock.advance(days=7)
    now = await day.sent(30)
    await day.dead(now[:15])
    assert await day.suppressed() == 15
    (found,) = await day.watch()
    assert (found.relay, found.receiver, found.bounces, found.lifted) == ("main", "example.net", 15, 15)
    burst = "15 of 30 mails to example.net by main were answered alike"
    assert found.why == f"{burst}, and 15 of these addresses had taken mail before"
    assert await day.suppressed() == 0
    assert await day.rows(
        "SELECT DISTINCT detail ->> 'class', detail ->> 'was' FROM event WHERE kind = 'bounced'"
    ) == [("reputation", "address")]
    (decision,) = set(await day.rows("SELECT what, decided_by, because FROM decision"))
    assert decision[:2] == ("lifted", "hub")
    assert decision[2].endswith(found.why)


async def test_while_it_lasts_each_further_one_is_let_go_and_then_it_is_over(
    day: Day, clock: ManualClock, database: Database
) -> None:
    ids = await day.sent(40)
    await day.dead(ids[:37])
    assert (await day.watch())[0].lifted == 37
    clock.advance(minutes=40)
    await day.dead(ids[37:38])
    assert [each.lifted for each in await day.watch()] == [1]
    assert await day.rows("SELECT bounces, lifted, closed_at FROM incident") == [(38, 38, None)]
    clock.advance(minutes=61)
    assert await day.watch() == []
    assert await day.rows("SELECT closed_at IS NOT NULL FROM incident") == [(True,)]
    await day.dead(ids[38:39])
    assert await day.watch() == []
    assert await day.suppressed() == 1  # a single dead address is one
    async with database.connection() as conn:
        assert [row["receiver"] for row in await incidents.recent(conn)] == ["example.net"]


async def test_a_list_of_dead_addresses_stays_suppressed(day: Day) -> None:
    ids = await day.sent(40)
    await day.dead(ids[:20])
    assert await day.watch() == []
    assert await day.suppressed() == 20


async def test_the_usual_few_among_many_stay_suppressed(day: Day, clock: ManualClock) -> None:
    for id in await day.sent(60):
        await day.tell(id, ResultKind.DELIVERED)
    clock.advance(days=7)
    await day.dead((await day.sent(60))[:12])
    assert await day.watch() == []
    assert await day.suppressed() == 12


async def test_a_receiver_that_says_so_elsewhere_is_believed_there(day: Day) -> None:
    ids = await day.sent(40)
    for id in ids[20:23]:
        await day.tell(id, ResultKind.BOUNCED, **{"class": "reputation", "reason": "550 listed"})
    await day.dead(ids[:20])
    (found,) = await day.watch()
    assert found.why.endswith("3 more were refused there for our bad name")


async def test_different_texts_and_relays_are_no_burst(day: Day) -> None:
    ids = await day.sent(9) + await day.sent(9, relay="spare")
    await day.dead(ids)
    assert await day.watch() == []
    other = await day.sent(12, receiver="example.org")
    for number, id in enumerate(other):
        await day.dead([id], f"550 5.1.1 user unknown, said {chr(97 + number) * 5}")
    assert await day.watch() == []


async def test_what_somebody_suppressed_by_hand_stays(
    day: Day, database: Database, clock: ManualClock
) -> None:
    ids = await day.sent(20)
    ((email,),) = await day.rows(f"SELECT email FROM delivery WHERE id = {ids[0]}")
    async with database.transaction() as conn:
        await decisions.suppress(conn, email, because="asked by phone", by="Ann", now=clock.now())
    await day.dead(ids)
    (found,) = await day.watch()
    assert (found.bounces, found.lifted) == (20, 19)
    assert await day.suppressed() == 1
