"""Who a pulled record is: somebody whom we know by its id, somebody whom another system has named, or nobody yet.

The id decides. A hint (an address, a phone number, another system's id) only joins a record that is new to us, and
only where it is unambiguous on both sides: one new record, one person, and that person has no live record here.
Who was archived or deleted and comes again under a new id is the same person, so nothing is sent to them twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composable, Identifier, Literal

from hub.mapping import Hint
from hub.model import CONTACT_FIELDS
from hub.store import copying

if TYPE_CHECKING:
    from hub.store.contacts import ContactRow

EMAIL = Hint("email")


async def look(
    conn: AsyncConnection[Any], rows: Sequence[ContactRow], values: Mapping[str, Any]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The places of rows whose id is new, and (place, contact) of those that say something else than last time.

    Each id is looked up by itself, and the statement planned anew: a plan that was made while the tables were small would stay.
    """
    cursor = await conn.execute(
        """
        WITH seen AS MATERIALIZED (
            SELECT n.place, (SELECT CASE WHEN i.content_hash = n.hash AND i.state = n.state THEN 0 ELSE i.contact_id END
                             FROM contact_identity i
                             WHERE i.connection = %s AND i.object = 'contact' AND i.external_id = n.id) AS contact_id
            FROM unnest(%s::text[], %s::bytea[], %s::text[]) WITH ORDINALITY AS n (id, hash, state, place)
        )
        SELECT array_agg(place - 1) FILTER (WHERE contact_id IS NULL), array_agg(place - 1) FILTER (WHERE contact_id <> 0),
               array_agg(contact_id) FILTER (WHERE contact_id <> 0)
        FROM seen
        """,
        [
            values["connection"],
            copying.array([row.external_id for row in rows]),
            copying.binaries([row.content_hash for row in rows]),
            copying.array([row.state for row in rows]),
        ],
        prepare=False,
    )
    found = await cursor.fetchone()
    assert found is not None
    new, known, contacts = (each or [] for each in found)
    return new, list(zip(known, contacts, strict=True))


async def strangers(
    conn: AsyncConnection[Any], new: Sequence[ContactRow], batch: Sequence[ContactRow], match: Sequence[Hint]
) -> tuple[list[ContactRow], list[ContactRow]]:
    """New rows that nothing connects with anybody, and the others: whose address somebody has, who absorbed another record or
    were absorbed, who are gone already, who have a value for a hint of another kind, who tell of further addresses.
    """
    absorbed = {old for row in batch if row.merged_ids for old in row.merged_ids}
    further = [hint.field for hint in match if hint != EMAIL]
    asked = EMAIL in match
    plain: list[ContactRow] = []
    others: list[ContactRow] = []
    for row in new:
        apart = (
            row.state == "live" and not row.merged_ids and row.external_id not in absorbed and "other_emails" not in row.custom
            and not (further and any(row.columns.get(field) or row.custom.get(field) for field in further))
        )  # fmt: skip
        (plain if apart else others).append(row)
    held = await _held(conn, [row.columns.get("email") or "" for row in plain]) if asked and plain else set()
    if held:
        others += [row for place, row in enumerate(plain) if place in held]
        plain = [row for place, row in enumerate(plain) if place not in held]
    return plain, others


async def _held(conn: AsyncConnection[Any], emails: Sequence[str]) -> set[int]:
    """The places of addresses that somebody has or had."""
    cursor = await conn.execute(
        """
        SELECT array_agg(n.place - 1) FROM unnest(%s::text[]) WITH ORDINALITY AS n (email, place)
        WHERE n.email <> '' AND ((SELECT true FROM contact c WHERE c.email = n.email LIMIT 1)
                              OR (SELECT true FROM contact_address o WHERE o.email = n.email LIMIT 1))
        """,
        [copying.array(emails)],
        prepare=False,
    )
    found = await cursor.fetchone()
    return set(found[0] or ()) if found else set()


async def recognise(
    conn: AsyncConnection[Any], match: Sequence[Hint], values: Mapping[str, Any], *, absorbed: bool
) -> None:
    """Find the contact behind each row of `incoming_contact` whose id is new: by an id it `absorbed`, or by the first hint
    that means one person only.
    """
    if absorbed:
        await conn.execute(
            # A merge that makes a new id keeps the person whom the oldest of the old ids means.
            """
            UPDATE incoming_contact n SET contact_id = o.contact_id, known = true
            FROM (
                SELECT n.external_id, min(i.contact_id) AS contact_id
                FROM incoming_contact n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
                JOIN contact_identity i ON i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = old
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
            """CROSS JOIN LATERAL (
                   SELECT c.id, c.state FROM contact_identity k JOIN contact c ON c.id = k.contact_id
                   WHERE k.connection = {of} AND k.object = 'contact' AND k.external_id = a.value) k"""
        ).format(of=Literal(hint.of))
    elif hint.field == "email":
        known = SQL(
            """CROSS JOIN LATERAL (
                   SELECT c.id, c.state FROM contact c WHERE c.email = a.value
                   UNION SELECT c.id, c.state FROM contact_address o JOIN contact c ON c.id = o.contact_id
                   WHERE o.email = a.value) k"""
        )
    else:  # no index: one scan of all contacts a batch
        ours = _value(hint.field, "c", "fields")
        known = SQL("JOIN (SELECT c.id, c.state, {ours} AS value FROM contact c) k USING (value)").format(
            ours=ours
        )
    await conn.execute(
        SQL(
            """
            WITH asked AS MATERIALIZED (
                SELECT n.external_id, {theirs} AS value, n.contact_id IS NULL AS new,
                       count(*) OVER (PARTITION BY {theirs}) AS times
                FROM incoming_contact n WHERE n.state = 'live' AND coalesce({theirs}, '') <> ''
            ), found AS MATERIALIZED (
                SELECT a.external_id, k.id, k.state = 'live' AS live
                FROM (SELECT external_id, value FROM asked WHERE new AND times = 1) a {known}
                WHERE k.state <> 'merged'
                  -- By a count, so that it is looked up for each person also where statistics know of no rows yet.
                  AND (SELECT count(*) FROM contact_identity i
                       WHERE i.contact_id = k.id AND i.connection = %(connection)s AND i.state = 'live') = 0
            ), one AS (
                SELECT external_id, coalesce(min(id) FILTER (WHERE live), min(id)) AS contact_id FROM found GROUP BY 1
                HAVING count(*) FILTER (WHERE live) = 1 OR (count(*) = 1 AND NOT bool_or(live))
            ), alone AS (
                SELECT min(external_id) AS external_id, contact_id FROM one
                WHERE contact_id NOT IN (SELECT contact_id FROM incoming_contact WHERE contact_id IS NOT NULL)
                GROUP BY 2 HAVING count(*) = 1
            )
            UPDATE incoming_contact n SET contact_id = o.contact_id, known = true
            FROM alone o WHERE n.external_id = o.external_id AND n.contact_id IS NULL
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
