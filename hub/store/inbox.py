"""The webhook inbox: stored before the vendor gets its 2xx, unique by the vendor's event key, worked later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.sdk.connector import Unreadable, WebhookEvent, is_whole

MAX_ATTEMPTS = 5
LONGEST_KEY = 500
"""Octets; of a longer key its hash stands, since an index holds no more than 2,700."""
UNREAD = "unread"
"""The action of a call that is kept whole, because not all of it was understood."""
STATES = ("new", "done", "set_aside")


@dataclass(frozen=True)
class Post:
    """One verified call: what was understood of it, and, if that is not all, the whole of it with the reason."""

    connection: str
    events: Sequence[WebhookEvent]
    received_at: datetime
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    unread: str = ""


def understood(found: Sequence[WebhookEvent | Unreadable]) -> tuple[list[WebhookEvent], str]:
    """The events of what a connector found in a call, and what is wrong with the rest."""
    events = [each for each in found if isinstance(each, WebhookEvent) and is_whole(each)]
    if len(events) == len(found):
        return events, ""
    reason = next(
        (each.reason for each in found if isinstance(each, Unreadable)),
        "an event lacks its key, object or id",
    )
    return events, f"{len(found) - len(events)} of {len(found)} events: {reason}"


def as_unread(post: Post, reason: str) -> Post:
    """The call as one that is not understood at all."""
    return replace(post, events=(), unread=reason)


@dataclass(frozen=True)
class Stored:
    """How many events of a call were new, how many were there already, and whether the call was kept whole."""

    new: int
    repeated: int
    whole: bool


@dataclass(frozen=True)
class Entry:
    """What waits to be worked: an event, or a call to be read again (`action` is `unread`)."""

    id: int
    object: str
    external_id: str
    action: str
    merged_ids: list[str]
    attempts: int
    record: dict[str, Any] | None
    headers: dict[str, str] | None
    body: bytes | None
    received_at: datetime


async def store(conn: AsyncConnection[Any], post: Post) -> Stored:
    """Keep a call in the caller's transaction. A repeated event changes nothing.

    An event that PostgreSQL cannot hold (text with NUL) counts as not understood.
    """
    events, unread = [_with_short_key(event) for event in post.events], post.unread
    encoded = msgspec.json.encode(events)
    if b"\\u0000" in encoded:
        whole, events = (
            len(events),
            [event for event in events if b"\\u0000" not in msgspec.json.encode(event)],
        )
        unread = unread or f"{whole - len(events)} of {whole} events hold a NUL"
        encoded = msgspec.json.encode(events)
    if unread:
        await _keep_whole(conn, post, unread)
    if not events:
        return Stored(0, 0, bool(unread))
    # json and not jsonb: it is read once, column by column, in half of the time.
    cursor = await conn.execute(
        """
        INSERT INTO inbox (connection, event_key, object, external_id, action, merged_ids, payload, record, occurred_at,
            received_at)
        SELECT %s, key, object, id, coalesce(action, 'changed'), coalesce(merged_ids, '{}'), coalesce(payload, '{}'), record,
               occurred_at, %s
        FROM json_to_recordset(%s::json) AS event (key text, object text, id text, action text, merged_ids text[],
             payload jsonb, record jsonb, occurred_at timestamptz)
        ON CONFLICT (connection, event_key) DO NOTHING
        """,
        [post.connection, post.received_at, encoded.decode()],
    )
    return Stored(cursor.rowcount, len(events) - cursor.rowcount, bool(unread))


async def _keep_whole(conn: AsyncConnection[Any], post: Post, reason: str) -> None:
    digest = hashlib.sha256(post.body).hexdigest()
    await conn.execute(
        """INSERT INTO inbox (connection, event_key, object, external_id, action, received_at, state, reason, headers, body)
           VALUES (%s, %s, '', '', %s, %s, 'set_aside', %s, %s, %s) ON CONFLICT (connection, event_key) DO NOTHING""",
        [
            post.connection, f"{UNREAD}:{digest}", UNREAD, post.received_at, reason.replace("\0", " "),
            Jsonb({name: value.replace("\0", " ") for name, value in post.headers.items()}), post.body,
        ],
    )  # fmt: skip


def _with_short_key(event: WebhookEvent) -> WebhookEvent:
    octets = event.key.encode("utf-8", "surrogatepass")
    if len(octets) <= LONGEST_KEY:
        return event
    return msgspec.structs.replace(event, key=f"sha256:{hashlib.sha256(octets).hexdigest()}")


async def waiting(conn: AsyncConnection[Any], connection: str, limit: int) -> list[Entry]:
    """New events of a connection that are due, oldest first, locked for the caller's transaction."""
    cursor = await conn.execute(
        """SELECT id, object, external_id, action, merged_ids, attempts, record, headers, body, received_at
           FROM inbox
           WHERE connection = %s AND state = 'new' AND due_at <= clock_timestamp() ORDER BY id LIMIT %s
           FOR UPDATE SKIP LOCKED""",
        [connection, limit],
    )
    return [Entry(*row) for row in await cursor.fetchall()]


async def done(conn: AsyncConnection[Any], ids: Sequence[int]) -> None:
    """Worked. What a record held, and the body of a call that was kept whole, are let go: they are taken in now."""
    await conn.execute(
        "UPDATE inbox SET state = 'done', reason = '', record = NULL, body = NULL, headers = NULL WHERE id = ANY(%s)",
        [list(ids)],
    )


async def known_since(
    conn: AsyncConnection[Any], connection: str, object: str, ids: Sequence[str]
) -> dict[str, datetime]:
    """id -> the vendor's time of what the hub holds of a record."""
    table = {
        "contact": "contact_identity WHERE object = 'contact' AND", "deal": "deal WHERE",
    }[object]  # fmt: skip
    cursor = await conn.execute(
        f"""SELECT external_id, vendor_changed_at FROM {table} connection = %s AND external_id = ANY(%s)
            AND vendor_changed_at IS NOT NULL""".encode(),
        [connection, list(ids)],
    )
    return dict(await cursor.fetchall())


async def failed(conn: AsyncConnection[Any], ids: Sequence[int], reason: str, *, final: bool = False) -> None:
    """Count an attempt; the next one comes after a minute, then two, four ... After `MAX_ATTEMPTS`, or when `final`, the
    event is set aside with its reason."""
    await conn.execute(
        """UPDATE inbox SET attempts = attempts + 1, reason = %s,
               due_at = clock_timestamp() + interval '1 minute' * 2 ^ attempts,
               state = CASE WHEN %s OR attempts + 1 >= %s THEN 'set_aside' ELSE 'new' END
           WHERE id = ANY(%s)""",
        [reason, final, MAX_ATTEMPTS, list(ids)],
    )


async def put_off(conn: AsyncConnection[Any], ids: Sequence[int], reason: str, pause: timedelta) -> None:
    """The vendor is away or its quota used up: no event is to blame, so no attempt is counted."""
    await conn.execute(
        "UPDATE inbox SET reason = %s, due_at = clock_timestamp() + %s WHERE id = ANY(%s)",
        [reason, pause, list(ids)],
    )


async def replay(
    conn: AsyncConnection[Any],
    connection: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    object: str | None = None,
    states: Sequence[str] = ("set_aside",),
) -> int:
    """Work events again that came from `since` on and before `until`, were about `object` and rest in `states`.
    Returns how many. Working one again does no harm: its record is read as it is now."""
    cursor = await conn.execute(
        """UPDATE inbox SET state = 'new', attempts = 0, due_at = '-infinity'
           WHERE connection = %(connection)s AND state = ANY(%(states)s) AND state <> 'new'
             AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s)
             AND (%(until)s::timestamptz IS NULL OR received_at < %(until)s)
             AND (%(object)s::text IS NULL OR object = %(object)s)
             AND (action <> %(unread)s OR body IS NOT NULL)""",
        {
            "connection": connection, "states": list(states), "since": since, "until": until, "object": object,
            "unread": UNREAD,
        },
    )  # fmt: skip
    return cursor.rowcount


async def counts(conn: AsyncConnection[Any]) -> dict[str, dict[str, int]]:
    """connection -> state -> events."""
    cursor = await conn.execute("SELECT connection, state, count(*) FROM inbox GROUP BY 1, 2 ORDER BY 1, 2")
    found: dict[str, dict[str, int]] = {}
    for connection, state, count in await cursor.fetchall():
        found.setdefault(connection, {})[state] = count
    return found


async def overview(conn: AsyncConnection[Any]) -> list[dict[str, Any]]:
    """How many events of each connection, object and action are in each state, and when the last one came."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(
        """SELECT connection, object, action, state, count(*) AS events, max(received_at) AS last_at
           FROM inbox GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    )
    return await cursor.fetchall()


async def entries(
    conn: AsyncConnection[Any], *, connection: str | None, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest events, each with where it is and why."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(
        """SELECT id, connection, object, external_id, action, state, attempts, reason, occurred_at, received_at
           FROM inbox WHERE (%(connection)s::text IS NULL OR connection = %(connection)s)
             AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY id DESC LIMIT %(limit)s""",
        {"connection": connection, "state": state, "limit": limit},
    )
    return await cursor.fetchall()


async def entry(conn: AsyncConnection[Any], id: int) -> dict[str, Any] | None:
    """All that is kept of one event or call; `body` as text, what is no UTF-8 in it escaped."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute("SELECT * FROM inbox WHERE id = %s", [id])
    found = await cursor.fetchone()
    if found and found["body"] is not None:
        found["body"] = found["body"].decode("utf-8", "backslashreplace")
    return found
