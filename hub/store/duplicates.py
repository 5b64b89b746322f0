"""Contacts who may be one person: what speaks for it, and what was merged."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

_GROUPS = """
    SELECT 'address' AS why, lower(a.email) AS key, a.id FROM (
        SELECT id, email FROM contact WHERE state = 'live'
        UNION SELECT c.id, o.email FROM contact_address o JOIN contact c ON c.id = o.contact_id WHERE c.state = 'live') a
    WHERE a.email <> ''
    UNION ALL
    SELECT 'phone', p.digits, p.id
    FROM (SELECT id, ltrim(regexp_replace(phone, '\\D', '', 'g'), '0') AS digits
          FROM contact WHERE state = 'live' AND phone <> '') p
    WHERE length(p.digits) >= 7
    UNION ALL
    SELECT 'name and company', lower(concat_ws('|', trim(first_name), trim(last_name), trim(company))), id FROM contact
    WHERE state = 'live' AND trim(first_name) <> '' AND trim(last_name) <> '' AND trim(company) <> ''
"""
"""(why, key, id): contacts of one `why` and `key` look like one person."""


async def suspected(conn: AsyncConnection[Any], *, limit: int) -> list[dict[str, Any]]:
    """Pairs of live contacts that look like one person: `one` (the older), `other`, and `because`; those with most that
    speaks for it first. Of a group of many each is paired with the oldest. Who was told apart is left out."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""
            WITH pairs AS (
                SELECT why, first_value(id) OVER (PARTITION BY why, key ORDER BY id) AS one, id AS other FROM ({_GROUPS}) g
            ), found AS (
                SELECT one, other, array_agg(DISTINCT why ORDER BY why) AS because FROM pairs p
                WHERE one <> other AND NOT EXISTS (SELECT FROM contact_apart a WHERE a.one = p.one AND a.other = p.other)
                GROUP BY one, other
            )
            SELECT f.one, f.other, f.because, {_known("f.one")} AS one_known, {_known("f.other")} AS other_known,
                   a.email AS one_email, b.email AS other_email
            FROM found f JOIN contact a ON a.id = f.one JOIN contact b ON b.id = f.other
            ORDER BY cardinality(f.because) DESC, f.one, f.other LIMIT %s
            """.encode(),
            [limit],
        )
        return list(await cursor.fetchall())


def _known(id: str) -> str:
    return f"""(SELECT coalesce(array_agg(i.connection || '/' || i.external_id ORDER BY i.connection, i.external_id), '{{}}')
               FROM contact_identity i WHERE i.contact_id = {id} AND i.state = 'live')"""


async def merged(conn: AsyncConnection[Any], *, limit: int) -> list[dict[str, Any]]:
    """Merges that stand, the newest first: who went into whom, when, and whether a person or a system said so."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT m.loser AS contact, m.survivor AS into, m.at, m.source, m.source = 'admin' AS can_be_undone
               FROM contact_merge m WHERE m.undone_at IS NULL ORDER BY m.id DESC LIMIT %s""",
            [limit],
        )
        return list(await cursor.fetchall())


async def parted(conn: AsyncConnection[Any], *, limit: int) -> list[dict[str, Any]]:
    """People whom a system parted after it had made one of them, the newest first: `contact` has a record of their own again,
    and with `restored` what they had before the merge; else they are new, and what they had stayed with `other`."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT p.contact_id AS contact, p.other, p.connection || '/' || p.external_id AS record, p.at, p.restored
               FROM contact_parted p ORDER BY p.id DESC LIMIT %s""",
            [limit],
        )
        return list(await cursor.fetchall())


async def tell_apart(conn: AsyncConnection[Any], one: int, other: int, now: Any) -> None:
    """Never suspect these two again."""
    await conn.execute(
        "INSERT INTO contact_apart (one, other, at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [*sorted((one, other)), now],
    )
