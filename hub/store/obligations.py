"""Opt-outs that other systems have to be told: opened with the opt-out, closed by what the system answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

HOURS = 48
"""Within which large mailbox providers want an opt-out honoured everywhere."""


@dataclass(frozen=True)
class Told:
    """A system that can be told of opt-outs of a purpose, which it calls `subscription`."""

    connection: str
    purpose: str
    subscription: str
    needs_contact: bool = True


async def know(conn: AsyncConnection[Any], systems: Sequence[Told]) -> None:
    """Note who is to be told, as hub.yaml says it now. Does nothing when that is known, or when the tables are not there yet."""
    row = await (await conn.execute("SELECT to_regclass('consent_target') IS NOT NULL")).fetchone()
    if not row or not row[0]:
        return
    wanted = sorted((t.connection, t.purpose, t.subscription, t.needs_contact) for t in systems)
    cursor = await conn.execute("SELECT connection, purpose, subscription, needs_contact FROM consent_target")
    if sorted(await cursor.fetchall()) == wanted:
        return
    await conn.execute("LOCK TABLE consent_target IN EXCLUSIVE MODE")
    await conn.execute("DELETE FROM consent_target")
    async with conn.cursor() as many:
        await many.executemany("INSERT INTO consent_target VALUES (%s, %s, %s, %s)", wanted)


async def open_for(conn: AsyncConnection[Any], said: Sequence[tuple[int, str, int | None]]) -> int:
    """Owe these opt-outs (entry, address, contact if known) to every system that knows the person and did not say it itself.

    In the transaction that records them, with the rows of the outbox. What a system was told already, or is about to be, is
    not told again unless somebody opted in since. Returns how many obligations are new.
    """
    if not said:
        return 0
    ids, emails, contacts = (list(column) for column in zip(*said, strict=True))
    cursor = await conn.execute(
        """
        WITH said AS (
            SELECT * FROM unnest(%(ids)s::bigint[], %(emails)s::text[], %(contacts)s::bigint[]) AS s (entry_id, email, contact_id)
        ), people AS (
            SELECT s.entry_id, s.email, c.id FROM said s JOIN contact c ON c.email = lower(s.email)
            UNION
            SELECT s.entry_id, s.email, coalesce(c.merged_into, c.id) FROM said s JOIN contact c ON c.id = s.contact_id
        ), owed AS (
            SELECT DISTINCT ON (n.email_hash, t.connection, t.purpose)
                   n.id AS entry_id, n.email_hash, n.at, n.recorded_at, t.connection, t.purpose, p.id AS contact_id,
                   'consent:' || n.id || ':' || t.purpose AS dedupe_key,
                   jsonb_build_object('email', lower(p.email), 'purpose', t.purpose, 'subscription', t.subscription,
                       'opted_in', false, 'at', n.at,
                       'proof', coalesce(nullif(n.proof, ''), 'opted out, by the word of ' || n.source)) AS payload
            FROM people p JOIN consent n ON n.id = p.entry_id AND n.status = 'out'
            JOIN consent_target t ON n.purpose IN (t.purpose, '*') AND t.connection <> n.source
            WHERE (NOT t.needs_contact OR EXISTS (
                    SELECT FROM contact_identity i
                    WHERE i.contact_id = p.id AND i.connection = t.connection AND i.object = 'contact' AND i.state = 'live'))
              AND NOT EXISTS (
                    SELECT FROM consent_obligation o
                    WHERE o.email_hash = n.email_hash AND o.connection = t.connection AND o.purpose = t.purpose
                      AND NOT EXISTS (
                        SELECT FROM consent y WHERE y.email_hash = n.email_hash AND y.channel = n.channel AND y.status = 'in'
                          AND y.purpose IN (t.purpose, '*') AND y.id > o.entry_id))
            ORDER BY n.email_hash, t.connection, t.purpose, n.at, p.id
        ), written AS (
            INSERT INTO outbox (connection, kind, dedupe_key, payload, contact_id, created_at)
            SELECT connection, 'consent', dedupe_key, payload, contact_id, recorded_at FROM owed
            ON CONFLICT (connection, dedupe_key) DO NOTHING RETURNING id, connection, dedupe_key
        )
        INSERT INTO consent_obligation (entry_id, email_hash, contact_id, connection, purpose, said_at, due_at, outbox_id)
        SELECT o.entry_id, o.email_hash, o.contact_id, o.connection, o.purpose, o.at,
               o.recorded_at + make_interval(hours => %(hours)s), w.id
        FROM owed o JOIN written w USING (connection, dedupe_key)
        """,
        {"ids": ids, "emails": emails, "contacts": contacts, "hours": HOURS},
    )
    return cursor.rowcount


async def clock(
    conn: AsyncConnection[Any], *, now: datetime, everything: bool = False, limit: int = 100
) -> list[dict[str, Any]]:
    """Obligations that are open, the most urgent first: `contact_id`, `purpose`, `connection`, `said_at`, `due_at`, `state`
    (waiting, refused, uncertain), `overdue`, `attempts`, and what the system answered last. `everything`: confirmed ones too."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT contact_id, purpose, connection, said_at, due_at, state, confirmed_at, attempts, code, message, fix,
                      state <> 'confirmed' AND due_at < %(now)s AS overdue
               FROM consent_clock WHERE %(everything)s OR state <> 'confirmed'
               ORDER BY state = 'confirmed', due_at, id LIMIT %(limit)s""",
            {"now": now, "everything": everything, "limit": limit},
        )
        return list(await cursor.fetchall())


async def sums(conn: AsyncConnection[Any], *, now: datetime) -> dict[str, int]:
    """How many are `confirmed`, `open` and `overdue` (which are open, too), and how many of the confirmed were `late`."""
    cursor = await conn.execute(
        """SELECT count(*) FILTER (WHERE state = 'confirmed'), count(*) FILTER (WHERE state <> 'confirmed'),
                  count(*) FILTER (WHERE state <> 'confirmed' AND due_at < %(now)s), count(*) FILTER (WHERE confirmed_at > due_at)
           FROM consent_clock""",
        {"now": now},
    )
    row = await cursor.fetchone()
    assert row is not None
    return dict(zip(("confirmed", "open", "overdue", "late"), row, strict=True))
