"""Quotas: counted once for all callers, in one process and across them; short windows are waited for, long ones are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.errors import QuotaExhausted
from hub.sdk.connector import Limit
from hub.sdk.quota import MAX_WAIT_SECONDS, PULL_SHARE, MemoryQuota, Quota, admit
from hub.store.database import Database
from hub.store.quotas import PostgresQuota

BURST = Limit("burst", 5, 10)
DAILY = Limit("daily", 100, 86_400)
SEARCH = Limit("search", 2, 1, scope="search")


class Counted:
    """A quota of either kind with a way to let time pass."""

    def __init__(self, quota: Quota, db: Database | None) -> None:
        self.quota, self.db, self.now = quota, db, 1_000.0

    async def take(
        self, *limits: Limit, cost: int = 1, share: float = 1.0, account: str = "crm"
    ) -> tuple[float, str]:
        return await self.quota.take(account, limits, cost=cost, share=share)

    async def passes(self, seconds: float) -> None:
        self.now += seconds
        if self.db is not None:
            async with self.db.transaction() as conn:
                await conn.execute(
                    "UPDATE quota SET newest = newest - ceil(%s / quota_width(seconds))", [seconds]
                )
                await conn.execute(
                    "UPDATE quota_pause SET until = until - make_interval(secs => %s)", [seconds]
                )


@pytest.fixture(params=["memory", "postgres"])
async def counted(request: pytest.FixtureRequest) -> AsyncIterator[Counted]:
    if request.param == "postgres":
        async with Database(request.getfixturevalue("database_url"), size=2) as db:
            yield Counted(PostgresQuota(db), db)
    else:
        made = Counted(MemoryQuota(lambda: made.now), None)
        yield made


async def test_a_window_has_room_for_so_many(counted: Counted) -> None:
    assert [await counted.take(BURST) for _ in range(5)] == [(0.0, "")] * 5
    wait, name = await counted.take(BURST)
    assert (9 < wait <= 10.5, name) == (True, "burst")
    assert await counted.quota.usage("crm") == {"burst": 5}
    await counted.passes(4)
    assert 5 < (await counted.take(BURST))[0] <= 6.5
    await counted.passes(6.5)
    assert await counted.take(BURST) == (0.0, "")
    assert await counted.quota.usage("crm") == {"burst": 1}


async def test_no_ten_seconds_see_more_than_the_quota_wherever_they_begin(counted: Counted) -> None:
    """Half of it late in one window, and again early in the next: a window that starts with its first call lets that through."""
    times: list[float] = []
    for pause in (0, 8, 0.1, 0.1, 0.1, 1.9, 0, 0, 0, 0, 6, 0.5, 0.5, 1, 1, 1):
        await counted.passes(pause)
        if (await counted.take(BURST))[0] == 0:
            times.append(counted.now)
    assert len(times) > 8
    for start in times:
        assert sum(start <= at < start + BURST.seconds for at in times) <= BURST.calls


async def test_a_call_that_is_larger_than_its_quota_waits_for_a_whole_window(counted: Counted) -> None:
    assert (await counted.take(BURST, cost=6))[0] >= 9
    assert await counted.take(BURST, cost=5) == (0.0, "")


async def test_a_call_counts_nowhere_when_one_limit_is_full(counted: Counted) -> None:
    for _ in range(5):
        await counted.take(BURST, DAILY)
    assert (await counted.take(BURST, DAILY))[1] == "burst"
    assert await counted.quota.usage("crm") == {"burst": 5, "daily": 5}


async def test_accounts_do_not_share(counted: Counted) -> None:
    for _ in range(5):
        await counted.take(BURST)
    assert await counted.take(BURST, account="other") == (0.0, "")


async def test_a_call_may_cost_more_than_one(counted: Counted) -> None:
    assert await counted.take(BURST, cost=4) == (0.0, "")
    assert (await counted.take(BURST, cost=2))[1] == "burst"
    assert await counted.take(BURST, cost=1) == (0.0, "")


async def test_pulls_leave_room_in_long_windows_for_pushes_and_webhooks(counted: Counted) -> None:
    pulled = 0
    while (await counted.take(DAILY, share=PULL_SHARE))[0] == 0:
        pulled += 1
    assert pulled == 80
    assert [await counted.take(DAILY) for _ in range(20)] == [(0.0, "")] * 20
    assert (await counted.take(DAILY))[1] == "daily"
    # What others used counts for pulls, too; and a short window is nobody's own.
    assert (await counted.take(DAILY, share=PULL_SHARE))[1] == "daily"
    assert [(await counted.take(BURST, share=PULL_SHARE))[0] for _ in range(5)] == [0.0] * 5


async def test_a_share_of_a_tiny_quota_is_not_nothing(counted: Counted) -> None:
    tiny = Limit("tiny", 1, 3_600)
    assert await counted.take(tiny, share=PULL_SHARE) == (0.0, "")


async def test_a_vendors_stop_holds_for_all_calls_of_the_account(counted: Counted) -> None:
    await counted.quota.pause("crm", "vendor", 60, "come back later")
    wait, name = await counted.take(DAILY)
    assert (55 < wait <= 60, name) == (True, "come back later")
    assert (await counted.take(BURST))[1] == "come back later"
    assert await counted.take(DAILY, account="other") == (0.0, "")
    assert await counted.quota.usage("crm") == {}
    await counted.passes(61)
    assert await counted.take(DAILY) == (0.0, "")


async def test_a_burst_is_waited_for(counted: Counted) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await counted.passes(seconds)

    for _ in range(12):
        await admit(counted.quota, "crm", [BURST, DAILY], sleep=sleep)
    assert len(waited) == 2
    assert all(9 < seconds <= 10.5 for seconds in waited)
    assert (await counted.quota.usage("crm"))["daily"] == 12


async def test_a_day_is_not_waited_for(counted: Counted) -> None:
    async def sleep(seconds: float) -> None:
        raise AssertionError("nobody waits for a day")

    full = Limit("daily", 1, 86_400)
    await admit(counted.quota, "crm", [full], sleep=sleep)
    with pytest.raises(QuotaExhausted) as raised:
        await admit(counted.quota, "crm", [full], sleep=sleep)
    assert 86_000 < raised.value.retry_after_seconds <= 86_400 * 1.04
    assert "the quota 'daily' of crm is used up" in str(raised.value)


async def test_waiting_adds_up_to_half_a_minute_at_most(counted: Counted) -> None:
    waited: list[float] = []

    async def in_vain(seconds: float) -> None:
        waited.append(seconds)  # others are always faster

    await counted.take(BURST, cost=5)
    with pytest.raises(QuotaExhausted):
        await admit(counted.quota, "crm", [BURST], sleep=in_vain)
    assert MAX_WAIT_SECONDS - 10 < sum(waited) <= MAX_WAIT_SECONDS


async def test_a_scope_counts_its_own_calls_only(counted: Counted) -> None:
    async def sleep(seconds: float) -> None:
        await counted.passes(seconds)

    for scope in ("", "search", "search", "other"):
        await admit(counted.quota, "crm", [BURST, SEARCH], scope=scope, sleep=sleep)
    assert await counted.quota.usage("crm") == {"burst": 4, "search": 2}


async def test_many_processes_share_one_quota_to_the_call(database: Database, database_url: str) -> None:
    limits = (Limit("burst", 50, 10), Limit("daily", 60, 86_400))
    async with Database(database_url, size=8) as second:
        quotas = [PostgresQuota(database), PostgresQuota(second)]
        taken = await asyncio.gather(
            *(
                quotas[n % 2].take("crm", limits if n % 3 else limits[::-1], cost=1, share=1.0)
                for n in range(160)
            )
        )
        assert sum(1 for wait, _ in taken if wait == 0) == 50
        async with database.transaction() as conn:
            await conn.execute("UPDATE quota SET newest = newest - 52 WHERE limit_name = 'burst'")
        taken = await asyncio.gather(
            *(quotas[n % 2].take("crm", limits, cost=1, share=1.0) for n in range(40))
        )
        assert sum(1 for wait, _ in taken if wait == 0) == 10  # the day's end
        assert {name for wait, name in taken if wait} == {"daily"}
        assert await quotas[0].usage("crm") == await quotas[1].usage("crm") == {"burst": 10, "daily": 60}
        await quotas[0].pause("crm", "vendor", 60, "stop")
        assert (await quotas[1].take("crm", limits, cost=1, share=1.0))[1] == "stop"
        await quotas[1].pause("crm", "vendor", 5, "a shorter stop")
        assert (await quotas[0].take("crm", limits, cost=1, share=1.0))[0] > 55
