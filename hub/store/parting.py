"""A system that has two records again where it had made one: two people, as far as what was kept can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.mapping import Standing
from hub.store import merging


async def part(
    conn: AsyncConnection[Any], ids: Sequence[str], values: Mapping[str, Any], standing: Sequence[Standing]
) -> None:
    """Give the rows of `incoming_contact` whose ids were merged away, and live again, people of their own.

    A row that says how things were before the merge, or that another one of the batch absorbs, is dropped: it comes late.
    What the person had before the merge goes back to them where the merge made one of two known people; else they are new.
    """
    await conn.execute(
        """
        DELETE FROM incoming_contact n USING contact_identity i
        WHERE i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = n.external_id
          AND n.external_id = ANY(%(ids)s)
          AND (n.vendor_changed_at <= i.seen_at
               OR EXISTS (SELECT FROM incoming_contact o WHERE n.external_id = ANY(o.merged_ids)))
        """,
        {**values, "ids": list(ids)},
    )
    cursor = await conn.execute(
        "SELECT external_id, contact_id FROM incoming_contact WHERE external_id = ANY(%s) ORDER BY 1",
        [list(ids)],
    )
    for ref, survivor in await cursor.fetchall():
        await _part_one(conn, {**values, "ref": ref, "survivor": survivor}, standing)


async def _part_one(conn: AsyncConnection[Any], told: dict[str, Any], standing: Sequence[Standing]) -> None:
    key = Jsonb([[told["connection"], told["object"], told["ref"]]])
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT m.* FROM contact_merge m JOIN contact l ON l.id = m.loser
               WHERE m.survivor = %(survivor)s AND m.undone_at IS NULL AND m.source = %(connection)s AND l.state = 'merged'
                 AND m.moved -> 'identities' @> %(key)s ORDER BY m.id DESC LIMIT 1""",
            {**told, "key": key},
        )
        found = await cursor.fetchone()
    if found is not None:
        await merging.part(conn, found, by=told["connection"], standing=standing, now=told["now"])
        person = found["loser"]
    else:
        person = await _new(conn, told)
    told |= {"person": person, "restored": found is not None}
    await conn.execute(
        """UPDATE contact_identity SET contact_id = %(person)s, state = 'live', content_hash = NULL, said = '{}'
           WHERE connection = %(connection)s AND object = %(object)s AND external_id = %(ref)s""",
        told,
    )
    await conn.execute("UPDATE contact SET state = 'live' WHERE id = %(person)s AND state <> 'live'", told)
    await conn.execute(
        "UPDATE incoming_contact SET contact_id = %(person)s WHERE external_id = %(ref)s", told
    )
    await conn.execute(
        """INSERT INTO contact_parted (contact_id, other, connection, external_id, at, restored)
           VALUES (%(person)s, %(survivor)s, %(connection)s, %(ref)s, %(now)s, %(restored)s)""",
        told,
    )


async def _new(conn: AsyncConnection[Any], told: Mapping[str, Any]) -> int:
    """Somebody of whom nothing is known yet but that they are not the survivor."""
    cursor = await conn.execute(
        """
        WITH made AS (INSERT INTO contact (changed_at) VALUES (%(now)s) RETURNING id),
        apart AS (INSERT INTO contact_apart (one, other, at) SELECT %(survivor)s, id, %(now)s FROM made),
        lineage AS (
            INSERT INTO contact_change (contact_id, at, connection, run_id, kind, diff)
            SELECT id, %(now)s::timestamptz, %(connection)s::text, %(run_id)s::bigint, 'created', '{}'::jsonb FROM made
            UNION ALL SELECT id, %(now)s, %(connection)s, %(run_id)s, 'separated',
                             jsonb_build_object('separated_from', jsonb_build_array(null, %(survivor)s::bigint)) FROM made
            UNION ALL SELECT %(survivor)s, %(now)s, %(connection)s, %(run_id)s, 'separated',
                             jsonb_build_object('separated_from', jsonb_build_array(null, id)) FROM made)
        SELECT id FROM made
        """,
        told,
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
