"""Contacts as the hub knows them, and the vendors' ids that mean them.

A batch of pulled rows is COPYed beside the tables and merged in a handful of statements. Rows whose content
is the one already known cost one hash comparison. Identity is (connection, object, id): an e-mail address only
hints at a person whom another system has already named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from hub.mapping import Hint, Standing
from hub.model import CONTACT_FIELDS
from hub.store import addresses, erasing, merging, recognising, words

COLUMNS = tuple(CONTACT_FIELDS)


class ContactRow(msgspec.Struct, frozen=True):
    """One mapped contact of one connection.

    `columns` holds hub fields with a typed column (None where the vendor has no value), `custom` the others;
    `fill` the custom values that only fill a gap; `untold` names columns whose value could not be read.
    `content_hash` covers all that came.
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
) -> Merged:
    """Bring a batch in, in the caller's transaction.

    `on_blank` names the mapped columns with their policy: `keep` (a blank leaves our value), `fill` (a value
    only fills our blank) or `clear` (a blank empties ours). Columns it does not name are left alone. `match` are the
    hints by which a new record may mean a known person, `standing` who wins where several records mean one.
    """
    rows = list({row.external_id: row for row in rows}.values())  # the last word on a record wins
    if not rows:
        return Merged()
    merging_ids = any(row.merged_ids for row in rows)
    await _copy_in(conn, rows)
    values = {"connection": connection, "now": now, "run_id": run_id}
    unchanged = await recognising.drop_unchanged(conn, values)
    if unchanged == len(rows):
        return Merged(unchanged=unchanged)
    erased = await erasing.drop_erased(conn, values)
    await recognising.recognise(conn, match, values, absorbed=merging_ids)
    created = await _insert_new(conn, values)
    changed = gone = 0
    if created < len(rows) - unchanged - erased:
        contested = await words.hear(conn, on_blank, standing, values)
        changed = await _update_known(conn, on_blank, values, contested=contested)
        gone = await _settle_states(conn, values, told=any(row.state != "live" for row in rows))
        await _remember_identities(conn, values)
    if merging_ids:
        gone += await _absorb(conn, values)
    if any("other_emails" in row.custom for row in rows):
        await addresses.note_others(conn, values)
    return Merged(created=created, changed=changed, unchanged=unchanged, gone=gone, erased=erased)


async def _copy_in(conn: AsyncConnection[Any], rows: Sequence[ContactRow]) -> None:
    await conn.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS incoming_contact (
            external_id text, state text, vendor_changed_at timestamptz, content_hash bytea, merged_ids text[],
            email text, first_name text, last_name text, company text, job_title text, phone text, country text,
            city text, language text, time_zone text, lifecycle text, owner text, created_at timestamptz,
            custom jsonb, fill jsonb, untold text[], contact_id bigint, known boolean DEFAULT false,
            contested boolean DEFAULT false, resolved jsonb
        ) ON COMMIT DELETE ROWS
        """
    )
    await conn.execute("DELETE FROM incoming_contact")  # two batches may share a transaction
    names = (
        "content_hash", "external_id", "state", "vendor_changed_at", "merged_ids", *COLUMNS, "custom", "fill", "untold",
    )  # fmt: skip
    async with (
        conn.cursor() as cursor,
        cursor.copy(
            f"COPY incoming_contact ({', '.join(names)}) FROM STDIN (NULL '{NOTHING}')".encode()
        ) as copy,
    ):
        await copy.write("".join([_line(row) for row in rows]).encode())


_TEXTS = COLUMNS[:-1]
"""All columns are texts but the last one, `created_at`."""
NOTHING = "\x01"
"""What stands for no value in a COPY; no vendor sends it."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _line(row: ContactRow) -> str:
    """A row in COPY's text format. Values are joined by NUL, which none of them holds, and escaped together."""
    get = row.columns.get
    created_at = get("created_at")
    changed_at = row.vendor_changed_at
    line = "\0".join(
        (row.external_id, row.state, NOTHING if changed_at is None else changed_at.isoformat(), _array(row.merged_ids),
         *[NOTHING if (value := get(name)) is None else value for name in _TEXTS],
         NOTHING if created_at is None else created_at.isoformat(), _json(row.custom), _json(row.fill), _array(row.untold))
    )  # fmt: skip
    if "\\" in line or "\n" in line or "\t" in line or "\r" in line:
        line = line.translate(_ESCAPES)
    return f"\\\\x{row.content_hash.hex()}\t{line.replace(chr(0), chr(9))}\n"


def _json(values: Mapping[str, Any]) -> str:
    return msgspec.json.encode(values).decode() if values else "{}"


def _array(texts: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it."""
    if not texts:
        return "{}"
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


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
        SELECT %(connection)s, 'contact', external_id, id, content_hash, vendor_changed_at, state, %(now)s FROM new
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


async def _settle_states(conn: AsyncConnection[Any], values: dict[str, Any], *, told: bool) -> int:
    """Archive or delete contacts that no system keeps. `told`: some record is not live."""
    if not told:
        return 0
    await conn.execute(
        """
        UPDATE contact_identity i SET state = n.state FROM incoming_contact n
        WHERE i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = n.external_id AND i.state <> n.state
        """,
        values,
    )
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


async def _absorb(conn: AsyncConnection[Any], values: dict[str, Any]) -> int:
    """Contacts behind absorbed ids become aliases of the survivor; their mail history goes with them."""
    await conn.execute(
        """
        UPDATE incoming_contact n SET contact_id = i.contact_id FROM contact_identity i
        WHERE n.contact_id IS NULL AND i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = n.external_id
        """,
        values,
    )
    cursor = await conn.execute(
        """
        SELECT DISTINCT i.contact_id, n.contact_id FROM incoming_contact n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
        JOIN contact_identity i ON i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = old
        WHERE i.contact_id <> n.contact_id
        """,
        values,
    )
    pairs = await cursor.fetchall()
    for loser, survivor in pairs:
        await merging.fold(conn, loser, survivor, values)
    await conn.execute(
        """
        UPDATE contact_identity i SET contact_id = n.contact_id, state = 'merged'
        FROM incoming_contact n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
        WHERE i.connection = %(connection)s AND i.object = 'contact' AND i.external_id = old AND n.contact_id IS NOT NULL
        """,
        values,
    )
    await conn.execute(
        # An absorbed id that we never saw as a record of its own still means this person.
        """
        INSERT INTO contact_identity (connection, object, external_id, contact_id, state, seen_at)
        SELECT DISTINCT ON (old) %(connection)s, 'contact', old, contact_id, 'merged', %(now)s
        FROM incoming_contact, unnest(merged_ids) AS old WHERE contact_id IS NOT NULL
        ON CONFLICT (connection, object, external_id) DO NOTHING
        """,
        values,
    )
    return len(pairs)


async def _remember_identities(conn: AsyncConnection[Any], values: dict[str, Any]) -> None:
    await conn.execute(
        """
        INSERT INTO contact_identity AS i
            (connection, object, external_id, contact_id, content_hash, vendor_changed_at, state, seen_at)
        SELECT %(connection)s, 'contact', external_id, contact_id, content_hash, vendor_changed_at, state, %(now)s
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
