"""People on their way through funnels: entering, waking, moving, leaving, each with a line for "why"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from hub.store import lists


@dataclass(frozen=True)
class Entry:
    """A person at a step, locked for the caller's transaction."""

    id: int
    contact_id: int
    occurrence: int
    position: str
    state: str  # of the contact: live, archived, deleted, merged


async def register(conn: AsyncConnection[Any], names: Sequence[str], *, now: datetime) -> dict[str, int]:
    """Make the table know exactly the configured funnels. Returns name -> id."""
    await conn.execute(
        "UPDATE funnel SET retired_at = %s WHERE retired_at IS NULL AND NOT name = ANY(%s)",
        [now, list(names)],
    )
    cursor = await conn.execute(
        "INSERT INTO funnel (name) SELECT unnest(%s::text[])"
        " ON CONFLICT (name) DO UPDATE SET retired_at = NULL RETURNING name, id",
        [list(names)],
    )
    return dict(await cursor.fetchall())


async def take_in(
    conn: AsyncConnection[Any], funnel_id: int, list_name: str, *, again: bool, now: datetime
) -> int:
    """Let people enter who joined the list since the last time. Returns how many entered.

    Nobody enters who has left the list meanwhile, or while they are on their way; who has been through enters
    again only with `again`.
    """
    row = await (await conn.execute("SELECT id FROM list WHERE name = %s", [list_name])).fetchone()
    if row is None:
        return 0
    await lists.lock(conn, row[0])
    cursor = await conn.execute(
        """
        WITH fresh AS (
            SELECT ch.contact_id, max(ch.id) AS last FROM list_change ch, funnel f
            WHERE f.id = %(funnel)s AND ch.list_id = %(list)s AND ch.id > f.read_to AND ch.change = 'joined'
            GROUP BY ch.contact_id
        ), entered AS (
            INSERT INTO funnel_entry (funnel_id, contact_id, occurrence, wake_at, entered_at)
            SELECT %(funnel)s, n.contact_id, 1 + (SELECT count(*) FROM funnel_entry e
                       WHERE e.funnel_id = %(funnel)s AND e.contact_id = n.contact_id), %(now)s, %(now)s
            FROM fresh n
            WHERE EXISTS (SELECT FROM list_member m WHERE m.list_id = %(list)s AND m.contact_id = n.contact_id)
              AND NOT EXISTS (SELECT FROM funnel_entry e WHERE e.funnel_id = %(funnel)s AND e.contact_id = n.contact_id
                              AND (NOT %(again)s OR e.state = 'active'))
            RETURNING id
        ), told AS (
            INSERT INTO funnel_log (entry_id, at, position, what, detail)
            SELECT id, %(now)s, '0', 'entered', jsonb_build_object('list', %(name)s::text) FROM entered
        ), moved AS (
            UPDATE funnel SET read_to = greatest(read_to, coalesce((SELECT max(id) FROM list_change WHERE list_id = %(list)s), 0))
            WHERE id = %(funnel)s
        )
        SELECT count(*) FROM entered
        """,
        {"funnel": funnel_id, "list": row[0], "again": again, "now": now, "name": list_name},
    )
    found = await cursor.fetchone()
    assert found is not None
    return int(found[0])


async def due(conn: AsyncConnection[Any], funnel_id: int, limit: int, *, now: datetime) -> list[Entry]:
    """People whose next step is due, locked; those that another process holds are left to it."""
    cursor = await conn.execute(
        """SELECT e.id, e.contact_id, e.occurrence, e.position, c.state FROM funnel_entry e JOIN contact c ON c.id = e.contact_id
           WHERE e.funnel_id = %s AND e.state = 'active' AND e.wake_at <= %s ORDER BY e.wake_at, e.id LIMIT %s
           FOR UPDATE OF e SKIP LOCKED""",
        [funnel_id, now, limit],
    )
    return [Entry(*row) for row in await cursor.fetchall()]


async def true_for(conn: AsyncConnection[Any], select: str, values: Mapping[str, Any]) -> set[int]:
    """Which of the contacts in `values['contacts']` a rule holds for."""
    cursor = await conn.execute(select.encode(), values)
    return {row[0] for row in await cursor.fetchall()}


async def move(
    conn: AsyncConnection[Any], entries: Sequence[Entry], positions: Sequence[str], wake_at: datetime
) -> None:
    """Put people before their next step, to be taken at `wake_at`."""
    await conn.execute(
        """UPDATE funnel_entry e SET position = m.position, wake_at = %s
           FROM unnest(%s::bigint[], %s::text[]) AS m (id, position) WHERE e.id = m.id""",
        [wake_at, [e.id for e in entries], list(positions)],
    )


async def finish(
    conn: AsyncConnection[Any],
    entries: Sequence[Entry],
    state: str,
    reason: str,
    *,
    code: str = "",
    now: datetime,
) -> None:
    """End the way of these people: `done` at the end, `left` before it; then `code` is contact-gone, step-gone or leave-rule."""
    await conn.execute(
        "UPDATE funnel_entry SET state = %s, reason = %s, reason_code = %s, finished_at = %s WHERE id = ANY(%s)",
        [state, reason, code, now, [e.id for e in entries]],
    )
    await log(conn, [(e, state, {"reason": reason} if reason else {}) for e in entries], now=now)


async def log(
    conn: AsyncConnection[Any], lines: Sequence[tuple[Entry, str, dict[str, Any]]], *, now: datetime
) -> None:
    """A line for each (entry, what happened, detail)."""
    await conn.execute(
        """INSERT INTO funnel_log (entry_id, at, position, what, detail)
           SELECT id, %s, position, what, detail::jsonb
           FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS l (id, position, what, detail)""",
        [
            now,
            [e.id for e, _, _ in lines],
            [e.position for e, _, _ in lines],
            [what for _, what, _ in lines],
            [msgspec.json.encode(detail).decode() for _, _, detail in lines],
        ],
    )


async def overview(conn: AsyncConnection[Any]) -> list[dict[str, Any]]:
    """funnel, state, next step: how many people, and when the next of them is due."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT f.name AS funnel, e.state, CASE WHEN e.state = 'active' THEN e.position ELSE '' END AS position,
                      count(*) AS people, min(e.wake_at) FILTER (WHERE e.state = 'active') AS next_wake
               FROM funnel_entry e JOIN funnel f ON f.id = e.funnel_id GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
        )
        return list(await cursor.fetchall())
