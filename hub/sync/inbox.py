"""Work the webhook inbox: an event names a record, and the record is read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hub.clock import Clock
from hub.errors import Retry, VendorError
from hub.mapping import Mapping
from hub.sdk.connector import Connector
from hub.store import inbox
from hub.store.database import Database
from hub.sync.pull import refresh_records

BATCH = 500
KEPT = ("lead", "company", "contact", "deal")
"""Objects that are read again when an event names one."""


@dataclass(frozen=True)
class Worked:
    """How many events were worked and how many waited or were set aside."""

    done: int = 0
    failed: int = 0


async def work(db: Database, clock: Clock, connector: Connector[Any], mapping: Mapping) -> Worked:
    """Work what is new for one connection. Many events on one record cost one read of it.

    An event says only that something happened; the record itself says what is true now, also that it is
    deleted or merged. So disorder and repetition do no harm.
    """
    done = failed = 0
    while True:
        async with db.transaction() as conn:
            entries = await inbox.waiting(conn, connector.name, BATCH)
        if not entries:
            return Worked(done, failed)
        stuck = False
        for object in KEPT:
            of_kind = [e for e in entries if e.object == object]
            if not of_kind:
                continue
            try:
                ids = sorted({e.external_id for e in of_kind})
                await refresh_records(db, clock, connector, mapping, object, ids)
            except VendorError as error:
                failed += len(of_kind)
                stuck = stuck or isinstance(error, Retry)
                async with db.transaction() as conn:
                    await inbox.failed(conn, [e.id for e in of_kind], str(error))
            else:
                done += len(of_kind)
                async with db.transaction() as conn:
                    await inbox.done(conn, [e.id for e in of_kind])
        unknown = [e.id for e in entries if e.object not in KEPT]
        if unknown:
            failed += len(unknown)
            async with db.transaction() as conn:
                await inbox.failed(conn, unknown, "the hub keeps no object of this kind", final=True)
        if stuck:
            return Worked(done, failed)  # the sweep tries again later
