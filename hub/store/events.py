"""Events: what came back of deliveries, kept once each, and what follows from each of them in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.machines import Hit
from hub.model import BounceClass, ConsentHow, ConsentSource, ResultKind
from hub.standing import Standing, Told, standing
from hub.store import addresses, consent

DEAD = "bounced: the address does not exist"
COMPLAINED = "complained: called a mail spam"
UNSURE = timedelta(seconds=10)
"""How long after an open or click nobody is told of it: a machine's next one may come."""
GIVEN_UP = timedelta(days=5)
"""How long a mail server tries a mail that it could not deliver at once (RFC 5321, 4.5.4.1)."""


@dataclass(frozen=True)
class Evidence:
    """Something that happened to a delivery. `source_key` is the same when it is told again.

    `machine` and `about` are of opens and clicks: whether a program did it, and what speaks for that.
    """

    delivery_id: int
    kind: ResultKind
    occurred_at: datetime
    source: str  # relay, dsn, web, grace, admin; a webhook has its relay's name behind `relay `
    source_key: str
    detail: dict[str, Any]
    machine: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


async def record(conn: AsyncConnection[Any], evidence: Evidence, *, now: datetime) -> bool:
    """Keep an event in the caller's transaction, with its consequences. Returns False when it was known already.

    Where the mail stands is reckoned anew from all of its events. A dead address is suppressed, a complaint suppresses
    and opts out, an unsubscription enters the consent ledger.
    """
    if not await lock(conn, evidence.delivery_id):
        return False
    cursor = await conn.execute(
        """
        INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail, machine, evidence)
        SELECT id, contact_id, %s, %s, %s, %s, %s, %s, %s, %s FROM delivery WHERE id = %s
        ON CONFLICT (source_key) DO NOTHING RETURNING contact_id
        """,
        [
            evidence.kind,
            evidence.occurred_at,
            now,
            evidence.source,
            evidence.source_key,
            Jsonb(evidence.detail),
            evidence.machine,
            Jsonb(dict(evidence.about)),
            evidence.delivery_id,
        ],
    )
    row = await cursor.fetchone()
    if evidence.kind is ResultKind.UNSUBSCRIBED:  # also when repeated: a person may have come back in between
        await _unsubscribed(conn, evidence)
    if row is None:
        return False
    await stand(conn, evidence.delivery_id, now=now)
    if evidence.kind is ResultKind.BOUNCED:
        await _bounced(conn, evidence)
    elif evidence.kind is ResultKind.COMPLAINED:
        await _complained(conn, evidence)
    return True


async def lock(conn: AsyncConnection[Any], delivery_id: int) -> bool:
    """Have a mail's row to ourselves until the transaction ends: its events are judged together. Whether there is one."""
    cursor = await conn.execute("SELECT 1 FROM delivery WHERE id = %s FOR NO KEY UPDATE", [delivery_id])
    return await cursor.fetchone() is not None


async def hits(conn: AsyncConnection[Any], delivery_id: int) -> tuple[datetime | None, dict[Hit, bool]]:
    """(when the relay took the mail, its opens and clicks -> whether a machine did them)."""
    cursor = await conn.execute("SELECT sent_at FROM delivery WHERE id = %s", [delivery_id])
    row = await cursor.fetchone()
    cursor = await conn.execute(
        """SELECT source_key, kind, occurred_at, detail, evidence, machine FROM event
           WHERE delivery_id = %s AND kind IN ('opened', 'clicked')""",
        [delivery_id],
    )
    return row[0] if row else None, {
        Hit(
            key, kind, at, detail.get("user_agent", ""), about.get("network", ""), detail.get("link", ""),
            bool(about.get("trap")), about.get("said", ""), bool(about.get("known", True)),
        ): machine
        for key, kind, at, detail, about, machine in await cursor.fetchall()
    }  # fmt: skip


async def judged(conn: AsyncConnection[Any], key: str, *, machine: bool, about: Mapping[str, Any]) -> None:
    """Another verdict on an event that is kept already."""
    await conn.execute(
        "UPDATE event SET machine = %s, evidence = %s WHERE source_key = %s",
        [machine, Jsonb(dict(about)), key],
    )


async def stand(conn: AsyncConnection[Any], delivery_id: int, *, now: datetime) -> Standing:
    """Write down where a mail stands by all of its events. The caller has `lock`ed it.

    What the relay took is `accepted`, whatever else was thought of it: an uncertain mail is settled by that, and one that
    waits to be sent again is not.
    """
    cursor = await conn.execute(
        "SELECT source_key, kind, received_at, source, machine, occurred_at FROM event WHERE delivery_id = %s",
        [delivery_id],
    )
    rows = await cursor.fetchall()
    found = standing(Told(key, ResultKind(kind), *rest) for key, kind, *rest, _ in rows)
    await conn.execute(
        """UPDATE delivery SET result = %(result)s, settled_at = %(settled_at)s
           WHERE id = %(id)s AND (result, settled_at) IS DISTINCT FROM (%(result)s, %(settled_at)s)""",
        {"id": delivery_id, "result": found.result, "settled_at": found.settled_at},
    )
    if found.taken:
        _, kind, _, source, _, at = min(rows, key=lambda row: (row[5], row[0]))
        await _settle_uncertain(conn, delivery_id, kind, source, at, now=now)
    return found


async def _settle_uncertain(
    conn: AsyncConnection[Any], delivery_id: int, kind: str, source: str, at: datetime, *, now: datetime
) -> None:
    """The relay did take it, since something came back: it is `accepted`, and has its `sent` event."""
    cursor = await conn.execute(
        """UPDATE delivery SET state = 'accepted', reason = 'settled by evidence: ' || %s, sent_at = coalesce(sent_at, %s),
               lease_until = NULL, retry_at = NULL
           WHERE id = %s AND state IN ('uncertain', 'claimed', 'queued', 'held') RETURNING contact_id, sent_at""",
        [kind, at, delivery_id],
    )
    row = await cursor.fetchone()
    if row is not None:
        await conn.execute(
            """INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
               VALUES (%s, %s, 'sent', %s, %s, %s, %s, '{}') ON CONFLICT (source_key) DO NOTHING""",
            [delivery_id, row[0], row[1], now, source, f"sent:{delivery_id}"],
        )


async def _bounced(conn: AsyncConnection[Any], evidence: Evidence) -> None:
    if evidence.detail.get("class") != BounceClass.ADDRESS:
        return
    if email := (await _address(conn, evidence))[0]:
        proof = {"delivery": evidence.delivery_id, **evidence.detail}
        await consent.suppress(conn, email, DEAD, at=evidence.occurred_at, evidence=proof)


async def _complained(conn: AsyncConnection[Any], evidence: Evidence) -> None:
    """Whoever calls a mail spam gets no more of any kind, and everybody who asks for consent is told so."""
    email, _, contact_id = await _address(conn, evidence)
    if not email:
        return
    proof = {"delivery": evidence.delivery_id, **evidence.detail}
    await consent.suppress(conn, email, COMPLAINED, at=evidence.occurred_at, evidence=proof)
    said = consent.Statement(
        email,
        "*",
        "out",
        "complaint",
        evidence.occurred_at,
        contact_id,
        f"called delivery {evidence.delivery_id} spam",
        ConsentSource.SYSTEM,
        ConsentHow.SINGLE,
    )
    await consent.record(conn, [said])
    await addresses.carry_opt_outs(conn, [contact_id])


async def _unsubscribed(conn: AsyncConnection[Any], evidence: Evidence) -> None:
    email, purpose, contact_id = await _address(conn, evidence)
    if email:
        how = "one-click unsubscribe" if evidence.source == consent.WEB else "unsubscribe"
        said = consent.Statement(
            email,
            purpose,
            "out",
            evidence.source,
            evidence.occurred_at,
            contact_id,
            f"{how} of delivery {evidence.delivery_id}",
            ConsentSource.PAGE if evidence.source == consent.WEB else ConsentSource.SYSTEM,
            ConsentHow.SINGLE,
        )
        if await consent.repeated(conn, said):
            return
        await consent.record(conn, [said])
        await addresses.carry_opt_outs(conn, [contact_id])


async def _address(conn: AsyncConnection[Any], evidence: Evidence) -> tuple[str | None, str, int]:
    """(the address that the mail was sent to, its purpose, the contact)."""
    cursor = await conn.execute(
        "SELECT email, purpose, contact_id FROM delivery WHERE id = %s", [evidence.delivery_id]
    )
    row = await cursor.fetchone()
    assert row is not None  # its event refers to it
    return row[0], row[1], row[2]


async def settle_delivered(
    conn: AsyncConnection[Any], *, sent_before: datetime, now: datetime, limit: int = 1_000
) -> int:
    """Accepted mails without a failure report since `sent_before` count as delivered; one that was reported as delayed only
    when nobody can still be trying it. Returns how many."""
    cursor = await conn.execute(
        """
        WITH quiet AS (
            SELECT d.id FROM delivery d
            WHERE d.state = 'accepted' AND d.settled_at IS NULL AND d.sent_at <= %(sent_before)s
              AND (d.result IS DISTINCT FROM 'delayed' OR d.sent_at <= %(now)s - %(trying)s)
              AND NOT EXISTS (SELECT FROM event e WHERE e.delivery_id = d.id AND e.kind = 'bounced')
            ORDER BY d.sent_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), settled AS (
            UPDATE delivery d SET settled_at = %(now)s, result = 'delivered' FROM quiet WHERE d.id = quiet.id
            RETURNING d.id, d.contact_id, d.sent_at
        )
        INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
        SELECT id, contact_id, 'delivered', sent_at, %(now)s, 'grace', 'delivered:' || id,
               '{"evidence": "no failure report within the grace time"}'
        FROM settled ON CONFLICT (source_key) DO NOTHING
        """,
        {"sent_before": sent_before, "now": now, "limit": limit, "trying": GIVEN_UP},
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
    raw: bytes | None = None,
) -> bool:
    """Remember a report that was read, and the whole of one that could not be. Returns False when it was read before."""
    cursor = await conn.execute(
        """INSERT INTO report (source_key, received_at, delivery_id, verdict, detail, raw) VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (source_key) DO NOTHING""",
        [source_key, now, delivery_id, verdict, Jsonb(detail), raw],
    )
    return cursor.rowcount == 1


async def address(conn: AsyncConnection[Any], delivery_id: int) -> str | None:
    """Where a mail was sent to."""
    row = await (await conn.execute("SELECT email FROM delivery WHERE id = %s", [delivery_id])).fetchone()
    return row[0] if row else None


async def exists(conn: AsyncConnection[Any], delivery_id: int) -> bool:
    return (
        await (await conn.execute("SELECT 1 FROM delivery WHERE id = %s", [delivery_id])).fetchone()
        is not None
    )


async def unplanned(conn: AsyncConnection[Any], limit: int, *, now: datetime) -> list[dict[str, Any]]:
    """Events whose pushes are not in the outbox yet, oldest first, locked, with what a push needs to know. Opens and clicks
    wait until it is known whether a person did them."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT e.id, e.kind, e.occurred_at, e.detail, e.machine, e.contact_id, e.delivery_id, d.message, d.subject, d.funnel,
                   d.purpose,
                   d.email, d.sent_at, d.relay, i.id AS instance,
                   coalesce((SELECT array_agg(DISTINCT connection) FROM contact_identity ci
                             WHERE ci.contact_id = e.contact_id AND ci.state = 'live'), '{}') AS known_to
            FROM event e JOIN delivery d ON d.id = e.delivery_id CROSS JOIN instance i
            WHERE e.planned_at IS NULL AND (e.kind NOT IN ('opened', 'clicked') OR e.received_at <= %s)
            ORDER BY e.id LIMIT %s FOR UPDATE OF e SKIP LOCKED
            """,
            [now - UNSURE, limit],
        )
        return list(await cursor.fetchall())


async def mark_planned(conn: AsyncConnection[Any], ids: list[int], *, now: datetime) -> None:
    await conn.execute("UPDATE event SET planned_at = %s WHERE id = ANY(%s)", [now, ids])


async def totals(conn: AsyncConnection[Any]) -> dict[str, int]:
    """Deliveries that have at least one event of a kind: kind -> deliveries. What machines did counts only in `opened_raw`
    and `clicked_raw`, beside what people did."""
    cursor = await conn.execute(
        """SELECT kind, count(DISTINCT delivery_id) FILTER (WHERE NOT machine), count(DISTINCT delivery_id)
           FROM event GROUP BY kind ORDER BY kind"""
    )
    found: dict[str, int] = {}
    for kind, human, raw in await cursor.fetchall():
        found[kind] = human
        if kind in ("opened", "clicked"):
            found[f"{kind}_raw"] = raw
    return found
