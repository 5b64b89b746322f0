"""Quotas that all processes share: one row a limit of an account, counted on the database's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hub.sdk.connector import Limit
from hub.sdk.quota import room
from hub.store.database import Connection, Database

HALF = 0.5
HOLD_SECONDS = 1.0
"""For so long calls that were counted ahead may be made; what is not used by then counts all the same."""


@dataclass
class _Ahead:
    """Calls that are counted and not made yet, how many were counted together, and when."""

    left: int
    taken: int
    at: float


class PostgresQuota:
    """See `hub.sdk.quota.Quota`. One short transaction a call; nothing waits inside it. What came in the last so many seconds
    counts, as at most vendors, to a fiftieth of the window; a little less than the quota is used, and never more.

    With `ahead` calls that follow each other at once are counted up to so many together, while the quota is not half used: a
    pull of thousands of pages then spends its time on pages.
    """

    def __init__(self, db: Database, *, ahead: int = 1) -> None:
        self.db, self.ahead = db, ahead
        self._ahead: dict[tuple[str, ...], _Ahead] = {}

    async def take(
        self, account: str, limits: Sequence[Limit], *, cost: int, share: float
    ) -> tuple[float, str]:
        key = (account, *(limit.name for limit in limits))
        held, now = self._ahead.get(key), time.monotonic()
        fresh = held is not None and now - held.at < HOLD_SECONDS
        if held is not None and fresh and held.left >= cost:
            held.left -= cost
            return 0.0, ""
        many = max(1, min(2 * held.taken, self.ahead)) if held is not None and fresh else 1
        for calls in dict.fromkeys((many, 1)):
            wait, name, fill = await self.db.repeated(
                lambda conn, calls=calls: self._take(conn, account, limits, cost * calls, share)  # type: ignore[misc]
            )
            if wait <= 0:
                self._ahead[key] = _Ahead(cost * (calls - 1), calls if fill < HALF else 0, now)
                break
        return wait, name

    async def _take(
        self, conn: Connection, account: str, limits: Sequence[Limit], cost: int, share: float
    ) -> tuple[float, str, float]:
        cursor = await conn.execute(
            """SELECT extract(epoch FROM until - clock_timestamp()), reason FROM quota_pause
               WHERE account = %s AND until > clock_timestamp() ORDER BY until DESC LIMIT 1""",
            [account],
        )
        if paused := await cursor.fetchone():
            return float(paused[0]), paused[1], 1.0
        ordered = sorted(limits, key=lambda limit: limit.name)
        cursor = await conn.execute(
            "SELECT wait, full_limit, fill FROM quota_take(%s, %s, %s::float8[], %s::bigint[], %s)",
            [
                account, [limit.name for limit in ordered], [limit.seconds for limit in ordered],
                [room(limit, share) for limit in ordered], cost,
            ],
        )  # fmt: skip
        found = await cursor.fetchone()
        assert found is not None
        wait, full, fill = found
        return float(wait), full, float(fill)

    async def pause(self, account: str, limit: str, seconds: float, reason: str) -> None:
        self._ahead.clear()
        async with self.db.transaction() as conn:
            await conn.execute(
                """INSERT INTO quota_pause (account, limit_name, until, reason)
                   VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s), %s)
                   ON CONFLICT (account, limit_name) DO UPDATE
                   SET until = greatest(quota_pause.until, excluded.until), reason = excluded.reason""",
                [account, limit, seconds, reason],
            )

    async def usage(self, account: str) -> dict[str, int]:
        async with self.db.connection() as conn:
            cursor = await conn.execute(
                """SELECT limit_name, quota_sum(quota_now(slots, newest, slot)) FROM quota,
                          cast(floor(extract(epoch FROM clock_timestamp()) / quota_width(seconds)) AS bigint) AS s (slot)
                   WHERE account = %s ORDER BY 1""",
                [account],
            )
            return dict(await cursor.fetchall())
