"""Contacts that were touched since the lists were brought up to date: a queue that triggers fill.

A row is written in the transaction of the change that it tells of, so a change and its touch are seen together.
Whoever takes rows away and then looks at the contacts, in statements of one transaction, sees each change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import AsyncConnection


async def take(conn: AsyncConnection[Any], wanted: Collection[str], most: int) -> dict[str, list[int] | None]:
    """Empty the queue in the caller's transaction. Returns what -> contacts, each once; None where they are more than `most`.

    What nobody wants is thrown away.
    """
    cursor = await conn.execute(
        """
        WITH taken AS (DELETE FROM list_touch RETURNING contact_id, contacts, what),
        each AS (SELECT DISTINCT what, c AS contact_id FROM taken, unnest(coalesce(contacts, ARRAY[contact_id])) AS c
                 WHERE what = ANY(%(wanted)s))
        SELECT what, CASE WHEN count(*) <= %(most)s THEN array_agg(contact_id) END FROM each GROUP BY what
        """,
        {"wanted": list(wanted), "most": most},
    )
    return dict(await cursor.fetchall())


async def add(conn: AsyncConnection[Any], contacts: Sequence[int], what: str) -> None:
    """Touch contacts from the hub's own code."""
    if contacts:
        await conn.execute("INSERT INTO list_touch (contacts, what) VALUES (%s, %s)", [list(contacts), what])


async def too_many(conn: AsyncConnection[Any]) -> int:
    """From how many contacts on one look at all of them is cheaper than one at each of these."""
    cursor = await conn.execute("SELECT reltuples FROM pg_class WHERE oid = 'contact'::regclass")
    row = await cursor.fetchone()
    return 1_000 + int(max(row[0], 0) if row else 0) // 50
