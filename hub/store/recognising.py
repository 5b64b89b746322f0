"""Who a pulled record is: somebody whom we know by its id, somebody whom another system has named, or nobody yet.

The id decides. A hint (an address, a phone number, another system's id) only joins a record that is new to us, and
only where it is unambiguous on both sides: one new record, one person, and that person has no live record here.
Who was archived or deleted and comes again under a new id is the same person, so nothing is sent to them twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composable, Identifier, Literal

from hub.mapping import Hint
from hub.model import CONTACT_FIELDS


async def recognise(conn: AsyncConnection[Any], match: Sequence[Hint], values: Mapping[str, Any]) -> None:
    """Find the contact behind each row of `incoming_contact`: by its id, by an id it absorbed, or by the first hint
    that means one person only.
    """
    await conn.execute(
        # The last word on a record wins when a batch holds it twice.
        """
        DELETE FROM incoming_contact a USING incoming_contact b
        WHERE a.external_id = b.external_id AND a.ctid < b.ctid
        """
    )
    await conn.execute(
        """
        UPDATE incoming_contact n SET contact_id = i.contact_id, known = true,
            fresh = i.content_hash IS DISTINCT FROM n.content_hash OR i.state <> n.state
        FROM contact_identity i
        WHERE i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = n.external_id
        """,
        values,
    )
    await conn.execute(
        # A merge that makes a new id keeps the person whom the oldest of the old ids means.
        """
        UPDATE incoming_contact n SET contact_id = o.contact_id, known = true
        FROM (
            SELECT n.external_id, min(i.contact_id) AS contact_id
            FROM incoming_contact n
            JOIN contact_identity i
              ON i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = ANY(n.merged_ids)
            WHERE n.contact_id IS NULL GROUP BY 1
        ) o
        WHERE n.external_id = o.external_id AND n.contact_id IS NULL
        """,
        values,
    )
    for hint in match:
        await _by_hint(conn, hint, values)


async def _by_hint(conn: AsyncConnection[Any], hint: Hint, values: Mapping[str, Any]) -> None:
    theirs = _value(hint.field, "n", "custom")
    known: Composable
    if hint.of:
        known = SQL(
            """SELECT c.id, c.state, k.external_id AS value FROM contact_identity k JOIN contact c ON c.id = k.contact_id
               WHERE k.connection = {of} AND k.object = 'contact'"""
        ).format(of=Literal(hint.of))
    elif hint.field == "email":
        known = SQL(
            """SELECT c.id, c.state, c.email AS value FROM contact c
               UNION SELECT c.id, c.state, a.email FROM contact_address a JOIN contact c ON c.id = a.contact_id"""
        )
    else:
        known = SQL("SELECT c.id, c.state, {} AS value FROM contact c").format(
            _value(hint.field, "c", "fields")
        )
    await conn.execute(
        SQL(
            """
            WITH asked AS (
                SELECT n.external_id, {theirs} AS value, count(*) OVER (PARTITION BY {theirs}) AS times
                FROM incoming_contact n WHERE n.state = 'live' AND coalesce({theirs}, '') <> ''
            ), found AS (
                SELECT a.external_id, k.id, k.state = 'live' AS live
                FROM asked a JOIN ({known}) k USING (value)
                WHERE a.times = 1 AND k.state <> 'merged'
                  AND EXISTS (SELECT FROM incoming_contact n WHERE n.external_id = a.external_id AND n.contact_id IS NULL)
                  AND NOT EXISTS (SELECT FROM contact_identity i
                                  WHERE i.contact_id = k.id AND i.connection = %(connection)s AND i.state = 'live')
            ), one AS (
                SELECT external_id, coalesce(min(id) FILTER (WHERE live), min(id)) AS contact_id FROM found GROUP BY 1
                HAVING count(*) FILTER (WHERE live) = 1 OR (count(*) = 1 AND NOT bool_or(live))
            )
            UPDATE incoming_contact n SET contact_id = o.contact_id, known = true
            FROM one o
            WHERE n.external_id = o.external_id AND n.contact_id IS NULL
              AND (SELECT count(*) = 1 FROM one x WHERE x.contact_id = o.contact_id)
              AND NOT EXISTS (SELECT FROM incoming_contact x WHERE x.contact_id = o.contact_id)
            """
        ).format(theirs=theirs, known=known),
        values,
    )


def _value(field: str, table: str, custom: str) -> Composable:
    """A contact's field as text; of a phone number only its digits, without the zeros that stand before it."""
    if field not in CONTACT_FIELDS:
        return SQL("({}.{} ->> {})").format(Identifier(table), Identifier(custom), Literal(field))
    column = SQL("{}.{}").format(Identifier(table), Identifier(field))
    if field == "phone":
        return SQL(r"ltrim(regexp_replace({}, '\D', '', 'g'), '0')").format(column)
    return SQL("{}::text").format(column)
