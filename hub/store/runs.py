"""Runs and cursors: what each pull and push read, changed, skipped and rejected, and where a stream resumes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.model import Rejected


@dataclass
class Counts:
    """The numbers of a run; each can be drilled down to its rows."""

    read: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0  # archived, deleted or merged away
    erased: int = 0  # not taken in: they were erased here
    rejected: int = 0
    written: int = 0
    retried: int = 0
    uncertain: int = 0
    pages: int = 0
    http: dict[str, int] = field(default_factory=dict)  # what it cost in calls to the vendor

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            if name != "http":
                setattr(self, name, getattr(self, name) + value)

    def as_dict(self) -> dict[str, Any]:
        """Only what is not zero."""
        numbers = {**vars(self), **self.http}
        return {name: value for name, value in numbers.items() if value and name != "http"}


async def start(conn: AsyncConnection[Any], kind: str, connection: str, stream: str, *, now: datetime) -> int:
    """A new run's id. Runs of the same kind, connection and stream left `running` by a crash are closed as partial."""
    await conn.execute(
        """UPDATE run SET state = 'partial', finished_at = %s, reason = 'the hub stopped in the middle; resumed by the next run'
           WHERE state = 'running' AND kind = %s AND connection = %s AND stream = %s""",
        [now, kind, connection, stream],
    )
    cursor = await conn.execute(
        "INSERT INTO run (kind, connection, stream, started_at) VALUES (%s, %s, %s, %s) RETURNING id",
        [kind, connection, stream, now],
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def close_abandoned(conn: AsyncConnection[Any], *, now: datetime) -> int:
    """Close runs whose process is gone as partial: nobody holds their work any more. Returns how many."""
    cursor = await conn.execute(
        """UPDATE run SET state = 'partial', finished_at = %s, resume_after = %s,
               reason = 'the hub stopped in the middle; the next run goes on'
           WHERE state = 'running' AND NOT work_is_held(
               CASE kind WHEN 'pull' THEN 'pull:' || connection || '/' || stream
                         WHEN 'push' THEN 'push:' || connection ELSE 'inbox:' || connection END)""",
        [now, now],
    )
    return cursor.rowcount


async def finish(
    conn: AsyncConnection[Any],
    run_id: int,
    counts: Counts,
    *,
    state: str,
    now: datetime,
    reason: str = "",
    resumes_at: object = None,
    resume_after: datetime | None = None,
) -> None:
    """Close a run. A run with rejected rows is never better than `partial`: it is as good as its worst row.

    `resumes_at` is the cursor where the next run goes on; `resume_after` when it may do so ahead of the schedule.
    """
    if state == "done" and counts.rejected:
        state, reason = "partial", reason or f"{counts.rejected} rows were rejected; see `hub runs {run_id}`"
    await conn.execute(
        "UPDATE run SET state = %s, finished_at = %s, counts = %s, reason = %s, resumes_at = %s, resume_after = %s"
        " WHERE id = %s",
        [
            state,
            now,
            Jsonb(counts.as_dict()),
            reason,
            Jsonb(resumes_at) if resumes_at is not None else None,
            resume_after,
            run_id,
        ],
    )


async def reject(conn: AsyncConnection[Any], run_id: int, rows: Sequence[Rejected], *, now: datetime) -> None:
    """Keep rejected rows with the vendor's code and message and a proposed fix."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """INSERT INTO run_reject (run_id, object, external_id, code, message, fix, row, at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    run_id,
                    *map(_without_nul, (r.object, r.id, r.code, r.message, r.fix)),
                    Jsonb(_without_nul(r.row)),
                    now,
                )
                for r in rows
            ],
        )


def _without_nul(value: Any) -> Any:
    """PostgreSQL holds no NUL in its texts; a vendor's value may have one, and that may be why it was rejected."""
    if isinstance(value, str):
        return value.replace("\0", "\N{SYMBOL FOR NULL}") if "\0" in value else value
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return [_without_nul(each) for each in value] if isinstance(value, list | tuple) else value


async def read_cursor(conn: AsyncConnection[Any], connection: str, stream: str) -> dict[str, Any]:
    """Where the stream resumes; empty when it was never read."""
    row = await (
        await conn.execute(
            "SELECT position FROM cursor WHERE connection = %s AND stream = %s", [connection, stream]
        )
    ).fetchone()
    return dict(row[0]) if row else {}


async def save_cursor(
    conn: AsyncConnection[Any],
    connection: str,
    stream: str,
    position: dict[str, Any],
    run_id: int,
    *,
    now: datetime,
) -> None:
    """Belongs into the transaction that stores the page which the cursor covers."""
    await conn.execute(
        """INSERT INTO cursor (connection, stream, position, saved_at, run_id) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (connection, stream) DO UPDATE
           SET position = excluded.position, saved_at = excluded.saved_at, run_id = excluded.run_id""",
        [connection, stream, Jsonb(position), now, run_id],
    )


async def forget_cursor(conn: AsyncConnection[Any], connection: str, stream: str) -> None:
    """The next pull reads the stream from the beginning: a full re-sync. What was loaded stays loaded."""
    await conn.execute(
        "UPDATE cursor SET position = '{}' WHERE connection = %s AND stream = %s", [connection, stream]
    )


async def mark_loaded(
    conn: AsyncConnection[Any], connection: str, stream: str, run_id: int, *, now: datetime
) -> None:
    """The stream was read to its end: lists may build on it."""
    await conn.execute(
        """INSERT INTO cursor (connection, stream, saved_at, run_id, loaded_at)
           VALUES (%(connection)s, %(stream)s, %(now)s, %(run)s, %(now)s)
           ON CONFLICT (connection, stream) DO UPDATE SET loaded_at = coalesce(cursor.loaded_at, excluded.loaded_at)""",
        {"connection": connection, "stream": stream, "now": now, "run": run_id},
    )


async def not_loaded(
    conn: AsyncConnection[Any], pulled: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """Which of the pulled streams (connection -> its streams) were never read to their end."""
    cursor = await conn.execute("SELECT connection, stream FROM cursor WHERE loaded_at IS NOT NULL")
    loaded = set(await cursor.fetchall())
    wanted = [(connection, stream) for connection, streams in pulled.items() for stream in streams]
    return [each for each in wanted if each not in loaded]


async def recent(conn: AsyncConnection[Any], limit: int = 20) -> list[dict[str, Any]]:
    """The newest runs first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM run ORDER BY id DESC LIMIT %s", [limit])
        return list(await cursor.fetchall())


async def one(conn: AsyncConnection[Any], run_id: int) -> dict[str, Any] | None:
    """A run with its rejected rows under `rejects` (at most 1,000)."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM run WHERE id = %s", [run_id])
        run = await cursor.fetchone()
        if run is None:
            return None
        await cursor.execute("SELECT * FROM run_reject WHERE run_id = %s ORDER BY id LIMIT 1000", [run_id])
        return {**run, "rejects": list(await cursor.fetchall())}


async def exists(conn: AsyncConnection[Any], run_id: int) -> bool:
    cursor = await conn.execute("SELECT FROM run WHERE id = %s", [run_id])
    return await cursor.fetchone() is not None


async def rejects(conn: AsyncConnection[Any], run_id: int) -> AsyncIterator[dict[str, Any]]:
    """All rejected rows of a run in their order, from a cursor in the caller's transaction."""
    async with conn.cursor("rejects", row_factory=dict_row) as cursor:
        await cursor.execute("SELECT * FROM run_reject WHERE run_id = %s ORDER BY id", [run_id])
        async for row in cursor:
            yield row


async def newest(conn: AsyncConnection[Any], kind: str) -> dict[str, Any] | None:
    """The newest run of a kind, as `one` gives it."""
    row = await (
        await conn.execute("SELECT id FROM run WHERE kind = %s ORDER BY id DESC LIMIT 1", [kind])
    ).fetchone()
    return await one(conn, row[0]) if row else None
