"""The send ledger as people look at it: sums, single mails with all that is known of them, and what is settled by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from hub.store import decisions, events
from hub.store.campaigns import PAUSED
from hub.store.database import Connection
from hub.store.decisions import Decision

BY_HAND = "settled by hand: "
_CHOSEN = """
    (%(state)s::text IS NULL OR d.state = %(state)s) AND (%(message)s::text IS NULL OR d.message = %(message)s)
    AND (%(relay)s::text IS NULL OR d.relay = %(relay)s) AND (%(funnel)s::text IS NULL OR d.funnel = %(funnel)s)
    AND (%(campaign)s::text IS NULL OR d.campaign_id = (SELECT id FROM campaign WHERE name = %(campaign)s))
    AND (%(email)s::text IS NULL OR d.contact_id IN (SELECT id FROM contact WHERE email = lower(%(email)s)))
"""
CHOICES = ("state", "message", "relay", "funnel", "campaign", "email")
_ROW = """
    d.id, d.message, d.state, d.contact_id, coalesce(d.email, c.email) AS email, d.purpose, d.relay, d.attempts, d.reason,
    d.reply_code, d.reply_text, d.result, d.not_before, d.queued_at, d.sent_at, d.settled_at, nullif(d.funnel, '') AS funnel,
    k.name AS campaign, d.claimed_by, d.lease_until, greatest(d.retry_at - clock_timestamp(), interval '0') AS retry_in
"""
_FROM = "delivery d JOIN contact c ON c.id = d.contact_id LEFT JOIN campaign k ON k.id = d.campaign_id"


async def sums(conn: Connection, chosen: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """`mails` by message, state and relay, with the most frequent `reason` among them; of one state by reason, too.
    `chosen` are some of `CHOICES`."""
    by, reason = ("1, 2, 3", "mode() WITHIN GROUP (ORDER BY d.reason)")
    if chosen.get("state") is not None:
        by, reason = f"{by}, 7", "d.reason"
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""SELECT d.message, d.state, coalesce(d.relay, '') AS relay, count(*) AS mails, min(d.queued_at) AS oldest,
                       max(d.queued_at) AS newest, {reason} AS reason
                FROM delivery d WHERE {_CHOSEN} GROUP BY {by} ORDER BY 1, 2, 3, 4 DESC, 7""".encode(),
            {**dict.fromkeys(CHOICES), **chosen},
        )
        return list(await cursor.fetchall())


async def newest(conn: Connection, chosen: Mapping[str, str | None], *, limit: int) -> list[dict[str, Any]]:
    """Single mails, the newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_ROW} FROM {_FROM} WHERE {_CHOSEN} ORDER BY d.id DESC LIMIT %(limit)s".encode(),
            {**dict.fromkeys(CHOICES), **chosen, "limit": limit},
        )
        return list(await cursor.fetchall())


async def one(conn: Connection, delivery_id: int) -> dict[str, Any] | None:
    """A mail with its `events`, and the `decisions` about it."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_ROW}, d.subject, d.occurrence FROM {_FROM} WHERE d.id = %s".encode(), [delivery_id]
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        await cursor.execute(
            """SELECT occurred_at, kind, source, detail, machine, evidence FROM event
               WHERE delivery_id = %s ORDER BY occurred_at, id""",
            [delivery_id],
        )
        came_back = list(await cursor.fetchall())
    return {**row, "events": came_back, "decisions": await decisions.of_delivery(conn, delivery_id)}


async def settle(
    conn: Connection, delivery_id: int, state: str, *, because: str, by: str, now: datetime
) -> str:
    """Settle an uncertain mail in the caller's transaction, as a person has found out: `accepted`, `rejected`, or `queued` to be
    sent again. Returns the state that it is in now, or a sentence that says why nothing was changed.

    Of a paused campaign it is held; of a cancelled one it is not queued. One that was finished goes on.
    """
    row = await (
        await conn.execute("SELECT campaign_id FROM delivery WHERE id = %s", [delivery_id])
    ).fetchone()
    if row is None:
        return f"there is no delivery {delivery_id}"
    campaign = None
    if row[0] is not None:  # before the mail: whoever changes a campaign has its row first
        found = await (
            await conn.execute("SELECT state FROM campaign WHERE id = %s FOR UPDATE", [row[0]])
        ).fetchone()
        campaign = found[0] if found else None
    row = await (
        await conn.execute("SELECT state, reason FROM delivery WHERE id = %s FOR UPDATE", [delivery_id])
    ).fetchone()
    assert row is not None
    if row[0] != "uncertain":
        return f"delivery {delivery_id} is {row[0]}: only what is uncertain is settled by hand"
    if state == "queued" and campaign == "cancelled":
        return f"delivery {delivery_id} belongs to a campaign that was cancelled"
    after = "held" if state == "queued" and campaign == "paused" else state
    reason = PAUSED if after == "held" else "" if after == "queued" else BY_HAND + because
    await conn.execute(
        """UPDATE delivery SET state = %(after)s, reason = %(reason)s, retry_at = NULL, lease_until = NULL,
               sent_at = CASE WHEN %(after)s = 'accepted' THEN coalesce(sent_at, %(now)s) ELSE sent_at END,
               settled_at = CASE WHEN %(after)s = 'rejected' THEN %(now)s ELSE settled_at END
           WHERE id = %(id)s""",
        {"after": after, "reason": reason, "now": now, "id": delivery_id},
    )
    if after == "accepted":
        await conn.execute(
            """INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
               SELECT id, contact_id, 'sent', sent_at, %s, 'admin', 'sent:' || id FROM delivery WHERE id = %s
               ON CONFLICT (source_key) DO NOTHING""",
            [now, delivery_id],
        )
        await events.stand(conn, delivery_id, now=now)
    if after == "queued" and campaign == "finished":
        await conn.execute(
            """UPDATE campaign SET state = 'sending', ended_at = NULL
               WHERE id = (SELECT campaign_id FROM delivery WHERE id = %s)""",
            [delivery_id],
        )
    detail = {"from": "uncertain", "reason": row[1], "to": after}
    await decisions.record(
        conn, Decision("settled", because, by, now, delivery_id=delivery_id, detail=detail)
    )
    return after
