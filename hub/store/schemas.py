"""Vendors' schemas as they were accepted last, to tell what has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from hub.model import VendorField


async def accepted(
    conn: AsyncConnection[Any], connection: str, object: str
) -> tuple[dict[str, VendorField], datetime | None]:
    """The fields by name and since when; empty when nothing was accepted yet."""
    cursor = await conn.execute(
        "SELECT fields, seen_at FROM vendor_schema WHERE connection = %s AND object = %s",
        [connection, object],
    )
    row = await cursor.fetchone()
    if row is None:
        return {}, None
    return {field.name: field for field in msgspec.convert(row[0], list[VendorField])}, row[1]


async def accept(
    conn: AsyncConnection[Any], connection: str, object: str, fields: Iterable[VendorField], *, now: datetime
) -> None:
    """Take a schema as what the next ones are held against."""
    await conn.execute(
        """INSERT INTO vendor_schema (connection, object, fields, seen_at) VALUES (%s, %s, %s, %s)
           ON CONFLICT (connection, object) DO UPDATE SET fields = excluded.fields, seen_at = excluded.seen_at""",
        [connection, object, Jsonb(msgspec.to_builtins(list(fields))), now],
    )
