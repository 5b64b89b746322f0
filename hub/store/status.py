"""The numbers of a running hub, each one countable again in its table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from hub.store import events, inbox, obligations, outbox


async def numbers(conn: AsyncConnection[Any], *, now: datetime) -> dict[str, Any]:
    """What was pulled, list sizes, funnel entries, deliveries by state, results by kind, outbox, inbox, and how far opt-outs
    are told."""
    one = await (
        await conn.execute(
            """SELECT (SELECT count(*) FROM contact WHERE state = 'live'), (SELECT count(*) FROM deal WHERE state = 'live'),
                      (SELECT count(*) FROM segment WHERE state = 'live'), (SELECT count(*) FROM company WHERE state = 'live')"""
        )
    ).fetchone()
    assert one is not None
    lists = await conn.execute(
        """SELECT l.name, count(m.contact_id) FROM list l LEFT JOIN list_member m ON m.list_id = l.id
           WHERE l.retired_at IS NULL GROUP BY l.name ORDER BY l.name"""
    )
    funnels = await conn.execute(
        """SELECT f.name, e.state, count(*) FROM funnel f JOIN funnel_entry e ON e.funnel_id = f.id GROUP BY 1, 2 ORDER BY 1, 2"""
    )
    deliveries = await conn.execute("SELECT state, count(*) FROM delivery GROUP BY state ORDER BY state")
    entries: dict[str, dict[str, int]] = {}
    for name, state, count in await funnels.fetchall():
        entries.setdefault(name, {})[state] = count
    return {
        "contacts": one[0],
        "companies": one[3],
        "deals": one[1],
        "segments": one[2],
        "lists": dict(await lists.fetchall()),
        "funnels": entries,
        "deliveries": dict(await deliveries.fetchall()),
        "results": await events.totals(conn),
        "outbox": await outbox.counts(conn),
        "inbox": await inbox.counts(conn),
        "opt_outs": await obligations.sums(conn, now=now),
    }


async def ages(conn: AsyncConnection[Any], *, now: datetime) -> dict[str, dict[str, Any]]:
    """Seconds since each stream was last read to its end, and for how long the oldest of what is due has waited."""
    streams = await conn.execute(
        """SELECT connection, stream, extract(epoch FROM %s - max(finished_at)) FROM run
           WHERE kind = 'pull' AND state = 'done' GROUP BY 1, 2 ORDER BY 1, 2""",
        [now],
    )
    found: dict[str, dict[str, float]] = {}
    for connection, stream, age in await streams.fetchall():
        found.setdefault(connection, {})[stream] = float(age)
    waiting = await conn.execute(
        """SELECT 'mail', extract(epoch FROM %(now)s - min(coalesce(not_before, queued_at))) FROM delivery
               WHERE state = 'queued' AND coalesce(not_before, '-infinity') <= %(now)s
           UNION ALL SELECT 'outbox', extract(epoch FROM %(now)s - min(created_at)) FROM outbox WHERE state = 'queued'
           UNION ALL SELECT 'inbox', extract(epoch FROM %(now)s - min(received_at)) FROM inbox WHERE state = 'new'""",
        {"now": now},
    )
    return {
        "stream_age_seconds": found,
        "waiting_seconds": {what: float(age or 0) for what, age in await waiting.fetchall()},
    }
