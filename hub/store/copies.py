"""Fields that differ between a person and one of their records: what is to be copied there, and what rests.

What a record holds stands in its `said`: its own word, or, with `of`, what the hub wrote into it: that is no word of the
record's own, and when it comes back it is no news. `v` is the value as it comes back, `of` the one that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

WINDOW = timedelta(hours=6)
"""So far back copies are counted."""
REST = timedelta(days=1)
"""So long a field rests."""


@dataclass(frozen=True)
class Difference:
    """A field that a record holds otherwise than the person. `held` is what its `said` has of it; `same` and `all` count the
    copies of this value, and of any, into this field of the record within `WINDOW`."""

    contact_id: int
    external_id: str
    field: str
    value: Any
    held: Any
    same: int
    all: int


async def touch_all(conn: AsyncConnection[Any]) -> None:
    """Let everybody with several records be looked at."""
    await conn.execute(
        "INSERT INTO copy_touch SELECT contact_id FROM contact_identity WHERE state = 'live' GROUP BY 1 HAVING count(*) > 1"
    )


async def take(conn: AsyncConnection[Any], most: int) -> list[int]:
    """People whose records may differ, each once, taken off the queue in the caller's transaction."""
    cursor = await conn.execute(
        """WITH chosen AS (SELECT DISTINCT contact_id FROM copy_touch ORDER BY 1 LIMIT %s),
                taken AS (DELETE FROM copy_touch t USING chosen s WHERE t.contact_id = s.contact_id RETURNING t.contact_id)
           SELECT DISTINCT contact_id FROM taken ORDER BY 1""",
        [most],
    )
    return [row[0] for row in await cursor.fetchall()]


_HOLDS = """nullif(CASE WHEN {0}.said -> f.name ? 'blank' THEN NULL
    ELSE coalesce({0}.said -> f.name -> 'of', {0}.said -> f.name -> 'v') END, 'null')"""


async def differences(
    conn: AsyncConnection[Any],
    connection: str,
    fields: Sequence[str],
    people: Sequence[int],
    *,
    now: datetime,
) -> list[Difference]:
    """What the records of these people at a connection lack of what stands: only values that another of their records holds,
    and none that the connection refused for good."""
    async with conn.cursor(row_factory=class_row(Difference)) as cursor:
        await cursor.execute(
            f"""
            SELECT i.contact_id, i.external_id, f.name AS field, f.value, i.said -> f.name AS held, w.same, w.all
            FROM contact c
            JOIN contact_identity i ON i.contact_id = c.id AND i.connection = %(connection)s AND i.object = 'contact'
                 AND i.state = 'live'
            CROSS JOIN LATERAL (
                SELECT name, nullif((to_jsonb(c) || c.fields) -> name, 'null') AS value
                FROM unnest(%(fields)s::text[]) AS n (name)
            ) f
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE o.payload -> 'fields' -> f.name = coalesce(f.value, 'null')) AS same,
                       count(*) AS all,
                       coalesce(bool_or(o.payload -> 'fields' -> f.name = coalesce(f.value, 'null')
                                        AND o.state IN ('dead', 'dropped')), false) AS refused
                FROM outbox o
                WHERE o.contact_id = c.id AND o.connection = %(connection)s AND o.payload ->> 'ref' = i.external_id
                  AND o.payload -> 'fields' ? f.name AND o.created_at > %(since)s AND o.state <> 'queued'
            ) w
            WHERE c.id = ANY(%(people)s) AND c.state = 'live'
              AND f.value IS DISTINCT FROM {_HOLDS.format("i")} AND NOT w.refused
              AND EXISTS (
                SELECT FROM contact_identity o
                WHERE o.contact_id = c.id AND o.state = 'live' AND o.said ? f.name
                  AND (o.connection, o.object, o.external_id) <> (i.connection, i.object, i.external_id)
                  AND {_HOLDS.format("o")} IS NOT DISTINCT FROM f.value)
              AND NOT EXISTS (
                SELECT FROM copy_rest r WHERE r.contact_id = c.id AND r.connection = %(connection)s AND r.field = f.name
                  AND r.until > %(now)s)
            ORDER BY 1, 2, 3
            """.encode(),
            {
                "connection": connection, "fields": list(fields), "people": list(people), "now": now,
                "since": now - WINDOW,
            },
        )  # fmt: skip
        return list(await cursor.fetchall())


async def forget_queued(conn: AsyncConnection[Any], connection: str, people: Sequence[int]) -> None:
    """Take back copies that nobody has begun: what is different now is asked anew."""
    await conn.execute(
        """DELETE FROM outbox WHERE connection = %s AND contact_id = ANY(%s) AND state = 'queued' AND payload ? 'ref'
           AND attempts = 0""",
        [connection, list(people)],
    )


async def number(conn: AsyncConnection[Any]) -> int:
    """A number for a copy, so that each is a write of its own."""
    row = await (await conn.execute("SELECT nextval('outbox_claim')")).fetchone()
    assert row is not None
    return int(row[0])


async def rest(
    conn: AsyncConnection[Any], connection: str, found: Difference, reason: str, *, now: datetime
) -> None:
    """Let a field of a person rest at a connection for `REST`."""
    await conn.execute(
        """INSERT INTO copy_rest (contact_id, connection, field, reason, since, until) VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (contact_id, connection, field) DO UPDATE
           SET reason = excluded.reason, since = excluded.since, until = excluded.until""",
        [found.contact_id, connection, found.field, reason, now, now + REST],
    )


async def resting(conn: AsyncConnection[Any], contact_id: int) -> list[dict[str, Any]]:
    """The fields of a person that are not copied for now: connection, field, reason, since and until."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT r.connection, r.field, r.reason, r.since, r.until FROM copy_rest r
               WHERE r.contact_id = %s ORDER BY 1, 2""",
            [contact_id],
        )
        return list(await cursor.fetchall())


async def wrote(
    conn: AsyncConnection[Any],
    connection: str,
    external_id: str,
    fields: Mapping[str, tuple[Any, Any]],
    seen: Mapping[str, Any],
    *,
    now: datetime,
) -> None:
    """Note what a record holds after a copy: field -> (the value, the value as it will come back). A field on which the
    record has said something else since the copy was decided, as `seen`, keeps its own word; so does one whose own word was
    given back to it after a blank."""
    said = {name: {"v": back, "of": value, "at": now.isoformat()} for name, (value, back) in fields.items()}
    await conn.execute(
        """
        -- The record is another one than it was read as: whatever comes next is to be heard.
        UPDATE contact_identity i SET said = i.said || n.said, content_hash = NULL
        FROM (
            SELECT jsonb_object_agg(e.key, CASE WHEN k.said -> e.key -> 'v' = e.value -> 'of' AND NOT k.said -> e.key ? 'of'
                                                THEN (k.said -> e.key) - 'blank' ELSE e.value END) AS said
            FROM jsonb_each(%(said)s) e
            JOIN contact_identity k ON k.connection = %(connection)s AND k.object = 'contact' AND k.external_id = %(id)s
            WHERE coalesce(k.said -> e.key, 'null') = coalesce(%(seen)s::jsonb -> e.key, 'null')
        ) n
        WHERE i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = %(id)s AND n.said IS NOT NULL
        """,
        {
            "connection": connection,
            "id": external_id,
            "said": Jsonb(said),
            "seen": Jsonb(dict(seen)),
        },
    )
