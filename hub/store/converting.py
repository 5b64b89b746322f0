"""Leads: people whom a CRM keeps apart until they become a contact. One person before and after, whatever came first.

The lead's id stays as a name of the person: later events find them by it, and a late row about the lead changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from hub.mapping import Hint, Standing
from hub.store import contacts, merging, words
from hub.store.contacts import ContactRow, Merged


async def merge(
    conn: AsyncConnection[Any],
    connection: str,
    rows: Sequence[ContactRow],
    *,
    on_blank: Mapping[str, str],
    run_id: int | None,
    now: datetime,
    match: Sequence[Hint],
    standing: Sequence[Standing],
) -> Merged:
    """Bring a batch of leads in, as `contacts.merge` does contacts; those that were converted become their contacts.

    A conversion is one change of the person. One that names no contact archives the lead; one of a lead that nobody knew
    only makes its id a name of the contact, where that is known.
    """
    values = {"connection": connection, "run_id": run_id, "now": now}
    rows = list({row.external_id: row for row in rows}.values())
    known = await _converted(conn, connection, [row.external_id for row in rows])
    plain, conversions = [], []
    for row in rows:
        if row.external_id in known:
            continue
        target = next((link.id for link in row.became if link.object == "contact"), "")
        if row.state != "converted":
            plain.append(row)
        elif target:
            conversions.append((row, target))
        else:
            plain.append(msgspec.structs.replace(row, state="archived"))
    done = await contacts.merge(
        conn, connection, plain, on_blank=on_blank, run_id=run_id, now=now, match=match, standing=standing, object="lead"
    )  # fmt: skip
    changed = [await _convert(conn, row, target, standing, values) for row, target in conversions]
    return replace(
        done,
        changed=done.changed + sum(changed),
        unchanged=done.unchanged + len(known) + len(changed) - sum(changed),
    )


async def _converted(conn: AsyncConnection[Any], connection: str, ids: Sequence[str]) -> set[str]:
    cursor = await conn.execute(
        """SELECT external_id FROM contact_identity
           WHERE connection = %s AND object = 'lead' AND state = 'converted' AND external_id = ANY(%s)""",
        [connection, list(ids)],
    )
    return {row[0] for row in await cursor.fetchall()}


async def _convert(
    conn: AsyncConnection[Any],
    row: ContactRow,
    target: str,
    standing: Sequence[Standing],
    values: Mapping[str, Any],
) -> bool:
    """Make one person of a lead and the contact that it became. Returns whether anybody knew either of them."""
    told = {**values, "lead": row.external_id, "contact": target}
    lead, contact = await _person(conn, "lead", told), await _person(conn, "contact", told)
    if lead is None and contact is None:
        return False
    pair = [id for id in (lead, contact) if id is not None]
    person = min(pair)
    if len(set(pair)) == 2:
        await merging.fold(conn, max(pair), person, values)
    if lead is not None:
        await words.first_words(conn, [person])
    told |= {"person": person, "diff": Jsonb(_diff(row, target))}
    await conn.execute(
        """
        INSERT INTO contact_identity AS i (connection, object, external_id, contact_id, state, seen_at) VALUES
            (%(connection)s, 'lead', %(lead)s, %(person)s, 'converted', %(now)s),
            (%(connection)s, 'contact', %(contact)s, %(person)s, 'live', %(now)s)
        ON CONFLICT (connection, object, external_id) DO UPDATE
        SET state = CASE i.object WHEN 'lead' THEN 'converted' ELSE i.state END, contact_id = excluded.contact_id
        """,
        told,
    )
    await conn.execute(
        """UPDATE contact c SET state = 'live', changed_at = %(now)s
           WHERE id = %(person)s AND state IN ('archived', 'deleted') AND EXISTS (
               SELECT FROM contact_identity i WHERE i.contact_id = c.id AND i.state = 'live')""",
        told,
    )
    await words.settle(conn, [person], standing, values)
    await conn.execute(
        """INSERT INTO contact_change (contact_id, at, connection, run_id, kind, diff)
           VALUES (%(person)s, %(now)s, %(connection)s, %(run_id)s, 'converted', %(diff)s)""",
        told,
    )
    return True


async def _person(conn: AsyncConnection[Any], object: str, told: Mapping[str, Any]) -> int | None:
    cursor = await conn.execute(
        """SELECT contact_id FROM contact_identity WHERE connection = %s AND object = %s AND external_id = %s""",
        [told["connection"], object, told[object]],
    )
    found = await cursor.fetchone()
    return int(found[0]) if found else None


def _diff(row: ContactRow, target: str) -> dict[str, list[str | None]]:
    """The lineage of a conversion: the lead's id and the contact's, and what else came of it."""
    others = {link.object: [None, link.id] for link in row.became if link.object != "contact"}
    return {"lead": [row.external_id, None], "contact": [None, target], **others}
