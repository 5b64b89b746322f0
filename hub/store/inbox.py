"""The webhook inbox: stored before the vendor gets its 2xx, unique by the vendor's event key, worked later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from psycopg import AsyncConnection

from hub.sdk.connector import WebhookEvent

MAX_ATTEMPTS = 5
T = TypeVar("T")
__all__ = [
    "Entry",
    "WebhookEvent",
    "counts",
    "done",
    "failed",
    "packed",
    "payloads",
    "replay",
    "store",
    "unpacked",
    "waiting",
]


@dataclass(frozen=True)
class Entry:
    """A stored webhook event that waits to be worked."""

    id: int
    object: str
    external_id: str
    action: str
    merged_ids: list[str]
    attempts: int


async def store(
    conn: AsyncConnection[Any], connection: str, events: Sequence[WebhookEvent], *, received_at: datetime
) -> int:
    """Keep events in the caller's transaction. Returns how many were new; a repeated one changes nothing."""
    if not events:
        return 0
    rows = [
        {
            "event_key": e.key, "object": e.object, "external_id": e.id, "action": e.action,
            "merged_ids": list(e.merged_ids), "payload": e.payload, "occurred_at": e.occurred_at,
        }
        for e in events
    ]  # fmt: skip
    cursor = await conn.execute(
        """
        INSERT INTO inbox (connection, event_key, object, external_id, action, merged_ids, payload, occurred_at, received_at)
        SELECT %s, event_key, object, external_id, action, merged_ids, payload, occurred_at, %s
        FROM jsonb_to_recordset(%s::jsonb) AS r (event_key text, object text, external_id text, action text,
             merged_ids text[], payload jsonb, occurred_at timestamptz)
        ON CONFLICT (connection, event_key) DO NOTHING
        """,
        [connection, received_at, msgspec.json.encode(rows).decode()],
    )
    return cursor.rowcount


async def waiting(conn: AsyncConnection[Any], connection: str, limit: int) -> list[Entry]:
    """New events of a connection, oldest first, locked for the caller's transaction."""
    cursor = await conn.execute(
        """SELECT id, object, external_id, action, merged_ids, attempts FROM inbox
           WHERE connection = %s AND state = 'new' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED""",
        [connection, limit],
    )
    return [Entry(*row) for row in await cursor.fetchall()]


async def payloads(
    conn: AsyncConnection[Any], connection: str, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """(id, payload) of new events of a connection, oldest first. Whoever works them holds that kind of work alone."""
    cursor = await conn.execute(
        "SELECT id, payload FROM inbox WHERE connection = %s AND state = 'new' ORDER BY id LIMIT %s",
        [connection, limit],
    )
    return list(await cursor.fetchall())


def packed(value: Any) -> dict[str, Any]:
    """A struct as a payload."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def unpacked(payload: dict[str, Any], type: type[T]) -> T:
    """The struct again. Raises ValueError for what is none."""
    return msgspec.convert(payload, type)


async def done(conn: AsyncConnection[Any], ids: Sequence[int], reason: str = "") -> None:
    """`reason` says why nothing came of it."""
    await conn.execute("UPDATE inbox SET state = 'done', reason = %s WHERE id = ANY(%s)", [reason, list(ids)])


async def failed(conn: AsyncConnection[Any], ids: Sequence[int], reason: str, *, final: bool = False) -> None:
    """Count an attempt; after `MAX_ATTEMPTS`, or when `final`, the event is set aside with its reason."""
    await conn.execute(
        """UPDATE inbox SET attempts = attempts + 1, reason = %s,
               state = CASE WHEN %s OR attempts + 1 >= %s THEN 'set_aside' ELSE 'new' END
           WHERE id = ANY(%s)""",
        [reason, final, MAX_ATTEMPTS, list(ids)],
    )


async def replay(conn: AsyncConnection[Any], connection: str, since: datetime) -> int:
    """Work events again that came at or after `since`. Returns how many."""
    cursor = await conn.execute(
        "UPDATE inbox SET state = 'new', attempts = 0 WHERE connection = %s AND received_at >= %s AND state <> 'new'",
        [connection, since],
    )
    return cursor.rowcount


async def counts(conn: AsyncConnection[Any]) -> dict[str, dict[str, int]]:
    """connection -> state -> events."""
    cursor = await conn.execute("SELECT connection, state, count(*) FROM inbox GROUP BY 1, 2 ORDER BY 1, 2")
    found: dict[str, dict[str, int]] = {}
    for connection, state, count in await cursor.fetchall():
        found.setdefault(connection, {})[state] = count
    return found
