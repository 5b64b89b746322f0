"""Dynamic lists: their members, and who joined and left, written as differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row


@dataclass(frozen=True)
class Moved:
    """What one refresh of a list changed."""

    size: int
    joined: int
    left: int


async def register(conn: AsyncConnection[Any], rules: Mapping[str, str], *, now: datetime) -> dict[str, int]:
    """Make the table know exactly the configured lists. Returns name -> id. Lists that are gone are retired, not dropped."""
    await conn.execute(
        "UPDATE list SET retired_at = %s WHERE retired_at IS NULL AND NOT name = ANY(%s)", [now, list(rules)]
    )
    cursor = await conn.execute(
        """INSERT INTO list AS l (name, rule) SELECT name, rule FROM unnest(%s::text[], %s::text[]) AS r (name, rule)
           ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, retired_at = NULL,
               refreshed_at = CASE WHEN l.rule = excluded.rule THEN l.refreshed_at END
           RETURNING name, id""",
        [list(rules), list(rules.values())],
    )
    return dict(await cursor.fetchall())


async def lock(conn: AsyncConnection[Any], list_id: int) -> None:
    """Hold a list until the transaction ends: its changes become visible in the order of their ids."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('hub list'), %s::int)", [list_id])


async def refresh(
    conn: AsyncConnection[Any], list_id: int, select: str, values: Mapping[str, Any], *, now: datetime
) -> Moved:
    """Bring the members in line with the rule's `select`, in the caller's transaction; only differences are written."""
    await lock(conn, list_id)
    cursor = await conn.execute(
        f"""
        WITH wanted AS ({select}),
        joined AS (
            INSERT INTO list_member (list_id, contact_id, joined_at)
            SELECT %(list_id)s, w.id, %(now)s FROM wanted w
            WHERE NOT EXISTS (SELECT FROM list_member m WHERE m.list_id = %(list_id)s AND m.contact_id = w.id)
            RETURNING contact_id
        ),
        gone AS (
            DELETE FROM list_member m WHERE m.list_id = %(list_id)s
              AND NOT EXISTS (SELECT FROM wanted w WHERE w.id = m.contact_id)
            RETURNING m.contact_id
        ),
        changes AS (
            INSERT INTO list_change (list_id, contact_id, change, at)
            SELECT %(list_id)s, contact_id, 'left', %(now)s::timestamptz FROM gone
            UNION ALL SELECT %(list_id)s, contact_id, 'joined', %(now)s FROM joined
        )
        SELECT (SELECT count(*) FROM wanted), (SELECT count(*) FROM joined), (SELECT count(*) FROM gone)
        """.encode(),
        {**values, "list_id": list_id, "now": now},
    )
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute("UPDATE list SET refreshed_at = %s, waits_for = '{}' WHERE id = %s", [now, list_id])
    return Moved(*row)


async def hold(conn: AsyncConnection[Any], list_id: int, waits_for: Sequence[str]) -> None:
    """Leave a list as it is and remember what it waits for."""
    await conn.execute("UPDATE list SET waits_for = %s WHERE id = %s", [list(waits_for), list_id])


async def all_sizes(conn: AsyncConnection[Any]) -> list[dict[str, Any]]:
    """Every configured list with its size and age."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT l.name, count(m.contact_id) AS members, l.refreshed_at, l.waits_for, l.rule
               FROM list l LEFT JOIN list_member m ON m.list_id = l.id WHERE l.retired_at IS NULL GROUP BY l.id ORDER BY l.name"""
        )
        return list(await cursor.fetchall())


async def newest_changes(conn: AsyncConnection[Any], name: str, limit: int = 50) -> list[dict[str, Any]]:
    """Who joined and left a list, newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT ch.at, ch.contact_id, c.email, ch.change FROM list_change ch JOIN list l ON l.id = ch.list_id
               JOIN contact c ON c.id = ch.contact_id WHERE l.name = %s ORDER BY ch.id DESC LIMIT %s""",
            [name, limit],
        )
        return list(await cursor.fetchall())


async def ask(
    conn: AsyncConnection[Any], conditions: Sequence[str], values: Mapping[str, Any], contact_id: int
) -> list[bool | None]:
    """Whether each condition holds for one contact."""
    if not conditions:
        return []
    columns = ", ".join(f"({sql})" for sql in conditions)
    cursor = await conn.execute(
        f"SELECT {columns} FROM contact c WHERE c.id = %(contact_id)s".encode(),
        {**values, "contact_id": contact_id},
    )
    row = await cursor.fetchone()
    return list(row) if row else [None] * len(conditions)
