"""Addresses of static lists, and the contacts that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection


async def add(
    conn: AsyncConnection[Any], name: str, addresses: Sequence[str], run_id: int, *, now: datetime
) -> tuple[int, int]:
    """Put addresses on a static list. Returns (how many were new, how many of all of these are no contact yet).

    An address means the oldest live contact that has it now, and goes on meaning it when that contact's address changes.
    """
    cursor = await conn.execute(
        """INSERT INTO list_import (list_id, address, contact_id, at, run_id)
           SELECT l.id, a.address, (SELECT min(c.id) FROM contact c WHERE c.email = a.address AND c.state = 'live'), %s, %s
           FROM list l, unnest(%s::text[]) AS a (address) WHERE l.name = %s
           ON CONFLICT (list_id, address) DO NOTHING""",
        [now, run_id, list(addresses), name],
    )
    row = await (
        await conn.execute(
            """SELECT count(*) FROM list_import i JOIN list l ON l.id = i.list_id
               WHERE l.name = %s AND i.contact_id IS NULL AND i.address = ANY(%s)""",
            [name, list(addresses)],
        )
    ).fetchone()
    return cursor.rowcount, int(row[0]) if row else 0


async def keep_only(conn: AsyncConnection[Any], name: str, addresses: Sequence[str]) -> int:
    """Take every other address off a static list. Returns how many."""
    cursor = await conn.execute(
        """DELETE FROM list_import i USING list l
           WHERE l.id = i.list_id AND l.name = %s AND NOT EXISTS (SELECT FROM unnest(%s::text[]) a WHERE a = i.address)""",
        [name, list(addresses)],
    )
    return cursor.rowcount


async def recognise(conn: AsyncConnection[Any]) -> int:
    """Tie addresses that waited for their contact to those that were touched. Returns how many."""
    cursor = await conn.execute(
        """
        UPDATE list_import i SET contact_id = n.id FROM (
            SELECT c.email, min(c.id) AS id FROM touched t JOIN contact c ON c.id = t.contact_id
            WHERE t.what = 'contact' AND c.state = 'live' AND EXISTS (SELECT FROM list_import WHERE contact_id IS NULL)
            GROUP BY c.email) n
        WHERE i.contact_id IS NULL AND i.address = n.email
        """
    )
    return cursor.rowcount
