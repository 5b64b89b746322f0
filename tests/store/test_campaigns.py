"""The snapshot as rows of the ledger: made by a few statements, claimed in the order of their times, spread again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from hub.errors import HubError
from hub.store import campaigns, ledger
from hub.store.campaigns import NewCampaign, Piece, Start
from hub.store.database import Database

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
FREELY = {"news": False}


async def audience(database: Database, count: int) -> None:
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, %s) n",
            [count],
        )
        await conn.execute("INSERT INTO list (name, rule) VALUES ('all', 'true')")
        await conn.execute("INSERT INTO list_member SELECT l.id, c.id, now() FROM list l, contact c")


async def frozen(database: Database, name: str, count: int, *, at: datetime = NOW, gap: float = 1.0) -> int:
    """Freeze the list `all`, one mail each `gap` seconds. Returns the rows that were made."""
    new = NewCampaign(
        name=name, message="hello", purpose="news", list="all", hash="", frozen=count, recipients=count,
        per_second=1 / gap if gap else None, late=timedelta(hours=12), first_at=at, last_at=at + timedelta(seconds=gap * count),
    )  # fmt: skip
    async with database.transaction() as conn:
        await campaigns.gather(conn, "all", [], "news", FREELY)
        id = await campaigns.add(conn, new, now=NOW)
        assert id is not None
        return await campaigns.freeze(
            conn, id, new, [Start("", "", at)], [Piece(at, 0, count, at, gap)], now=NOW
        )


async def rows(database: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    async with database.connection() as conn:
        return list(await (await conn.execute(query.encode(), values or None)).fetchall())


async def claimed(database: Database, now: datetime, limit: int = 1_000) -> list[ledger.Claimed]:
    async with database.transaction() as conn:
        return await ledger.claim(conn, FREELY, worker="w", limit=limit, now=now)


async def test_times_come_in_grains_and_never_faster_than_the_speed(database: Database) -> None:
    await audience(database, 100)
    assert await frozen(database, "spring", 100) == 100
    found = await rows(database, "SELECT not_before, count(*) FROM delivery GROUP BY 1 ORDER BY 1")
    assert found == [(NOW + timedelta(seconds=10 * n), 10) for n in range(10)]
    assert len(await claimed(database, NOW)) == 10
    assert len(await claimed(database, NOW + timedelta(seconds=39))) == 30


async def test_what_waits_for_its_time_is_not_looked_at(database: Database) -> None:
    """The plan of a claim, not its time: this machine may be busy."""
    await audience(database, 5_000)
    await frozen(database, "autumn", 5_000, at=NOW + timedelta(days=7))
    await frozen(database, "spring", 5_000, gap=0)
    async with database.connection() as conn:
        await conn.execute("ANALYZE delivery")
    query = f"""EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM delivery WHERE {ledger.DUE}
                ORDER BY coalesce(not_before, '-infinity'), id LIMIT 100"""
    for now, found in ((NOW, 100), (NOW - timedelta(days=1), 0)):
        async with database.connection() as conn:
            row = await (await conn.execute(query.encode(), {"now": now})).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        assert plan["Actual Rows"] == found
        scan = plan["Plans"][0]
        assert (scan["Index Name"], scan.get("Rows Removed by Filter", 0)) == ("delivery_due", 0)


async def test_mails_are_claimed_in_the_order_of_their_times(database: Database) -> None:
    await audience(database, 3)
    await frozen(database, "second", 3, at=NOW + timedelta(hours=1), gap=0)
    await frozen(database, "first", 3, gap=0)
    async with database.transaction() as conn:
        await ledger.queue(conn, [ledger.NewDelivery("hello", 1, "funnel:x:1:0", "news", NOW)])
    order = []
    while found := await claimed(database, NOW + timedelta(hours=2), limit=1):
        order += [each.id for each in found]
    names = await rows(
        database,
        "SELECT occurrence FROM unnest(%s::bigint[]) WITH ORDINALITY o (id, n) JOIN delivery d USING (id) ORDER BY o.n",
        order,
    )
    assert [name for (name,) in names] == ["funnel:x:1:0", *["campaign:first"] * 3, *["campaign:second"] * 3]


@pytest.mark.parametrize(("state", "after"), [("pause", "held"), ("cancel", "excluded")])
async def test_what_comes_back_of_a_worker_does_as_its_campaign_does(
    database: Database, state: str, after: str
) -> None:
    await audience(database, 4)
    await frozen(database, "spring", 4, gap=0)
    given_back, settled, crashed, sent = await claimed(database, NOW)
    async with database.transaction() as conn:
        await getattr(campaigns, state)(conn, "spring", now=NOW)
    async with database.transaction() as conn:
        assert await ledger.release(conn, [given_back]) == 1
        outcomes = [
            ledger.Sent(settled.id, settled.claim, "queued", retry_seconds=60.0),
            ledger.Sent(sent.id, sent.claim, "accepted", reply_code=250),
            ledger.Sent(crashed.id, crashed.claim, "queued", offered=False),  # by its worker's journal
        ]
        assert await ledger.settle(conn, outcomes, now=NOW) == 3
    assert dict(await rows(database, "SELECT id, state FROM delivery")) == {
        given_back.id: after, settled.id: after, crashed.id: after, sent.id: "accepted",
    }  # fmt: skip


async def test_a_pause_that_is_being_committed_is_waited_for(database: Database) -> None:
    """A mail comes back between the two statements of a pause: it is held, though the pause never saw it queued."""
    await audience(database, 1)
    await frozen(database, "spring", 1, gap=0)
    (mail,) = await claimed(database, NOW)
    async with database.transaction() as pausing:
        await campaigns.pause(pausing, "spring", now=NOW)
        with psycopg.connect(database.url) as other:
            other.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):  # it waits
                other.execute("UPDATE delivery SET state = 'queued' WHERE id = %s", [mail.id])
    async with database.transaction() as conn:
        await ledger.release(conn, [mail])
    assert await rows(database, "SELECT state, reason FROM delivery") == [("held", campaigns.PAUSED)]


async def test_only_times_that_have_passed_are_put_off(database: Database) -> None:
    await audience(database, 6)
    await frozen(database, "spring", 6, gap=3_600.0)
    async with database.transaction() as conn:
        await campaigns.pause(conn, "spring", now=NOW)
    later = NOW + timedelta(hours=2, minutes=30)
    async with database.transaction() as conn:
        assert await campaigns.resume(conn, "spring", now=later) == 6
    found = await rows(database, "SELECT not_before FROM delivery ORDER BY not_before")
    assert [at for (at,) in found] == [later + timedelta(hours=n) for n in range(6)]


async def test_states_that_cannot_follow(database: Database) -> None:
    await audience(database, 1)
    await frozen(database, "spring", 1)
    async with database.transaction() as conn:
        with pytest.raises(HubError, match="campaign spring is approved"):
            await campaigns.resume(conn, "spring", now=NOW)
        await campaigns.cancel(conn, "spring", now=NOW)
    for change in (campaigns.pause, campaigns.resume, campaigns.cancel):
        with pytest.raises(HubError, match="campaign spring is cancelled"):
            async with database.transaction() as conn:
                await change(conn, "spring", now=NOW)
    async with database.transaction() as conn:
        assert await campaigns.tend(conn, now=NOW) == []


async def test_a_large_audience(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    await audience(database, 100_000)
    begun, used = time.perf_counter(), time.process_time()
    assert await frozen(database, "spring", 100_000, gap=0.01) == 100_000
    took = time.perf_counter() - begun
    found = await rows(database, "SELECT count(*), count(DISTINCT not_before), max(not_before) FROM delivery")
    assert found == [(100_000, 100, NOW + timedelta(seconds=990))]
    with capsys.disabled():
        print(
            f"\n100,000 rows frozen in {took:.1f} s ({time.process_time() - used:.2f} s of it in this process)"
        )
