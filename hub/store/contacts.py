"""Contacts as the hub knows them, and the vendors' ids that mean them.

A batch of pulled rows is COPYed beside the tables and merged in a handful of statements. Rows whose content
is the one already known cost one hash comparison. Identity is (connection, object, id): an e-mail address only
hints at a person whom another system has already named.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from hub.mapping import Hint, Standing
from hub.model import CONTACT_FIELDS, Link
from hub.store import addresses, copying, erasing, merging, newcomers, recognising, words
from hub.store.copying import NOTHING

COLUMNS = tuple(CONTACT_FIELDS)


class ContactRow(msgspec.Struct, frozen=True, gc=False):
    """One mapped contact of one connection.

    `columns` holds hub fields with a typed column (None where the vendor has no value), `custom` the others;
    `fill` the custom values that only fill a gap; `untold` names columns whose value could not be read.
    `content_hash` covers all that came. `became` is what a converted lead is now.
    """

    external_id: str
    columns: Mapping[str, Any]
    custom: Mapping[str, Any]
    content_hash: bytes
    fill: Mapping[str, Any] = msgspec.field(default_factory=dict)
    state: str = "live"
    vendor_changed_at: datetime | None = None
    merged_ids: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    text: str = ""  # see `text`; made where it is needed
    became: tuple[Link, ...] = ()

    def line(self) -> str:
        """Columns and further fields as a new contact's, for a COPY."""
        return self.text or text(self.columns, self.custom, self.fill)


def text(columns: Mapping[str, Any], custom: Mapping[str, Any], fill: Mapping[str, Any]) -> str:
    """What a record says, as a new contact's columns and further fields in COPY's format."""
    if fill:
        custom = {**fill, **custom}
    values = _columns(columns)
    values.append(_json(custom))
    return copying.line(values)


class Digest:
    """Content hashes under one mapping: `of` gives 16 bytes over what a record says."""

    def __init__(self, mapping: object) -> None:
        self._start = hashlib.blake2b(msgspec.msgpack.encode(mapping), digest_size=16)

    def of(
        self, text: str, custom: Mapping[str, Any], fill: Mapping[str, Any], merged_ids: Sequence[str]
    ) -> bytes:
        """`text` is the record's; what it does not tell apart comes beside it."""
        found = self._start.copy()
        found.update(text.encode())
        if fill or merged_ids:
            found.update(msgspec.msgpack.encode((custom, fill, merged_ids)))
        return found.digest()


@dataclass(frozen=True)
class Merged:
    """What a batch changed, in rows."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    erased: int = 0


async def merge(
    conn: AsyncConnection[Any],
    connection: str,
    rows: Sequence[ContactRow],
    *,
    on_blank: Mapping[str, str],
    run_id: int | None,
    now: datetime,
    match: Sequence[Hint] = (Hint("email"),),
    standing: Sequence[Standing] = (),
    object: str = "contact",
) -> Merged:
    """Bring a batch in, in the caller's transaction.

    `on_blank` names the mapped columns with their policy: `keep` (a blank leaves our value), `fill` (a value
    only fills our blank) or `clear` (a blank empties ours). Columns it does not name are left alone. `match` are the
    hints by which a new record may mean a known person, `standing` who wins where several records mean one.
    `object` is what the vendor calls these people: `contact`, or `lead` for those who are not one yet.
    """
    rows = list({row.external_id: row for row in rows}.values())  # the last word on a record wins
    if not rows:
        return Merged()
    values = {"connection": connection, "object": object, "now": now, "run_id": run_id}
    new, known = await recognising.look(conn, rows, values)
    unchanged = len(rows) - len(new) - len(known)
    barred = await erasing.barred(
        conn, connection, [(rows[p].external_id, rows[p].columns.get("email")) for p in new]
    )
    erased = len(new)
    new = [place for place in new if rows[place].external_id not in barred]
    erased -= len(new)
    strangers, others = await recognising.strangers(conn, [rows[place] for place in new], rows, match)
    told = [rows[place] for place, _ in known] + others
    merged = Merged(unchanged=unchanged)
    if told:
        await _copy_in(conn, told, [id for _, id in known] + [None] * len(others))
        merged = await _settle(conn, told, values, on_blank=on_blank, match=match, standing=standing)
    if strangers:
        await newcomers.insert(conn, strangers, values)
    return Merged(len(strangers) + merged.created, merged.changed, unchanged, merged.gone, erased)


async def _settle(
    conn: AsyncConnection[Any],
    rows: Sequence[ContactRow],
    values: dict[str, Any],
    *,
    on_blank: Mapping[str, str],
    match: Sequence[Hint],
    standing: Sequence[Standing],
) -> Merged:
    """Bring in what stands in `incoming_contact`: records that are known and say something new, and new ones that may mean
    somebody who is known."""
    merging_ids = any(row.merged_ids for row in rows)
    await recognising.recognise(conn, match, values, standing, absorbed=merging_ids)
    created = await _insert_new(conn, values)
    changed = gone = 0
    if created < len(rows):
        contested = await words.hear(conn, on_blank, standing, values)
        changed = await _update_known(conn, on_blank, values, contested=contested)
        gone = await _settle_states(conn, values, standing, told=any(row.state != "live" for row in rows))
        await _remember_identities(conn, values)
    if merging_ids:
        gone += await _absorb(conn, values, standing)
    if any("other_emails" in row.custom for row in rows):
        await addresses.note_others(conn, values)
    return Merged(created=created, changed=changed, gone=gone)


async def _copy_in(
    conn: AsyncConnection[Any], rows: Sequence[ContactRow], contact_ids: Sequence[int | None]
) -> None:
    """Rows into `incoming_contact`, each with the contact that its id means already."""
    await conn.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS incoming_contact (
            external_id text, state text, vendor_changed_at timestamptz, content_hash bytea, merged_ids text[],
            email text, first_name text, last_name text, company text, job_title text, phone text, country text,
            city text, language text, time_zone text, lifecycle text, owner text, created_at timestamptz,
            custom jsonb, fill jsonb, untold text[], contact_id bigint, known boolean,
            contested boolean DEFAULT false, resolved jsonb
        ) ON COMMIT DELETE ROWS
        """
    )
    await conn.execute("DELETE FROM incoming_contact")  # two batches may share a transaction
    lines = [_incoming(row, contact_id) for row, contact_id in zip(rows, contact_ids, strict=True)]
    await copying.into(conn, _INCOMING, lines)


_INCOMING = f"""COPY incoming_contact (contact_id, known, content_hash, external_id, state, vendor_changed_at, merged_ids,
                {", ".join(COLUMNS)}, custom, fill, untold) FROM STDIN {copying.FORMAT}""".encode()


def _incoming(row: ContactRow, contact_id: int | None) -> str:
    head = f"{NOTHING}\tf" if contact_id is None else f"{contact_id}\tt"
    values = copying.line(
        (row.external_id, row.state, copying.instant(row.vendor_changed_at), copying.array(row.merged_ids),
         *_columns(row.columns), _json(row.custom), _json(row.fill), copying.array(row.untold))
    )  # fmt: skip
    return f"{head}\t\\\\x{row.content_hash.hex()}\t{values}"


_ALL = operator.itemgetter(*COLUMNS)
_UNTOLD = dict.fromkeys(COLUMNS)


def _columns(columns: Mapping[str, Any]) -> list[str]:
    found = list(_ALL(columns if len(columns) == len(COLUMNS) else {**_UNTOLD, **columns}))
    found[-1] = copying.instant(found[-1])
    return [NOTHING if value is None else value for value in found] if None in found else found


def _json(values: Mapping[str, Any]) -> str:
    return msgspec.json.encode(values).decode() if values else "{}"


async def _insert_new(conn: AsyncConnection[Any], values: dict[str, Any]) -> int:
    """Contacts that nobody knew. A record that is gone already when first seen is not made into a person."""
    names = ", ".join(COLUMNS)
    cursor = await conn.execute(
        f"""
        WITH new AS MATERIALIZED (
            SELECT nextval('contact_id_seq') AS id, n.* FROM incoming_contact n WHERE n.contact_id IS NULL AND n.state = 'live'
        ), people AS (
            INSERT INTO contact (id, {names}, fields, changed_at)
            SELECT id, {names}, fill || custom, %(now)s FROM new
        ), lineage AS (
            INSERT INTO contact_change (contact_id, at, connection, run_id, kind)
            SELECT id, %(now)s, %(connection)s, %(run_id)s, 'created' FROM new
        )
        INSERT INTO contact_identity
            (connection, object, external_id, contact_id, content_hash, vendor_changed_at, state, seen_at)
        SELECT %(connection)s, %(object)s, external_id, id, content_hash, vendor_changed_at, state, %(now)s FROM new
        """,
        values,
    )
    return cursor.rowcount


async def _update_known(
    conn: AsyncConnection[Any], on_blank: Mapping[str, str], values: dict[str, Any], *, contested: bool
) -> int:
    """Known contacts whose record changed: as it says where it is the only one, else as all of them together say."""
    assignments = [_assignment(name, policy) for name, policy in on_blank.items() if name in CONTACT_FIELDS]
    assignments.append("fields = n.fill || c.fields || n.custom")
    changed, moved = await _update(conn, assignments, "NOT n.contested", values)
    if contested:
        several, more = await _update(conn, words.taken(), "n.contested AND n.resolved IS NOT NULL", values)
        changed, moved = changed + several, moved + more
    await addresses.carry_opt_outs(conn, moved)
    return changed


async def _update(
    conn: AsyncConnection[Any], assignments: Sequence[str], which: str, values: dict[str, Any]
) -> tuple[int, list[int]]:
    """How many contacts changed, and which of them got another address.

    The difference is kept as lineage; no difference writes none.
    """
    cursor = await conn.execute(
        f"""
        WITH before AS (
            SELECT c.* FROM contact c WHERE c.id IN (
                SELECT contact_id FROM incoming_contact n WHERE known AND state = 'live' AND {which})
        ), after AS (
            UPDATE contact c SET {", ".join(assignments)}, state = 'live', changed_at = %(now)s
            FROM incoming_contact n WHERE n.contact_id = c.id AND n.known AND n.state = 'live' AND {which}
            RETURNING c.*
        ), {words.LINEAGE}
        """,
        values,
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


def _assignment(name: str, policy: str) -> str:
    if policy == "clear":
        return f"{name} = CASE WHEN '{name}' = ANY(n.untold) THEN c.{name} ELSE n.{name} END"
    return (
        f"{name} = coalesce(c.{name}, n.{name})"
        if policy == "fill"
        else f"{name} = coalesce(n.{name}, c.{name})"
    )


async def _settle_states(
    conn: AsyncConnection[Any], values: dict[str, Any], standing: Sequence[Standing], *, told: bool
) -> int:
    """Archive or delete contacts that no system keeps; of others the words of what is gone fall. `told`: some record is not
    live."""
    if not told:
        return 0
    moved = await conn.execute(
        """
        UPDATE contact_identity i SET state = n.state FROM incoming_contact n
        WHERE i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = n.external_id AND i.state <> n.state
        RETURNING i.contact_id, n.state <> 'live' AND i.said <> '{}'
        """,
        values,
    )
    if left := sorted({id for id, spoke in await moved.fetchall() if spoke}):
        await words.settle(conn, left, standing, values)
    cursor = await conn.execute(
        """
        WITH gone AS (
            UPDATE contact c SET state = n.state, changed_at = %(now)s
            FROM incoming_contact n
            WHERE c.id = n.contact_id AND n.state IN ('archived', 'deleted') AND c.state NOT IN (n.state, 'merged')
              AND NOT EXISTS (SELECT FROM contact_identity i WHERE i.contact_id = c.id AND i.state = 'live')
            RETURNING c.id, c.state
        )
        INSERT INTO contact_change (contact_id, at, connection, run_id, kind)
        SELECT id, %(now)s, %(connection)s, %(run_id)s, state FROM gone
        """,
        values,
    )
    return cursor.rowcount


async def _absorb(conn: AsyncConnection[Any], values: dict[str, Any], standing: Sequence[Standing]) -> int:
    """Contacts behind absorbed ids become aliases of the survivor; their mail history goes with them."""
    await conn.execute(
        """
        UPDATE incoming_contact n SET contact_id = i.contact_id FROM contact_identity i
        WHERE n.contact_id IS NULL AND i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = n.external_id
        """,
        values,
    )
    cursor = await conn.execute(
        """
        SELECT DISTINCT i.contact_id, n.contact_id FROM incoming_contact n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
        JOIN contact_identity i ON i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = old
        WHERE i.contact_id <> n.contact_id
        """,
        values,
    )
    pairs = await cursor.fetchall()
    for loser, survivor in pairs:
        await merging.fold(conn, loser, survivor, values)
    await conn.execute(
        """
        UPDATE contact_identity i SET contact_id = n.contact_id, state = 'merged',
            seen_at = CASE i.state WHEN 'merged' THEN i.seen_at ELSE %(now)s END
        FROM incoming_contact n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
        WHERE i.connection = %(connection)s AND i.object = %(object)s AND i.external_id = old AND n.contact_id IS NOT NULL
        """,
        values,
    )
    await conn.execute(
        # An absorbed id that we never saw as a record of its own still means this person.
        """
        INSERT INTO contact_identity (connection, object, external_id, contact_id, state, seen_at)
        SELECT DISTINCT ON (old) %(connection)s, %(object)s, old, contact_id, 'merged', %(now)s
        FROM incoming_contact, unnest(merged_ids) AS old WHERE contact_id IS NOT NULL
        ON CONFLICT (connection, object, external_id) DO NOTHING
        """,
        values,
    )
    if pairs:
        await words.settle(conn, sorted({survivor for _, survivor in pairs}), standing, values)
    return len(pairs)


async def _remember_identities(conn: AsyncConnection[Any], values: dict[str, Any]) -> None:
    await conn.execute(
        """
        INSERT INTO contact_identity AS i
            (connection, object, external_id, contact_id, content_hash, vendor_changed_at, state, seen_at)
        SELECT %(connection)s, %(object)s, external_id, contact_id, content_hash, vendor_changed_at, state, %(now)s
        FROM incoming_contact WHERE known
        ON CONFLICT (connection, object, external_id) DO UPDATE
        SET content_hash = excluded.content_hash, vendor_changed_at = excluded.vendor_changed_at,
            state = excluded.state, seen_at = excluded.seen_at, contact_id = excluded.contact_id
        """,
        values,
    )


async def refs(conn: AsyncConnection[Any], connection: str, contact_ids: Sequence[int]) -> dict[int, str]:
    """The contacts' ids at a connection (the live one where several mean the same person)."""
    cursor = await conn.execute(
        """SELECT DISTINCT ON (contact_id) contact_id, external_id FROM contact_identity
           WHERE connection = %s AND object = 'contact' AND contact_id = ANY(%s)
           ORDER BY contact_id, (state = 'live') DESC, seen_at DESC""",
        [connection, list(contact_ids)],
    )
    return dict(await cursor.fetchall())


async def by_email(conn: AsyncConnection[Any], email: str) -> list[dict[str, Any]]:
    """Contacts that have this address now, whatever their state."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM contact WHERE email = lower(%s) ORDER BY id", [email])
        return list(await cursor.fetchall())


async def with_addresses(conn: AsyncConnection[Any], emails: Sequence[str]) -> list[int]:
    """Contacts that have one of these addresses, now or among their others."""
    cursor = await conn.execute(
        """WITH asked AS (SELECT DISTINCT lower(e) AS email FROM unnest(%s::text[]) e)
           SELECT c.id FROM contact c JOIN asked USING (email)
           UNION SELECT o.contact_id FROM contact_address o JOIN asked USING (email)""",
        [list(emails)],
    )
    return [row[0] for row in await cursor.fetchall()]
