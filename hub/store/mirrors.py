"""Lists that are mirrored into static segments of vendors: which segment, and who is in it as far as the hub knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from hub.store.backlog import last_night


@dataclass(frozen=True)
class Mirror:
    """One list at one connection. `segment` is the vendor's id, empty until it was found; `ready`: the list can be relied on."""

    list: str
    connection: str
    name: str
    segment: str
    read_to: int
    verified_at: datetime | None
    problem: str
    ready: bool


async def register(conn: AsyncConnection[Any], wanted: Mapping[tuple[str, str], str]) -> None:
    """Make the table know exactly the configured mirrors: (list, connection) -> name. One that gets another name is another
    segment; what is no longer mirrored stays at the vendor as it is."""
    keys = {
        "lists": [name for name, _ in wanted],
        "connections": [connection for _, connection in wanted],
        "names": list(wanted.values()),
    }
    await conn.execute(
        """
        DELETE FROM mirror m WHERE NOT EXISTS (
            SELECT FROM unnest(%(lists)s::text[], %(connections)s::text[], %(names)s::text[]) AS w (list, connection, name)
            WHERE (w.list, w.connection, w.name) = (m.list, m.connection, m.name))
        """,
        keys,
    )
    await conn.execute(
        """INSERT INTO mirror (list, connection, name)
           SELECT * FROM unnest(%(lists)s::text[], %(connections)s::text[], %(names)s::text[])
           ON CONFLICT (list, connection) DO NOTHING""",
        keys,
    )


async def of(conn: AsyncConnection[Any], connection: str) -> list[Mirror]:
    """The mirrors of a connection."""
    async with conn.cursor(row_factory=class_row(Mirror)) as cursor:
        await cursor.execute(
            """SELECT m.list, m.connection, m.name, m.segment, m.read_to, m.verified_at, m.problem,
                      l.refreshed_at IS NOT NULL AND NOT l.needs_rebuild AND l.waits_for = '{}' AND l.retired_at IS NULL AS ready
               FROM mirror m JOIN list l ON l.name = m.list WHERE m.connection = %s ORDER BY m.list""",
            [connection],
        )
        return list(await cursor.fetchall())


async def difference(conn: AsyncConnection[Any], mirror: Mirror) -> tuple[list[str], list[str]]:
    """(who is to be put into the segment, who is to be taken out), by the vendor's ids. Of a person who has several live
    records each is a member."""
    cursor = await conn.execute(
        """
        WITH wished AS (
            SELECT i.external_id AS ref FROM list_member m JOIN list l ON l.id = m.list_id
            JOIN contact_identity i ON i.contact_id = m.contact_id AND i.connection = %(connection)s AND i.object = 'contact'
                 AND i.state = 'live'
            WHERE l.name = %(list)s
        ), held AS (
            SELECT ref FROM mirror_member WHERE list = %(list)s AND connection = %(connection)s
        )
        SELECT array(SELECT ref FROM wished EXCEPT SELECT ref FROM held ORDER BY 1),
               array(SELECT ref FROM held EXCEPT SELECT ref FROM wished ORDER BY 1)
        """,
        {"connection": mirror.connection, "list": mirror.list},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def newest_change(conn: AsyncConnection[Any], name: str) -> int:
    """The id of the last change of a list."""
    cursor = await conn.execute(
        "SELECT coalesce(max(c.id), 0) FROM list_change c JOIN list l ON l.id = c.list_id WHERE l.name = %s",
        [name],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def changed(
    conn: AsyncConnection[Any], mirror: Mirror, added: Collection[str], removed: Collection[str]
) -> None:
    """Note whom the vendor took in and out."""
    key = {"list": mirror.list, "connection": mirror.connection}
    await conn.execute(
        """INSERT INTO mirror_member (list, connection, ref) SELECT %(list)s, %(connection)s, unnest(%(added)s::text[])
           ON CONFLICT DO NOTHING""",
        {**key, "added": list(added)},
    )
    await conn.execute(
        "DELETE FROM mirror_member WHERE list = %(list)s AND connection = %(connection)s AND ref = ANY(%(removed)s)",
        {**key, "removed": list(removed)},
    )


async def found(
    conn: AsyncConnection[Any], mirror: Mirror, segment: str, members: Collection[str], *, now: datetime
) -> tuple[int, int]:
    """Take the vendor's own membership as what is there. Returns how many were missing, and how many too many, to what the
    hub believed."""
    cursor = await conn.execute(
        """
        WITH there AS (SELECT DISTINCT unnest(%(members)s::text[]) AS ref),
        held AS (SELECT ref FROM mirror_member WHERE list = %(list)s AND connection = %(connection)s)
        SELECT array(SELECT ref FROM held EXCEPT SELECT ref FROM there), array(SELECT ref FROM there EXCEPT SELECT ref FROM held)
        """,
        {"members": list(members), "list": mirror.list, "connection": mirror.connection},
    )
    row = await cursor.fetchone()
    assert row is not None
    await changed(conn, mirror, row[1], row[0])
    await conn.execute(
        "UPDATE mirror SET segment = %s, verified_at = %s, problem = '' WHERE list = %s AND connection = %s",
        [segment, now, mirror.list, mirror.connection],
    )
    return len(row[0]), len(row[1])


async def note(conn: AsyncConnection[Any], mirror: Mirror, *, read_to: int, problem: str = "") -> None:
    """How far the list's changes were carried over, or why they were not."""
    await conn.execute(
        "UPDATE mirror SET read_to = %s, problem = %s WHERE list = %s AND connection = %s",
        [read_to, problem, mirror.list, mirror.connection],
    )


async def waiting(conn: AsyncConnection[Any], *, now: datetime) -> list[str]:
    """The connections whose mirrors are behind their lists, or were not verified last night."""
    cursor = await conn.execute(
        """SELECT DISTINCT m.connection FROM mirror m JOIN list l ON l.name = m.list
           WHERE m.problem = '' AND l.retired_at IS NULL AND l.waits_for = '{}' AND l.refreshed_at IS NOT NULL AND (
               m.verified_at IS NULL OR m.verified_at < %s
               OR EXISTS (SELECT FROM list_change c WHERE c.list_id = l.id AND c.id > m.read_to))
           ORDER BY 1""",
        [last_night(now)],
    )
    return [row[0] for row in await cursor.fetchall()]


async def planned(conn: AsyncConnection[Any], mirrors: Sequence[Mirror]) -> list[dict[str, Any]]:
    """What would be changed in each segment: `add` and `remove` in members."""
    rows = []
    for mirror in mirrors:
        add, remove = await difference(conn, mirror) if mirror.ready else ([], [])
        rows.append({"list": mirror.list, "connection": mirror.connection, "segment": mirror.name, "add": len(add),
                     "remove": len(remove)})  # fmt: skip
    return rows


async def all_of(conn: AsyncConnection[Any], name: str) -> list[dict[str, Any]]:
    """The mirrors of a list: connection, segment (its name), members, verified_at and problem."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT m.connection, m.name AS segment, m.verified_at, m.problem,
                      (SELECT count(*) FROM mirror_member x WHERE x.list = m.list AND x.connection = m.connection) AS members
               FROM mirror m WHERE m.list = %s ORDER BY 1""",
            [name],
        )
        return list(await cursor.fetchall())
