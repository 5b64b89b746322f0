"""Deals of each connection and the contacts they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection

from hub.model import DEAL_FIELDS, Link

COLUMNS = tuple(DEAL_FIELDS)


class DealRow(msgspec.Struct, frozen=True):
    """One mapped deal of one connection; `links` name its contacts by the vendor's ids. `fill` and `untold` as of a
    contact."""

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


@dataclass(frozen=True)
class Merged:
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0


async def merge(
    conn: AsyncConnection[Any],
    connection: str,
    rows: Sequence[DealRow],
    *,
    on_blank: Mapping[str, str],
    now: datetime,
) -> Merged:
    """Bring a batch in, in the caller's transaction; deals with the known content hash are left alone.

    `on_blank` names the mapped columns with their policy, as for contacts; other columns are left alone.
    """
    rows = list({row.external_id: row for row in rows}.values())
    if not rows:
        return Merged()
    names = ", ".join(COLUMNS)
    await conn.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS incoming_deal (
            external_id text, state text, vendor_changed_at timestamptz, content_hash bytea, name text, pipeline text,
            stage text, amount numeric, currency text, close_at timestamptz,
            created_at timestamptz, owner text, custom jsonb, fill jsonb, untold text[]
        ) ON COMMIT DELETE ROWS
        """
    )
    await conn.execute("TRUNCATE incoming_deal")
    async with conn.cursor() as cursor:
        columns = f"external_id, state, vendor_changed_at, content_hash, {names}, custom, fill, untold"
        async with cursor.copy(f"COPY incoming_deal ({columns}) FROM STDIN") as copy:
            for row in rows:
                await copy.write_row(
                    (row.external_id, row.state, row.vendor_changed_at, row.content_hash,
                     *(row.columns.get(name) for name in COLUMNS), msgspec.json.encode(row.custom).decode(),
                     msgspec.json.encode(row.fill).decode(), list(row.untold))
                )  # fmt: skip
    gone = await conn.execute(
        # A deal that is gone keeps its last values: what it was is still a fact.
        """
        UPDATE deal d SET state = n.state, content_hash = n.content_hash, changed_at = %s FROM incoming_deal n
        WHERE d.connection = %s AND d.external_id = n.external_id AND n.state <> 'live' AND d.state NOT IN (n.state, 'merged')
        """,
        [now, connection],
    )
    await conn.execute("DELETE FROM incoming_deal WHERE state <> 'live'")
    cursor = await conn.execute(
        f"""
        INSERT INTO deal AS d (connection, external_id, state, vendor_changed_at, content_hash, {names}, fields, changed_at)
        SELECT %s, n.external_id, n.state, n.vendor_changed_at, n.content_hash,
               {", ".join(value_of(name, on_blank.get(name)) for name in COLUMNS)},
               n.fill || coalesce(k.fields, '{{}}') || n.custom, %s
        FROM incoming_deal n LEFT JOIN deal k ON k.connection = %s AND k.external_id = n.external_id
        ON CONFLICT (connection, external_id) DO UPDATE SET
            ({names}, fields, state, vendor_changed_at, content_hash, changed_at) =
            (SELECT {", ".join("excluded." + name for name in COLUMNS)}, excluded.fields, excluded.state,
                    excluded.vendor_changed_at, excluded.content_hash, excluded.changed_at)
        WHERE d.content_hash IS DISTINCT FROM excluded.content_hash OR d.state <> excluded.state
        RETURNING d.id, d.external_id, xmax = 0
        """,
        [connection, now, connection],
    )
    written = await cursor.fetchall()
    absorbed = await _absorb(conn, connection, [old for row in rows for old in row.merged_ids], now=now)
    await _replace_links(conn, connection, {ref: deal_id for deal_id, ref, _ in written}, rows)
    created = sum(1 for *_, new in written if new)
    return Merged(
        created=created,
        changed=len(written) - created,
        unchanged=len(rows) - len(written) - gone.rowcount,
        gone=gone.rowcount + absorbed,
    )


async def _absorb(conn: AsyncConnection[Any], connection: str, ids: Sequence[str], *, now: datetime) -> int:
    """Deals that were merged into another one are nobody's: what they were stands in that one."""
    if not ids:
        return 0
    cursor = await conn.execute(
        """UPDATE deal SET state = 'merged', content_hash = NULL, changed_at = %s
           WHERE connection = %s AND external_id = ANY(%s) AND state <> 'merged'""",
        [now, connection, list(ids)],
    )
    return cursor.rowcount


def value_of(name: str, policy: str | None) -> str:
    """What a column becomes: the incoming `n` and the known `k`, by the policy for blanks."""
    if policy == "clear":
        return f"CASE WHEN '{name}' = ANY(n.untold) THEN k.{name} ELSE n.{name} END"
    if policy is None:
        return f"k.{name}"
    return f"coalesce(k.{name}, n.{name})" if policy == "fill" else f"coalesce(n.{name}, k.{name})"


async def _replace_links(
    conn: AsyncConnection[Any], connection: str, ids: Mapping[str, int], rows: Sequence[DealRow]
) -> None:
    links = [
        (ids[row.external_id], link.id, link.role)
        for row in rows
        if row.external_id in ids
        for link in row.links
    ]
    await conn.execute("DELETE FROM deal_contact WHERE deal_id = ANY(%s)", [list(ids.values())])
    if links:
        deal_ids, refs, roles = (list(column) for column in zip(*links, strict=True))
        await conn.execute(
            """INSERT INTO deal_contact (deal_id, connection, contact_ref, role)
               SELECT deal_id, %s, contact_ref, role
               FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS l (deal_id, contact_ref, role)
               ON CONFLICT DO NOTHING""",
            [connection, deal_ids, refs, roles],
        )
