"""The consent ledger: who may get what, by whose word, since when. Append-only; the strictest word stands.

An opt-out of any system stops a purpose (`*`: all of them). Only an opt-in with a later time and a proof lifts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb


@dataclass(frozen=True)
class Statement:
    """One word on consent. `source` is a connection's name, `web` or `admin`; `status` is `in` or `out`."""

    email: str
    purpose: str
    status: str
    source: str
    at: datetime
    contact_id: int | None = None
    proof: str = ""


async def record(conn: AsyncConnection[Any], statements: Sequence[Statement]) -> int:
    """Append statements that say something new for their source. Returns how many were appended."""
    if not statements:
        return 0
    columns = zip(
        *((s.email, s.purpose, s.status, s.source, s.at, s.contact_id, s.proof) for s in statements),
        strict=True,
    )
    cursor = await conn.execute(
        """
        WITH said AS (
            SELECT s.*, address_hash(s.email) AS hash
            FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::bigint[], %s::text[])
              AS s (email, purpose, status, source, at, contact_id, proof)
        ), new AS (
            INSERT INTO consent (email_hash, purpose, status, source, at, contact_id, proof)
            SELECT s.hash, s.purpose, s.status, s.source, s.at, s.contact_id, s.proof FROM said s
            WHERE s.status IS DISTINCT FROM (
                SELECT c.status FROM consent c
                WHERE c.email_hash = s.hash AND c.purpose = s.purpose AND c.source = s.source
                ORDER BY c.at DESC, c.id DESC LIMIT 1)
            ON CONFLICT DO NOTHING RETURNING email_hash
        ), touched AS (  -- lists may ask for the consent of whoever has the address
            INSERT INTO list_touch SELECT c.id, 'consent' FROM said s JOIN contact c ON c.email = lower(s.email)
            WHERE s.hash IN (SELECT email_hash FROM new)
        )
        SELECT count(*) FROM new
        """,
        [list(column) for column in columns],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def suppress(
    conn: AsyncConnection[Any], email: str, reason: str, *, at: datetime, evidence: dict[str, Any]
) -> bool:
    """Never send to this address again, whatever the purpose. Returns whether that is new."""
    cursor = await conn.execute(
        """INSERT INTO suppression (email_hash, reason, at, evidence) VALUES (address_hash(%s), %s, %s, %s)
           ON CONFLICT (email_hash) DO NOTHING""",
        [email, reason, at, Jsonb(evidence)],
    )
    return cursor.rowcount == 1


async def story(conn: AsyncConnection[Any], email: str) -> list[dict[str, Any]]:
    """Everything said about an address, oldest first."""
    cursor = await conn.execute(
        "SELECT purpose, status, source, at, proof FROM consent WHERE email_hash = address_hash(%s) ORDER BY at, id",
        [email],
    )
    return [
        dict(zip(("purpose", "status", "source", "at", "proof"), row, strict=True))
        for row in await cursor.fetchall()
    ]
