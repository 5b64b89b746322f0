"""Two contacts made one, and one made two again: everything that moves is written down, so that it can move back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.errors import HubError
from hub.mapping import Standing
from hub.model import CONTACT_FIELDS
from hub.store import addresses, words

_FOLLOWING = {
    "event": "",
    "outbox": "",
    # What both got, or both are in, stays where it is: a mail that one of them had is never sent to the other.
    "delivery": """AND NOT EXISTS (SELECT FROM delivery e WHERE e.contact_id = %(survivor)s
                                    AND e.message = t.message AND e.occurrence = t.occurrence)""",
    "funnel_entry": "AND NOT EXISTS (SELECT FROM funnel_entry e WHERE e.contact_id = %(survivor)s AND e.funnel_id = t.funnel_id)",
}
"""Tables whose rows go with the person, and what keeps a row back."""


async def fold(conn: AsyncConnection[Any], loser: int, survivor: int, values: Mapping[str, Any]) -> None:
    """Make `loser` an alias of `survivor`. `values` has connection, run_id and now, for the lineage."""
    both = {**values, "loser": loser, "survivor": survivor}
    before = await _pair(conn, both)
    await words.first_words(conn, [loser, survivor])
    moved: dict[str, Any] = {}
    moved["identities"] = await _ids(
        conn,
        """UPDATE contact_identity SET contact_id = %(survivor)s WHERE contact_id = %(loser)s
           RETURNING jsonb_build_array(connection, object, external_id)""",
        both,
    )
    for table, unless in _FOLLOWING.items():
        moved[table] = await _ids(
            conn,
            f"UPDATE {table} t SET contact_id = %(survivor)s WHERE contact_id = %(loser)s {unless} RETURNING id",
            both,
        )
    moved["waiting"] = await _ids(
        conn, "SELECT id FROM funnel_entry WHERE contact_id = %(loser)s AND state = 'active'", both
    )
    moved["addresses"] = await _ids(
        conn,
        """
        INSERT INTO contact_address (contact_id, email, kind, connection, since)
        SELECT %(survivor)s, email, 'other', %(connection)s, %(now)s FROM (
            SELECT email FROM contact WHERE id = %(loser)s
            UNION SELECT email FROM contact_address WHERE contact_id = %(loser)s) a
        WHERE email <> '' AND email IS DISTINCT FROM (SELECT email FROM contact WHERE id = %(survivor)s)
        ON CONFLICT DO NOTHING RETURNING email
        """,
        both,
    )
    await conn.execute(
        "UPDATE contact SET state = 'merged', merged_into = %(survivor)s, changed_at = %(now)s WHERE id = %(loser)s",
        both,
    )
    await addresses.carry_opt_outs(conn, [survivor])
    await conn.execute(
        """
        INSERT INTO contact_change (contact_id, at, connection, run_id, kind, diff)
        VALUES (%(loser)s, %(now)s, %(connection)s, %(run_id)s, 'merged',
                jsonb_build_object('merged_into', jsonb_build_array(null, %(survivor)s::bigint)))
        """,
        both,
    )
    await conn.execute(
        """INSERT INTO contact_merge (loser, survivor, at, source, before, moved)
           VALUES (%(loser)s, %(survivor)s, %(now)s, %(connection)s, %(before)s, %(moved)s)""",
        {**both, "before": Jsonb(before), "moved": Jsonb(moved)},
    )


async def merge(
    conn: AsyncConnection[Any], loser: int, survivor: int, *, standing: Sequence[Standing], now: datetime
) -> None:
    """Make one person of two by a person's word. The survivor takes what stands by all records of both; what neither
    record says stays. Raises HubError when they cannot be merged."""
    if loser == survivor:
        raise HubError("a contact cannot be merged with itself", "name two contacts")
    for each in sorted((loser, survivor)):
        await _live(conn, each)
    values = {"connection": "admin", "run_id": None, "now": now, "survivor": survivor}
    await fold(conn, loser, survivor, values)
    await words.settle(conn, [survivor], standing, values)
    await conn.execute(
        # What only the loser had and no record told (it was told before words were kept) fills the survivor's blanks.
        f"""
        UPDATE contact s SET {", ".join(f"{n} = coalesce(s.{n}, l.{n})" for n in CONTACT_FIELDS)}, fields = l.fields || s.fields
        FROM contact l WHERE s.id = %(survivor)s AND l.id = %(loser)s
        """,
        {**values, "loser": loser},
    )
    await conn.execute(
        """UPDATE contact_merge m SET moved = moved || jsonb_build_object('after', to_jsonb(c))
           FROM contact c WHERE c.id = m.survivor AND m.loser = %s AND m.undone_at IS NULL""",
        [loser],
    )
    await conn.execute("DELETE FROM contact_apart WHERE one = %s AND other = %s", sorted((loser, survivor)))


async def unmerge(
    conn: AsyncConnection[Any], loser: int, *, standing: Sequence[Standing], now: datetime
) -> int:
    """Make two of what `merge` made one: both have their records, mails, events and places in funnels again, and their
    values; what came since through a record belongs to whom the record means. Returns the other contact's id.

    No mail is sent anew: who was sent one keeps it in the ledger, and funnels go on where they were.
    """
    found = await _merge_of(conn, loser)
    await part(conn, found, by="admin", standing=standing, now=now)
    return int(found["survivor"])


async def part(
    conn: AsyncConnection[Any],
    found: Mapping[str, Any],
    *,
    by: str,
    standing: Sequence[Standing],
    now: datetime,
) -> None:
    """Take one merge (a row of `contact_merge`) back: `by` is admin, or the connection that says so."""
    loser, survivor, moved, before = (found[key] for key in ("loser", "survivor", "moved", "before"))
    values = {"loser": loser, "survivor": survivor, "now": now, "connection": by, "run_id": None}
    await conn.execute(
        """
        UPDATE contact_identity i SET contact_id = %(loser)s
        FROM jsonb_array_elements(%(identities)s) e
        WHERE i.contact_id = %(survivor)s AND i.connection = e ->> 0 AND i.object = e ->> 1 AND i.external_id = e ->> 2
        """,
        {**values, "identities": Jsonb(moved["identities"])},
    )
    await _move_back(conn, moved, values)
    await conn.execute(
        "DELETE FROM contact_address WHERE contact_id = %s AND email = ANY(%s) AND kind = 'other' AND connection = %s",
        [survivor, moved["addresses"], found["source"]],
    )
    await _restore(conn, loser, before["loser"], moved.get("after"), values)
    await _restore(conn, survivor, before["survivor"], moved.get("after"), values)
    await words.settle(conn, [loser, survivor], standing, values)
    await conn.execute(
        "UPDATE contact_merge SET undone_at = %s, undone_by = %s WHERE id = %s", [now, by, found["id"]]
    )
    await conn.execute(
        "INSERT INTO contact_apart (one, other, at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [*sorted((loser, survivor)), now],
    )
    await conn.execute(
        """INSERT INTO contact_change (contact_id, at, connection, kind, diff)
           SELECT id, %(now)s, %(connection)s, 'separated', jsonb_build_object('separated_from', jsonb_build_array(null, other))
           FROM (VALUES (%(loser)s::bigint, %(survivor)s::bigint), (%(survivor)s, %(loser)s)) AS pair (id, other)""",
        values,
    )


async def _merge_of(conn: AsyncConnection[Any], loser: int) -> dict[str, Any]:
    """The merge of a contact that can be taken back now."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT m.*, c.state AS survivor_state, c.merged_into FROM contact_merge m JOIN contact c ON c.id = m.survivor
               WHERE m.loser = %s AND m.undone_at IS NULL ORDER BY m.id DESC LIMIT 1 FOR UPDATE OF m""",
            [loser],
        )
        found = await cursor.fetchone()
    if found is None:
        raise HubError(
            f"contact {loser} is not merged into another", "`hub duplicates --merged` lists what is"
        )
    if found["source"] != "admin":
        raise HubError(
            f"{found['source']} itself made one record of contacts {loser} and {found['survivor']}",
            "its records cannot be told apart any more; where it has two again, they are parted here, too",
        )
    if found["survivor_state"] == "merged":
        raise HubError(
            f"contact {found['survivor']} was itself merged into {found['merged_into']} later",
            f"`hub duplicates unmerge {found['survivor']}` first",
        )
    return found


async def _move_back(conn: AsyncConnection[Any], moved: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """What went with the person goes back, and what came of it meanwhile goes with it."""
    for table in _FOLLOWING:
        await conn.execute(
            f"UPDATE {table} SET contact_id = %(loser)s WHERE contact_id = %(survivor)s AND id = ANY(%(ids)s)",
            {**values, "ids": moved[table]},
        )
    await conn.execute(
        """UPDATE delivery d SET contact_id = %(loser)s WHERE contact_id = %(survivor)s AND funnel_entry_id = ANY(%(ids)s)
           AND NOT EXISTS (SELECT FROM delivery e WHERE e.contact_id = %(loser)s
                           AND e.message = d.message AND e.occurrence = d.occurrence)""",
        {**values, "ids": moved["funnel_entry"]},
    )
    await conn.execute(
        """UPDATE event e SET contact_id = d.contact_id FROM delivery d
           WHERE d.id = e.delivery_id AND d.contact_id = %(loser)s AND e.contact_id = %(survivor)s""",
        values,
    )
    await conn.execute(
        """UPDATE outbox o SET contact_id = e.contact_id FROM event e
           WHERE e.id = o.event_id AND e.contact_id = %(loser)s AND o.contact_id = %(survivor)s""",
        values,
    )
    await conn.execute(
        # Who left a funnel only because they were merged is on their way again.
        """UPDATE funnel_entry SET state = 'active', reason = '', reason_code = '', finished_at = NULL
           WHERE contact_id = %(loser)s AND id = ANY(%(ids)s) AND state = 'left' AND reason_code = 'contact-gone'""",
        {**values, "ids": moved["waiting"]},
    )


async def _restore(
    conn: AsyncConnection[Any], id: int, before: dict[str, Any], after: dict[str, Any] | None, values: Any
) -> None:
    """A contact's values as they were before the merge; a survivor keeps what was changed since by somebody else."""
    if id == values["survivor"]:
        now = (await _pair(conn, values))["survivor"]
        unchanged = {n for n in CONTACT_FIELDS if after is not None and now[n] == after[n]}
        kept = {k: v for k, v in now["fields"].items() if after is None or after["fields"].get(k) != v}
        fields = {**before["fields"], **kept}
    else:
        unchanged, fields = set(CONTACT_FIELDS), before["fields"]
    assignments = ", ".join(f"{name} = b.{name}" for name in CONTACT_FIELDS if name in unchanged)
    await conn.execute(
        f"""UPDATE contact c SET {assignments}{"," if assignments else ""} fields = %(fields)s, merged_into = NULL,
                changed_at = %(now)s, state = CASE WHEN c.id = %(survivor)s THEN c.state ELSE coalesce(
                    (SELECT 'live' FROM contact_identity i WHERE i.contact_id = c.id AND i.state = 'live' LIMIT 1),
                    (SELECT i.state FROM contact_identity i WHERE i.contact_id = c.id AND i.state <> 'merged' LIMIT 1), b.state)
                END
            FROM jsonb_populate_record(NULL::contact, %(before)s) b WHERE c.id = %(id)s""",
        {**values, "id": id, "before": Jsonb(before), "fields": Jsonb(fields)},
    )


async def _pair(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    cursor = await conn.execute(
        """SELECT to_jsonb(l), to_jsonb(s) FROM contact l, contact s WHERE l.id = %(loser)s AND s.id = %(survivor)s
           FOR UPDATE""",
        values,
    )
    row = await cursor.fetchone()
    assert row is not None
    return {"loser": row[0], "survivor": row[1]}


async def _live(conn: AsyncConnection[Any], id: int) -> None:
    cursor = await conn.execute("SELECT state FROM contact WHERE id = %s FOR UPDATE", [id])
    row = await cursor.fetchone()
    if row is None:
        raise HubError(f"there is no contact {id}", "see `hub duplicates` or `hub contact EMAIL`")
    if row[0] != "live":
        raise HubError(f"contact {id} is {row[0]}", "only contacts that are live can be merged")


async def _ids(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> list[Any]:
    cursor = await conn.execute(query.encode(), values)
    return [row[0] for row in await cursor.fetchall()]


async def existing(conn: AsyncConnection[Any], ids: Sequence[int]) -> set[int]:
    """Which of these contacts there are."""
    cursor = await conn.execute("SELECT id FROM contact WHERE id = ANY(%s)", [list(ids)])
    return {row[0] for row in await cursor.fetchall()}
