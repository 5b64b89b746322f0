"""Every address of a person beside the one that is written to, and the opt-outs that were said under any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from hub.store import obligations


async def note_others(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> None:
    """Keep the addresses that the rows of `incoming_contact` tell in `other_emails`; those no longer told go."""
    told = """SELECT DISTINCT i.contact_id, lower(trim(o.email)) AS email FROM incoming_contact n
              JOIN contact_identity i ON i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = n.external_id
              CROSS JOIN LATERAL jsonb_array_elements_text(
                  CASE jsonb_typeof(n.custom -> 'other_emails') WHEN 'array' THEN n.custom -> 'other_emails' ELSE '[]' END
              ) AS o (email)
              WHERE n.state = 'live' AND trim(o.email) <> ''"""
    await conn.execute(
        f"""
        DELETE FROM contact_address a USING incoming_contact n
        WHERE a.contact_id = n.contact_id AND n.custom ? 'other_emails' AND a.kind = 'other'
          AND a.connection = %(connection)s AND (a.contact_id, a.email) NOT IN ({told})
        """,
        values,
    )
    cursor = await conn.execute(
        f"""
        WITH told AS ({told}), kept AS (
            INSERT INTO contact_address (contact_id, email, kind, connection, since)
            SELECT t.contact_id, t.email, 'other', %(connection)s, %(now)s FROM told t
            ON CONFLICT (contact_id, email) DO UPDATE SET kind = 'other', connection = excluded.connection
            WHERE contact_address.kind = 'former'
        )
        SELECT DISTINCT contact_id FROM told
        """,
        values,
    )
    await carry_opt_outs(conn, [row[0] for row in await cursor.fetchall()])


async def carry_opt_outs(conn: AsyncConnection[Any], contact_ids: Sequence[int]) -> int:
    """An opt-out is a person's, not an address's: what stands under a former address, or one that another system knows,
    holds for the one that is written to now. Returns how many were carried over.
    """
    if not contact_ids:
        return 0
    cursor = await conn.execute(
        """
        WITH carried AS (
        INSERT INTO consent (email_hash, contact_id, purpose, channel, status, source, source_kind, how, dated, at, recorded_at,
                             proof)
        SELECT address_hash(c.email), c.id, n.purpose, n.channel, 'out', n.source, n.source_kind, 'carried', n.dated, n.at,
               n.recorded_at, 'said under another address of this person'
        FROM contact c
        CROSS JOIN LATERAL (
            SELECT o.email FROM contact_address o WHERE o.contact_id = c.id
            UNION SELECT i.said -> 'email' ->> 'v' FROM contact_identity i WHERE i.contact_id = c.id AND i.said ? 'email'
        ) a
        JOIN consent n ON n.email_hash = address_hash(a.email) AND n.status = 'out'
        WHERE c.id IN (SELECT coalesce(k.merged_into, k.id) FROM contact k WHERE k.id = ANY(%s))
          AND c.email <> '' AND a.email <> c.email
          AND NOT EXISTS (
            SELECT FROM consent y WHERE y.email_hash IN (n.email_hash, address_hash(c.email)) AND y.status = 'in'
              AND y.dated AND y.proof <> '' AND y.channel = n.channel AND y.purpose IN (n.purpose, '*') AND y.at > n.at)
        ON CONFLICT DO NOTHING RETURNING id, contact_id
        ), touched AS (
            INSERT INTO list_touch SELECT contact_id, 'consent' FROM carried
        )
        SELECT n.id, c.email, c.id FROM carried n JOIN contact c ON c.id = n.contact_id
        """,
        [list(contact_ids)],
    )
    carried = await cursor.fetchall()
    await obligations.open_for(conn, carried)
    return len(carried)


async def carry_told(
    conn: AsyncConnection[Any], connection: str, external_ids: Sequence[str], object: str = "contact"
) -> None:
    """The same for the people behind these records, whose system has just told an opt-out."""
    cursor = await conn.execute(
        """SELECT DISTINCT contact_id FROM contact_identity
           WHERE connection = %s AND object = %s AND external_id = ANY(%s)""",
        [connection, object, list(external_ids)],
    )
    await carry_opt_outs(conn, [row[0] for row in await cursor.fetchall()])
