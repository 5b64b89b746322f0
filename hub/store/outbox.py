"""The outbox: what is to be written to vendors, decided in the transaction that made it necessary.

A row is claimed (`attempting`, committed) before the vendor is called, and
settled after. What is left `attempting` when nobody pushes means a crash in between: it is repeated where the
connector is repeatable, else it rests as `uncertain` and is never repeated blindly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection

from hub.model import Outcome, OutcomeStatus

MAX_ATTEMPTS = 8
OWED = ("consent", "erase")
"""Kinds that are tried until the vendor takes or refuses them: the law does not stop asking after eight times."""


@dataclass(frozen=True)
class NewPush:
    """A write to queue. `dedupe_key` is unique within a connection: queueing it again changes nothing."""

    connection: str
    kind: str  # result, field, consent, erase
    dedupe_key: str
    payload: dict[str, Any]
    created_at: datetime
    contact_id: int | None = None
    event_id: int | None = None


@dataclass(frozen=True)
class Claimed:
    """A row that is ours to write."""

    id: int
    kind: str
    dedupe_key: str
    payload: dict[str, Any]
    contact_id: int | None
    attempts: int
    claim: int


async def enqueue(conn: AsyncConnection[Any], rows: Sequence[NewPush]) -> int:
    """Queue writes in the caller's transaction. Returns how many were new."""
    if not rows:
        return 0
    cursor = await conn.execute(
        """
        INSERT INTO outbox (connection, kind, dedupe_key, payload, created_at, contact_id, event_id)
        SELECT connection, kind, dedupe_key, payload::jsonb, created_at, contact_id, event_id
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::bigint[], %s::bigint[])
          AS r (connection, kind, dedupe_key, payload, created_at, contact_id, event_id)
        ON CONFLICT (connection, dedupe_key) DO NOTHING
        """,
        [
            [r.connection for r in rows],
            [r.kind for r in rows],
            [r.dedupe_key for r in rows],
            [_json(r.payload) for r in rows],
            [r.created_at for r in rows],
            [r.contact_id for r in rows],
            [r.event_id for r in rows],
        ],
    )
    return cursor.rowcount


def _json(payload: dict[str, Any]) -> str:
    return msgspec.json.encode(payload).decode()


async def claim(conn: AsyncConnection[Any], connection: str, limit: int) -> list[Claimed]:
    """Up to `limit` due rows of a connection, oldest first, now `attempting`. Commit before calling the vendor.

    A contact's rows stay in order: a row waits while an older one of the same contact is not settled.
    """
    cursor = await conn.execute(
        """
        WITH head AS (
            SELECT o.id FROM outbox o
            WHERE o.connection = %(connection)s AND o.state = 'queued' AND o.due_at <= clock_timestamp()
              AND NOT EXISTS (
                SELECT FROM outbox p
                WHERE p.connection = o.connection AND p.contact_id = o.contact_id AND p.id < o.id
                  AND (p.state = 'attempting' OR (p.state = 'queued' AND p.due_at > clock_timestamp())))
            ORDER BY o.id LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        UPDATE outbox o
        SET state = 'attempting', attempts = o.attempts + 1, claim = nextval('outbox_claim')
        FROM head WHERE o.id = head.id
        RETURNING o.id, o.kind, o.dedupe_key, o.payload, o.contact_id, o.attempts, o.claim
        """,
        {"connection": connection, "limit": limit},
    )
    rows = [Claimed(*row) for row in await cursor.fetchall()]
    return sorted(rows, key=lambda row: row.id)


@dataclass(frozen=True)
class Settled:
    """How many rows of a batch ended how."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    dropped: int = 0
    uncertain: int = 0


async def settle(
    conn: AsyncConnection[Any], claimed: Sequence[Claimed], outcomes: dict[str, Outcome], *, now: datetime
) -> Settled:
    """Record what the vendor said, keyed by `dedupe_key`. A row that was claimed anew meanwhile is left alone.

    `retry` goes back to the queue with growing pauses until `MAX_ATTEMPTS`, then rests among the dead letters; what is
    `OWED` is tried on.
    """
    tally: dict[str, int] = {}
    rows = []
    for row in claimed:
        outcome = outcomes[row.dedupe_key]
        state, key = _next_state(outcome.status, row.kind, row.attempts)
        tally[key] = tally.get(key, 0) + 1
        pause = (
            max(outcome.retry_after_seconds, min(2.0 ** (row.attempts - 1), 900.0))
            if state == "queued"
            else 0.0
        )
        rows.append((state, outcome.code, outcome.message, outcome.fix, outcome.remote_id, now if state == "done" else None,
                     pause, row.id, row.claim))  # fmt: skip
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """
            UPDATE outbox SET state = %s, code = %s, message = %s, fix = %s, remote_id = %s, confirmed_at = %s,
                due_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND claim = %s AND state IN ('attempting', 'uncertain')
            """,
            rows,
        )
    await conn.execute(
        """UPDATE outbox SET payload = '{}', remote_id = '' WHERE id = ANY(%s) AND forget AND state IN ('done', 'dropped')""",
        [[row.id for row in claimed]],
    )
    return Settled(**tally)


def _next_state(status: OutcomeStatus, kind: str, attempts: int) -> tuple[str, str]:
    """(state of the row, key of the tally)."""
    if status is OutcomeStatus.DONE:
        return "done", "done"
    if status is OutcomeStatus.RETRY:
        return ("queued", "retried") if attempts < MAX_ATTEMPTS or kind in OWED else ("dead", "dead")
    if status is OutcomeStatus.DROPPED:
        return "dropped", "dropped"
    if status is OutcomeStatus.UNCERTAIN:
        return "uncertain", "uncertain"
    return "dead", "dead"


async def give_back(conn: AsyncConnection[Any], claimed: Sequence[Claimed]) -> None:
    """Return claimed rows that were never offered to the vendor, as if they had not been claimed."""
    await conn.execute(
        """UPDATE outbox o SET state = 'queued', attempts = o.attempts - 1
           FROM unnest(%s::bigint[], %s::bigint[]) AS c (id, claim)
           WHERE o.id = c.id AND o.claim = c.claim AND o.state = 'attempting'""",
        [[c.id for c in claimed], [c.claim for c in claimed]],
    )


async def recover(conn: AsyncConnection[Any], connection: str, *, repeatable: bool) -> int:
    """Take back rows that were claimed and never settled: a crash in between. Returns how many.

    Call it only while this process alone may push to the connection (`Database.exclusive`): then nobody is at them.
    """
    cursor = await conn.execute(
        """UPDATE outbox SET state = %s,
               message = CASE WHEN %s THEN message ELSE 'the hub stopped before the answer came' END
           WHERE connection = %s AND state = 'attempting'""",
        ["queued" if repeatable else "uncertain", repeatable, connection],
    )
    return cursor.rowcount


async def replay(conn: AsyncConnection[Any], connection: str, *, states: Sequence[str] = ("dead",)) -> int:
    """Queue dead letters again after their cause was mended. Returns how many."""
    cursor = await conn.execute(
        """UPDATE outbox SET state = 'queued', attempts = 0, due_at = clock_timestamp()
           WHERE connection = %s AND state = ANY(%s)""",
        [connection, list(states)],
    )
    return cursor.rowcount


async def counts(conn: AsyncConnection[Any]) -> dict[str, dict[str, int]]:
    """connection -> state -> rows."""
    cursor = await conn.execute("SELECT connection, state, count(*) FROM outbox GROUP BY 1, 2 ORDER BY 1, 2")
    found: dict[str, dict[str, int]] = {}
    for connection, state, count in await cursor.fetchall():
        found.setdefault(connection, {})[state] = count
    return found


async def confirmed_results(conn: AsyncConnection[Any]) -> dict[str, int]:
    """connection -> results that the vendor confirmed."""
    cursor = await conn.execute(
        "SELECT connection, count(*) FROM outbox WHERE kind = 'result' AND state = 'done' GROUP BY 1 ORDER BY 1"
    )
    return dict(await cursor.fetchall())
