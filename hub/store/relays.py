"""What all workers share about relays: places in their windows, the state of their breakers, who asked for less.

A window's sum is never overstepped: a worker takes places before it offers mails and says afterwards how many it
used; places that are taken and not used count as if they were. Use is noted when it is told, a moment after it
happened, and in grains, so that a window is a little longer than it says, never shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import AsyncCursor
from psycopg.rows import dict_row

from hub.store.database import Connection

LEASE_SECONDS = 60
PROBE_SECONDS = 90

ROLLING: dict[str, tuple[int, int]] = {"minute": (60, 1), "hour": (3_600, 15), "day": (86_400, 300)}
"""span -> (its length, its grain), in seconds. The fourth span, `date`, is the day from midnight to midnight UTC."""
SPANS = (*ROLLING, "date")


@dataclass(frozen=True)
class Ask:
    """What a holder tells and wants of one scope of a relay (`""`: the relay itself, else a receiver)."""

    relay: str
    scope: str
    holder: str
    used: int = 0  # offered since it was last told
    keep: int = 0  # places held from before that may still be used
    wanted: int = 0  # further places
    limits: Mapping[str, int] = field(default_factory=dict)  # span -> limit
    held_before: bool = False  # `used` and `keep` are of places that were held
    stay: bool = True  # counts among the workers also without places


class Given(NamedTuple):
    """The answer. `lost`: the hold had lapsed, all of it counts as used, and nothing is kept."""

    granted: int
    lost: bool
    workers: int  # that use this scope now, the asker included
    room_in_seconds: float  # until there may be room again; 0 when all that was wanted was granted


async def exchange(conn: Connection, ask: Ask, *, now: datetime) -> Given:
    """Note what was used, renew the hold, and grant what every window has room for.

    In the caller's transaction; several asks of one transaction come in the order of (relay, scope), so that two
    workers never wait for each other. Done twice it counts use twice, which errs to the safe side.
    """
    where = {"relay": ask.relay, "scope": ask.scope, "holder": ask.holder}
    async with conn.pipeline():  # two round trips in all: this is done for every chunk of mails
        await conn.execute(
            "SELECT pg_advisory_xact_lock(hashtext('relay traffic'), hashtext(%(relay)s || chr(10) || %(scope)s))",
            where,
        )
        gone = await conn.execute(
            """DELETE FROM relay_hold WHERE relay = %(relay)s AND scope = %(scope)s AND holder <> %(holder)s
                   AND lease_until < clock_timestamp()
               RETURNING held""",
            where,
        )
        holds = await conn.execute(
            "SELECT holder = %(holder)s, held FROM relay_hold WHERE relay = %(relay)s AND scope = %(scope)s",
            where,
        )
        uses = await _used(conn, ask.relay, ask.scope, list(ask.limits), now)
    lapsed = sum(row[0] for row in await gone.fetchall())
    held = await holds.fetchall()
    others = [row[1] for row in held if not row[0]]
    lost = ask.held_before and len(others) == len(held)
    keep = 0 if lost else ask.keep
    count = lapsed + (0 if lost else ask.used)
    granted, room_in = ask.wanted, 0.0
    for span, used, first in await uses.fetchall():
        left = max(0, ask.limits[span] - int(used) - count - sum(others) - keep)
        if left < ask.wanted:
            granted = min(granted, left)
            first = first or (_grain(span, now) if count else None)
            room_in = max(room_in, _frees(span, first, now))
    async with conn.pipeline():
        await _note(conn, ask, count, now)
        await _hold(conn, ask, keep + granted)
    stays = bool(keep + granted or ask.stay)
    return Given(granted, lost, max(1, len(others) + stays), room_in)


async def _note(conn: Connection, ask: Ask, count: int, now: datetime) -> None:
    """Every span is counted, also those without a limit: one that is set later knows what went before."""
    if not count:
        return
    await conn.execute(
        """INSERT INTO relay_use AS u (relay, scope, span, at, used)
           SELECT %s, %s, s.span, s.at, %s FROM unnest(%s::text[], %s::timestamptz[]) AS s (span, at)
           ON CONFLICT (relay, scope, span, at) DO UPDATE SET used = u.used + excluded.used""",
        [ask.relay, ask.scope, count, list(SPANS), [_grain(span, now) for span in SPANS]],
    )


async def _hold(conn: Connection, ask: Ask, held: int) -> None:
    if not (held or ask.stay):
        await conn.execute(
            "DELETE FROM relay_hold WHERE relay = %s AND scope = %s AND holder = %s",
            [ask.relay, ask.scope, ask.holder],
        )
        return
    await conn.execute(
        """INSERT INTO relay_hold (relay, scope, holder, held, lease_until)
           VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
           ON CONFLICT (relay, scope, holder) DO UPDATE SET held = excluded.held, lease_until = excluded.lease_until""",
        [ask.relay, ask.scope, ask.holder, held, LEASE_SECONDS],
    )


async def _used(
    conn: Connection, relay: str, scope: str, spans: Sequence[str], now: datetime
) -> AsyncCursor[Any]:
    """(span, used within it, its oldest grain) for each span."""
    return await conn.execute(
        """SELECT s.span, coalesce(sum(u.used), 0), min(u.at) FROM unnest(%s::text[], %s::timestamptz[]) AS s (span, since)
           LEFT JOIN relay_use u ON u.relay = %s AND u.scope = %s AND u.span = s.span AND u.at > s.since
           GROUP BY s.span""",
        [list(spans), [_since(span, now) for span in spans], relay, scope],
    )


def _grain(span: str, now: datetime) -> datetime:
    if span == "date":
        return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = ROLLING[span][1]
    return datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, UTC)


def _since(span: str, now: datetime) -> datetime:
    """Grains after this moment may hold something of the window that ends now."""
    if span == "date":
        return _grain(span, now) - timedelta(seconds=1)
    length, grain = ROLLING[span]
    return now - timedelta(seconds=length + grain)


def _frees(span: str, first: datetime | None, now: datetime) -> float:
    """Seconds until the oldest grain falls out of the window; 1 where only other workers' holds are in the way."""
    if first is None:
        return 1.0
    ends = first + (timedelta(days=1) if span == "date" else timedelta(seconds=sum(ROLLING[span])))
    return max(1.0, (ends - now).total_seconds())


async def leave(conn: Connection, holder: str) -> None:
    """Give up all that a holder holds; what it used was told before."""
    await conn.execute("DELETE FROM relay_hold WHERE holder = %s", [holder])
    await conn.execute(
        "UPDATE relay_state SET probe_by = NULL, probe_until = NULL WHERE probe_by = %s", [holder]
    )


async def forget(conn: Connection, *, now: datetime) -> int:
    """Delete grains that no window reaches any more. Returns how many."""
    cursor = await conn.execute(
        """DELETE FROM relay_use u USING unnest(%s::text[], %s::timestamptz[]) AS s (span, since)
           WHERE u.span = s.span AND u.at <= s.since""",
        [list(SPANS), [_since(span, now) for span in SPANS]],
    )
    return cursor.rowcount


# --- the breaker ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A relay's row, as one holder sees it."""

    relay: str
    state: str = "closed"
    reason: str = ""
    trips: int = 0
    probe_in_seconds: float = 0.0
    probing: bool = False  # the asker holds the probe
    pipelining: str | None = None
    learned_at: datetime | None = None  # hub time
    learned_of: str = ""  # digest of the keys in hub.yaml under which `pipelining` was found
    forgotten: int = 0  # how often it was forgotten on an admin's word


async def states(conn: Connection, holder: str) -> dict[str, State]:
    """relay -> its state, for every relay that has one."""
    cursor = await conn.execute(
        """SELECT relay, state, reason, trips,
                  greatest(0, coalesce(extract(epoch FROM next_probe_at - clock_timestamp()), 0))::float,
                  coalesce(probe_by = %s AND probe_until > clock_timestamp(), false), pipelining,
                  learned_at, learned_of, forgotten
           FROM relay_state""",
        [holder],
    )
    return {row[0]: State(*row) for row in await cursor.fetchall()}


async def opened(
    conn: Connection, relay: str, holder: str, reason: str, *, pause_seconds: float, now: datetime
) -> None:
    """Open a breaker, or after a failed probe keep it open. One that another worker opened meanwhile stays as it is."""
    await conn.execute(
        """INSERT INTO relay_state AS r (relay, state, reason, since, trips, next_probe_at)
           VALUES (%(relay)s, 'open', %(reason)s, %(now)s, 1, clock_timestamp() + make_interval(secs => %(pause)s))
           ON CONFLICT (relay) DO UPDATE SET
               state = 'open', reason = excluded.reason, trips = r.trips + 1, next_probe_at = excluded.next_probe_at,
               since = CASE WHEN r.state = 'open' THEN r.since ELSE excluded.since END, probe_by = NULL, probe_until = NULL
           WHERE r.state = 'closed' OR r.probe_by = %(holder)s""",
        {"relay": relay, "holder": holder, "reason": reason, "pause": pause_seconds, "now": now},
    )


async def closed(conn: Connection, relay: str, *, now: datetime) -> None:
    """The relay works."""
    await conn.execute(
        """UPDATE relay_state SET state = 'closed', reason = '', since = %s, trips = 0, next_probe_at = NULL,
               probe_by = NULL, probe_until = NULL
           WHERE relay = %s AND state = 'open'""",
        [now, relay],
    )


async def take_probe(conn: Connection, relay: str, holder: str) -> bool:
    """Whether the holder may try an open relay now; nobody else may until it says how that went or is gone."""
    cursor = await conn.execute(
        """UPDATE relay_state SET probe_by = %s, probe_until = clock_timestamp() + make_interval(secs => %s)
           WHERE relay = %s AND state = 'open' AND next_probe_at <= clock_timestamp()
             AND (probe_by IS NULL OR probe_by = %s OR probe_until < clock_timestamp())""",
        [holder, PROBE_SECONDS, relay, holder],
    )
    return cursor.rowcount == 1


async def learned(
    conn: Connection, relay: str, pipelining: str | None, *, of: str, forgotten: int, now: datetime
) -> None:
    """Remember which pipelining works, with the digest of the keys under which it does. What was found before the relay
    was forgotten once more than the teller knows of, is forgotten with it."""
    await conn.execute(
        """INSERT INTO relay_state AS r (relay, pipelining, learned_at, learned_of) VALUES (%s, %s, %s, %s)
           ON CONFLICT (relay) DO UPDATE SET pipelining = excluded.pipelining, learned_at = excluded.learned_at,
               learned_of = excluded.learned_of
           WHERE r.forgotten = %s""",
        [relay, pipelining, now, of, forgotten],
    )


async def forget_relay(conn: Connection, relay: str, *, now: datetime) -> None:
    """Forget all that was found of a relay, and let running workers hear it. What was sent still counts in its windows."""
    await conn.execute(
        """INSERT INTO relay_state AS r (relay, since, forgotten) VALUES (%s, %s, 1)
           ON CONFLICT (relay) DO UPDATE SET
               state = 'closed', reason = '', trips = 0, next_probe_at = NULL, probe_by = NULL, probe_until = NULL,
               since = CASE WHEN r.state = 'open' THEN excluded.since ELSE r.since END,
               pipelining = NULL, learned_at = NULL, learned_of = '', forgotten = r.forgotten + 1""",
        [relay, now],
    )
    await conn.execute("DELETE FROM relay_slow WHERE relay = %s", [relay])


# --- who asked for less -----------------------------------------------------------------------------------


class Slowed(NamedTuple):
    """A receiver (`""`: the relay itself) that is sent to at `per_second` until it takes `free_at` again."""

    relay: str
    receiver: str
    per_second: float
    free_at: float
    reason: str


async def slowed(conn: Connection, *, changed_after: datetime) -> list[Slowed]:
    """All that were slowed and not forgotten."""
    cursor = await conn.execute(
        """SELECT relay, receiver, per_second, free_at, reason FROM relay_slow WHERE changed_at > %s
           ORDER BY relay, receiver""",
        [changed_after],
    )
    return [Slowed(*row) for row in await cursor.fetchall()]


async def keep_slowed(
    conn: Connection, rows: Sequence[Slowed], freed: Sequence[tuple[str, str]], *, now: datetime
) -> None:
    """Note who is slowed how far, and who no more, as (relay, receiver)."""
    if rows:
        await conn.execute(
            """INSERT INTO relay_slow (relay, receiver, per_second, free_at, reason, since, changed_at)
               SELECT r.*, %(now)s, %(now)s
               FROM unnest(%(relay)s::text[], %(receiver)s::text[], %(per_second)s::float[], %(free_at)s::float[],
                           %(reason)s::text[]) AS r
               ORDER BY 1, 2
               ON CONFLICT (relay, receiver) DO UPDATE SET per_second = excluded.per_second, free_at = excluded.free_at,
                   reason = excluded.reason, changed_at = excluded.changed_at""",
            {
                "now": now, **{name: [getattr(row, name) for row in rows] for name in Slowed._fields},
            },
        )  # fmt: skip
    if freed:
        await conn.execute(
            """DELETE FROM relay_slow s USING unnest(%s::text[], %s::text[]) AS f (relay, receiver)
               WHERE s.relay = f.relay AND s.receiver = f.receiver""",
            [[relay for relay, _ in freed], [receiver for _, receiver in freed]],
        )


# --- for people -------------------------------------------------------------------------------------------


async def overview(conn: Connection, relay: str, *, now: datetime) -> dict[str, Any]:
    """All that is known of a relay: state, use of each span with what is held, slowed receivers, pipelining."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT state, reason, since, pipelining, CASE WHEN state = 'open' THEN
                      greatest(0, extract(epoch FROM next_probe_at - clock_timestamp()))::float END AS probe_in_seconds
               FROM relay_state WHERE relay = %s""",
            [relay],
        )
        found = await cursor.fetchone() or {
            "state": "closed", "reason": "", "since": None, "pipelining": None, "probe_in_seconds": None,
        }  # fmt: skip
        await cursor.execute(
            """SELECT receiver, per_second, reason, since FROM relay_slow WHERE relay = %s ORDER BY receiver""",
            [relay],
        )
        slow = await cursor.fetchall()
        await cursor.execute(
            "SELECT scope, sum(held)::bigint AS held FROM relay_hold WHERE relay = %s GROUP BY 1", [relay]
        )
        held = {row["scope"]: row["held"] for row in await cursor.fetchall()}
        await cursor.execute("SELECT DISTINCT scope FROM relay_use WHERE relay = %s", [relay])
        scopes = {row["scope"] for row in await cursor.fetchall()} | set(held) | {""}
    used = {}
    for scope in sorted(scopes):
        rows = await (await _used(conn, relay, scope, SPANS, now)).fetchall()
        used[scope] = {span: int(count) + held.get(scope, 0) for span, count, _ in rows}
    return {**found, "used": used, "slowed": slow}
