"""What each system says of a person's fields, and whose word stands where several records mean one person.

A system's word on a field is its newest value that differed from the one before, with the time at which the record
changed. A record that comes again with an old value so says nothing new, and overwrites nothing. The value that
stands depends on the words alone, not on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from hub.mapping import Standing
from hub.model import CONTACT_FIELDS
from hub.store import addresses

WORDS = """
    SELECT DISTINCT ON (i.contact_id, e.key) i.contact_id, e.key, e.value -> 'v' AS value
    FROM contact_identity i
    CROSS JOIN LATERAL jsonb_each(i.said) e
    LEFT JOIN unnest(%(who)s::text[], %(what)s::text[], %(ranks)s::int[], %(orders)s::int[])
        AS s (connection, field, rank, "order") ON s.connection = i.connection AND s.field = e.key
    WHERE i.object = 'contact' AND i.state = 'live' AND i.contact_id = ANY(%(people)s)
      AND (s.field IS NOT NULL OR %(everybody)s)
    ORDER BY i.contact_id, e.key, e.value ? 'fill', s.rank, (e.value ->> 'at')::timestamptz DESC, s."order",
             i.connection, i.external_id
"""
"""The word that stands for each field of each of these people. Needs `people` and what `ranks` gives."""

_TEXTS = ", ".join(
    f"('{name}', b.{name}, a.{name})" for name in (*CONTACT_FIELDS, "state") if name != "created_at"
)

LINEAGE = f"""
        differences AS (
            SELECT a.id, (
                SELECT jsonb_object_agg(d.key, jsonb_build_array(d.old, d.new)) FROM (
                    SELECT key, to_jsonb(old) AS old, to_jsonb(new) AS new FROM (VALUES {_TEXTS}) v (key, old, new)
                    WHERE old IS DISTINCT FROM new
                    UNION ALL
                    SELECT 'created_at', to_jsonb(b.created_at), to_jsonb(a.created_at)
                    WHERE b.created_at IS DISTINCT FROM a.created_at
                    UNION ALL
                    SELECT n.key, o.value, n.value FROM jsonb_each(a.fields) n LEFT JOIN jsonb_each(b.fields) o USING (key)
                    WHERE a.fields <> b.fields AND n.value IS DISTINCT FROM o.value
                ) d
            ) AS diff
            FROM after a JOIN before b USING (id)
        ), lineage AS (
            INSERT INTO contact_change (contact_id, at, connection, run_id, kind, diff)
            SELECT id, %(now)s, %(connection)s, %(run_id)s,
                   CASE WHEN diff ? 'state' THEN 'restored' ELSE 'changed' END, diff
            FROM differences WHERE diff IS NOT NULL
            RETURNING contact_id, diff
        ), former AS (
            INSERT INTO contact_address (contact_id, email, kind, connection, since)
            SELECT contact_id, diff -> 'email' ->> 0, 'former', %(connection)s, %(now)s FROM lineage
            WHERE diff -> 'email' ->> 0 <> ''
            ON CONFLICT (contact_id, email) DO UPDATE SET kind = excluded.kind
        )
        SELECT count(*), coalesce(array_agg(contact_id) FILTER (WHERE diff -> 'email' ->> 0 <> ''), '{{}}') FROM lineage
"""
"""After `before` and `after`, the same contacts: their differences kept as lineage, former addresses kept as such. Gives how
many changed, and which of them got another address. No difference writes nothing."""


def ranks(standing: Sequence[Standing]) -> dict[str, Any]:
    """The parameters by which `WORDS` knows who wins; without any, everybody's word counts by its time."""
    return {
        "who": [s.connection for s in standing],
        "what": [s.field for s in standing],
        "ranks": [s.rank for s in standing],
        "orders": [s.order for s in standing],
        "everybody": not standing,
    }


async def hear(
    conn: AsyncConnection[Any],
    on_blank: Mapping[str, str],
    standing: Sequence[Standing],
    values: Mapping[str, Any],
) -> bool:
    """Mark the rows of `incoming_contact` that tell of a person whom other records mean too, note what each says, and
    put what stands after that into `resolved`. Returns whether there are such rows.
    """
    cursor = await conn.execute(
        """
        UPDATE incoming_contact n SET contested = true
        WHERE n.known AND n.state = 'live' AND EXISTS (
            SELECT FROM contact_identity i WHERE i.contact_id = n.contact_id AND (
                (i.state = 'live' AND (i.connection, i.external_id) <> (%(connection)s, n.external_id)) OR i.said <> '{}'))
        RETURNING n.contact_id
        """,
        values,
    )
    people = sorted({row[0] for row in await cursor.fetchall()})
    if not people:
        return False
    values = {**values, "people": people}
    await first_words(conn, people)
    await _note(conn, on_blank, values)
    await conn.execute(
        f"""
        UPDATE incoming_contact n SET resolved = w.fields
        FROM (SELECT contact_id, jsonb_object_agg(key, value) AS fields FROM ({WORDS}) w GROUP BY 1) w
        WHERE n.contested AND n.contact_id = w.contact_id
        """,
        {**values, **ranks(standing)},
    )
    return True


async def first_words(conn: AsyncConnection[Any], people: Sequence[int]) -> None:
    """What a person's only record has said so far is what we hold of them."""
    await conn.execute(
        """
        UPDATE contact_identity i SET said = w.said
        FROM (
            SELECT c.id, jsonb_object_agg(e.key, jsonb_build_object('v', e.value, 'at', coalesce(o.vendor_changed_at, o.seen_at)))
                AS said
            FROM contact c
            JOIN contact_identity o ON o.contact_id = c.id AND o.content_hash IS NOT NULL AND o.state = 'live'
            CROSS JOIN LATERAL jsonb_each(
                to_jsonb(c) - '{id,state,fields,changed_at,merged_into}'::text[] || c.fields) e
            WHERE c.id = ANY(%(people)s) AND e.value <> 'null'
              AND (SELECT count(*) = 1 AND bool_and(x.said = '{}') FROM contact_identity x
                   WHERE x.contact_id = c.id AND x.content_hash IS NOT NULL AND x.state = 'live')
            GROUP BY 1
        ) w
        WHERE i.contact_id = w.id AND i.content_hash IS NOT NULL AND i.state = 'live'
        """,
        {"people": list(people)},
    )


async def _note(conn: AsyncConnection[Any], on_blank: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Keep what is new in the contested rows as the word of their system. A clock that runs ahead of ours gains nothing."""
    columns = ", ".join(f"'{name}', n.{name}" for name in on_blank) or "'', null"
    keep = [name for name, policy in on_blank.items() if policy != "clear"]
    fill = [name for name, policy in on_blank.items() if policy == "fill"]
    await conn.execute(
        """
        INSERT INTO contact_identity (connection, object, external_id, contact_id, seen_at)
        SELECT %(connection)s, 'contact', external_id, contact_id, %(now)s FROM incoming_contact WHERE contested
        ON CONFLICT (connection, object, external_id) DO NOTHING
        """,
        values,
    )
    await conn.execute(
        f"""
        WITH words AS (
            SELECT n.external_id, e.key, e.value, n.fill ? e.key OR e.key = ANY(%(fill)s) AS fill,
                   least(coalesce(n.vendor_changed_at, %(now)s), %(now)s) AS at
            FROM incoming_contact n
            CROSS JOIN LATERAL jsonb_each(jsonb_build_object({columns}) - n.untold || n.custom || n.fill) e
            WHERE n.contested AND e.key <> '' AND NOT (e.value = 'null' AND e.key = ANY(%(keep)s))
        ), news AS (
            SELECT w.external_id, jsonb_object_agg(w.key, jsonb_build_object('v', w.value, 'at', w.at)
                || CASE WHEN w.fill THEN jsonb_build_object('fill', true) ELSE '{{}}' END) AS said
            FROM words w JOIN contact_identity i
              ON i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = w.external_id
            WHERE (i.said -> w.key -> 'v') IS DISTINCT FROM w.value
               OR coalesce(i.said -> w.key ? 'fill', false) <> w.fill
            GROUP BY 1
        )
        UPDATE contact_identity i SET said = i.said || news.said FROM news
        WHERE i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = news.external_id
        """,
        {**values, "keep": keep, "fill": fill},
    )


def taken() -> list[str]:
    """The assignments that give a contact `c` what stands by `n.resolved`; what nobody has a word on stays."""
    found = []
    for name, field in CONTACT_FIELDS.items():
        cast = "::timestamptz" if field.type == "time" else ""
        found.append(
            f"{name} = CASE WHEN n.resolved ? '{name}' THEN (n.resolved ->> '{name}'){cast} ELSE c.{name} END"
        )
    names = ", ".join(f"'{name}'" for name in CONTACT_FIELDS)
    found.append(f"fields = c.fields || (n.resolved - ARRAY[{names}])")
    return found


async def settle(
    conn: AsyncConnection[Any],
    people: Sequence[int],
    standing: Sequence[Standing],
    values: Mapping[str, Any],
) -> None:
    """Give people what stands by the words of their records, with the difference as lineage."""
    await conn.execute(
        f"""
        WITH n AS (SELECT contact_id, jsonb_object_agg(key, value) AS resolved FROM ({WORDS}) w GROUP BY 1),
        before AS (SELECT c.* FROM contact c WHERE c.id IN (SELECT contact_id FROM n)),
        after AS (
            UPDATE contact c SET {", ".join(taken())}, changed_at = %(now)s FROM n WHERE n.contact_id = c.id RETURNING c.*
        ), {LINEAGE}
        """,
        {**values, "people": list(people), **ranks(standing)},
    )
    await addresses.carry_opt_outs(conn, people)
