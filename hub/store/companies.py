"""Companies of each connection, what became of them, and the contacts and deals that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from hub.model import COMPANY_FIELDS, FieldType, Link
from hub.store.deals import Merged, value_of

COLUMNS = tuple(COMPANY_FIELDS)


class CompanyRow(msgspec.Struct, frozen=True):
    """One mapped company of one connection; `links` name its contacts and deals by the vendor's ids. `fill` and `untold` as
    of a contact."""

    external_id: str
    columns: Mapping[str, Any]
    custom: Mapping[str, Any]
    content_hash: bytes
    state: str = "live"
    vendor_changed_at: datetime | None = None
    merged_ids: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    fill: Mapping[str, Any] = msgspec.field(default_factory=dict)
    untold: tuple[str, ...] = ()


async def merge(
    conn: AsyncConnection[Any],
    connection: str,
    rows: Sequence[CompanyRow],
    *,
    on_blank: Mapping[str, str],
    run_id: int | None,
    now: datetime,
) -> Merged:
    """Bring a batch in, in the caller's transaction; companies with the known content hash are left alone.

    `on_blank` names the mapped columns with their policy, as for contacts. An absorbed company is `merged` into the one
    that names it and keeps its last values; its id means the survivor from then on.
    """
    rows = list({row.external_id: row for row in rows}.values())
    if not rows:
        return Merged()
    values = {"connection": connection, "run_id": run_id, "now": now}
    await _copy_in(conn, rows)
    gone = await _settle_states(conn, values)
    written = await _write(conn, on_blank, values)
    ids = {ref: company_id for company_id, ref, _ in written}
    told = [row for row in rows if row.external_id in ids]
    await _relink(conn, "contact", ids, told, values)
    await _relink(conn, "deal", ids, told, values)
    absorbed = await _absorb(conn, values) if any(row.merged_ids for row in rows) else 0
    created = sum(1 for *_, new in written if new)
    return Merged(
        created=created, changed=len(written) - created, unchanged=len(rows) - len(written) - gone, gone=gone + absorbed
    )  # fmt: skip


async def _copy_in(conn: AsyncConnection[Any], rows: Sequence[CompanyRow]) -> None:
    await conn.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS incoming_company (
            external_id text, state text, vendor_changed_at timestamptz, content_hash bytea, merged_ids text[], name text,
            domain text, industry text, country text, city text, phone text, employees numeric, revenue numeric,
            lifecycle text, owner text, created_at timestamptz, custom jsonb, fill jsonb, untold text[]
        ) ON COMMIT DELETE ROWS
        """
    )
    await conn.execute("DELETE FROM incoming_company")  # two batches may share a transaction
    columns = f"external_id, state, vendor_changed_at, content_hash, merged_ids, {', '.join(COLUMNS)}, custom, fill, untold"
    async with (
        conn.cursor() as cursor,
        cursor.copy(f"COPY incoming_company ({columns}) FROM STDIN".encode()) as copy,
    ):
        for row in rows:
            await copy.write_row(
                (row.external_id, row.state, row.vendor_changed_at, row.content_hash, list(row.merged_ids),
                 *(row.columns.get(name) for name in COLUMNS), msgspec.json.encode(row.custom).decode(),
                 msgspec.json.encode(row.fill).decode(), list(row.untold))
            )  # fmt: skip


async def _settle_states(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> int:
    """A company that is gone keeps its last values: what it was is still a fact. One that was merged away stays so."""
    cursor = await conn.execute(
        """
        WITH gone AS (
            UPDATE company k SET state = n.state, content_hash = n.content_hash, changed_at = %(now)s FROM incoming_company n
            WHERE k.connection = %(connection)s AND k.external_id = n.external_id
              AND n.state <> 'live' AND k.state NOT IN (n.state, 'merged')
            RETURNING k.id, k.state
        )
        INSERT INTO company_change (company_id, at, connection, run_id, kind)
        SELECT id, %(now)s, %(connection)s, %(run_id)s, state FROM gone
        """,
        values,
    )
    await conn.execute("DELETE FROM incoming_company WHERE state <> 'live'")
    return cursor.rowcount


async def _write(
    conn: AsyncConnection[Any], on_blank: Mapping[str, str], values: Mapping[str, Any]
) -> list[tuple[int, str, bool]]:
    """(id, external id, whether it is new) of each company that is new or said something else than last time."""
    names = ", ".join(COLUMNS)
    cursor = await conn.execute(
        f"""
        WITH before AS MATERIALIZED (
            SELECT k.* FROM company k JOIN incoming_company n USING (external_id) WHERE k.connection = %(connection)s
        ), after AS (
            INSERT INTO company AS k
                (connection, external_id, state, vendor_changed_at, content_hash, {names}, fields, changed_at)
            SELECT %(connection)s, n.external_id, n.state, n.vendor_changed_at, n.content_hash,
                   {", ".join(value_of(name, on_blank.get(name)) for name in COLUMNS)},
                   n.fill || coalesce(k.fields, '{{}}') || n.custom, %(now)s
            FROM incoming_company n LEFT JOIN before k USING (external_id)
            ON CONFLICT (connection, external_id) DO UPDATE SET
                ({names}, fields, state, merged_into, vendor_changed_at, content_hash, changed_at) =
                (SELECT {", ".join("excluded." + name for name in COLUMNS)}, excluded.fields, excluded.state, NULL::bigint,
                        excluded.vendor_changed_at, excluded.content_hash, excluded.changed_at)
            WHERE k.content_hash IS DISTINCT FROM excluded.content_hash OR k.state <> excluded.state
            RETURNING k.*
        ), lineage AS (
            INSERT INTO company_change (company_id, at, connection, run_id, kind, diff)
            SELECT id, %(now)s, %(connection)s, %(run_id)s,
                   CASE WHEN new THEN 'created' WHEN diff ? 'state' THEN 'restored' ELSE 'changed' END, coalesce(diff, '{{}}')
            FROM (
                SELECT a.id, b.id IS NULL AS new, CASE WHEN b.id IS NOT NULL THEN (
                    SELECT jsonb_object_agg(n.key, jsonb_build_array(o.value, n.value)) FROM jsonb_each({_VALUES.format("a")}) n
                    LEFT JOIN jsonb_each({_VALUES.format("b")}) o USING (key) WHERE n.value IS DISTINCT FROM o.value) END AS diff
                FROM after a LEFT JOIN before b ON b.id = a.id
            ) d WHERE new OR diff IS NOT NULL
        )
        SELECT a.id, a.external_id, NOT EXISTS (SELECT FROM before b WHERE b.id = a.id) FROM after a
        """.encode(),
        values,
    )
    return list(await cursor.fetchall())


_VALUES = """((to_jsonb({0}) || {0}.fields)
    - '{{id,connection,external_id,fields,merged_into,content_hash,vendor_changed_at,changed_at}}'::text[])"""


async def _relink(
    conn: AsyncConnection[Any], object: str, ids: Mapping[str, int], rows: Sequence[CompanyRow], values: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write the differences of who belongs to these companies, so that nobody else is looked at again."""
    links = [
        (ids[row.external_id], link.id, link.role, link.primary)
        for row in rows
        for link in row.links
        if link.object == object
    ]
    companies, refs, roles, primary = (
        (list(each) for each in zip(*links, strict=True)) if links else ([],) * 4
    )
    told = {
        **values, "all": list(ids.values()), "companies": companies, "refs": refs, "roles": roles, "primary": primary,
    }  # fmt: skip
    table, ref = f"company_{object}", f"{object}_ref"
    await conn.execute(
        f"""
        DELETE FROM {table} t WHERE t.company_id = ANY(%(all)s) AND NOT EXISTS (
            SELECT FROM unnest(%(companies)s::bigint[], %(refs)s::text[], %(roles)s::text[]) AS l (company_id, ref, role)
            WHERE (l.company_id, l.ref, l.role) = (t.company_id, t.{ref}, t.role))
        """.encode(),
        told,
    )
    if links:
        await conn.execute(
            f"""
            INSERT INTO {table} AS t (company_id, connection, {ref}, role, is_primary)
            SELECT DISTINCT ON (company_id, ref, role) company_id, %(connection)s, ref, role, is_primary
            FROM unnest(%(companies)s::bigint[], %(refs)s::text[], %(roles)s::text[], %(primary)s::boolean[])
                AS l (company_id, ref, role, is_primary)
            WHERE NOT EXISTS (SELECT FROM {table} k WHERE (k.company_id, k.{ref}, k.role, k.is_primary)
                              = (l.company_id, l.ref, l.role, l.is_primary))
            ORDER BY company_id, ref, role, is_primary DESC
            ON CONFLICT (company_id, {ref}, role) DO UPDATE SET is_primary = excluded.is_primary
            """.encode(),
            told,
        )


async def _absorb(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> int:
    """Companies behind absorbed ids are merged into the survivor; an id that was never seen is noted all the same."""
    cursor = await conn.execute(
        """
        WITH pairs AS (
            SELECT DISTINCT ON (old) old, k.id AS survivor
            FROM incoming_company n CROSS JOIN LATERAL unnest(n.merged_ids) AS old
            JOIN company k ON k.connection = %(connection)s AND k.external_id = n.external_id
            WHERE old <> n.external_id
        ), absorbed AS (
            INSERT INTO company AS k (connection, external_id, state, merged_into, changed_at)
            SELECT %(connection)s, old, 'merged', survivor, %(now)s FROM pairs
            ON CONFLICT (connection, external_id) DO UPDATE
            SET state = 'merged', merged_into = excluded.merged_into, content_hash = NULL, changed_at = excluded.changed_at
            WHERE k.merged_into IS DISTINCT FROM excluded.merged_into
            RETURNING k.id, k.merged_into, k.xmax <> 0 AS known
        ), lineage AS (
            INSERT INTO company_change (company_id, at, connection, run_id, kind, diff)
            SELECT id, %(now)s, %(connection)s, %(run_id)s, 'merged',
                   jsonb_build_object('merged_into', jsonb_build_array(null, merged_into)) FROM absorbed
        )
        SELECT count(*) FILTER (WHERE known) FROM absorbed
        """,
        values,
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def of_main(name: str) -> tuple[str, FieldType]:
    """A field of the main company of the contact `c` as SQL, a text or JSON, and its type."""
    known = COMPANY_FIELDS.get(name)
    if known is None:
        quoted = name.replace("'", "''").replace("%", "%%")
        return (
            f"(SELECT k.fields -> '{quoted}' FROM main_company k WHERE k.contact_id = c.id)",
            FieldType.LIST,
        )
    column = f"k.{known.column}" if known.type is FieldType.TEXT else f"to_jsonb(k.{known.column})"
    return f"(SELECT {column} FROM main_company k WHERE k.contact_id = c.id)", known.type


async def of_contact(conn: AsyncConnection[Any], contact_id: int) -> list[dict[str, Any]]:
    """The companies that a contact belongs to, the primary one first: name, domain, industry, roles, connection."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT k.connection, k.external_id, k.name, k.domain, k.industry, bool_or(k.is_primary) AS "primary",
                      coalesce(array_agg(k.role ORDER BY k.role) FILTER (WHERE k.role <> ''), '{}') AS roles
               FROM contact_company k WHERE k.contact_id = %s
               GROUP BY k.id, k.connection, k.external_id, k.name, k.domain, k.industry
               ORDER BY bool_or(k.is_primary) DESC, k.id""",
            [contact_id],
        )
        return list(await cursor.fetchall())
