"""Who was on a list at a time: read out of what the hub writes down anyway, and never changed afterwards.

Each joining and leaving is kept (`list_change`), each rule since when it held (`list_rule`), and a campaign's frozen
audience is its rows of the send ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

_MEMBERS = """
    SELECT t.contact_id, c.email, t.at AS since FROM list l JOIN LATERAL (
        SELECT DISTINCT ON (ch.contact_id) ch.contact_id, ch.change, ch.at FROM list_change ch
        WHERE ch.list_id = l.id AND ch.at <= %(at)s ORDER BY ch.contact_id, ch.id DESC) t ON t.change = 'joined'
    JOIN contact c ON c.id = t.contact_id WHERE l.name = %(list)s"""
_AUDIENCE = """
    SELECT d.contact_id, coalesce(d.email, c.email) AS email, d.state, d.reason FROM campaign k
    JOIN delivery d ON d.campaign_id = k.id JOIN contact c ON c.id = d.contact_id WHERE k.name = %(campaign)s"""


async def rule_at(conn: AsyncConnection[Any], name: str, at: datetime) -> str | None:
    """The rule that a list had; None when there was no such list."""
    cursor = await conn.execute(
        """SELECT r.rule FROM list_rule r JOIN list l ON l.id = r.list_id
           WHERE l.name = %s AND r.since <= %s ORDER BY r.since DESC LIMIT 1""",
        [name, at],
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def campaign(conn: AsyncConnection[Any], name: str) -> dict[str, Any] | None:
    """`list` and `at` of an approved campaign: whose audience was frozen, and when."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT list, approved_at AS at FROM campaign WHERE name = %s", [name])
        return await cursor.fetchone()


async def size(conn: AsyncConnection[Any], values: dict[str, Any]) -> int:
    """How many rows `rows` gives."""
    cursor = await conn.execute(f"SELECT count(*) FROM ({_query(values)}) s".encode(), values)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def rows(
    conn: AsyncConnection[Any], values: dict[str, Any], limit: int | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The members of `list` at `at` with the time since when, or with `campaign` its audience with state and reason."""
    async with conn.cursor("snapshot", row_factory=dict_row) as cursor:
        await cursor.execute(
            f"{_query(values)} ORDER BY contact_id LIMIT %(limit)s".encode(), {**values, "limit": limit}
        )
        async for row in cursor:
            yield row


def _query(values: dict[str, Any]) -> str:
    return _AUDIENCE if values.get("campaign") else _MEMBERS
