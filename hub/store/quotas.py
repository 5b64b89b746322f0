"""Quotas that all processes share: one row a limit of an account, counted on the database's clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from hub.sdk.connector import Limit
from hub.sdk.quota import room
from hub.store.database import Connection, Database


class _Full(Exception):
    """A limit has no room: what was counted so far is rolled back."""

    def __init__(self, seconds: float, limit: str) -> None:
        self.seconds, self.limit = seconds, limit


HOLD_SECONDS = 1.0
"""For so long calls that were counted ahead may be made; what is not used by then counts all the same."""


@dataclass
class _Ahead:
    """Calls that are counted and not made yet, how many were counted together, and when."""

    left: int
    taken: int
    at: float


class PostgresQuota:
    """See `hub.sdk.quota.Quota`. One short transaction a call; nothing waits inside it.

    With `ahead` calls that follow each other at once are counted up to so many together: a pull of thousands of pages then
    spends its time on pages.
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
        many = min(2 * held.taken, self.ahead) if held is not None and fresh else 1
        for calls in dict.fromkeys((many, 1)):
            try:
                taken = await self.db.repeated(
                    lambda conn, calls=calls: self._take(conn, account, limits, cost * calls, share)  # type: ignore[misc]
                )
            except _Full as full:
                taken = full.seconds, full.limit
            if taken[0] <= 0:
                self._ahead[key] = _Ahead(cost * (calls - 1), calls, now)
                break
        return taken

    async def _take(
        self, conn: Connection, account: str, limits: Sequence[Limit], cost: int, share: float
    ) -> tuple[float, str]:
        cursor = await conn.execute(
            """SELECT extract(epoch FROM until - clock_timestamp()), reason FROM quota_pause
               WHERE account = %s AND until > clock_timestamp() ORDER BY until DESC LIMIT 1""",
            [account],
        )
        if paused := await cursor.fetchone():
            return float(paused[0]), paused[1]
        # Limits are taken in one order by everybody, so that two callers never wait for each other.
        ordered = sorted(limits, key=lambda limit: limit.name)
        window = "make_interval(secs => (%(seconds)s::jsonb ->> q.limit_name)::float8)"
        cursor = await conn.execute(
            f"""
            INSERT INTO quota AS q (account, limit_name, window_start, used)
            SELECT %(account)s, name, clock_timestamp(), %(cost)s
            FROM unnest(%(names)s::text[]) WITH ORDINALITY AS l (name, place) ORDER BY place
            ON CONFLICT (account, limit_name) DO UPDATE SET
                used = CASE WHEN q.window_start + {window} <= clock_timestamp() THEN 0 ELSE q.used END + %(cost)s,
                window_start = CASE WHEN q.window_start + {window} <= clock_timestamp()
                                    THEN clock_timestamp() ELSE q.window_start END
            RETURNING limit_name, used, greatest(extract(epoch FROM window_start + {window} - clock_timestamp()), 0.001)
            """,
            {
                "account": account,
                "names": [limit.name for limit in ordered],
                "seconds": Jsonb({limit.name: limit.seconds for limit in ordered}),
                "cost": cost,
            },
        )
        taken = {name: (used, seconds) for name, used, seconds in await cursor.fetchall()}
        for limit in ordered:
            used, seconds = taken[limit.name]
            if used > room(limit, share):
                raise _Full(float(seconds), limit.name)
        return 0.0, ""

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
                "SELECT limit_name, used FROM quota WHERE account = %s ORDER BY 1", [account]
            )
            return dict(await cursor.fetchall())
