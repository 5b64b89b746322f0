"""Bursts of "no such mailbox" that are about us and not about the mailboxes: told apart, and what they suppressed let go.

Receivers that block a sender often answer as if its recipients did not exist. One relay, one receiver, one text, within an
hour; a large part of all that went there; and a sign that the addresses are alive, or that we are not welcome.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg.rows import dict_row

from hub.bounces import signature
from hub.store.database import Connection
from hub.store.events import DEAD

SHARE, ALIVE, EVERYBODY, LISTED = 0.3, 0.3, 0.9, 3
"""An incident is at least this share of the mails that went there, and of its recipients this share has had mail from us
before; or it is nearly everybody; or the receiver told so often in the same time that we have a bad name."""


@dataclass(frozen=True)
class Incident:
    """What was found: `why` in words, how many bounces are its own, and how many suppressions were lifted now."""

    relay: str
    receiver: str
    why: str
    bounces: int
    lifted: int


class _Bounce(NamedTuple):
    event: int
    delivery: int
    at: datetime
    email: str


async def watch(conn: Connection, *, now: datetime, mails: int, within: timedelta) -> list[Incident]:
    """Look at the dead addresses of the last `within`, in the caller's transaction. `mails`: fewer are no burst.

    Those of an incident become `reputation`, and what they alone had suppressed is lifted with the reason. An incident is
    over when nothing like it came for `within`.
    """
    found = []
    for relay, receiver in await _suspects(conn, now - within, mails):
        for text, bounces in (await _bounces(conn, relay, receiver, now - within)).items():
            known = await _open(conn, relay, receiver, text)
            why = await _why(conn, relay, receiver, bounces, within) if len(bounces) >= mails else ""
            if known is None and not why:
                continue
            number = known or await _begin(conn, relay, receiver, text, why, bounces)
            lifted = await _let_go(conn, number, bounces, now)
            found.append(Incident(relay, receiver, why, len(bounces), lifted))
    await conn.execute(
        "UPDATE incident SET closed_at = %s WHERE closed_at IS NULL AND last_at <= %s", [now, now - within]
    )
    return found


async def recent(conn: Connection, limit: int = 20) -> list[dict[str, Any]]:
    """Incidents, the newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT relay, receiver, why, signature, bounces, lifted, began_at, last_at, closed_at
               FROM incident ORDER BY id DESC LIMIT %s""",
            [limit],
        )
        return list(await cursor.fetchall())


async def _suspects(conn: Connection, since: datetime, mails: int) -> list[tuple[str, str]]:
    """(relay, receiver) with enough dead addresses, or with any while an incident is open there."""
    cursor = await conn.execute(
        """SELECT b.relay, b.receiver FROM (
               SELECT d.relay, split_part(d.email, '@', 2) AS receiver, count(*) AS dead
               FROM event e JOIN delivery d ON d.id = e.delivery_id
               WHERE e.kind = 'bounced' AND e.detail ->> 'class' = 'address' AND e.occurred_at > %s
                 AND d.relay IS NOT NULL AND d.email IS NOT NULL
               GROUP BY 1, 2) b
           WHERE b.dead >= %s OR EXISTS (
               SELECT FROM incident i WHERE i.closed_at IS NULL AND i.relay = b.relay AND i.receiver = b.receiver)""",
        [since, mails],
    )
    return list(await cursor.fetchall())


async def _bounces(conn: Connection, relay: str, receiver: str, since: datetime) -> dict[str, list[_Bounce]]:
    """signature -> bounces of dead addresses that have it, the oldest first."""
    cursor = await conn.execute(
        """SELECT e.id, e.delivery_id, e.occurred_at, d.email, e.detail ->> 'reason'
           FROM event e JOIN delivery d ON d.id = e.delivery_id
           WHERE e.kind = 'bounced' AND e.detail ->> 'class' = 'address' AND e.occurred_at > %s
             AND d.relay = %s AND split_part(d.email, '@', 2) = %s ORDER BY e.occurred_at, e.id FOR UPDATE OF e""",
        [since, relay, receiver],
    )
    found: dict[str, list[_Bounce]] = defaultdict(list)
    for *bounce, reason in await cursor.fetchall():
        found[signature(reason or "")].append(_Bounce(*bounce))
    return found


async def _open(conn: Connection, relay: str, receiver: str, text: str) -> int | None:
    cursor = await conn.execute(
        """SELECT id FROM incident WHERE closed_at IS NULL AND relay = %s AND receiver = %s AND signature = %s FOR UPDATE""",
        [relay, receiver, text],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else None


async def _why(
    conn: Connection, relay: str, receiver: str, bounces: Sequence[_Bounce], within: timedelta
) -> str:
    """What makes this burst an incident; empty when nothing does: then the addresses are dead."""
    cursor = await conn.execute(
        """
        WITH there AS (
            SELECT e.kind, e.detail, d.id FROM event e JOIN delivery d ON d.id = e.delivery_id
            WHERE e.kind IN ('sent', 'bounced') AND e.occurred_at BETWEEN %(first)s - %(within)s AND %(last)s
              AND d.relay = %(relay)s AND split_part(d.email, '@', 2) = %(receiver)s
        )
        SELECT (SELECT count(DISTINCT id) FROM there),
               (SELECT count(*) FROM there WHERE kind = 'bounced' AND detail ->> 'class' = 'reputation'
                                             AND NOT detail ? 'incident'),
               (SELECT count(*) FROM delivery b WHERE b.id = ANY(%(mails)s) AND EXISTS (
                    SELECT FROM event e JOIN delivery d ON d.id = e.delivery_id
                    WHERE e.contact_id = b.contact_id AND d.id <> b.id AND d.email = b.email AND e.occurred_at < %(first)s
                      AND (e.kind = 'delivered' OR (e.kind IN ('opened', 'clicked', 'replied') AND NOT e.machine))))
        """,
        {
            "relay": relay, "receiver": receiver, "first": bounces[0].at, "last": bounces[-1].at, "within": within,
            "mails": [each.delivery for each in bounces],
        },
    )  # fmt: skip
    row = await cursor.fetchone()
    assert row is not None
    total, listed, alive = max(row[0], len(bounces)), row[1], row[2]
    share = len(bounces) / total
    burst = f"{len(bounces)} of {total} mails to {receiver} by {relay} were answered alike"
    if share < SHARE:
        return ""
    if alive >= ALIVE * len(bounces):
        return f"{burst}, and {alive} of these addresses had taken mail before"
    if listed >= LISTED:
        return f"{burst}, and {listed} more were refused there for our bad name"
    return f"{burst}: nobody there was known any more" if share >= EVERYBODY else ""


async def _begin(
    conn: Connection, relay: str, receiver: str, text: str, why: str, bounces: Sequence[_Bounce]
) -> int:
    cursor = await conn.execute(
        """INSERT INTO incident (relay, receiver, signature, why, began_at, last_at, bounces)
           VALUES (%s, %s, %s, %s, %s, %s, 0) RETURNING id""",
        [relay, receiver, text, why, bounces[0].at, bounces[-1].at],
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _let_go(conn: Connection, incident: int, bounces: Sequence[_Bounce], now: datetime) -> int:
    """Class these bounces anew and lift what they suppressed. A suppression of another cause stays."""
    await conn.execute(
        """UPDATE event SET detail = detail || jsonb_build_object('class', 'reputation', 'was', 'address', 'incident', %s::bigint)
           WHERE id = ANY(%s)""",
        [incident, [each.event for each in bounces]],
    )
    cursor = await conn.execute(
        """
        WITH lifted AS (
            DELETE FROM suppression s USING delivery d
            WHERE d.id = ANY(%(mails)s) AND s.email_hash = address_hash(d.email) AND s.reason = %(dead)s
              AND s.evidence ->> 'delivery' = d.id::text
            RETURNING s.*
        ), told AS (
            INSERT INTO decision (at, decided_by, what, because, email_hash, detail)
            SELECT %(now)s, 'hub', 'lifted', 'incident ' || i.id || ': ' || i.why, l.email_hash,
                   jsonb_build_object('reason', l.reason, 'at', l.at, 'evidence', l.evidence)
            FROM lifted l JOIN incident i ON i.id = %(incident)s
        )
        UPDATE incident SET lifted = lifted + (SELECT count(*) FROM lifted), bounces = bounces + %(bounces)s, last_at = %(last)s
        WHERE id = %(incident)s RETURNING (SELECT count(*) FROM lifted)
        """,
        {
            "mails": [each.delivery for each in bounces], "dead": DEAD, "now": now, "incident": incident,
            "bounces": len(bounces), "last": bounces[-1].at,
        },
    )  # fmt: skip
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
