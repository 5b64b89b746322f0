"""Segments of each connection and their members, by the vendor's ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection


@dataclass(frozen=True)
class SegmentRow:
    """A segment with all its members; `members` None leaves the membership as it is."""

    external_id: str
    name: str
    kind: str
    state: str
    members: Sequence[str] | None


async def merge(conn: AsyncConnection[Any], connection: str, row: SegmentRow, *, now: datetime) -> bool:
    """Bring one segment in, in the caller's transaction; only differences in membership are written.

    Returns whether anything changed.
    """
    cursor = await conn.execute(
        """
        INSERT INTO segment AS s (connection, external_id, name, kind, state, changed_at) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (connection, external_id) DO UPDATE
        SET name = excluded.name, kind = excluded.kind, state = excluded.state,
            changed_at = CASE WHEN (s.name, s.kind, s.state) IS DISTINCT FROM (excluded.name, excluded.kind, excluded.state)
                              THEN excluded.changed_at ELSE s.changed_at END
        RETURNING id, changed_at = %s
        """,
        [connection, row.external_id, row.name, row.kind, row.state, now, now],
    )
    found = await cursor.fetchone()
    assert found is not None
    segment_id, changed = found
    if row.members is None:
        return bool(changed)
    members = list(row.members)
    removed = await conn.execute(
        """DELETE FROM segment_member m WHERE m.segment_id = %s
           AND NOT EXISTS (SELECT FROM unnest(%s::text[]) AS w (ref) WHERE w.ref = m.contact_ref)""",
        [segment_id, members],
    )
    added = await conn.execute(
        """INSERT INTO segment_member (segment_id, connection, contact_ref, since)
           SELECT DISTINCT %s::bigint, %s, ref, %s::timestamptz FROM unnest(%s::text[]) AS w (ref)
           ON CONFLICT DO NOTHING""",
        [segment_id, connection, now, members],
    )
    return bool(changed or removed.rowcount or added.rowcount)


async def names(conn: AsyncConnection[Any]) -> set[str]:
    """Names of all live segments, for the check of rules."""
    cursor = await conn.execute("SELECT DISTINCT name FROM segment WHERE state = 'live'")
    return {row[0] for row in await cursor.fetchall()}
