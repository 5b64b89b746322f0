"""The whole story of a person, in order: changes, lists, funnel steps, mails, what came back, who was told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from hub.store import companies, copies

_CHAPTERS = """
    SELECT at, 'contact ' || kind AS what, connection AS who,
           CASE WHEN diff = '{}' THEN '' ELSE (
               SELECT string_agg(key || ': ' || coalesce(value ->> 0, '(blank)')
                                  || ' -> ' || coalesce(value ->> 1, '(blank)'), '; '
                                 ORDER BY key) FROM jsonb_each(diff)) END AS detail
    FROM contact_change WHERE contact_id = %(id)s
    UNION ALL
    SELECT ch.at, ch.change || ' list ' || l.name, 'lists', l.rule
    FROM list_change ch JOIN list l ON l.id = ch.list_id WHERE ch.contact_id = %(id)s
    UNION ALL
    SELECT g.at, 'funnel ' || f.name || ': ' || g.what, 'funnels', 'step ' || g.position || CASE WHEN g.detail = '{}' THEN ''
           ELSE ' ' || g.detail::text END
    FROM funnel_log g JOIN funnel_entry e ON e.id = g.entry_id JOIN funnel f ON f.id = e.funnel_id WHERE e.contact_id = %(id)s
    UNION ALL
    SELECT coalesce(d.sent_at, d.queued_at), 'mail ' || d.message || ': ' || d.state, coalesce('relay ' || d.relay, 'mail'),
           concat_ws(' ', d.reply_code::text, d.reply_text, nullif(d.reason, ''))
    FROM delivery d WHERE d.contact_id = %(id)s
    UNION ALL
    SELECT e.occurred_at, d.message || ' ' || e.kind || CASE WHEN e.machine THEN ' by a machine' ELSE '' END, e.source,
           concat_ws(' ', e.detail ->> 'class', e.detail ->> 'reason', e.detail ->> 'link', e.detail ->> 'evidence',
                     e.evidence ->> 'signs')
    FROM event e JOIN delivery d ON d.id = e.delivery_id WHERE e.contact_id = %(id)s AND e.kind <> 'sent'
    UNION ALL
    SELECT coalesce(o.confirmed_at, o.created_at),
           'told ' || o.connection || ': ' || o.kind || coalesce(' ' || (o.payload ->> 'kind'), ''),
           o.connection,
           concat_ws(' ', o.state, nullif(o.remote_id, ''), nullif(o.code, ''), nullif(o.message, ''), nullif(o.fix, ''))
    FROM outbox o WHERE o.contact_id = %(id)s
    UNION ALL
    SELECT x.at, 'decided by hand: ' || x.what || coalesce(' ' || d.message || ' as ' || (x.detail ->> 'to'), ''),
           x.decided_by, x.because
    FROM decision x LEFT JOIN delivery d ON d.id = x.delivery_id
    WHERE d.contact_id = %(id)s OR x.email_hash = address_hash(%(email)s)
    ORDER BY 1
"""


async def tell(conn: AsyncConnection[Any], email: str) -> list[dict[str, Any]]:
    """A document for each contact of this address: `contact`, `identities`, `companies`, `deals`, `segments`, `lists`,
    `consent`, `resting` (fields that are not copied for now) and `story`."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM contact WHERE email = lower(%s) ORDER BY id", [email])
        return [await _about(conn, contact) for contact in await cursor.fetchall()]


async def _about(conn: AsyncConnection[Any], contact: dict[str, Any]) -> dict[str, Any]:
    values = {"id": contact["id"], "email": contact["email"]}

    async def rows(query: str) -> list[dict[str, Any]]:
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, values)
            return list(await cursor.fetchall())

    return {
        "contact": contact,
        "identities": await rows(
            "SELECT connection, external_id, state, seen_at FROM contact_identity WHERE contact_id = %(id)s ORDER BY 1, 2"
        ),
        "companies": await companies.of_contact(conn, contact["id"]),
        "deals": await rows(
            """SELECT d.name, d.pipeline, d.stage, d.amount, d.currency,
                      string_agg(nullif(d.role, ''), ', ' ORDER BY d.role) AS role,
                      (SELECT min(k.name) FROM company_deal cd JOIN company k ON k.id = cd.company_id
                       WHERE cd.connection = d.connection AND cd.deal_ref = d.external_id AND k.state = 'live') AS company
               FROM contact_deal d WHERE d.contact_id = %(id)s
               GROUP BY d.id, d.connection, d.external_id, d.name, d.pipeline, d.stage, d.amount, d.currency ORDER BY d.name"""
        ),
        "segments": await rows(
            "SELECT connection, name, since FROM contact_segment WHERE contact_id = %(id)s ORDER BY 1, 2"
        ),
        "lists": await rows(
            "SELECT l.name, m.joined_at FROM list_member m JOIN list l ON l.id = m.list_id WHERE m.contact_id = %(id)s ORDER BY 1"
        ),
        "consent": await rows(
            """SELECT purpose, status, source, at, proof FROM consent WHERE email_hash = address_hash(%(email)s)
               UNION ALL SELECT '*', 'suppressed', 'hub', at, reason FROM suppression WHERE email_hash = address_hash(%(email)s)
               ORDER BY 4"""
        ),
        "resting": await copies.resting(conn, contact["id"]),
        "story": await rows(_CHAPTERS),
    }


async def last_refresh(conn: AsyncConnection[Any]) -> dict[str, datetime | None]:
    """list name -> when it was last refreshed."""
    cursor = await conn.execute("SELECT name, refreshed_at FROM list WHERE retired_at IS NULL")
    return dict(await cursor.fetchall())
