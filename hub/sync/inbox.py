"""Work the webhook inbox: an event names a record, and the record is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hub.clock import Clock
from hub.errors import Drop, Retry, VendorError
from hub.mapping import Mapping
from hub.model import Record
from hub.sdk.connector import Connector, WebhookRequest
from hub.store import inbox
from hub.store.database import Database
from hub.sync.pull import refresh_records, take_records

BATCH = 500
PAUSE_SECONDS = 10.0
OBJECTS = ("contact", "deal")
LONGEST_PAUSE = timedelta(minutes=15)


@dataclass
class Worked:
    """How many events were worked, and how many were put off or set aside."""

    done: int = 0
    failed: int = 0


async def work(db: Database, clock: Clock, connector: Connector[Any], mapping: Mapping) -> Worked:
    """Work what is due for one connection. Many events on one record cost one read of it.

    An event says only that something happened; the record itself says what is true now, also that it is
    deleted or merged. So disorder and repetition do no harm.
    """
    inbox_work = _Work(db, clock, connector, mapping)
    while True:
        async with db.transaction() as conn:
            entries = await inbox.waiting(conn, connector.name, BATCH)
        if not entries:
            return inbox_work.worked
        for entry in entries:
            if entry.action == inbox.UNREAD:
                await inbox_work.read_again(entry)
        events = [entry for entry in entries if entry.action != inbox.UNREAD]
        for object in OBJECTS:
            of_kind = [entry for entry in events if entry.object == object]
            await inbox_work.take(object, [entry for entry in of_kind if entry.record is not None])
            await inbox_work.refresh(object, [entry for entry in of_kind if entry.record is None])
        unknown = [entry for entry in events if entry.object not in OBJECTS]
        await inbox_work.failed(unknown, "the hub keeps no object of this kind", final=True)


class _Work:
    """One round of a connection's inbox."""

    def __init__(self, db: Database, clock: Clock, connector: Connector[Any], mapping: Mapping) -> None:
        self.db, self.clock, self.connector, self.mapping = db, clock, connector, mapping
        self.worked = Worked()

    async def refresh(self, object: str, entries: Sequence[inbox.Entry]) -> None:
        """Read the named records. Where the vendor refuses a whole batch, it is halved until the one to blame is alone."""
        if not entries:
            return
        ids = sorted({entry.external_id for entry in entries})
        try:
            await refresh_records(self.db, self.clock, self.connector, self.mapping, object, ids)
        except Retry as error:
            pause = timedelta(seconds=max(error.retry_after_seconds, PAUSE_SECONDS))
            async with self.db.transaction() as conn:
                await inbox.put_off(conn, [e.id for e in entries], str(error), min(pause, LONGEST_PAUSE))
            self.worked.failed += len(entries)
        except VendorError as error:
            if len(ids) == 1:
                await self.failed(entries, str(error), final=isinstance(error, Drop))
                return
            middle = ids[len(ids) // 2]
            await self.refresh(object, [entry for entry in entries if entry.external_id < middle])
            await self.refresh(object, [entry for entry in entries if entry.external_id >= middle])
        else:
            await self.done(entries)

    async def take(self, object: str, entries: Sequence[inbox.Entry]) -> None:
        """Store the records that events tell whole: of each the newest, unless the hub knows a newer one."""
        if not entries:
            return
        newest: dict[str, Record] = {}
        for entry in entries:
            record = msgspec.convert(entry.record, Record, strict=False)
            before = newest.get(record.id)
            if before is None or _at(before) <= _at(record):
                newest[record.id] = record
        async with self.db.connection() as conn:
            known = await inbox.known_since(conn, self.connector.name, object, list(newest))
        fresh = [r for r in newest.values() if r.id not in known or known[r.id] <= _at(r)]
        await take_records(self.db, self.clock, self.connector, self.mapping, object, fresh)
        await self.done(entries)

    async def read_again(self, entry: inbox.Entry) -> None:
        """A call that was not understood, replayed: perhaps the connector knows more now."""
        request = WebhookRequest("POST", "", entry.headers or {}, entry.body or b"", self.clock.wall())
        try:
            found = self.connector.events(request)
        except Exception as error:  # a connector's own bug, too, is this call's reason
            await self.failed([entry], f"not understood: {type(error).__name__}: {error}", final=True)
            return
        events, reason = inbox.understood(found)
        async with self.db.transaction() as conn:
            await inbox.store(conn, inbox.Post(self.connector.name, events, entry.received_at))
        await (self.failed([entry], reason, final=True) if reason else self.done([entry]))

    async def done(self, entries: Sequence[inbox.Entry]) -> None:
        async with self.db.transaction() as conn:
            await inbox.done(conn, [entry.id for entry in entries])
        self.worked.done += len(entries)

    async def failed(self, entries: Sequence[inbox.Entry], reason: str, *, final: bool = False) -> None:
        if not entries:
            return
        async with self.db.transaction() as conn:
            await inbox.failed(conn, [entry.id for entry in entries], reason, final=final)
        self.worked.failed += len(entries)


def _at(record: Record) -> datetime:
    return record.changed_at or datetime.min.replace(tzinfo=UTC)
