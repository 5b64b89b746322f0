"""What a rehearsal has put into the tables since a mark: counts and a few examples of each thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection


@dataclass(frozen=True)
class Marks:
    """The newest ids before a rehearsal."""

    change: int


async def marks(conn: AsyncConnection[Any]) -> Marks:
    row = await (await conn.execute("SELECT coalesce(max(id), 0) FROM list_change")).fetchone()
    assert row is not None
    return Marks(row[0])


async def since(conn: AsyncConnection[Any], before: Marks, *, samples: int) -> dict[str, Any]:
    """`joined` (list -> addresses), `mails` (what is queued, and why some would be held back), `writes` (what is due)."""
    joined = await conn.execute(
        """SELECT l.name, (array_agg(c.email ORDER BY ch.id))[1:%s] FROM list_change ch JOIN list l ON l.id = ch.list_id
           JOIN contact c ON c.id = ch.contact_id WHERE ch.id > %s AND ch.change = 'joined' GROUP BY l.name""",
        [samples, before.change],
    )
    mails = await conn.execute(
        """SELECT d.message, count(*) FILTER (WHERE d.state IN ('queued', 'claimed')),
                  count(*) FILTER (WHERE d.state = 'excluded' AND d.claimed_by = 'plan'),
                  (array_agg(c.email ORDER BY d.id) FILTER (WHERE d.state IN ('queued', 'claimed')))[1:%s],
                  (SELECT jsonb_object_agg(reason, n) FROM (SELECT x.reason, count(*) AS n FROM delivery x
                    WHERE x.message = d.message AND x.state = 'excluded' AND x.claimed_by = 'plan' GROUP BY 1) AS r)
           FROM delivery d JOIN contact c ON c.id = d.contact_id
           WHERE d.state IN ('queued', 'claimed') OR (d.state = 'excluded' AND d.claimed_by = 'plan')
           GROUP BY d.message ORDER BY d.message""",
        [samples],
    )
    writes = await conn.execute(
        """SELECT o.connection, o.kind, count(*), (array_agg(concat_ws(' ', c.email, o.payload ->> 'kind', o.payload ->> 'fields')
                  ORDER BY o.id))[1:%s]
           FROM outbox o LEFT JOIN contact c ON c.id = o.contact_id WHERE o.state = 'queued' GROUP BY 1, 2 ORDER BY 1, 2""",
        [samples],
    )
    return {
        "joined": {name: found or [] for name, found in await joined.fetchall()},
        "mails": [
            {"message": m, "send": n, "excluded": x, "samples": s or [], "reasons": r or {}}
            for m, n, x, s, r in await mails.fetchall()
        ],
        "writes": [
            {"connection": c, "kind": k, "count": n, "samples": s or []}
            for c, k, n, s in await writes.fetchall()
        ],
    }
