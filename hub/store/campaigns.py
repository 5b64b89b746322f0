"""Campaigns: the snapshot of an audience as rows of the send ledger, and how far each campaign is.

    approved -> sending -> finished (every row of the snapshot is in an end state)
        '--------+--> paused -> sending
                 '--> cancelled

Everybody on the list gets a row: `queued` with the time of the mail, or `excluded` with the reason. Whoever changes
a campaign changes its own row first: mails that come back from a worker wait for that (see migration 0009).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg.rows import dict_row

from hub.errors import HubError
from hub.store.database import Connection
from hub.store.ledger import EXCLUDED

GRAIN_SECONDS = 10
"""Mails that fall into one grain have the same time."""
PAUSED = "the campaign is paused"
CANCELLED = "the campaign was cancelled"
LATE = "late: "
COPIED = "the database was restored or copied; look at it, then hub release"
OFFERED = f"{COPIED} (it was being sent)"
"""Begins as the other does. Released or cancelled, such a mail is uncertain, and never sent again."""
DUPLICATE = "duplicate address: "
END_STATES = ("accepted", "rejected", "uncertain", "excluded")
RATE_WINDOW = timedelta(hours=1)


class Start(NamedTuple):
    """When the first mail to people of this zone and country may go."""

    time_zone: str
    country: str
    at: datetime


class Piece(NamedTuple):
    """Of those who start at `start`: `mails` from the `first` one on, the first at `at`, the others `gap_seconds` apart."""

    start: datetime
    first: int
    mails: int
    at: datetime
    gap_seconds: float


@dataclass(frozen=True)
class NewCampaign:
    """A campaign as it was approved."""

    name: str
    message: str
    purpose: str
    list: str
    hash: str
    frozen: int
    recipients: int
    per_second: float | None
    late: timedelta
    first_at: datetime | None
    last_at: datetime | None


# --- the audience ------------------------------------------------------------------------------------------------


_ASK = "c.state <> 'live' OR coalesce(c.email, '') = '' OR k.email_hash IS NOT NULL OR NOT d.purpose = ANY(%(freely)s)"
"""Of a contact `c` on whose address there may be a word `k`: `EXCLUDED` may have a reason. It is not asked a million times."""


async def gather(
    conn: Connection, list_name: str, exclude: Sequence[str], purpose: str, purposes: Mapping[str, bool]
) -> None:
    """Put everybody on a list into the transaction's own table `campaign_audience`, each with the reason that excludes them.

    One address gets one mail: of several contacts that have it, the oldest. It gets none if any contact that has it
    is on a list of `exclude`. Raises HubError when a list is unknown, waits or could not be brought up to date.
    """
    for name in (list_name, *exclude):
        found = await (
            await conn.execute(
                "SELECT waits_for, problem FROM list WHERE name = %s AND retired_at IS NULL", [name]
            )
        ).fetchone()
        if found is None:
            raise HubError(f"list {name} has never been refreshed", "let a worker run, or `hub sync` first")
        if found[0]:
            raise HubError(f"list {name} waits for {', '.join(found[0])}", "`hub sync` first")
        if found[1]:
            raise HubError(f"list {name} could not be brought up to date: {found[1]}", "see `hub lists`")
    await conn.execute("DROP TABLE IF EXISTS campaign_audience")
    await conn.execute(
        f"""
        CREATE TEMPORARY TABLE campaign_audience ON COMMIT DROP AS
        WITH barred AS (
            SELECT lower(c.email) AS email, min(l.name) AS list FROM list l JOIN list_member m ON m.list_id = l.id
            JOIN contact c ON c.id = m.contact_id WHERE l.name = ANY(%(exclude)s) AND c.email <> '' GROUP BY 1
        ), judged AS (
            SELECT c.id, lower(c.email) AS email, c.time_zone, c.country,
                   coalesce(CASE WHEN {_ASK} THEN {EXCLUDED} END, 'on the list ' || b.list) AS reason
            FROM list l JOIN list_member m ON m.list_id = l.id JOIN contact c ON c.id = m.contact_id
            CROSS JOIN (SELECT %(purpose)s::text AS purpose, '' AS occurrence) d
            CROSS JOIN (SELECT salt, CASE WHEN address_key IS NOT NULL THEN decode(current_setting('hub.address_key'), 'hex')
                        END AS pads FROM instance OFFSET 0) s
            CROSS JOIN LATERAL (SELECT sha256(s.salt || convert_to(lower(c.email), 'UTF8')) AS salted OFFSET 0) h
            CROSS JOIN LATERAL (  -- as address_hash, without a call for each of a million
                SELECT CASE WHEN s.pads IS NULL THEN h.salted ELSE
                    sha256(substr(s.pads, 65, 64) || sha256(substr(s.pads, 1, 64) || h.salted)) END AS hash OFFSET 0) a
            LEFT JOIN (SELECT email_hash FROM suppression UNION SELECT email_hash FROM consent_verdict) k ON k.email_hash = a.hash
            LEFT JOIN barred b ON b.email = lower(c.email)
            WHERE l.name = %(list)s
        ), firsts AS (
            SELECT *, CASE WHEN reason IS NULL THEN
                first_value(id) OVER (PARTITION BY email, reason IS NULL ORDER BY id) END AS heir
            FROM judged
        )
        SELECT id AS contact_id, coalesce(time_zone, '') AS time_zone, coalesce(country, '') AS country,
               CASE WHEN heir <> id THEN %(duplicate)s || 'contact ' || heir || ' gets it' ELSE coalesce(reason, '') END AS reason
        FROM firsts
        """.encode(),
        {
            "list": list_name, "exclude": list(exclude), "purpose": purpose, "purposes": list(purposes),
            "opt_in": [name for name, needed in purposes.items() if needed], "duplicate": DUPLICATE,
            "freely": [name for name, needed in purposes.items() if not needed],
        },
    )  # fmt: skip
    await conn.execute("ANALYZE campaign_audience")


async def fingerprint(conn: Connection) -> str:
    """A hash of who gets the mail and who does not, and why."""
    row = await (
        await conn.execute(
            "SELECT encode(sha256(convert_to(coalesce(string_agg(contact_id || ' ' || reason, E'\\n' ORDER BY contact_id), ''),"
            " 'UTF8')), 'hex') FROM campaign_audience"
        )
    ).fetchone()
    assert row is not None
    return str(row[0])


async def reasons(conn: Connection) -> dict[str, int]:
    """How many are excluded, by reason."""
    cursor = await conn.execute(
        """SELECT CASE WHEN starts_with(reason, %(duplicate)s) THEN rtrim(%(duplicate)s, ': ') ELSE reason END, count(*)
           FROM campaign_audience WHERE reason <> '' GROUP BY 1 ORDER BY 2 DESC, 1""",
        {"duplicate": DUPLICATE},
    )
    return dict(await cursor.fetchall())


async def whereabouts(conn: Connection) -> list[tuple[str, str, int]]:
    """(time zone, country, recipients), as contacts have them."""
    cursor = await conn.execute(
        "SELECT time_zone, country, count(*) FROM campaign_audience WHERE reason = '' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return list(await cursor.fetchall())


# --- approval --------------------------------------------------------------------------------------------------


async def add(conn: Connection, new: NewCampaign, *, now: datetime) -> int | None:
    """Write down a campaign. None when one of this name was approved before; waits for one that is being approved."""
    row = await (
        await conn.execute(
            """INSERT INTO campaign (name, state, message, purpose, list, hash, frozen, recipients, per_second, late,
                                     approved_at, first_at, last_at)
               VALUES (%s, 'approved', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING RETURNING id""",
            [new.name, new.message, new.purpose, new.list, new.hash, new.frozen, new.recipients, new.per_second, new.late,
             now, new.first_at, new.last_at],
        )
    ).fetchone()  # fmt: skip
    return row[0] if row else None


async def freeze(
    conn: Connection,
    campaign_id: int,
    new: NewCampaign,
    starts: Sequence[Start],
    pieces: Sequence[Piece],
    *,
    now: datetime,
) -> int:
    """Make the audience rows of the ledger, in the order of their times. Returns how many."""
    cursor = await conn.execute(
        """
        WITH start AS (
            SELECT * FROM unnest(%(zones)s::text[], %(countries)s::text[], %(starts)s::timestamptz[])
                AS s (time_zone, country, at)
        ), piece AS (
            SELECT * FROM unnest(%(of)s::timestamptz[], %(firsts)s::bigint[], %(counts)s::bigint[], %(ats)s::timestamptz[],
                                 %(gaps)s::float8[]) AS p (start, first, count, at, gap)
        ), ranked AS (
            SELECT a.contact_id, s.at AS start, row_number() OVER (PARTITION BY s.at ORDER BY a.contact_id) - 1 AS rank
            FROM campaign_audience a JOIN start s USING (time_zone, country) WHERE a.reason = ''
        ), timed AS (
            SELECT r.contact_id, 'queued' AS state, '' AS reason,
                   p.at + floor((r.rank - p.first) * p.gap / %(grain)s) * %(grain)s * interval '1 second' AS not_before
            FROM ranked r JOIN piece p ON p.start = r.start AND r.rank >= p.first AND r.rank < p.first + p.count
            UNION ALL
            SELECT contact_id, 'excluded', reason, NULL FROM campaign_audience WHERE reason <> ''
        )
        INSERT INTO delivery (message, contact_id, occurrence, purpose, state, reason, not_before, queued_at, campaign_id)
        SELECT %(message)s, contact_id, 'campaign:' || %(name)s, %(purpose)s, state, reason, not_before, %(now)s, %(id)s
        FROM timed ORDER BY not_before, contact_id
        """,
        {
            "id": campaign_id, "name": new.name, "message": new.message, "purpose": new.purpose, "now": now,
            "zones": [s.time_zone for s in starts], "countries": [s.country for s in starts], "starts": [s.at for s in starts],
            "of": [p.start for p in pieces], "firsts": [p.first for p in pieces], "counts": [p.mails for p in pieces],
            "ats": [p.at for p in pieces], "gaps": [p.gap_seconds for p in pieces], "grain": GRAIN_SECONDS,
        },
    )  # fmt: skip
    return cursor.rowcount


# --- pause, resume, cancel ---------------------------------------------------------------------------------------


async def state(conn: Connection, name: str) -> str | None:
    row = await (await conn.execute("SELECT state FROM campaign WHERE name = %s", [name])).fetchone()
    return row[0] if row else None


async def _turn(conn: Connection, name: str, before: Collection[str], after: str, now: datetime) -> int:
    """Change a campaign's own row. Raises HubError when it cannot be changed so."""
    row = await (
        await conn.execute("SELECT id, state FROM campaign WHERE name = %s FOR UPDATE", [name])
    ).fetchone()
    if row is None:
        raise HubError(f"campaign {name} is not approved", f"`hub campaigns approve {name}` first")
    if row[1] not in before:
        raise HubError(f"campaign {name} is {row[1]}", "see `hub campaigns`")
    await conn.execute(
        """UPDATE campaign SET state = %(after)s::text, paused_at = CASE WHEN %(after)s = 'paused' THEN %(now)s::timestamptz END,
               ended_at = CASE WHEN %(after)s = 'cancelled' THEN %(now)s::timestamptz END WHERE id = %(id)s""",
        {"after": after, "now": now, "id": row[0]},
    )
    return int(row[0])


async def pause(conn: Connection, name: str, *, now: datetime) -> int:
    """Hold what no worker has claimed. Returns how many mails."""
    id = await _turn(conn, name, ("approved", "sending"), "paused", now)
    cursor = await conn.execute(
        "UPDATE delivery SET state = 'held', reason = %s WHERE campaign_id = %s AND state = 'queued'",
        [PAUSED, id],
    )
    return cursor.rowcount


async def resume(conn: Connection, name: str, *, now: datetime) -> int:
    """Queue again what the pause held, spread from now on. Returns how many mails."""
    id = await _turn(conn, name, ("paused",), "sending", now)
    return await spread(conn, id, PAUSED, now=now)


async def cancel(conn: Connection, name: str, *, now: datetime) -> int:
    """Exclude what no worker has claimed. Returns how many mails."""
    id = await _turn(conn, name, ("approved", "sending", "paused"), "cancelled", now)
    cursor = await conn.execute(
        """UPDATE delivery SET state = CASE WHEN starts_with(reason, %s) THEN 'uncertain' ELSE 'excluded' END, reason = %s
           WHERE campaign_id = %s AND state IN ('queued', 'held')""",
        [OFFERED, CANCELLED, id],
    )
    return cursor.rowcount


async def spread(conn: Connection, campaign_id: int, reason: str, *, now: datetime) -> int:
    """Queue mails that are held for a reason that begins so. A time that is to come stays unless the speed of the campaign
    puts it off; one that has passed is now, and the next one a step later. Returns how many mails."""
    cursor = await conn.execute(
        """
        WITH held AS (
            SELECT d.id, extract(epoch FROM greatest(d.not_before, %(now)s))::float8 AS at,
                   row_number() OVER (ORDER BY d.not_before, d.id) - 1 AS rank, coalesce(1 / k.per_second, 0) AS gap
            FROM delivery d JOIN campaign k ON k.id = d.campaign_id
            WHERE d.campaign_id = %(id)s AND d.state = 'held' AND starts_with(d.reason, %(reason)s)
        ), spread AS (
            SELECT id, to_timestamp(floor(max(at - rank * gap) OVER (ORDER BY rank) + rank * gap)) AS at FROM held
        )
        UPDATE delivery d SET state = 'queued', reason = '', not_before = s.at FROM spread s WHERE d.id = s.id
        """,
        {"id": campaign_id, "reason": reason, "now": now},
    )
    await conn.execute(
        """UPDATE campaign SET last_at = greatest(last_at, (
               SELECT max(not_before) FROM delivery WHERE campaign_id = %(id)s AND state = 'queued')) WHERE id = %(id)s""",
        {"id": campaign_id},
    )
    return cursor.rowcount


# --- as time goes by -------------------------------------------------------------------------------------------


async def hold_late(conn: Connection, *, now: datetime) -> int:
    """Hold mails that were never offered and whose time is longer ago than their campaign allows. Returns how many."""
    cursor = await conn.execute(
        """
        UPDATE delivery d SET state = 'held', reason = %(late)s || 'it was to go at ' ||
            to_char(d.not_before AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') ||
            ' UTC; `hub release --campaign ' || k.name || '` sends it'
        FROM campaign k
        WHERE k.id = d.campaign_id AND k.state IN ('approved', 'sending') AND d.state = 'queued' AND d.attempts = 0
          AND coalesce(d.not_before, '-infinity') > '-infinity' AND coalesce(d.not_before, '-infinity') < %(now)s - k.late
        """,
        {"late": LATE, "now": now},
    )
    return cursor.rowcount


async def tend(conn: Connection, *, now: datetime) -> list[tuple[str, str]]:
    """Mark campaigns whose time has come, and those whose whole snapshot is in end states. Returns (name, new state)."""
    cursor = await conn.execute(
        "UPDATE campaign SET state = 'sending' WHERE state = 'approved' AND first_at <= %s RETURNING name, state",
        [now],
    )
    found = list(await cursor.fetchall())
    cursor = await conn.execute(
        """
        UPDATE campaign k SET state = 'finished', ended_at = %(now)s
        WHERE k.state IN ('approved', 'sending')
          AND NOT EXISTS (
              SELECT FROM delivery d WHERE d.campaign_id = k.id AND d.state IN ('queued', 'claimed', 'held'))
          AND k.frozen = (SELECT count(*) FROM delivery d WHERE d.campaign_id = k.id AND d.state = ANY(%(ends)s))
        RETURNING name, state
        """,
        {"now": now, "ends": list(END_STATES)},
    )
    return found + list(await cursor.fetchall())


async def overview(conn: Connection, *, now: datetime, name: str | None = None) -> list[dict[str, Any]]:
    """Every approved campaign (or one): its row, `counts` by ledger state, and `per_hour`, what was accepted of late."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT k.name, k.state, k.message, k.list, k.hash, k.frozen, k.recipients, k.approved_at, k.first_at, k.last_at,
                   k.paused_at, k.ended_at, coalesce(n.counts, '{}') AS counts, coalesce(r.per_hour, 0)::float8 AS per_hour
            FROM campaign k
            LEFT JOIN LATERAL (
                SELECT jsonb_object_agg(state, n) AS counts FROM (
                    SELECT d.state, count(*) AS n FROM delivery d WHERE d.campaign_id = k.id GROUP BY 1) s) n ON true
            LEFT JOIN LATERAL (
                SELECT count(*) * 3600 / greatest(60, extract(epoch FROM %(now)s - min(d.sent_at))) AS per_hour FROM delivery d
                WHERE d.campaign_id = k.id AND d.state = 'accepted' AND d.sent_at > %(now)s - %(window)s
            ) r ON k.state = 'sending'
            WHERE %(name)s::text IS NULL OR k.name = %(name)s
            ORDER BY k.id
            """,
            {"now": now, "window": RATE_WINDOW, "name": name},
        )
        return list(await cursor.fetchall())
