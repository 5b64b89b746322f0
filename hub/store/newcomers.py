"""People whom nobody knew, as most are on a first load: their rows are COPYed where they belong, without a detour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection

from hub.model import CONTACT_FIELDS
from hub.store import copying

if TYPE_CHECKING:
    from hub.store.contacts import ContactRow

_COLUMNS = ", ".join(CONTACT_FIELDS)
_CONTACT = f"COPY contact (id, {_COLUMNS}, fields, changed_at) FROM STDIN {copying.FORMAT}".encode()
_IDENTITY = f"""COPY contact_identity (contact_id, external_id, content_hash, vendor_changed_at, connection, object, seen_at)
                FROM STDIN {copying.FORMAT}""".encode()
_LINEAGE = (
    f"COPY contact_change (contact_id, connection, run_id, at, kind) FROM STDIN {copying.FORMAT}".encode()
)


async def insert(conn: AsyncConnection[Any], rows: Sequence[ContactRow], values: Mapping[str, Any]) -> None:
    """Make a contact of each row: with its identity, and a first line of lineage."""
    cursor = await conn.execute(
        "SELECT array_agg(nextval('contact_id_seq')) FROM generate_series(1, %s)", [len(rows)]
    )
    found = await cursor.fetchone()
    assert found is not None
    ids = [str(id) for id in found[0]]
    now, run_id = copying.instant(values["now"]), values["run_id"]
    await copying.into(
        conn, _CONTACT, [f"{id}\t{row.line()}\t{now}" for id, row in zip(ids, rows, strict=True)]
    )
    end = copying.line((values["connection"], "contact", now))
    await copying.into(conn, _IDENTITY, [_identity(id, row) + end for id, row in zip(ids, rows, strict=True)])
    run = copying.NOTHING if run_id is None else str(run_id)
    end = copying.line((values["connection"], run, now, "created"))
    await copying.into(conn, _LINEAGE, [f"{id}\t{end}" for id in ids])


def _identity(id: str, row: ContactRow) -> str:
    told = row.external_id
    if not told.isalnum():
        told = copying.line((told,))
    return f"{id}\t{told}\t\\\\x{row.content_hash.hex()}\t{copying.instant(row.vendor_changed_at)}\t"
