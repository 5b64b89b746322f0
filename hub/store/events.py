"""Events: what came back of deliveries, kept once each, and what follows from each of them in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.model import BounceClass, ConsentHow, ConsentSource, ResultKind
from hub.store import addresses, consent


@dataclass(frozen=True)
class Evidence:
    """Something that happened to a delivery. `source_key` is the same when it is told again."""

    delivery_id: int
    kind: ResultKind
    occurred_at: datetime
    source: str  # relay, dsn, web, grace
    source_key: str
    detail: dict[str, Any]


async def record(conn: AsyncConnection[Any], evidence: Evidence, *, now: datetime) -> bool:
    """Keep an event in the caller's transaction, with its consequences. Returns False when it was known already.

    Any evidence that the mail arrived settles an uncertain send. A dead address is suppressed, an
    unsubscription enters the consent ledger.
    """
    cursor = await conn.execute(
        """
        INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
        SELECT id, contact_id, %s, %s, %s, %s, %s, %s FROM delivery WHERE id = %s
        ON CONFLICT (source_key) DO NOTHING RETURNING contact_id
        """,
        [
            evidence.kind,
            evidence.occurred_at,
            now,
            evidence.source,
            evidence.source_key,
            Jsonb(evidence.detail),
            evidence.delivery_id,
        ],
    )
    row = await cursor.fetchone()
    if evidence.kind is ResultKind.UNSUBSCRIBED:  # also when repeated: a person may have come back in between
        await _unsubscribed(conn, evidence)
    if row is None:
        return False
    await _settle_uncertain(conn, evidence, now=now)
    if evidence.kind is ResultKind.BOUNCED:
        await _bounced(conn, evidence)
    elif evidence.kind is ResultKind.DELIVERED:
        await conn.execute(
            "UPDATE delivery SET settled_at = coalesce(settled_at, %s) WHERE id = %s",
            [now, evidence.delivery_id],
        )
    return True


async def _settle_uncertain(conn: AsyncConnection[Any], evidence: Evidence, *, now: datetime) -> None:
    """The relay did take it, since something came back: `uncertain` becomes `accepted` with its `sent` event."""
    cursor = await conn.execute(
        """UPDATE delivery SET state = 'accepted', reason = 'settled by evidence: ' || %s, sent_at = coalesce(sent_at, %s),
               lease_until = NULL
           WHERE id = %s AND state IN ('uncertain', 'claimed') RETURNING contact_id, sent_at""",
        [evidence.kind, now, evidence.delivery_id],
    )
    row = await cursor.fetchone()
    if row is not None:
        await conn.execute(
            """INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
               VALUES (%s, %s, 'sent', %s, %s, %s, %s, '{}') ON CONFLICT (source_key) DO NOTHING""",
            [evidence.delivery_id, row[0], row[1], now, evidence.source, f"sent:{evidence.delivery_id}"],
        )


async def _bounced(conn: AsyncConnection[Any], evidence: Evidence) -> None:
    cursor = await conn.execute(
        "UPDATE delivery SET settled_at = coalesce(settled_at, %s) WHERE id = %s RETURNING email",
        [evidence.occurred_at, evidence.delivery_id],
    )
    row = await cursor.fetchone()
    if row and row[0] and evidence.detail.get("class") == BounceClass.ADDRESS:
        proof = {"delivery": evidence.delivery_id, **evidence.detail}
        await consent.suppress(
            conn, row[0], "bounced: the address does not exist", at=evidence.occurred_at, evidence=proof
        )


async def _unsubscribed(conn: AsyncConnection[Any], evidence: Evidence) -> None:
    cursor = await conn.execute(
        "SELECT email, purpose, contact_id FROM delivery WHERE id = %s", [evidence.delivery_id]
    )
    row = await cursor.fetchone()
    if row and row[0]:
        said = consent.Statement(
            row[0], row[1], "out", consent.WEB, evidence.occurred_at, row[2],
            f"one-click unsubscribe of delivery {evidence.delivery_id}", ConsentSource.PAGE, ConsentHow.SINGLE,
        )  # fmt: skip
        if await consent.repeated(conn, said):
            return
        await consent.record(conn, [said])
        await addresses.carry_opt_outs(conn, [row[2]])


async def settle_delivered(
    conn: AsyncConnection[Any], *, sent_before: datetime, now: datetime, limit: int = 1_000
) -> int:
    """Accepted mails without a failure report since `sent_before` count as delivered. Returns how many."""
    cursor = await conn.execute(
        """
        WITH quiet AS (
            SELECT d.id FROM delivery d
            WHERE d.state = 'accepted' AND d.settled_at IS NULL AND d.sent_at <= %(sent_before)s
              AND NOT EXISTS (SELECT FROM event e WHERE e.delivery_id = d.id AND e.kind = 'bounced')
            ORDER BY d.sent_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), settled AS (
            UPDATE delivery d SET settled_at = %(now)s FROM quiet WHERE d.id = quiet.id RETURNING d.id, d.contact_id, d.sent_at
        )
        INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
        SELECT id, contact_id, 'delivered', sent_at, %(now)s, 'grace', 'delivered:' || id,
               '{"evidence": "no failure report within the grace time"}'
        FROM settled ON CONFLICT (source_key) DO NOTHING
        """,
        {"sent_before": sent_before, "now": now, "limit": limit},
    )
    return cursor.rowcount


async def keep_report(
    conn: AsyncConnection[Any],
    source_key: str,
    verdict: str,
    delivery_id: int | None,
    detail: dict[str, Any],
    *,
    now: datetime,
) -> bool:
    """Remember a report that was read. Returns False when it was read before."""
    cursor = await conn.execute(
        """INSERT INTO report (source_key, received_at, delivery_id, verdict, detail) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (source_key) DO NOTHING""",
        [source_key, now, delivery_id, verdict, Jsonb(detail)],
    )
    return cursor.rowcount == 1


async def exists(conn: AsyncConnection[Any], delivery_id: int) -> bool:
    return (
        await (await conn.execute("SELECT 1 FROM delivery WHERE id = %s", [delivery_id])).fetchone()
        is not None
    )


async def unplanned(conn: AsyncConnection[Any], limit: int) -> list[dict[str, Any]]:
    """Events whose pushes are not in the outbox yet, oldest first, locked, with what a push needs to know."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT e.id, e.kind, e.occurred_at, e.detail, e.contact_id, e.delivery_id, d.message, d.subject, d.funnel, d.purpose,
                   d.email, d.sent_at, d.relay, i.id AS instance,
                   coalesce((SELECT array_agg(DISTINCT connection) FROM contact_identity ci
                             WHERE ci.contact_id = e.contact_id AND ci.state = 'live'), '{}') AS known_to
            FROM event e JOIN delivery d ON d.id = e.delivery_id CROSS JOIN instance i
            WHERE e.planned_at IS NULL ORDER BY e.id LIMIT %s FOR UPDATE OF e SKIP LOCKED
            """,
            [limit],
        )
        return list(await cursor.fetchall())


async def mark_planned(conn: AsyncConnection[Any], ids: list[int], *, now: datetime) -> None:
    await conn.execute("UPDATE event SET planned_at = %s WHERE id = ANY(%s)", [now, ids])


async def totals(conn: AsyncConnection[Any]) -> dict[str, int]:
    """Deliveries that have at least one event of a kind: kind -> deliveries."""
    cursor = await conn.execute(
        "SELECT kind, count(DISTINCT delivery_id) FROM event GROUP BY kind ORDER BY kind"
    )
    return dict(await cursor.fetchall())
