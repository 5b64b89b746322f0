"""Dynamic lists: their members, and who joined and left, written as differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from hub.rules import Flip, Rule


@dataclass(frozen=True)
class Standing:
    """A configured list as its last refresh left it."""

    id: int
    name: str
    size: int
    needs_rebuild: bool
    timed_to: datetime | None
    due_at: datetime | None
    retry_at: datetime | None
    problem: str


@dataclass(frozen=True)
class Note:
    """What a refresh made of a list. `problem`: it could not be evaluated, and is as it was."""

    list_id: int
    joined: int = 0
    left: int = 0
    rebuilt: bool = False
    verified: bool = False
    waits_for: Sequence[str] = ()
    problem: str = ""
    due_at: datetime | None = None
    retry_at: datetime | None = None


async def lock_all(conn: AsyncConnection[Any]) -> None:
    """One refresh at a time, until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('hub lists'), 0)")


async def register(
    conn: AsyncConnection[Any], rules: Mapping[str, tuple[str, Rule]], *, now: datetime
) -> dict[str, Standing]:
    """Make the table know exactly the configured lists: name -> (as an admin reads it, compiled).

    Lists that are gone are retired, not dropped. One whose rule is another than last time is to be built anew.
    """
    await conn.execute(
        "UPDATE list SET retired_at = %s WHERE retired_at IS NULL AND NOT name = ANY(%s)", [now, list(rules)]
    )
    values = {
        "names": list(rules),
        "rules": [text for text, _ in rules.values()],
        "prints": [rule.fingerprint for _, rule in rules.values()],
        "now": now,
    }
    await conn.execute(
        """
        WITH given AS (
            SELECT * FROM unnest(%(names)s::text[], %(rules)s::text[], %(prints)s::text[]) AS g (name, rule, fingerprint)
        ), written AS (
            INSERT INTO list AS l (name, rule, fingerprint)
            SELECT g.* FROM given g WHERE NOT EXISTS (
                SELECT FROM list k
                WHERE k.retired_at IS NULL AND (k.name, k.rule, k.fingerprint) = (g.name, g.rule, g.fingerprint))
            ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, fingerprint = excluded.fingerprint, retired_at = NULL,
                needs_rebuild = true, retry_at = NULL, problem = ''
            RETURNING id, rule
        )
        INSERT INTO list_rule (list_id, since, rule)
        SELECT w.id, %(now)s, w.rule FROM written w
        WHERE w.rule IS DISTINCT FROM (SELECT r.rule FROM list_rule r WHERE r.list_id = w.id ORDER BY r.since DESC LIMIT 1)
        ON CONFLICT (list_id, since) DO UPDATE SET rule = excluded.rule
        """,
        values,
    )
    async with conn.cursor(row_factory=class_row(Standing)) as cursor:
        await cursor.execute(
            """SELECT id, name, size, needs_rebuild, timed_to, due_at, retry_at, problem FROM list WHERE retired_at IS NULL"""
        )
        return {row.name: row for row in await cursor.fetchall()}


# --- members -----------------------------------------------------------------------------------------------------


async def lock(conn: AsyncConnection[Any], list_id: int) -> None:
    """Hold a list until the transaction ends: its changes become visible in the order of their ids."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('hub list'), %s::int)", [list_id])


async def difference(
    conn: AsyncConnection[Any],
    list_id: int,
    rule: Rule,
    now: datetime,
    contacts: Sequence[int] | None = None,
    *,
    settled: bool = False,
) -> tuple[list[int], list[int]]:
    """(who should join, who should leave), of all contacts or of these.

    `settled` leaves those out who were touched since the queue was taken: of them a rule and its members may differ.
    """
    some = contacts is not None
    among = " AND contact_id = ANY(%(contacts)s::bigint[])" if some else ""
    calm = " AND NOT EXISTS (SELECT FROM touched t WHERE t.contact_id = coalesce(w.id, m.contact_id))"
    cursor = await conn.execute(
        f"""
        SELECT w.id, m.contact_id FROM ({rule.select(only_contacts=some)}) w
        FULL JOIN (SELECT contact_id FROM list_member WHERE list_id = %(list_id)s{among}) m ON m.contact_id = w.id
        WHERE (w.id IS NULL OR m.contact_id IS NULL){calm if settled else ""}
        """.encode(),
        rule.values(now, list_id=list_id, contacts=list(contacts or ())),
    )
    rows = await cursor.fetchall()
    return [new for new, _ in rows if new is not None], [old for new, old in rows if new is None]


async def move(
    conn: AsyncConnection[Any], list_id: int, joining: Sequence[int], leaving: Sequence[int], *, now: datetime
) -> None:
    """Write a difference. Funnels read on from a position, so the list is held until the transaction ends."""
    await lock(conn, list_id)
    await conn.execute(
        """
        WITH joined AS (
            INSERT INTO list_member (list_id, contact_id, joined_at)
            SELECT %(list_id)s, unnest(%(joining)s::bigint[]), %(now)s RETURNING contact_id
        ), gone AS (
            DELETE FROM list_member WHERE list_id = %(list_id)s AND contact_id = ANY(%(leaving)s::bigint[]) RETURNING contact_id
        )
        INSERT INTO list_change (list_id, contact_id, change, at)
        SELECT %(list_id)s, contact_id, 'left', %(now)s::timestamptz FROM gone
        UNION ALL SELECT %(list_id)s, contact_id, 'joined', %(now)s FROM joined
        """,
        {"list_id": list_id, "joining": list(joining), "leaving": list(leaving), "now": now},
    )


# --- time --------------------------------------------------------------------------------------------------------


async def turning(
    conn: AsyncConnection[Any], rule: Rule, since: datetime, now: datetime, most: int
) -> list[int] | None:
    """Contacts of whom a condition may have turned between two moments, both included; None if they are more than `most`."""
    parts, values = [], rule.values(now, since=since, most=most + 1)
    for number, flip in enumerate(rule.flips):
        parts.append(
            f"SELECT {flip.contact} FROM {flip.source} "
            f"WHERE {flip.test} AND {flip.moment} BETWEEN %(from{number})s::timestamptz AND %(to{number})s::timestamptz"
        )
        values |= {f"from{number}": since - flip.after, f"to{number}": now - flip.after}
    for condition in rule.moving:
        before = condition.replace("%(now)s", "%(since)s")
        parts.append(
            f"SELECT c.id FROM contact c WHERE c.state = 'live' AND ({condition}) IS DISTINCT FROM ({before})"
        )
    if not parts:
        return []
    cursor = await conn.execute(
        f"SELECT array_agg(contact_id) FROM (SELECT * FROM ({' UNION '.join(parts)}) t (contact_id) LIMIT %(most)s) u".encode(),
        values,
    )
    row = await cursor.fetchone()
    found = (row[0] if row else None) or []
    return found if len(found) <= most else None


async def next_turn(
    conn: AsyncConnection[Any], rule: Rule, now: datetime, contacts: Sequence[int] | None = None
) -> datetime | None:
    """The first moment after `now` at which a condition may turn for anybody, or for one of these contacts."""
    parts, values = [], rule.values(now, contacts=list(contacts or ()))
    for number, flip in enumerate(rule.flips):
        parts.append(_first_turn(flip, number, among=contacts is not None))
        values |= {f"from{number}": now - flip.after, f"after{number}": flip.after}
    if not parts:
        return None
    cursor = await conn.execute(f"SELECT least({', '.join(parts)})".encode(), values)
    row = await cursor.fetchone()
    return row[0] if row else None


def _first_turn(flip: Flip, number: int, *, among: bool) -> str:
    # A condition that holds up to a moment turns just after it; far ends of time are left out, they overflow.
    some = f" AND {flip.contact} = ANY(%(contacts)s::bigint[])" if among else ""
    return (
        f"(SELECT greatest(min({flip.moment}) + %(after{number})s::interval, %(now)s::timestamptz + interval '1 microsecond') "
        f"FROM {flip.source} WHERE {flip.test} AND {flip.moment} >= %(from{number})s::timestamptz "
        f"AND {flip.moment} < '9000-01-01'{some})"
    )


# --- bookkeeping -------------------------------------------------------------------------------------------------


async def note(conn: AsyncConnection[Any], notes: Sequence[Note], *, now: datetime) -> None:
    """Write down what became of each list."""
    columns = {
        "ids": [n.list_id for n in notes], "joined": [n.joined for n in notes], "left": [n.left for n in notes],
        "rebuilt": [n.rebuilt for n in notes], "verified": [n.verified for n in notes],
        "waits": [",".join(n.waits_for) for n in notes], "problems": [n.problem for n in notes],
        "dues": [n.due_at for n in notes], "retries": [n.retry_at for n in notes],
    }  # fmt: skip
    await conn.execute(
        """
        WITH n AS (
            SELECT *, waits = '' AND problem = '' AS kept FROM unnest(
                %(ids)s::bigint[], %(joined)s::bigint[], %(left)s::bigint[], %(rebuilt)s::boolean[], %(verified)s::boolean[],
                %(waits)s::text[], %(problems)s::text[], %(dues)s::timestamptz[], %(retries)s::timestamptz[])
            AS n (id, joined, "left", rebuilt, verified, waits, problem, due_at, retry_at)
        ), sized AS (
            UPDATE list l SET
                size = l.size + n.joined - n."left",
                needs_rebuild = NOT n.kept,
                refreshed_at = CASE WHEN n.kept THEN %(now)s ELSE l.refreshed_at END,
                timed_to = CASE WHEN n.kept THEN %(now)s ELSE l.timed_to END,
                verified_at = CASE WHEN n.rebuilt OR n.verified THEN %(now)s ELSE l.verified_at END,
                due_at = n.due_at, problem = n.problem, retry_at = n.retry_at,
                waits_for = CASE WHEN n.waits = '' THEN '{}' ELSE string_to_array(n.waits, ',') END
            FROM n WHERE l.id = n.id RETURNING l.id, l.size, n.joined, n."left"
        )
        INSERT INTO list_size AS s (list_id, day, size, joined, "left")
        SELECT id, (%(now)s::timestamptz AT TIME ZONE 'UTC')::date, size, joined, "left" FROM sized WHERE joined + "left" > 0
        ON CONFLICT (list_id, day) DO UPDATE
        SET size = excluded.size, joined = s.joined + excluded.joined, "left" = s."left" + excluded."left"
        """,
        {**columns, "now": now},
    )


async def all_sizes(conn: AsyncConnection[Any], *, now: datetime) -> list[dict[str, Any]]:
    """Every configured list: its size, its age, who joined and left in the last 7 days, and what it waits for.

    `age_seconds` is how long ago it was last known to be right; `waiting` how many touched contacts it may have to look at.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """
            SELECT l.name, l.size AS members, coalesce(s.joined, 0)::bigint AS joined, coalesce(s."left", 0)::bigint AS "left",
                   l.refreshed_at, extract(epoch FROM %(now)s - l.refreshed_at)::float8 AS age_seconds,
                   (SELECT count(DISTINCT contact_id) FROM touched) AS waiting,
                   l.due_at, l.verified_at, l.waits_for, l.problem, l.rule
            FROM list l LEFT JOIN LATERAL (
                SELECT sum(joined) AS joined, sum("left") AS "left" FROM list_size z
                WHERE z.list_id = l.id AND z.day > (%(now)s::timestamptz AT TIME ZONE 'UTC')::date - 7) s ON true
            WHERE l.retired_at IS NULL ORDER BY l.name
            """,
            {"now": now},
        )
        return list(await cursor.fetchall())


async def sizes(conn: AsyncConnection[Any], name: str, limit: int = 30) -> list[dict[str, Any]]:
    """The size of a list on each day (UTC) on which it changed, newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT s.day, s.size, s.joined, s."left" FROM list_size s JOIN list l ON l.id = s.list_id
               WHERE l.name = %s ORDER BY s.day DESC LIMIT %s""",
            [name, limit],
        )
        return list(await cursor.fetchall())


async def newest_changes(conn: AsyncConnection[Any], name: str, limit: int = 50) -> list[dict[str, Any]]:
    """Who joined and left a list, newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT ch.at, ch.contact_id, c.email, ch.change FROM list_change ch JOIN list l ON l.id = ch.list_id
               JOIN contact c ON c.id = ch.contact_id WHERE l.name = %s ORDER BY ch.id DESC LIMIT %s""",
            [name, limit],
        )
        return list(await cursor.fetchall())


async def ask(
    conn: AsyncConnection[Any], conditions: Sequence[str], values: Mapping[str, Any], contact_id: int
) -> list[bool | None]:
    """Whether each condition holds for one contact."""
    if not conditions:
        return []
    columns = ", ".join(f"({sql})" for sql in conditions)
    cursor = await conn.execute(
        f"SELECT {columns} FROM contact c WHERE c.id = %(contact_id)s".encode(),
        {**values, "contact_id": contact_id},
    )
    row = await cursor.fetchone()
    return list(row) if row else [None] * len(conditions)


async def member_since(conn: AsyncConnection[Any], name: str, contact_id: int) -> datetime | None:
    """When a contact joined the list that it is on; None when it is not."""
    cursor = await conn.execute(
        """SELECT m.joined_at FROM list_member m JOIN list l ON l.id = m.list_id WHERE l.name = %s AND m.contact_id = %s""",
        [name, contact_id],
    )
    row = await cursor.fetchone()
    return row[0] if row else None


# --- rules of no list --------------------------------------------------------------------------------------------


async def count(conn: AsyncConnection[Any], rule: Rule, now: datetime) -> int:
    """For how many contacts a rule is true."""
    cursor = await conn.execute(f"SELECT count(*) FROM ({rule.select()}) w".encode(), rule.values(now))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def some(conn: AsyncConnection[Any], rule: Rule, now: datetime, limit: int) -> list[dict[str, Any]]:
    """A few contacts for whom a rule is true."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""SELECT c.id AS contact_id, concat_ws(' ', c.first_name, c.last_name) AS name, c.email
                FROM ({rule.select()} LIMIT %(limit)s) w JOIN contact c ON c.id = w.id ORDER BY c.id""".encode(),
            rule.values(now, limit=limit),
        )
        return list(await cursor.fetchall())


async def contacts(conn: AsyncConnection[Any]) -> int:
    """About how many contacts there are: exactly where they are few, else as the table's statistics have it."""
    cursor = await conn.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = 'contact'::regclass")
    row = await cursor.fetchone()
    if row and row[0] > 100_000:
        return int(row[0])
    row = await (await conn.execute("SELECT count(*) FROM contact WHERE state = 'live'")).fetchone()
    return int(row[0]) if row else 0
