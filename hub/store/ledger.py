"""The send ledger: one row for each (message, contact, occurrence), claimed and committed before SMTP.

    queued -> claimed -> accepted | rejected | uncertain
                 |  '-> queued (a passing refusal, tried again later)
                 '-> excluded (nobody may be sent this now; the reason says why)

A claim carries a fence number: an outcome is recorded only by the holder of the newest one. What a worker had claimed
when it crashed is queued again if its journal says that it was never offered; else it is `uncertain`, and never sent
again blindly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from psycopg import AsyncConnection

from hub.model import CONTACT_FIELDS, FieldType
from hub.store import companies

LEASE_SECONDS = 60
MAX_ATTEMPTS = 30
"""With pauses that grow to an hour: about a day, in which greylists open and full mailboxes are emptied."""


@dataclass(frozen=True)
class NewDelivery:
    """A mail to queue. The first three fields are its key: queueing it again changes nothing."""

    message: str
    contact_id: int
    occurrence: str
    purpose: str
    queued_at: datetime
    funnel: str = ""
    funnel_entry_id: int | None = None


class Claimed(NamedTuple):
    """A mail that is ours to send until its lease runs out."""

    id: int
    message: str
    purpose: str
    contact_id: int
    email: str
    country: str
    attempts: int
    claim: int


class Sent(NamedTuple):
    """The outcome of one mail. `state` is accepted, rejected, uncertain or queued (again, after `retry_seconds`)."""

    id: int
    claim: int
    state: str
    relay: str = ""
    reply_code: int | None = None
    reply_text: str = ""
    reason: str = ""
    subject: str = ""
    retry_seconds: float = 0.0
    offered: bool = True  # False: the relay never saw it, so it counts as no attempt
    bounce: dict[str, Any] | None = (
        None  # of a refusal that is about the recipient: detail of the `bounced` event
    )


async def queue(conn: AsyncConnection[Any], rows: Sequence[NewDelivery]) -> int:
    """Queue mails in the caller's transaction. Returns how many were new."""
    if not rows:
        return 0
    cursor = await conn.execute(
        """
        INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, funnel, funnel_entry_id)
        SELECT * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::bigint[])
        ON CONFLICT (message, contact_id, occurrence) DO NOTHING
        """,
        [
            [r.message for r in rows],
            [r.contact_id for r in rows],
            [r.occurrence for r in rows],
            [r.purpose for r in rows],
            [r.queued_at for r in rows],
            [r.funnel for r in rows],
            [r.funnel_entry_id for r in rows],
        ],
    )
    return cursor.rowcount


ASKED = "consent-request:"
"""Begins the occurrence of a mail that only asks whether somebody wants mail, who asked for it just now."""
EXCLUDED = f"""
    CASE
        WHEN c.state <> 'live' AND NOT (c.state = 'requested' AND starts_with(d.occurrence, '{ASKED}')) THEN
            'the contact is ' || c.state
        WHEN coalesce(c.email, '') = '' THEN 'the contact has no e-mail address'
        WHEN NOT d.purpose = ANY(%(purposes)s) THEN 'the purpose ' || d.purpose || ' is not in hub.yaml'
        WHEN EXISTS (SELECT FROM suppression s WHERE s.email_hash = a.hash) THEN
            'suppressed: ' || (SELECT s.reason FROM suppression s WHERE s.email_hash = a.hash)
        WHEN starts_with(d.occurrence, '{ASKED}') THEN NULL
        WHEN (SELECT v.status FROM consent_verdict v WHERE v.email_hash = a.hash AND v.channel = 'email'
                AND v.purpose IN (d.purpose, '*') ORDER BY v.purpose = '*' LIMIT 1) = 'out' THEN
            'opted out, by the word of ' || (
                SELECT v.source FROM consent_verdict v WHERE v.email_hash = a.hash AND v.channel = 'email'
                  AND v.purpose IN (d.purpose, '*') ORDER BY v.purpose = '*' LIMIT 1)
        WHEN d.purpose = ANY(%(opt_in)s) AND (
                SELECT v.status FROM consent_verdict v WHERE v.email_hash = a.hash AND v.channel = 'email'
                  AND v.purpose IN (d.purpose, '*') ORDER BY v.purpose = '*' LIMIT 1) IS DISTINCT FROM 'in' THEN
            'the purpose ' || d.purpose || ' needs an opt-in, and none is recorded'
    END
"""
"""Why a contact `c` with the address's hash `a` may not be sent a mail of `d.purpose` now; NULL when it may go."""

DUE = "state = 'queued' AND coalesce(not_before, '-infinity') <= %(now)s AND (retry_at IS NULL OR retry_at <= clock_timestamp())"
"""Of a delivery: it may be claimed now. Written as the index `delivery_due` has it: what waits for its time is not looked at."""


async def claim(
    conn: AsyncConnection[Any],
    purposes: Mapping[str, bool],
    *,
    worker: str,
    limit: int,
    now: datetime,
    without: Collection[str] = (),
) -> list[Claimed]:
    """Claim up to `limit` due mails, in the order of their times; commit before anything is sent.

    `purposes` is name -> whether it needs an opt-in. Suppression and consent are applied here, at the last
    moment: what may not be sent becomes `excluded` with its reason. Returns an empty list only when nothing is
    due; a batch of which all were excluded gives `[]` too, so callers look again (`due`). `without` are messages to pass by.
    """
    values = {
        "worker": worker, "limit": limit, "now": now, "lease": LEASE_SECONDS, "without": list(without),
        "purposes": list(purposes), "opt_in": [name for name, needed in purposes.items() if needed],
    }  # fmt: skip
    cursor = await conn.execute(
        f"""
        WITH due AS (
            SELECT id, contact_id, purpose, occurrence FROM delivery WHERE {DUE} AND NOT message = ANY(%(without)s)
            ORDER BY coalesce(not_before, '-infinity'), id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        ), judged AS MATERIALIZED (  -- once for each, though its verdict is used three times
            SELECT d.id, c.email, c.country, {EXCLUDED} AS reason
            FROM due d JOIN contact c ON c.id = d.contact_id
            CROSS JOIN LATERAL (SELECT address_hash(c.email) AS hash OFFSET 0) a
        )
        UPDATE delivery d SET
            state = CASE WHEN j.reason IS NULL THEN 'claimed' ELSE 'excluded' END,
            reason = coalesce(j.reason, ''), email = j.email, claimed_by = %(worker)s,
            claim = nextval('delivery_claim'), attempts = d.attempts + 1,
            lease_until = CASE WHEN j.reason IS NULL THEN clock_timestamp() + make_interval(secs => %(lease)s) END
        FROM judged j WHERE d.id = j.id
        RETURNING d.id, d.message, d.purpose, d.contact_id, d.email, coalesce(j.country, ''), d.attempts, d.claim, d.state
        """.encode(),
        values,
    )
    rows = sorted(await cursor.fetchall())
    return [Claimed._make(row[:-1]) for row in rows if row[-1] == "claimed"]


async def due(conn: AsyncConnection[Any], *, now: datetime, without: Collection[str] = ()) -> bool:
    """Whether any mail may be claimed now."""
    cursor = await conn.execute(
        f"SELECT EXISTS (SELECT FROM delivery WHERE {DUE} AND NOT message = ANY(%(without)s))".encode(),
        {"now": now, "without": list(without)},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def people(
    conn: AsyncConnection[Any], ids: Sequence[int], fields: Collection[str] | None, *, deals: bool
) -> dict[int, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """contact id -> (its fields, its deals), for templates: the named fields only, or all of them with None."""
    names = None if fields is None else sorted(fields)
    contact: Sequence[str] = ["to_jsonb(c) - '{fields,merged_into,state}'::text[] || c.fields"]
    if names is not None:
        contact = [_field(name) for name in names]
    columns = ", ".join([*contact, _DEALS if deals else "NULL"])
    cursor = await conn.execute(
        f"SELECT c.id, {columns} FROM contact c WHERE c.id = ANY(%s::bigint[])".encode(), [_array(ids)]
    )
    rows = await cursor.fetchall()
    if names is None:
        return {id: (contact, deals or []) for id, contact, deals in rows}
    return {id: (dict(zip(names, values, strict=True)), deals or []) for id, *values, deals in rows}


_DEALS = """
    (SELECT jsonb_agg(jsonb_build_object('name', d.name, 'stage', d.stage, 'pipeline', d.pipeline,
                                         'amount', d.amount, 'currency', d.currency, 'roles', d.roles) ORDER BY d.id)
     FROM (SELECT e.id, e.name, e.stage, e.pipeline, e.amount, e.currency,
                  coalesce(array_agg(e.role ORDER BY e.role) FILTER (WHERE e.role <> ''), '{}') AS roles
           FROM contact_deal e WHERE e.contact_id = c.id GROUP BY 1, 2, 3, 4, 5, 6) d)
"""


def _field(name: str) -> str:
    """A contact's field as SQL. What is no text comes as JSON has it, so that templates see one form of it everywhere."""
    if name.startswith("company."):
        return companies.of_main(name.removeprefix("company."))[0]
    known = CONTACT_FIELDS.get(name)
    if known is not None and known.column and known.type in (FieldType.TEXT, FieldType.ENUM):
        return f"c.{known.column}"
    if known is not None and known.column:
        return f"to_jsonb(c.{known.column})"
    quoted = name.replace("'", "''").replace("%", "%%")
    return f"c.fields -> '{quoted}'"


def _array(values: Iterable[int]) -> str:
    """Whole numbers as PostgreSQL writes an array: a hundred times quicker than a list of parameters."""
    return "{" + ",".join(map(str, values)) + "}"


def _text_array(values: Iterable[str]) -> str:
    """Texts as PostgreSQL writes an array. NUL, which no text of PostgreSQL may hold, is dropped."""
    values = list(values)
    if not values:
        return "{}"
    text = "\0".join(values)
    if text.count("\0") >= len(values):
        text = "\0".join([value.replace("\0", "") for value in values])
    # All at once, since there are thousands of them in a second.
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{quoted}"}}'


async def renew(conn: AsyncConnection[Any], worker: str) -> int:
    """Lengthen the leases of everything that a worker is still at."""
    cursor = await conn.execute(
        """UPDATE delivery SET lease_until = clock_timestamp() + make_interval(secs => %s)
           WHERE claimed_by = %s AND lease_until IS NOT NULL""",
        [LEASE_SECONDS, worker],
    )
    return cursor.rowcount


async def settle(conn: AsyncConnection[Any], outcomes: Sequence[Sent], *, now: datetime) -> int:
    """Record outcomes in the caller's transaction, each with the event that it is. Returns how many were ours to record.

    An outcome that comes late still settles an `uncertain` row: who holds its claim knows better, also that it was
    refused for now or never offered. People may be faster than
    a relay's answer: then the row is `accepted` already, and gets the reply.
    """
    accepted = [o for o in outcomes if o.state == "accepted"]
    accepted.sort(key=itemgetter(0))  # by id, in one order: no two group commits wait for each other
    others = [o for o in outcomes if o.state != "accepted"]
    settled = await _settle_accepted(conn, accepted, now=now) if accepted else 0
    return settled + (await _settle_others(conn, others, now=now) if others else 0)


async def _settle_accepted(conn: AsyncConnection[Any], outcomes: Sequence[Sent], *, now: datetime) -> int:
    ids, claims, _, relays, codes, texts, _, subjects, *_ = zip(*outcomes, strict=True)
    cursor = await conn.execute(
        """
        WITH told AS (
            SELECT * FROM unnest(%(ids)s::bigint[], %(claims)s::bigint[], %(relays)s::text[], %(subjects)s::text[],
                                 %(codes)s::int[], %(texts)s::text[])
                AS t (id, claim, relay, subject, reply_code, reply_text)
        ), settled AS (
            UPDATE delivery d SET state = 'accepted', relay = t.relay, subject = t.subject, reply_code = t.reply_code,
                reply_text = t.reply_text, reason = '', lease_until = NULL, retry_at = NULL,
                sent_at = coalesce(d.sent_at, %(now)s), result = coalesce(d.result, 'sent')
            FROM told t
            WHERE d.id = t.id AND d.claim = t.claim
              AND CASE d.state WHEN 'claimed' THEN true WHEN 'uncertain' THEN true
                      WHEN 'accepted' THEN d.reply_code IS NULL ELSE false END  -- CASE: no old statistics are asked of it
            RETURNING d.id, d.contact_id
        ), happened AS (
            INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
            SELECT id, contact_id, 'sent', %(now)s::timestamptz, %(now)s::timestamptz, 'relay', 'sent:' || id FROM settled
            ON CONFLICT (source_key) DO NOTHING
        )
        SELECT count(*) FROM settled
        """,
        {
            "ids": _array(ids),
            "claims": _array(claims),
            "relays": _text_array(relays),
            "subjects": _text_array(subjects),
            "codes": _array(code or 0 for code in codes),
            "texts": _text_array(texts),
            "now": now,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _settle_others(conn: AsyncConnection[Any], outcomes: Sequence[Sent], *, now: datetime) -> int:
    cursor = await conn.execute(
        """
        WITH told AS (
            SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS t (id bigint, claim bigint, state text, relay text,
                subject text, reply_code int, reply_text text, reason text, retry_seconds float, offered boolean, bounce jsonb)
        ), held AS (
            SELECT d.id, d.attempts FROM delivery d JOIN told t ON t.id = d.id ORDER BY d.id FOR UPDATE OF d
        ), settled AS (
            UPDATE delivery d SET
                state = CASE WHEN t.state = 'queued' AND t.offered AND d.attempts >= %(max_attempts)s THEN 'rejected'
                             ELSE t.state END,
                attempts = CASE WHEN t.offered THEN d.attempts ELSE d.attempts - 1 END,
                relay = coalesce(nullif(t.relay, ''), d.relay), subject = coalesce(nullif(t.subject, ''), d.subject),
                reply_code = t.reply_code, reply_text = t.reply_text, reason = t.reason, lease_until = NULL,
                retry_at = CASE WHEN t.state = 'queued' THEN clock_timestamp() + make_interval(secs => t.retry_seconds) END,
                settled_at = CASE WHEN t.final THEN %(now)s ELSE d.settled_at END,
                result = CASE WHEN t.final AND t.bounce IS NOT NULL THEN 'bounced' ELSE d.result END
            FROM (SELECT *, state = 'rejected' OR (state = 'queued' AND offered AND attempts >= %(max_attempts)s) AS final
                  FROM told JOIN held USING (id)) t
            WHERE d.id = t.id AND d.claim = t.claim
              AND CASE d.state WHEN 'claimed' THEN true WHEN 'uncertain' THEN t.state IN ('rejected', 'queued') ELSE false END
            RETURNING d.id, d.contact_id, d.email, d.state, t.bounce
        ), happened AS (
            INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key, detail)
            SELECT id, contact_id, 'bounced', %(now)s, %(now)s, 'relay', 'refused:' || id, bounce FROM settled
            WHERE state = 'rejected' AND bounce IS NOT NULL
            ON CONFLICT (source_key) DO NOTHING
        ), dead AS (
            INSERT INTO suppression (email_hash, reason, at, evidence)
            SELECT DISTINCT ON (address_hash(email)) address_hash(email), 'bounced: the address does not exist', %(now)s,
                   bounce || jsonb_build_object('delivery', id)
            FROM settled WHERE state = 'rejected' AND bounce ->> 'class' = 'address'
            ON CONFLICT (email_hash) DO NOTHING
        )
        SELECT count(*) FROM settled
        """,
        {
            "rows": msgspec.json.encode([o._asdict() for o in outcomes]).decode(),
            "now": now,
            "max_attempts": MAX_ATTEMPTS,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


_LOST = """
    (lease_until < clock_timestamp() OR claimed_by IN (
        SELECT w.name FROM (SELECT DISTINCT claimed_by AS name FROM delivery WHERE lease_until IS NOT NULL) w
        WHERE NOT work_is_held('worker:' || w.name)))
"""
"""Whose worker is gone: it holds the lock of `Database.exclusive("worker:NAME")` while it is here. Or whose lease ran out."""


async def workers_gone(conn: AsyncConnection[Any]) -> list[str]:
    """Workers that are gone, as far as the database knows, and left mails behind. One recovers at a time, until the
    caller's transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('hub recover'))")
    cursor = await conn.execute(
        f"SELECT DISTINCT claimed_by FROM delivery WHERE lease_until IS NOT NULL AND {_LOST}".encode()
    )
    return [row[0] for row in await cursor.fetchall()]


async def lost(conn: AsyncConnection[Any], workers: Collection[str]) -> list[tuple[str, Claimed]]:
    """(worker, mail) of what was claimed by `workers`, which are gone, by worker."""
    cursor = await conn.execute(
        f"""SELECT claimed_by, id, message, purpose, contact_id, email, '', attempts, claim FROM delivery
            WHERE lease_until IS NOT NULL AND {_LOST} AND claimed_by = ANY(%s)
            ORDER BY claimed_by, id FOR UPDATE""".encode(),
        [list(workers)],
    )
    return [(worker, Claimed._make(rest)) for worker, *rest in await cursor.fetchall()]


async def doubt(conn: AsyncConnection[Any], mails: Sequence[Claimed]) -> int:
    """Of these, which were claimed by workers that are gone, nobody knows what became: `uncertain`. Returns how many."""
    cursor = await conn.execute(
        """UPDATE delivery d SET state = 'uncertain', reason = 'the hub stopped before the relay''s answer came',
               lease_until = NULL
           FROM unnest(%s::bigint[], %s::bigint[]) AS b (id, claim)
           WHERE d.id = b.id AND d.claim = b.claim AND d.state = 'claimed'""",
        [_array(m.id for m in mails), _array(m.claim for m in mails)],
    )
    return cursor.rowcount


async def release(conn: AsyncConnection[Any], rows: Sequence[Claimed]) -> int:
    """Give back mails that were claimed and never offered, as if they had never been claimed."""
    cursor = await conn.execute(
        """UPDATE delivery d SET state = 'queued', attempts = d.attempts - 1, lease_until = NULL
           FROM unnest(%s::bigint[], %s::bigint[]) AS b (id, claim)
           WHERE d.id = b.id AND d.claim = b.claim AND d.state = 'claimed'""",
        [_array(r.id for r in rows), _array(r.claim for r in rows)],
    )
    return cursor.rowcount
