"""Erasure: a person's rows emptied in one transaction, receipts from the other systems, and nobody taken in again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.model import CONTACT_FIELDS
from hub.store import consent
from hub.store.database import Connection
from hub.store.persons import HELD, Person

REASON = "erased at the person's request"
_KEPT = "ARRAY['class', 'how', 'code', 'enhanced', 'evidence', 'delivery', 'contact']"
"""Of an event's detail: what says nothing of the person and sums build on."""


def _only_kept(column: str) -> str:
    return f"(SELECT coalesce(jsonb_object_agg(key, value), '{{}}') FROM jsonb_each({column}) WHERE key = ANY({_KEPT}))"


_EMPTIED: Mapping[str, str] = {
    # In this order: what finds the rows of a later one must still be there.
    "run_reject": "UPDATE run_reject t SET external_id = '', message = 'erased', row = '{}'",
    "report": f"UPDATE report t SET raw = NULL, detail = {_only_kept('t.detail')}",
    "event": f"UPDATE event t SET evidence = '{{}}', detail = {_only_kept('t.detail')}",
    "decision": "UPDATE decision t SET because = '(erased)', detail = '{}'",
    "consent_request": "UPDATE consent_request t SET origin = ''",
    "consent": "UPDATE consent t SET proof = CASE proof WHEN '' THEN '' ELSE '(erased)' END",
    "suppression": "UPDATE suppression t SET reason = %(reason)s, evidence = '{}'",
    "inbox": """UPDATE inbox t SET external_id = '', merged_ids = '{}', payload = '{}', record = NULL, headers = NULL,
                    body = NULL, state = CASE state WHEN 'new' THEN 'done' ELSE state END""",
    "company_contact": "DELETE FROM company_contact t",
    "mirror_member": "DELETE FROM mirror_member t",
    "copy_touch": "DELETE FROM copy_touch t",
    "copy_rest": "DELETE FROM copy_rest t",
    "contact_parted": "DELETE FROM contact_parted t",
    "deal_contact": "DELETE FROM deal_contact t",
    "segment_member": "DELETE FROM segment_member t",
    "list_import": "DELETE FROM list_import t",
    "funnel_log": "UPDATE funnel_log t SET detail = '{}'",
    "contact_merge": "UPDATE contact_merge t SET before = '{}', moved = '{}', undone_at = coalesce(undone_at, %(now)s)",
    "contact_change": "UPDATE contact_change t SET diff = '{}'",
    "contact_address": "DELETE FROM contact_address t",
    "contact_identity": "DELETE FROM contact_identity t",
    "delivery": """UPDATE delivery t SET email = NULL, subject = '', reply_text = NULL,
                       reason = CASE WHEN state IN ('queued', 'held') THEN 'the contact is erased' ELSE '' END,
                       state = CASE WHEN state IN ('queued', 'held') THEN 'excluded' ELSE state END""",
    # An opt-out is still told where nothing can be erased, and forgotten then; nothing else is told any more.
    "outbox": """UPDATE outbox t SET forget = true, remote_id = '', message = '', fix = '',
                     state = CASE WHEN kind <> 'consent' AND state IN ('queued', 'dead', 'uncertain') THEN 'dropped'
                                  ELSE state END,
                     payload = CASE WHEN state = 'attempting' OR (kind = 'consent' AND state <> 'done') THEN payload
                                    ELSE '{}' END""",
    "contact": f"""UPDATE contact t SET {", ".join(f"{name} = NULL" for name in CONTACT_FIELDS)}, fields = '{{}}',
                       state = 'erased', changed_at = %(now)s""",
}  # fmt: skip


async def erase(
    conn: Connection, person: Person, email: str, able: Mapping[str, bool], *, by: str, now: datetime
) -> int:
    """Erase somebody from our own tables, in the caller's transaction, and ask each system that can to do the same.

    `able` is connection -> whether its connector can erase. What is left is hashes and anonymous rows. Returns the
    erasure's id.
    """
    values = {**person.values, "now": now, "reason": REASON}
    await conn.execute("SELECT FROM contact WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [list(person.ids)])
    await _bar(conn, person)
    counts = {}
    await _scrub(conn, values)
    for table, statement in _EMPTIED.items():
        cursor = await conn.execute(f"{statement} WHERE {HELD[table]}".encode(), values)
        if cursor.rowcount:
            counts[table] = cursor.rowcount
    await conn.execute(
        """INSERT INTO contact_change (contact_id, at, connection, kind)
           SELECT id, %s, 'admin', 'erased' FROM unnest(%s::bigint[]) AS c (id)""",
        [now, list(person.ids)],
    )
    for each in person.emails:
        await consent.suppress(conn, each, REASON, at=now, evidence={})
    cursor = await conn.execute(
        "INSERT INTO erasure (email_hash, at, decided_by, counts) VALUES (address_hash(%s), %s, %s, %s) RETURNING id",
        [email, now, by, Jsonb(counts)],
    )
    row = await cursor.fetchone()
    assert row is not None
    await _ask(conn, row[0], person, able, now=now)
    return int(row[0])


async def _scrub(conn: Connection, values: Mapping[str, Any]) -> None:
    """Names and addresses out of what is not the person's alone: their deals, and reasons that quote a relay or a vendor.

    What a deal says stays known by its hash, so that the same words are not taken in again.
    """
    await conn.execute(
        f"""
        WITH said AS (
            SELECT w FROM unnest(%(emails)s::text[]) w
            UNION SELECT lower(n) FROM contact c CROSS JOIN LATERAL unnest(ARRAY[c.first_name, c.last_name]) n
            WHERE c.id = ANY(%(ids)s) AND length(n) > 2
        )
        UPDATE deal t SET name = NULL, fields = '{{}}' WHERE ({HELD["deal"]}) AND (
            NOT EXISTS (SELECT FROM deal_contact o WHERE o.deal_id = t.id
                        AND NOT o.connection || E'\\x01' || o.contact_ref = ANY(%(refs)s))
            OR EXISTS (SELECT FROM said WHERE strpos(lower(coalesce(t.name, '') || t.fields::text), w) > 0))
        """.encode(),
        values,
    )
    for table in ("run", "relay_state", "relay_slow"):
        await conn.execute(
            f"""UPDATE {table} SET reason = '(erased)'
                WHERE EXISTS (SELECT FROM unnest(%(emails)s::text[]) e WHERE strpos(lower(reason), e) > 0)""".encode(),
            values,
        )


async def _bar(conn: Connection, person: Person) -> None:
    """Remember, by hashes only, whom no pull may take in again."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO erased VALUES (%s, %s, address_hash(%s)) ON CONFLICT DO NOTHING",
            [*person.identities, *(("", "address", email) for email in person.emails)],
        )


async def _ask(
    conn: Connection, erasure_id: int, person: Person, able: Mapping[str, bool], *, now: datetime
) -> None:
    """A receipt for each record at each system, with a row of the outbox where the system can be asked."""
    for number, (connection, object, id) in enumerate(person.identities):
        if object != "contact" or connection not in able:
            continue
        outbox_id = None
        if able[connection]:
            cursor = await conn.execute(
                """INSERT INTO outbox (connection, kind, dedupe_key, payload, created_at, forget)
                   VALUES (%s, 'erase', %s, %s, %s, true) RETURNING id""",
                [connection, f"erase:{erasure_id}:{number}", Jsonb({"contact_ref": id}), now],
            )
            row = await cursor.fetchone()
            outbox_id = row[0] if row else None
        await conn.execute(
            "INSERT INTO erasure_receipt (erasure_id, connection, outbox_id) VALUES (%s, %s, %s)",
            [erasure_id, connection, outbox_id],
        )


async def receipts(
    conn: Connection, *, erasure_id: int | None = None, email: str | None = None
) -> list[dict[str, Any]]:
    """Erasures, the newest first: `id`, `at`, `decided_by`, `counts`, and `systems` with what each one answered (`state`:
    erased, waiting, refused, uncertain, by hand)."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT e.id, e.at, e.decided_by, e.counts, coalesce((
                SELECT jsonb_agg(jsonb_build_object('connection', r.connection, 'state', CASE
                           WHEN r.outbox_id IS NULL THEN 'by hand'
                           WHEN x.state = 'done' THEN 'erased' WHEN x.state IN ('queued', 'attempting') THEN 'waiting'
                           WHEN x.state = 'uncertain' THEN 'uncertain' ELSE 'refused' END,
                       'confirmed_at', x.confirmed_at, 'code', x.code, 'message', x.message, 'fix', x.fix) ORDER BY r.id)
                FROM erasure_receipt r LEFT JOIN outbox x ON x.id = r.outbox_id WHERE r.erasure_id = e.id), '[]') AS systems
            FROM erasure e
            WHERE (%(id)s::bigint IS NULL OR e.id = %(id)s)
              AND (%(email)s::text IS NULL OR e.email_hash = address_hash(%(email)s))
            ORDER BY e.id DESC LIMIT 100
            """,
            {"id": erasure_id, "email": email},
        )
        return list(await cursor.fetchall())


async def barred(conn: Connection, connection: str, records: Sequence[tuple[str, str | None]]) -> set[str]:
    """Which of these records (id, address) of a connection mean somebody who was erased, by the one or the other: their ids.
    Only records that are new to us need to be asked: those of an erased person are none of ours any more."""
    if not records:
        return set()
    cursor = await conn.execute("SELECT EXISTS (SELECT FROM erased)")
    row = await cursor.fetchone()
    if not row or not row[0]:
        return set()
    ids, emails = (list(column) for column in zip(*records, strict=True))
    cursor = await conn.execute(
        """
        SELECT n.id FROM unnest(%s::text[], %s::text[]) AS n (id, email)
        WHERE EXISTS (SELECT FROM erased e WHERE (e.connection, e.object, e.hash) IN (
            (%s, 'contact', address_hash(n.id)), ('', 'address', address_hash(coalesce(n.email, '')))))
        """,
        [ids, emails, connection],
    )
    return {row[0] for row in await cursor.fetchall()}


async def unbarred(conn: Connection, email: str) -> None:
    """New records with this address may be taken in again."""
    await conn.execute("DELETE FROM erased WHERE object = 'address' AND hash = address_hash(%s)", [email])


def states(found: Sequence[Mapping[str, Any]]) -> set[str]:
    """The states of all receipts of some erasures."""
    return {system["state"] for erasure in found for system in erasure["systems"]}
