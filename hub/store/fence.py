"""The fence: a database that was restored or copied does not send again what its original has sent.

The hub keeps a mark of where its database is: the server's own number, its timeline, the database's, the birth of its
files, and the transaction that wrote the mark. A dump that is read back, a copied data folder, a clone and a recovery
to a point in time each change one of them; restarts and crashes change none.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from hub.errors import HubError
from hub.store import campaigns
from hub.store.campaigns import CANCELLED, COPIED, LATE, OFFERED, PAUSED
from hub.store.database import Connection, Database

log = structlog.get_logger()

WORDS = {
    "system": "it is on another server", "timeline": "the server was recovered or promoted",
    "database": "it is another database of its server", "files": "its files were copied",
    "row": "it was read back from a dump",
}  # fmt: skip


async def closed(db: Database, *, now: datetime) -> bool:
    """Whether nothing may be sent: the database is not where it was. One query when nothing is wrong.

    The first time it notes where the database is; when it finds it elsewhere it holds every mail that is under way.
    """
    async with db.connection() as conn:
        fenced_at, written, moved = await _look(conn)
    if fenced_at is not None or "recovering" in moved:
        return True
    if written and not moved:
        return False
    async with db.transaction() as conn:
        await conn.execute("SELECT FROM instance FOR UPDATE")
        fenced_at, written, moved = await _look(conn)
        if fenced_at is None and not written:
            await _mark(conn)
        elif fenced_at is None and moved:
            why = "; ".join(WORDS[key] for key in moved)
            await conn.execute("UPDATE instance SET fenced_at = %s, fenced_for = %s", [now, why])
            held = await _hold(conn)
            log.error("nothing is sent: the database was restored or copied", why=why, held=held)
    return await closed(db, now=now)


async def _look(conn: Connection) -> tuple[datetime | None, bool, list[str]]:
    """(since when it is closed, whether a mark is written, what of it is not so any more). A server that is still being
    recovered has no timeline of its own yet: it answers `recovering` alone."""
    row = await (
        await conn.execute(
            """SELECT fenced_at, birthmark, database_birthmark(), birth_xid IS DISTINCT FROM xmin::text, pg_is_in_recovery()
               FROM instance"""
        )
    ).fetchone()
    assert row is not None
    fenced_at, then, today, rewritten, recovering = row
    if recovering:
        return fenced_at, then is not None, ["recovering"]
    if then is None:
        return fenced_at, False, []
    moved = [key for key in WORDS if key in then and key in today and then[key] != today[key]]
    return fenced_at, True, moved + (["row"] if rewritten else [])


async def _mark(conn: Connection) -> None:
    """Not inside of a savepoint, which would be a transaction of another number."""
    await conn.execute(
        """UPDATE instance SET birthmark = database_birthmark(), birth_xid = pg_current_xact_id()::xid::text,
               fenced_at = NULL, fenced_for = ''"""
    )


async def _hold(conn: Connection) -> int:
    cursor = await conn.execute(
        """UPDATE delivery SET state = 'held', reason = CASE WHEN state = 'claimed' THEN %s ELSE %s END, lease_until = NULL
           WHERE state IN ('queued', 'claimed')""",
        [OFFERED, COPIED],
    )
    return cursor.rowcount


async def standing(conn: Connection) -> dict[str, Any] | None:
    """Since when nothing is sent, and why; None when mails go out."""
    row = await (await conn.execute("SELECT fenced_at, fenced_for FROM instance")).fetchone()
    return {"since": row[0], "why": row[1]} if row and row[0] is not None else None


async def held(conn: Connection) -> list[dict[str, Any]]:
    """How many mails are held, by campaign and reason."""
    cursor = await conn.execute(
        """SELECT coalesce(k.name, ''), CASE WHEN starts_with(d.reason, %(late)s) THEN rtrim(%(late)s, ': ') ELSE d.reason END,
                  count(*)
           FROM delivery d LEFT JOIN campaign k ON k.id = d.campaign_id WHERE d.state = 'held' GROUP BY 1, 2 ORDER BY 1, 2""",
        {"late": LATE},
    )
    rows = await cursor.fetchall()
    return [{"campaign": name, "reason": reason, "mails": count} for name, reason, count in rows]


async def release(conn: Connection, campaign: str | None, *, now: datetime) -> dict[str, Any]:
    """Queue what is held again, of one campaign or all, and open the fence. Mails of campaigns keep their speed; those of
    a paused campaign stay held. Returns how many are `queued`, how many are `uncertain` now, and how many are still `held`.

    With one campaign, everything else that would go out once the fence is open is held first.
    """
    row = await (await conn.execute("SELECT fenced_at FROM instance FOR UPDATE")).fetchone()
    assert row is not None
    if row[0] is not None:
        await _hold(conn)
        await _mark(conn)
    cursor = await conn.execute(
        "SELECT id, name, state FROM campaign WHERE %(name)s::text IS NULL OR name = %(name)s FOR UPDATE",
        {"name": campaign},
    )
    chosen = await cursor.fetchall()
    if campaign is not None and not chosen:
        raise HubError(f"campaign {campaign} is not approved", "see `hub campaigns`")
    cursor = await conn.execute(
        """UPDATE delivery d SET state = 'uncertain', reason = 'it was being sent when the database was copied'
           WHERE d.state = 'held' AND starts_with(d.reason, %s) AND (%s OR d.campaign_id = ANY(%s))""",
        [OFFERED, campaign is None, [id for id, _, _ in chosen]],
    )
    uncertain = cursor.rowcount
    queued = 0
    for id, _, state in chosen:
        if state in ("paused", "cancelled"):
            await conn.execute(
                "UPDATE delivery SET state = %s, reason = %s WHERE campaign_id = %s AND state = 'held'",
                ["held", PAUSED, id] if state == "paused" else ["excluded", CANCELLED, id],
            )
        else:
            queued += await campaigns.spread(conn, id, "", now=now)
    if campaign is None:
        cursor = await conn.execute(
            "UPDATE delivery SET state = 'queued', reason = '' WHERE state = 'held' AND campaign_id IS NULL"
        )
        queued += cursor.rowcount
    row = await (await conn.execute("SELECT count(*) FROM delivery WHERE state = 'held'")).fetchone()
    assert row is not None
    return {"queued": queued, "uncertain": uncertain, "held": row[0]}
