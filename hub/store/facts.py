"""What a condition of a rule looked at: values of one contact, each with the system that said so, when, and in which run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

MOST = 5
"""Of deals, events and the like the newest so many are told."""
_RUN = """(SELECT max(r.id) FROM run r
           WHERE r.kind IN ('pull', 'webhook') AND r.connection = {connection} AND r.stream LIKE {stream}
           AND r.started_at <= {at} AND coalesce(r.finished_at, 'infinity') >= {at})"""
"""The run that was under way when a row was written."""


async def of_fields(
    conn: AsyncConnection[Any], contact_id: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The newest change of each field, or of the contact's making where it never changed since."""
    return await _rows(
        conn,
        """
        SELECT f.name AS what, (to_jsonb(c) || c.fields) -> f.name AS value, ch.connection AS source, ch.at, ch.run_id AS run
        FROM unnest(%(names)s::text[]) WITH ORDINALITY AS f (name, place) JOIN contact c ON c.id = %(contact)s
        LEFT JOIN LATERAL (
            SELECT h.connection, h.at, h.run_id FROM contact_change h
            WHERE h.contact_id = c.id AND (h.kind = 'created' OR h.diff ? f.name) ORDER BY h.id DESC LIMIT 1) ch ON true
        ORDER BY f.place
        """,
        contact=contact_id, names=list(names),
    )  # fmt: skip


async def of_deals(conn: AsyncConnection[Any], contact_id: int) -> list[dict[str, Any]]:
    run = _RUN.format(connection="d.connection", stream="'deal%%'", at="d.changed_at")
    return await _rows(
        conn,
        f"""
        SELECT 'deal ' || coalesce(d.name, d.external_id) AS what, d.connection AS source, d.changed_at AS at, {run} AS run,
               concat_ws(', ', d.stage, d.amount || coalesce(' ' || d.currency, ''), nullif(d.role, '')) AS value
        FROM contact_deal d WHERE d.contact_id = %(contact)s ORDER BY d.changed_at DESC, d.id LIMIT %(most)s
        """,
        contact=contact_id, most=MOST,
    )  # fmt: skip


async def of_companies(
    conn: AsyncConnection[Any], contact_id: int, names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The companies of a contact, the main one first; or these fields of the main one. Each with the change that told it."""
    if names:
        return await _rows(
            conn,
            """
            SELECT 'company.' || f.name AS what, (to_jsonb(k) || k.fields) -> f.name AS value, k.connection AS source, ch.at,
                   ch.run_id AS run
            FROM unnest(%(names)s::text[]) WITH ORDINALITY AS f (name, place)
            JOIN main_company k ON k.contact_id = %(contact)s
            LEFT JOIN LATERAL (
                SELECT h.at, h.run_id FROM company_change h
                WHERE h.company_id = k.id AND (h.kind = 'created' OR h.diff ? f.name) ORDER BY h.id DESC LIMIT 1) ch ON true
            ORDER BY f.place
            """,
            contact=contact_id, names=list(names),
        )  # fmt: skip
    return await _rows(
        conn,
        """
        SELECT 'company ' || coalesce(k.name, k.external_id) AS what, k.connection AS source, ch.at, ch.run_id AS run,
               concat_ws(', ', k.industry, k.country, nullif(k.role, ''), CASE WHEN k.is_primary THEN 'primary' END) AS value
        FROM contact_company k LEFT JOIN LATERAL (
            SELECT h.at, h.run_id FROM company_change h WHERE h.company_id = k.id ORDER BY h.id DESC LIMIT 1) ch ON true
        WHERE k.contact_id = %(contact)s ORDER BY k.is_primary DESC, k.id LIMIT %(most)s
        """,
        contact=contact_id, most=MOST,
    )  # fmt: skip


async def of_segments(conn: AsyncConnection[Any], contact_id: int, name: str) -> list[dict[str, Any]]:
    run = _RUN.format(connection="s.connection", stream="'segment%%'", at="s.since")
    return await _rows(
        conn,
        f"""
        SELECT 'segment ' || s.name AS what, 'member' AS value, s.connection AS source, s.since AS at, {run} AS run
        FROM contact_segment s WHERE s.contact_id = %(contact)s AND s.name = %(name)s ORDER BY s.since DESC LIMIT %(most)s
        """,
        contact=contact_id, name=name, most=MOST,
    )  # fmt: skip


async def of_events(
    conn: AsyncConnection[Any], contact_id: int, kind: str, message: str | None
) -> list[dict[str, Any]]:
    return await _rows(
        conn,
        """
        SELECT e.kind || CASE WHEN e.machine THEN ' by a machine' ELSE '' END AS what, v.message AS value, e.source,
               e.occurred_at AS at, NULL::bigint AS run
        FROM event e JOIN delivery v ON v.id = e.delivery_id
        WHERE e.contact_id = %(contact)s AND e.kind = %(kind)s AND (%(message)s::text IS NULL OR v.message = %(message)s)
        ORDER BY e.occurred_at DESC LIMIT %(most)s
        """,
        contact=contact_id, kind=kind, message=message, most=MOST,
    )  # fmt: skip


async def of_consent(conn: AsyncConnection[Any], contact_id: int, purpose: str) -> list[dict[str, Any]]:
    return await _rows(
        conn,
        """
        SELECT 'consent ' || y.purpose AS what, y.status || CASE y.proof WHEN '' THEN '' ELSE ', ' || y.proof END AS value,
               y.source, y.at, NULL::bigint AS run
        FROM consent y JOIN contact c ON y.email_hash = address_hash(c.email)
        WHERE c.id = %(contact)s AND y.purpose IN (%(purpose)s, '*') ORDER BY y.at DESC, y.id DESC LIMIT %(most)s
        """,
        contact=contact_id, purpose=purpose, most=MOST,
    )  # fmt: skip


async def of_list(conn: AsyncConnection[Any], contact_id: int, name: str) -> list[dict[str, Any]]:
    return await _rows(
        conn,
        """
        SELECT 'list ' || l.name AS what, CASE WHEN m.contact_id IS NULL THEN 'not on it' ELSE 'on it' END AS value,
               'lists' AS source, coalesce(m.joined_at, l.refreshed_at) AS at, NULL::bigint AS run
        FROM list l LEFT JOIN list_member m ON m.list_id = l.id AND m.contact_id = %(contact)s WHERE l.name = %(name)s
        """,
        contact=contact_id, name=name,
    )  # fmt: skip


async def of_import(conn: AsyncConnection[Any], contact_id: int, name: str) -> list[dict[str, Any]]:
    return await _rows(
        conn,
        """
        SELECT 'imported as' AS what, i.address AS value, 'import' AS source, i.at, i.run_id AS run
        FROM list_import i JOIN list l ON l.id = i.list_id WHERE i.contact_id = %(contact)s AND l.name = %(name)s
        """,
        contact=contact_id, name=name,
    )  # fmt: skip


async def of_state(conn: AsyncConnection[Any], contact_id: int) -> list[dict[str, Any]]:
    """Whether the contact is live, and who said so last."""
    return await _rows(
        conn,
        """
        SELECT 'state' AS what, c.state AS value, ch.connection AS source, ch.at, ch.run_id AS run
        FROM contact c LEFT JOIN LATERAL (
            SELECT h.connection, h.at, h.run_id FROM contact_change h
            WHERE h.contact_id = c.id AND h.kind <> 'changed' ORDER BY h.id DESC LIMIT 1) ch ON true
        WHERE c.id = %(contact)s
        """,
        contact=contact_id,
    )  # fmt: skip


async def stages(conn: AsyncConnection[Any]) -> set[tuple[str, str]]:
    """(stage, pipeline) of deals that were read, both in lower case."""
    cursor = await conn.execute(
        "SELECT DISTINCT lower(stage), coalesce(lower(pipeline), '') FROM deal WHERE stage IS NOT NULL"
    )
    return set(await cursor.fetchall())


async def _rows(conn: AsyncConnection[Any], query: str, **values: Any) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), values)
        return list(await cursor.fetchall())
