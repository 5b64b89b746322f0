"""What the recipients of a message have and lack, counted in one pass over them: by the fields that the message uses.

The recipients are those of the transaction's table `campaign_audience` (see `hub.store.campaigns.gather`) whom nothing
excludes. A pattern is what several of them have in common: the language, and which of the fields are blank.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg.rows import dict_row

from hub.model import CONTACT_FIELDS, FieldType
from hub.store import companies
from hub.store.database import Connection
from hub.store.ledger import EXCLUDED

DEALS = "deals"
"""Counts among the fields, see `hub.mail.fields`: blank where a contact has none."""
_FROM = "FROM campaign_audience a JOIN contact c ON c.id = a.contact_id"
_DEALS = """ LEFT JOIN (SELECT contact_id, count(DISTINCT id) AS n, sum(octet_length(coalesce(name, ''))) AS bytes
    FROM contact_deal GROUP BY 1) deals ON deals.contact_id = a.contact_id"""


class Pattern(NamedTuple):
    """So many recipients of a language (as contacts have it) whose `blank` fields are the same; two of them."""

    language: str
    blank: frozenset[str]
    recipients: int
    first_id: int
    last_id: int


async def patterns(conn: Connection, fields: Sequence[str]) -> list[Pattern]:
    """All patterns, the largest first."""
    bits = " || ".join([*(f"(CASE WHEN {_blank(name)} THEN '1' ELSE '0' END)" for name in fields), "''"])
    cursor = await conn.execute(
        f"""SELECT coalesce(c.language, ''), {bits}, count(*), min(a.contact_id), max(a.contact_id)
            {_FROM}{_DEALS if DEALS in fields else ""} WHERE a.reason = '' GROUP BY 1, 2 ORDER BY 3 DESC, 4""".encode()
    )
    return [
        Pattern(tag, frozenset(n for n, bit in zip(fields, bits, strict=True) if bit == "1"), count, first, last)
        for tag, bits, count, first, last in await cursor.fetchall()
    ]  # fmt: skip


async def longest(conn: Connection, fields: Sequence[str], tags: Collection[str], limit: int) -> list[int]:
    """Those whose values in these fields are the longest together, of the recipients of these languages."""
    sum_ = " + ".join([*(_bytes(name) for name in fields), "0"])
    cursor = await conn.execute(
        f"""SELECT a.contact_id {_FROM}{_DEALS if DEALS in fields else ""}
            WHERE a.reason = '' AND coalesce(c.language, '') = ANY(%s) ORDER BY {sum_} DESC, a.contact_id LIMIT %s""".encode(),
        [list(tags), limit],
    )
    return [row[0] for row in await cursor.fetchall()]


async def drawn(conn: Connection, limit: int) -> list[int]:
    """So many recipients drawn at random; of the same audience the same ones."""
    cursor = await conn.execute(
        "SELECT contact_id FROM campaign_audience WHERE reason = '' ORDER BY hashint8(contact_id), contact_id LIMIT %s",
        [limit],
    )
    return [row[0] for row in await cursor.fetchall()]


async def addresses(conn: Connection, ids: Sequence[int]) -> dict[int, str]:
    """contact id -> address."""
    cursor = await conn.execute("SELECT id, email FROM contact WHERE id = ANY(%s)", [list(ids)])
    return dict(await cursor.fetchall())


async def lacking(
    conn: Connection, field: str, tags: Collection[str] | None, *, limit: int | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The recipients whose `field` is blank, oldest first: `contact_id`, `email`, `name`, and `records`, the vendors' ids for
    them. `tags`: only those of these languages."""
    query = f"""
        SELECT a.contact_id, c.email, concat_ws(' ', c.first_name, c.last_name) AS name,
               (SELECT coalesce(jsonb_object_agg(i.connection, i.external_id), '{{}}') FROM contact_identity i
                WHERE i.contact_id = a.contact_id AND i.object = 'contact' AND i.state = 'live') AS records
        {_FROM}{_DEALS if field == DEALS else ""}
        WHERE a.reason = '' AND {_blank(field)} AND (%(tags)s::text[] IS NULL OR coalesce(c.language, '') = ANY(%(tags)s))
        ORDER BY a.contact_id LIMIT %(limit)s"""
    async with conn.cursor(name="lacking", row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), {"tags": None if tags is None else list(tags), "limit": limit})
        async for row in cursor:
            yield row


async def excluded(
    conn: Connection, contact_id: int, purpose: str, purposes: Mapping[str, bool]
) -> str | None:
    """Why a contact may not be sent a mail of a purpose now; None when it may. `purposes` is as in `ledger.claim`."""
    cursor = await conn.execute(
        f"""SELECT {EXCLUDED} FROM contact c CROSS JOIN (SELECT %(purpose)s::text AS purpose, '' AS occurrence) d
            CROSS JOIN LATERAL (SELECT address_hash(c.email) AS hash) a WHERE c.id = %(id)s""".encode(),
        {
            "id": contact_id, "purpose": purpose, "purposes": list(purposes),
            "opt_in": [name for name, needed in purposes.items() if needed],
        },
    )  # fmt: skip
    row = await cursor.fetchone()
    return row[0] if row else "there is no such contact"


def _value(name: str) -> tuple[str, bool]:
    """A contact's field as SQL, and whether that is a text."""
    if name.startswith("company."):
        sql, type_ = companies.of_main(name.removeprefix("company."))
        return sql if type_ is FieldType.TEXT else f"({sql} #>> '{{}}')", True
    known = CONTACT_FIELDS.get(name)
    if known is not None and known.column:
        return f"c.{known.column}", known.type in (FieldType.TEXT, FieldType.ENUM)
    quoted = name.replace("'", "''").replace("%", "%%")
    return f"(c.fields ->> '{quoted}')", True


def _blank(name: str) -> str:
    """Whether a mail shows nothing for a field, as `hub.mail.preview.blank` says it."""
    if name == DEALS:
        return "deals.n IS NULL"
    value, text = _value(name)
    if not text:
        return f"{value} IS NULL"
    empty = rf"coalesce(btrim({value}, E' \t\r\n\f\v'), '') = ''"
    if name in CONTACT_FIELDS:
        return empty
    if name.startswith("company."):
        return f"({empty} OR {value} = '[]')"
    return f"({empty} OR {value.replace('->>', '->')} = '[]'::jsonb)"


def _bytes(name: str) -> str:
    if name == DEALS:
        return "coalesce(deals.bytes + 10 * deals.n, 0)"
    value, text = _value(name)
    return f"coalesce(octet_length({value}{'' if text else '::text'}), 0)"
