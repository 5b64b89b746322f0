"""Quotas that all processes share: one row a limit of an account, counted on the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hub.sdk.connector import Limit
from hub.sdk.quota import room
from hub.store.database import Connection, Database


class _Full(Exception):
    """A limit has no room: what was counted so far is rolled back."""

    def __init__(self, seconds: float, limit: str) -> None:
        self.seconds, self.limit = seconds, limit


class PostgresQuota:
    """See `hub.sdk.quota.Quota`. One short transaction a call; nothing waits inside it."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def take(
        self, account: str, limits: Sequence[Limit], *, cost: int, share: float
    ) -> tuple[float, str]:
        try:
            return await self.db.repeated(lambda conn: self._take(conn, account, limits, cost, share))
        except _Full as full:
            return full.seconds, full.limit

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
        for limit in sorted(limits, key=lambda limit: limit.name):
            cursor = await conn.execute(
                """
                INSERT INTO quota AS q (account, limit_name, window_start, used)
                VALUES (%(account)s, %(name)s, clock_timestamp(), %(cost)s)
                ON CONFLICT (account, limit_name) DO UPDATE SET
                    used = CASE WHEN q.window_start + %(window)s <= clock_timestamp() THEN 0 ELSE q.used END + %(cost)s,
                    window_start = CASE WHEN q.window_start + %(window)s <= clock_timestamp()
                                        THEN clock_timestamp() ELSE q.window_start END
                RETURNING used, greatest(extract(epoch FROM window_start + %(window)s - clock_timestamp()), 0.001)
                """,
                {
                    "account": account,
                    "name": limit.name,
                    "cost": cost,
                    "window": timedelta(seconds=limit.seconds),
                },
            )
            row = await cursor.fetchone()
            assert row is not None
            if row[0] > room(limit, share):
                raise _Full(float(row[1]), limit.name)
        return 0.0, ""

    async def pause(self, account: str, limit: str, seconds: float, reason: str) -> None:
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
