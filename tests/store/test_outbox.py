"""The outbox: order per contact, retries with a cap, leases, replays; every claim on a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from hub.clock import ManualClock
from hub.model import Outcome, OutcomeStatus
from hub.store import outbox
from hub.store.database import Database
from hub.store.outbox import Claimed, NewPush


class Box:
    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def put(self, key: str, contact: int | None = None) -> int:
        async with self.db.transaction() as conn:
            if contact:
                await conn.execute(
                    "INSERT INTO contact (id, changed_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    [contact, self.clock.now()],
                )
            return await outbox.enqueue(
                conn, [NewPush("crm", "field", key, {"fields": {}}, self.clock.now(), contact)]
            )

    async def claim(self, limit: int = 10) -> list[Claimed]:
        async with self.db.transaction() as conn:
            return await outbox.claim(conn, "crm", limit)

    async def settle(self, rows: list[Claimed], status: OutcomeStatus, **more: Any) -> outbox.Settled:
        outcomes = {r.dedupe_key: Outcome(id=r.dedupe_key, status=status, **more) for r in rows}
        async with self.db.transaction() as conn:
            return await outbox.settle(conn, rows, outcomes, now=self.clock.now())

    async def make_due(self) -> None:
        async with self.db.transaction() as conn:
            await conn.execute("UPDATE outbox SET due_at = clock_timestamp() - interval '1 s'")

    async def states(self) -> dict[str, str]:
        async with self.db.connection() as conn:
            return dict(
                await (await conn.execute("SELECT dedupe_key, state FROM outbox ORDER BY id")).fetchall()
            )


@pytest.fixture
def box(database: Database, clock: ManualClock) -> Box:
    return Box(database, clock)


async def test_the_same_write_is_queued_once(box: Box) -> None:
    assert [await box.put("a"), await box.put("a")] == [1, 0]


async def test_a_row_is_claimed_by_one_and_settled_once(box: Box) -> None:
    await box.put("a")
    mine = await box.claim()
    assert [c.dedupe_key for c in mine] == ["a"]
    assert await box.claim() == []
    assert (await box.settle(mine, OutcomeStatus.DONE, remote_id="77")).done == 1
    assert await box.states() == {"a": "done"}


async def test_a_retry_waits_and_gives_up_after_the_cap(box: Box) -> None:
    await box.put("a")
    for _ in range(outbox.MAX_ATTEMPTS - 1):
        assert (await box.settle(await box.claim(), OutcomeStatus.RETRY)).retried == 1
        assert await box.claim() == []  # it waits
        await box.make_due()
    assert (await box.settle(await box.claim(), OutcomeStatus.RETRY)).dead == 1
    assert await box.states() == {"a": "dead"}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (OutcomeStatus.FIX_NEEDED, "dead"),
        (OutcomeStatus.DROPPED, "dropped"),
        (OutcomeStatus.UNCERTAIN, "uncertain"),
    ],
)
async def test_what_cannot_go_on_rests(box: Box, status: OutcomeStatus, state: str) -> None:
    await box.put("a")
    await box.settle(await box.claim(), status, code="X", message="no", fix="mend it")
    assert await box.states() == {"a": state}
    assert await box.claim() == []


async def test_a_contacts_rows_stay_in_order(box: Box) -> None:
    await box.put("a1", contact=1)
    await box.put("a2", contact=1)
    await box.put("b1", contact=2)
    first = await box.claim(1)
    assert [c.dedupe_key for c in first] == ["a1"]
    assert [c.dedupe_key for c in await box.claim()] == ["b1"]  # a2 waits for a1
    await box.settle(first, OutcomeStatus.RETRY)
    assert await box.claim() == []  # a1 waits for its pause, and a2 behind it
    await box.make_due()
    assert [c.dedupe_key for c in await box.claim()] == ["a1", "a2"]


async def test_a_crash_between_claim_and_settlement(box: Box, database: Database) -> None:
    for repeatable, state in ((True, "queued"), (False, "uncertain")):
        await box.put(state)
        await box.claim()
        async with database.transaction() as conn:
            assert await outbox.recover(conn, "crm", repeatable=repeatable) == 1
        assert (await box.states())[state] == state
        await box.settle(await box.claim(), OutcomeStatus.DONE)


async def test_a_late_answer_of_a_lost_claim_changes_nothing(box: Box, database: Database) -> None:
    await box.put("a")
    late = await box.claim()
    async with database.transaction() as conn:
        await outbox.recover(conn, "crm", repeatable=True)
    again = await box.claim()
    await box.settle(late, OutcomeStatus.DROPPED)
    assert await box.states() == {"a": "attempting"}
    await box.settle(again, OutcomeStatus.DONE)
    assert await box.states() == {"a": "done"}


async def test_given_back_rows_lose_no_attempt(box: Box, database: Database) -> None:
    await box.put("a")
    mine = await box.claim()
    async with database.transaction() as conn:
        await outbox.give_back(conn, mine)
    assert [c.attempts for c in await box.claim()] == [1]


async def test_dead_letters_are_replayed(box: Box, database: Database) -> None:
    await box.put("a")
    await box.settle(await box.claim(), OutcomeStatus.FIX_NEEDED)
    async with database.transaction() as conn:
        assert await outbox.replay(conn, "crm") == 1
    assert [c.attempts for c in await box.claim()] == [1]
