"""What waits to be done, asked of PostgreSQL alone: this is how lost wake-up calls are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

LIST_MAX_AGE = timedelta(minutes=5)
NIGHT = timedelta(hours=3)
"""When lists are held against their whole rules, after midnight in UTC."""


@dataclass(frozen=True)
class Waiting:
    """Work of one kind. `key` is a connection (and stream) where the kind needs one; `count` is how much, at least 1."""

    kind: str
    key: str
    count: int


async def waiting(
    conn: AsyncConnection[Any],
    *,
    now: datetime,
    delivered_after: timedelta,
    schedule: Mapping[str, tuple[timedelta, Sequence[str]]],
    entrances: Mapping[str, str],
) -> list[Waiting]:
    """Everything that is due at `now`. `schedule` is connection -> (how often, streams); `entrances` funnel -> list."""
    cursor = await conn.execute(
        """
        SELECT 'inbox', connection, count(*) FROM inbox WHERE state = 'new' AND due_at <= clock_timestamp()
        GROUP BY connection
        UNION ALL
        SELECT 'lists', '', 1 WHERE EXISTS (SELECT FROM list_touch) OR EXISTS (
            SELECT FROM list WHERE retired_at IS NULL AND CASE
                WHEN problem <> '' THEN retry_at <= %(now)s
                WHEN waits_for <> '{}' THEN waits_for <@ (  -- what it waited for has come
                    SELECT array_agg(connection || '/' || stream) FROM cursor WHERE loaded_at IS NOT NULL)
                ELSE needs_rebuild OR due_at <= %(now)s OR refreshed_at IS NULL OR refreshed_at <= %(now)s - %(list_max_age)s END)
        UNION ALL
        SELECT 'lists', 'verify', count(*) FROM list WHERE retired_at IS NULL AND problem = '' AND waits_for = '{}'
            AND verified_at < %(verified_after)s HAVING count(*) > 0
        UNION ALL
        SELECT 'funnels', '', count(*) FROM funnel_entry WHERE state = 'active' AND wake_at <= %(now)s HAVING count(*) > 0
        UNION ALL
        SELECT 'funnels', '', count(*) FROM unnest(%(funnels)s::text[], %(entrances)s::text[]) AS e (funnel, list)
        JOIN list l ON l.name = e.list LEFT JOIN funnel f ON f.name = e.funnel
        WHERE EXISTS (SELECT FROM list_change ch WHERE ch.list_id = l.id AND ch.id > coalesce(f.read_to, 0)) HAVING count(*) > 0
        UNION ALL
        SELECT 'campaigns', '', count(*) FROM campaign k
        WHERE (k.state = 'approved' AND k.first_at <= %(now)s)
           OR (k.state IN ('approved', 'sending') AND NOT EXISTS (
                   SELECT FROM delivery d WHERE d.campaign_id = k.id AND d.state IN ('queued', 'claimed', 'held')))
        HAVING count(*) > 0
        UNION ALL
        SELECT 'mail', '', count(*) FROM delivery
        WHERE (state = 'queued' AND coalesce(not_before, '-infinity') <= %(now)s
               AND (retry_at IS NULL OR retry_at <= clock_timestamp()))
           OR (lease_until IS NOT NULL AND (lease_until < clock_timestamp() OR NOT work_is_held('worker:' || claimed_by)))
        HAVING count(*) > 0
        UNION ALL
        SELECT 'results', '', count(*) FROM event WHERE planned_at IS NULL HAVING count(*) > 0
        UNION ALL
        SELECT 'results', 'settle', count(*) FROM delivery
        WHERE state = 'accepted' AND settled_at IS NULL AND sent_at <= %(now)s - %(delivered_after)s HAVING count(*) > 0
        UNION ALL
        SELECT 'push', connection, count(*) FROM outbox
        WHERE (state = 'queued' AND due_at <= clock_timestamp())
           OR (state = 'attempting' AND NOT work_is_held('push:' || connection))
        GROUP BY connection
        """,
        {
            "now": now,
            "list_max_age": LIST_MAX_AGE,
            "verified_after": last_night(now),
            "delivered_after": delivered_after,
            "funnels": list(entrances),
            "entrances": list(entrances.values()),
        },
    )
    found = [Waiting(*row) for row in await cursor.fetchall()]
    return await _due_pulls(conn, schedule, now=now) + found


def last_night(now: datetime) -> datetime:
    """The last time that lists were to be verified at."""
    return (now - NIGHT).replace(hour=0, minute=0, second=0, microsecond=0) + NIGHT


async def _due_pulls(
    conn: AsyncConnection[Any], schedule: Mapping[str, tuple[timedelta, Sequence[str]]], *, now: datetime
) -> list[Waiting]:
    """Streams whose last pull is too long ago, or stopped early and may go on."""
    cursor = await conn.execute(
        "SELECT DISTINCT ON (connection, stream) connection, stream, started_at, resume_after "
        "FROM run WHERE kind = 'pull' ORDER BY connection, stream, id DESC"
    )
    last = {(connection, stream): rest for connection, stream, *rest in await cursor.fetchall()}
    due = []
    for connection, (every, streams) in schedule.items():
        for stream in streams:
            started_at, resume_after = last.get((connection, stream), (None, None))
            late = started_at is None or now - started_at >= every
            resumable = resume_after is not None and resume_after <= now
            if late or resumable:
                due.append(Waiting("pull", f"{connection}/{stream}", 1))
    return due


async def busy(conn: AsyncConnection[Any]) -> dict[str, int]:
    """Work that somebody is at right now or that waits for a moment of real time: kind -> rows."""
    cursor = await conn.execute(
        """
        SELECT 'mail', count(*) FROM delivery WHERE state = 'claimed' OR (state = 'queued' AND retry_at IS NOT NULL)
        UNION ALL SELECT 'push', count(*) FROM outbox WHERE state IN ('attempting', 'queued')
        UNION ALL SELECT 'runs', count(*) FROM run WHERE state = 'running'
        """
    )
    return {kind: count for kind, count in await cursor.fetchall() if count}


async def next_due(
    conn: AsyncConnection[Any], *, delivered_after: timedelta, now: datetime
) -> datetime | None:
    """When time changes a list, or a wait of a funnel or a grace time ends, in hub time; None when nothing waits."""
    row = await (
        await conn.execute(
            """SELECT least(
                   (SELECT min(wake_at) FROM funnel_entry WHERE state = 'active'),
                   (SELECT min(due_at) FROM list WHERE retired_at IS NULL AND due_at > %(now)s),
                   (SELECT min(not_before) FROM delivery WHERE state = 'queued' AND coalesce(not_before, '-infinity') > %(now)s),
                   (SELECT min(sent_at) + %(grace)s FROM delivery WHERE state = 'accepted' AND settled_at IS NULL))""",
            {"grace": delivered_after, "now": now},
        )
    ).fetchone()
    return row[0] if row else None
