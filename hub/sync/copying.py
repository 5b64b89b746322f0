"""Copy what one system said of a person into the records that other systems keep of them.

Whose word stands is settled when it is heard (`hub.store.words`). Here the records that hold something else get a write in
the outbox: only differences, and only fields that their mapping pushes. A field that keeps coming back is left to rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hub.clock import Clock
from hub.errors import HubError
from hub.mapping import Mapping as FieldMapping
from hub.model import Rejected
from hub.store import copies, outbox, runs
from hub.store.copies import Difference
from hub.store.database import Connection, Database

PEOPLE = 2_000
RETURNS = 5
"""So often one value is written into one field of a record within `copies.WINDOW`; then two systems are at odds."""
MOST = 20
"""So often any value is."""


async def copy(
    db: Database, clock: Clock, targets: Mapping[str, FieldMapping], *, everybody: bool = False
) -> dict[str, int]:
    """Queue what the records of `targets` lack. Returns connection -> writes. `everybody`: look at all who have several
    records, not only at those of whom something was heard.

    A field that rests is told once, as a rejected row of a run.
    """
    queued: dict[str, int] = {}
    if everybody:
        async with db.transaction() as conn:
            await copies.touch_all(conn)
    while True:
        async with db.transaction() as conn:
            people = await copies.take(conn, PEOPLE)
            if not people:
                return queued
            resting: list[tuple[str, Rejected]] = []
            for connection, mapping in targets.items():
                fields = [e.name for e in mapping.entries.get("contact", {}).values() if e.pushes]
                if not fields:
                    continue
                await copies.forget_queued(conn, connection, people)
                found = await copies.differences(conn, connection, fields, people, now=clock.now())
                for _, of_one in itertools.groupby(found, key=lambda d: (d.contact_id, d.external_id)):
                    one = [
                        d for d in of_one if not await _rests(conn, clock, connection, mapping, d, resting)
                    ]
                    if one:
                        queued[connection] = queued.get(connection, 0) + 1
                        await outbox.enqueue(conn, [await _write(conn, clock, connection, one)])
            if resting:
                await _tell(conn, clock, resting)


async def _rests(
    conn: Connection,
    clock: Clock,
    connection: str,
    mapping: FieldMapping,
    found: Difference,
    resting: list[tuple[str, Rejected]],
) -> bool:
    """Whether a field is not copied: it cannot be written, or it was written too often."""
    code, reason, fix = "", "", ""
    try:
        mapping.push("contact", {found.field: found.value})
    except HubError as error:
        code, reason, fix = "MAPPING", error.what, error.fix
    if found.same >= RETURNS or found.all >= MOST:
        code = "PING_PONG"
        often = (
            f"the same value was written {found.same} times"
            if found.same >= RETURNS
            else f"it was written {found.all} times"
        )
        reason = f"{found.field} keeps changing back at {connection}: {often} within six hours"
        fix = "give authority over the field to one connection, or let one of the mappings only pull it"
    if not code:
        return False
    await copies.rest(conn, connection, found, reason, now=clock.now())
    row = Rejected(
        object="contact", id=found.external_id, code=code, message=reason, fix=fix, row={"field": found.field}
    )
    resting.append((connection, row))
    return True


async def _write(conn: Connection, clock: Clock, connection: str, found: list[Difference]) -> outbox.NewPush:
    first = found[0]
    payload = {
        "ref": first.external_id,
        "fields": {d.field: d.value for d in found},
        "seen": {d.field: d.held for d in found},
    }
    key = f"copy:{first.contact_id}:{first.external_id}:{await copies.number(conn)}"
    return outbox.NewPush(connection, "field", key, payload, clock.now(), first.contact_id)


async def _tell(conn: Connection, clock: Clock, resting: list[tuple[str, Rejected]]) -> None:
    """One run a connection, with a row for each field that rests."""
    for connection in sorted({connection for connection, _ in resting}):
        rows = [row for name, row in resting if name == connection]
        run_id = await runs.start(conn, "copy", connection, "fields", now=clock.now())
        await runs.reject(conn, run_id, rows, now=clock.now())
        await runs.finish(conn, run_id, runs.Counts(rejected=len(rows)), state="done", now=clock.now())
