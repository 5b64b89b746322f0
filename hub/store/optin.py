"""Requests to get mail, and their confirmation: an address that somebody typed is no consent until its mailbox says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from hub.model import Channel, ConsentHow, ConsentSource
from hub.store import consent, ledger
from hub.store.database import Connection

PAUSE = timedelta(minutes=10)
"""Between two mails about one purpose to one address."""
PER_DAY = 3
"""Such mails to one address, whatever they are about: a form cannot be used to fill somebody's mailbox."""


@dataclass(frozen=True)
class Asked:
    """Somebody asks for mail of a purpose. `wording` is what the form says; `origin` the network it was sent from."""

    email: str
    purpose: str
    message: str
    message_purpose: str
    wording: str
    source: str
    expires: timedelta
    origin: str = ""
    language: str | None = None
    per_hour: int | None = None


async def request(conn: Connection, asked: Asked, *, now: datetime) -> str:
    """Queue the mail that asks for confirmation, in the caller's transaction.

    Returns `queued`, or why no mail is sent: `consented` (it stands already), `limited` (there were too many). Nobody who
    asks may be told which of them it was.
    """
    await conn.execute(
        "SELECT pg_advisory_xact_lock(hashtext('hub consent request'), hashtext(lower(%s)))", [asked.email]
    )
    cursor = await conn.execute(
        """
        SELECT
            (SELECT v.status FROM consent_verdict v WHERE v.email_hash = a.hash AND v.channel = 'email'
               AND v.purpose IN (%(purpose)s, '*') ORDER BY v.purpose = '*' LIMIT 1) = 'in',
            (SELECT count(*) FROM consent_request r WHERE r.email_hash = a.hash AND r.requested_at > %(now)s - interval '1 day'),
            EXISTS (SELECT FROM consent_request r WHERE r.email_hash = a.hash AND r.purpose = %(purpose)s
                    AND r.requested_at > %(now)s - %(pause)s::interval),
            (SELECT count(*) FROM consent_request r WHERE r.origin = %(origin)s AND r.requested_at > %(now)s - interval '1 hour')
        FROM (SELECT address_hash(%(email)s) AS hash) a
        """,
        {"email": asked.email, "purpose": asked.purpose, "now": now, "pause": PAUSE, "origin": asked.origin},
    )
    row = await cursor.fetchone()
    assert row is not None
    stands, today, lately, from_there = row
    if stands:
        return "consented"
    if today >= PER_DAY or lately or (asked.per_hour is not None and from_there >= asked.per_hour):
        return "limited"
    contact_id = await _contact(conn, asked, now=now)
    cursor = await conn.execute(
        """INSERT INTO consent_request (email_hash, contact_id, purpose, source, wording, origin, requested_at, expires_at)
           VALUES (address_hash(%s), %s, %s, %s, %s, %s, %s, %s) RETURNING id""",
        [asked.email, contact_id, asked.purpose, asked.source, asked.wording, asked.origin, now, now + asked.expires],
    )  # fmt: skip
    row = await cursor.fetchone()
    assert row is not None
    mail = ledger.NewDelivery(
        asked.message, contact_id, f"{ledger.ASKED}{row[0]}", asked.message_purpose, now
    )
    await ledger.queue(conn, [mail])
    return "queued"


async def _contact(conn: Connection, asked: Asked, *, now: datetime) -> int:
    """Who has the address; else somebody new, who is no contact for lists and mails before the address is confirmed."""
    cursor = await conn.execute(
        """SELECT id FROM contact WHERE email = lower(%s) AND state IN ('live', 'requested')
           ORDER BY state = 'live' DESC, id LIMIT 1""",
        [asked.email],
    )
    row = await cursor.fetchone()
    if row is None:
        cursor = await conn.execute(
            """WITH new AS (
                   INSERT INTO contact (email, language, state, created_at, changed_at)
                   VALUES (lower(%(email)s), %(language)s, 'requested', %(now)s, %(now)s) RETURNING id)
               INSERT INTO contact_change (contact_id, at, connection, kind) SELECT id, %(now)s, %(source)s, 'created' FROM new
               RETURNING contact_id""",
            {"email": asked.email, "language": asked.language, "now": now, "source": asked.source},
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def asked_by(conn: Connection, delivery_id: int) -> dict[str, Any] | None:
    """The request whose mail this is: `purpose`, `expires_at`, `confirmed_at` and more; locked until the transaction ends."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""SELECT r.id, r.purpose, r.source, r.wording, r.origin, r.requested_at, r.expires_at, r.confirmed_at, d.email,
                       d.contact_id, c.language
                FROM delivery d JOIN consent_request r ON d.occurrence = '{ledger.ASKED}' || r.id
                JOIN contact c ON c.id = d.contact_id WHERE d.id = %s FOR UPDATE OF r""".encode(),
            [delivery_id],
        )
        return await cursor.fetchone()


async def confirm(conn: Connection, delivery_id: int, *, origin: str, now: datetime) -> str:
    """The link of a request's mail was used. Returns `confirmed`, or what kept it from changing anything: `before` (it was
    confirmed), `expired`, `unknown` (no such request)."""
    found = await asked_by(conn, delivery_id)
    if found is None or not found["email"]:
        return "unknown"
    if found["confirmed_at"] is not None:
        return "before"
    if now > found["expires_at"]:
        return "expired"
    await conn.execute("UPDATE consent_request SET confirmed_at = %s WHERE id = %s", [now, found["id"]])
    await conn.execute(
        """WITH now_live AS (UPDATE contact SET state = 'live', changed_at = %(now)s
                             WHERE id = %(id)s AND state = 'requested' RETURNING id)
           INSERT INTO contact_change (contact_id, at, connection, kind, diff)
           SELECT id, %(now)s, %(source)s, 'changed', '{"state": ["requested", "live"]}' FROM now_live""",
        {"now": now, "id": found["contact_id"], "source": found["source"]},
    )
    proof = (
        f"{found['wording']} [asked for at {found['requested_at']:%Y-%m-%d %H:%M:%S} UTC{_from(found['origin'])};"
        f" confirmed by the link of delivery {delivery_id}{_from(origin)}]"
    )
    said = consent.Statement(
        found["email"], found["purpose"], "in", consent.WEB, now, found["contact_id"], proof, ConsentSource.PAGE,
        ConsentHow.DOUBLE_OPT_IN, Channel.EMAIL,
    )  # fmt: skip
    await consent.record(conn, [said])
    return "confirmed"


def _from(origin: str) -> str:
    return f" from {origin}" if origin else ""
