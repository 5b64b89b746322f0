"""What people decided by hand, each with its reason: who settled a mail, who suppressed an address or let it go again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.store import consent, erasing
from hub.store.database import Connection

BY_HAND = "by hand: "


@dataclass(frozen=True)
class Decision:
    """`what` is settled, suppressed or lifted; it is about a delivery or an address."""

    what: str
    because: str
    by: str
    at: datetime
    delivery_id: int | None = None
    email: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


async def record(conn: Connection, decision: Decision) -> None:
    await conn.execute(
        """INSERT INTO decision (at, decided_by, what, because, delivery_id, email_hash, detail)
           VALUES (%s, %s, %s, %s, %s, CASE WHEN %s::text IS NOT NULL THEN address_hash(%s) END, %s)""",
        [decision.at, decision.by, decision.what, decision.because, decision.delivery_id, decision.email, decision.email,
         Jsonb(dict(decision.detail))],
    )  # fmt: skip


_COLUMNS = "at, what, decided_by, because, detail"


async def of_delivery(conn: Connection, delivery_id: int) -> list[dict[str, Any]]:
    """The decisions about a mail, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM decision WHERE delivery_id = %s ORDER BY id".encode(), [delivery_id]
        )
        return list(await cursor.fetchall())


async def of_address(conn: Connection, email: str) -> list[dict[str, Any]]:
    """The decisions about an address, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM decision WHERE email_hash = address_hash(%s) ORDER BY id".encode(),
            [email],
        )
        return list(await cursor.fetchall())


# --- suppression ---------------------------------------------------------------------------------------------------


async def suppressed(conn: Connection, *, email: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Suppressed addresses, the newest first, or one address: `reason`, `at`, `evidence`, and `email` where the evidence
    names a mail or a contact of ours. The hub itself keeps no address that it suppresses, only its hash."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT coalesce(%(email)s, d.email, c.email) AS email, s.reason, s.at, s.evidence
            FROM suppression s
            LEFT JOIN delivery d ON d.id = (s.evidence ->> 'delivery')::bigint AND address_hash(d.email) = s.email_hash
            LEFT JOIN contact c ON c.id = (s.evidence ->> 'contact')::bigint AND address_hash(c.email) = s.email_hash
            WHERE %(email)s::text IS NULL OR s.email_hash = address_hash(%(email)s)
            ORDER BY s.at DESC LIMIT %(limit)s
            """,
            {"email": email, "limit": limit},
        )
        return list(await cursor.fetchall())


async def sums(conn: Connection) -> dict[str, int]:
    """How many addresses are suppressed, by reason; all that were suppressed by hand count together."""
    cursor = await conn.execute(
        """SELECT CASE WHEN starts_with(reason, %(hand)s) THEN rtrim(%(hand)s, ': ') ELSE reason END, count(*)
           FROM suppression GROUP BY 1 ORDER BY 2 DESC, 1""",
        {"hand": BY_HAND},
    )
    return dict(await cursor.fetchall())


async def suppress(conn: Connection, email: str, *, because: str, by: str, now: datetime) -> bool:
    """Never send to an address again, in the caller's transaction. Returns whether that is new."""
    row = await (
        await conn.execute("SELECT min(id) FROM contact WHERE email = lower(%s)", [email])
    ).fetchone()
    evidence = {"contact": row[0]} if row and row[0] is not None else {}
    if not await consent.suppress(conn, email, BY_HAND + because, at=now, evidence=evidence):
        return False
    await record(conn, Decision("suppressed", because, by, now, email=email))
    return True


async def lift(
    conn: Connection, email: str, *, because: str, by: str, now: datetime
) -> dict[str, Any] | None:
    """Let an address get mail again, in the caller's transaction, as far as its owner's consent goes. Returns what had
    suppressed it; None when nothing had."""
    cursor = await conn.execute(
        "DELETE FROM suppression WHERE email_hash = address_hash(%s) RETURNING reason, at, evidence", [email]
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    await erasing.unbarred(conn, email)
    was = {"reason": row[0], "at": row[1].isoformat(), "evidence": row[2]}
    await record(conn, Decision("lifted", because, by, now, email=email, detail=was))
    return was
