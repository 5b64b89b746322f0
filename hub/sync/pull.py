"""Pull one stream of one connection: pages from the vendor, mapped, merged, the cursor saved with what it covers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import structlog

from hub.clock import Clock
from hub.errors import FixNeeded, Retry, VendorError
from hub.mapping import Mapping
from hub.mapping.language import PEOPLE
from hub.model import OBJECTS, Record, RecordState, Rejected
from hub.sdk.connector import Connector, Cursor, Page
from hub.sdk.http import Stats, metered
from hub.store import addresses, companies, consent, contacts, converting, deals, runs, segments
from hub.store.database import Database
from hub.sync.vanished import Watch

log = structlog.get_logger()

BATCH_RECORDS = 5_000
BATCH_SECONDS = 5.0
"""A vendor that is slow is stored after so long all the same: what was read and not stored is read again after a crash."""
RESUME_SECONDS = 30.0

Progress = Callable[[str, str, runs.Counts], None]
"""Told after each batch: connection, stream, counts so far."""


@dataclass(frozen=True)
class Pulled:
    """How a pull ended: `done`, `partial` (it resumes by itself, `reason` says why) or `failed`."""

    run_id: int
    state: str
    counts: runs.Counts
    reason: str = ""


async def pull(
    db: Database,
    clock: Clock,
    connector: Connector[Any],
    mapping: Mapping,
    stream: str,
    *,
    full: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Read a stream from its cursor to its present end.

    Each batch is one transaction with its cursor, so a crash repeats at most one batch, which then changes
    nothing. A quota or a passing fault ends the run `partial`, as does any fault after the first batch; the next
    run goes on from the saved cursor.
    """
    async with db.transaction() as conn:
        run_id = await runs.start(conn, "pull", connector.name, stream, now=clock.now())
        if full:
            await runs.forget_cursor(conn, connector.name, stream)
        cursor = await runs.read_cursor(conn, connector.name, stream)
    counts, object = runs.Counts(), OBJECTS[stream]
    store = _Store(db, clock, connector, mapping, run_id)
    state, reason, pause = "done", "", None
    with metered() as calls:
        while True:
            try:
                async for batch in _batches(connector.pull(stream, cursor)):
                    counts.add(
                        await store.keep(object, batch.records, batch.rejected, (stream, batch.cursor))
                    )
                    cursor = batch.cursor
                    if progress:
                        progress(connector.name, stream, counts)
            except Retry as error:
                state, reason = "partial", str(error)
                pause = timedelta(seconds=max(error.retry_after_seconds, RESUME_SECONDS))
            except VendorError as error:
                if isinstance(error, FixNeeded) and (gone := await store.watch.refused(object)):
                    counts.add(await store.keep(object, [], gone, None))
                    connector = store.watch.narrowed(object)
                    continue
                state, reason = "partial" if counts.pages else "failed", str(error)
            break
    counts.http = calls.as_dict()
    async with db.transaction() as conn:
        if state == "done":
            await runs.mark_loaded(conn, connector.name, stream, run_id, now=clock.now())
        await runs.finish(conn, run_id, counts, state=state, now=clock.now(), reason=reason,
                          resumes_at=cursor if state != "done" else None,
                          resume_after=clock.now() + pause if pause else None)  # fmt: skip
    return Pulled(run_id, "partial" if state == "done" and counts.rejected else state, counts, reason)


async def _batches(pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    """Pages gathered to about `BATCH_RECORDS`, the next ones being fetched while the last are stored.

    What was read before a vendor fails is handed on first, then the failure is raised.
    """
    queue: asyncio.Queue[Page | VendorError | None] = asyncio.Queue(maxsize=1)

    async def read() -> None:
        gathered: Page | None = None
        end: VendorError | None = None
        since = time.monotonic()
        try:
            async for page in pages:
                gathered = _joined(gathered, page)
                if len(gathered.records) >= BATCH_RECORDS or time.monotonic() - since >= BATCH_SECONDS:
                    await queue.put(gathered)
                    gathered, since = None, time.monotonic()
        except VendorError as error:
            end = error
        except Exception as error:  # a connector's own bug must reach the run, not die in this task
            log.exception("a connector failed")
            end = FixNeeded(
                f"the connector failed: {type(error).__name__}: {error}",
                code="CONNECTOR",
                fix="tell its author; the log has the traceback",
            )
        if gathered is not None:
            await queue.put(gathered)
        await queue.put(end)

    reader = asyncio.create_task(read())
    try:
        while True:
            item = await queue.get()
            if item is None:
                return
            if isinstance(item, VendorError):
                raise item
            yield item
    finally:
        reader.cancel()


def _joined(first: Page | None, then: Page) -> Page:
    if first is None:
        return Page(records=[*then.records], cursor=then.cursor, rejected=[*then.rejected], done=then.done)
    first.records += then.records  # in place: gathered page by page, a copy each would be quadratic
    first.rejected += then.rejected
    first.cursor, first.done = then.cursor, then.done
    return first


async def refresh_records(
    db: Database, clock: Clock, connector: Connector[Any], mapping: Mapping, object: str, ids: Sequence[str]
) -> runs.Counts:
    """Read the named records again (webhooks said that they changed) and store them as one run."""
    watch, gone = Watch(connector, mapping, clock), []
    with metered() as calls:
        try:
            records = await connector.read(object, ids)
        except FixNeeded:
            gone = await watch.refused(object)
            if not gone:
                raise
            records = await watch.narrowed(object).read(object, ids)
    return await _keep_told(db, clock, _Told(connector, mapping, watch, calls), object, records, gone)


async def take_records(
    db: Database,
    clock: Clock,
    connector: Connector[Any],
    mapping: Mapping,
    object: str,
    records: Sequence[Record],
) -> runs.Counts:
    """Store records that webhooks told whole, as one run."""
    watch = Watch(connector, mapping, clock)
    with metered() as calls:
        return await _keep_told(db, clock, _Told(connector, mapping, watch, calls), object, records, [])


@dataclass(frozen=True)
class _Told:
    """Where records came from that no stream brought, and what it cost so far to have them."""

    connector: Connector[Any]
    mapping: Mapping
    watch: Watch
    calls: Stats


async def _keep_told(
    db: Database, clock: Clock, told: _Told, object: str, records: Sequence[Record], gone: Sequence[Rejected]
) -> runs.Counts:
    async with db.transaction() as conn:
        run_id = await runs.start(conn, "webhook", told.connector.name, object, now=clock.now())
    store = _Store(db, clock, told.connector, told.mapping, run_id, told.watch)
    with metered() as more:
        counts = await store.keep(object, records, gone, None)
    told.calls.add(more)
    counts.http = told.calls.as_dict()
    async with db.transaction() as conn:
        await runs.finish(conn, run_id, counts, state="done", now=clock.now())
    return counts


class _Store:
    """Maps and stores batches of one run."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        connector: Connector[Any],
        mapping: Mapping,
        run_id: int,
        watch: Watch | None = None,
    ) -> None:
        self.db, self.clock, self.connection, self.run_id = db, clock, connector.name, run_id
        self.watch = watch or Watch(connector, mapping, clock)
        self._ranks = _content_hash([(s.field, s.connection, s.rank) for s in mapping.standing])

    @property
    def mapping(self) -> Mapping:
        """The connection's mapping without what is gone at the vendor."""
        return self.watch.mapping

    async def keep(
        self,
        object: str,
        records: Sequence[Record],
        rejected: Sequence[Rejected],
        cursor: tuple[str, Cursor] | None,
    ) -> runs.Counts:
        """One transaction: the records, the rejected rows, and the cursor that covers them."""
        gone = await self.watch.look(object, records) if object != "segment" else []
        mapped, bad = self._map(object, records)
        bad = [*rejected, *gone, *bad]
        async with self.db.transaction() as conn:
            counts = await getattr(self, f"_keep_{object}")(conn, mapped)
            await runs.reject(conn, self.run_id, bad, now=self.clock.now())
            if cursor is not None:
                await runs.save_cursor(conn, self.connection, *cursor, self.run_id, now=self.clock.now())
        counts.read, counts.rejected, counts.pages = len(records) + len(rejected), len(bad), 1
        return counts  # type: ignore[no-any-return]

    def _map(self, object: str, records: Sequence[Record]) -> tuple[list[tuple[Any, ...]], list[Rejected]]:
        """(row, consent statements) for each record, and what could not be understood of it."""
        if object in PEOPLE:
            return self._people(object, records)
        to_row = getattr(self, f"_{object}")
        rows: list[tuple[Any, ...]] = []
        bad: list[Rejected] = []
        for record in records:
            row, problems = to_row(record)
            rows.append(row)
            bad.extend(problems)
        return rows, bad

    def _people(self, object: str, records: Sequence[Record]) -> tuple[list[tuple[Any, ...]], list[Rejected]]:
        mapping, now = self.mapping, self.clock.now()
        pull = mapping.pull(object)
        # What the mapping takes and who wins over whom is part of what a row says: after a change of it a full pull settles
        # every field anew.
        digest = contacts.Digest((self._ranks, sorted(mapping.on_blank(object).items())))
        live = RecordState.LIVE
        rows: list[tuple[Any, ...]] = []
        bad: list[Rejected] = []
        for record in records:
            mapped = pull(record.fields)
            state, changed_at, merged_ids = record.state, record.changed_at, record.merged_ids
            columns, custom, fill = mapped.columns, mapped.custom, mapped.fill
            text = contacts.text(columns, custom, fill)
            row = contacts.ContactRow(
                record.id, columns, custom, digest.of(text, custom, fill, merged_ids), fill,
                "live" if state is live else state.value, changed_at, merged_ids, mapped.untold, text, record.became,
            )  # fmt: skip
            said: Sequence[consent.Statement] = ()
            if mapped.consent and state is live and (email := columns.get("email")):
                said = [  # a field says what is, not since when
                    consent.Statement(
                        email, p, s, self.connection, changed_at or now, dated=False, recorded_at=now
                    )
                    for p, s in mapped.consent.items()
                ]
            rows.append((row, said))
            if mapped.errors:
                bad += self._problems(record, mapped.errors)
        return rows, bad

    def _deal(self, record: Record) -> tuple[tuple[Any, ...], list[Rejected]]:
        mapped = self.mapping.pull("deal")(record.fields)
        links = tuple(link for link in record.links if link.object == "contact")
        row = deals.DealRow(
            external_id=record.id,
            columns=mapped.columns,
            custom=mapped.custom,
            content_hash=_content_hash(
                mapped.columns,
                mapped.custom,
                mapped.fill,
                [(link.id, link.role) for link in links],
                record.merged_ids,
            ),
            merged_ids=record.merged_ids,
            fill=mapped.fill,
            untold=mapped.untold,
            state=record.state.value,
            vendor_changed_at=record.changed_at,
            links=links,
        )
        return (row,), self._problems(record, mapped.errors)

    def _company(self, record: Record) -> tuple[tuple[Any, ...], list[Rejected]]:
        mapped = self.mapping.pull("company")(record.fields)
        links = [(link.object, link.id, link.role, link.primary) for link in record.links]
        row = companies.CompanyRow(
            external_id=record.id,
            columns=mapped.columns,
            custom=mapped.custom,
            content_hash=_content_hash(
                mapped.columns, mapped.custom, mapped.fill, sorted(links), record.merged_ids
            ),
            fill=mapped.fill,
            untold=mapped.untold,
            state=record.state.value,
            vendor_changed_at=record.changed_at,
            merged_ids=record.merged_ids,
            links=record.links,
        )
        return (row,), self._problems(record, mapped.errors)

    def _segment(self, record: Record) -> tuple[tuple[Any, ...], list[Rejected]]:
        members = [link.id for link in record.links] if record.state is RecordState.LIVE else None
        name = str(record.fields.get("name") or record.id)
        kind = str(record.fields.get("kind") or "")
        return (segments.SegmentRow(record.id, name, kind, record.state.value, members),), []

    @staticmethod
    def _problems(record: Record, errors: Sequence[Any]) -> list[Rejected]:
        return [
            Rejected(
                object=record.object,
                id=record.id,
                code="BAD_VALUE",
                message=e.message,
                fix=e.fix,
                row={e.field: e.value},
            )
            for e in errors
        ]

    async def _keep_lead(
        self, conn: Any, mapped: Sequence[tuple[contacts.ContactRow, Sequence[consent.Statement]]]
    ) -> runs.Counts:
        return await self._keep_contact(conn, mapped, "lead")

    async def _keep_contact(
        self,
        conn: Any,
        mapped: Sequence[tuple[contacts.ContactRow, Sequence[consent.Statement]]],
        object: str = "contact",
    ) -> runs.Counts:
        merged = await (converting.merge if object == "lead" else contacts.merge)(
            conn,
            self.connection,
            [row for row, _ in mapped],
            on_blank=self.mapping.on_blank(object),
            run_id=self.run_id,
            now=self.clock.now(),
            match=self.mapping.match,
            standing=self.mapping.standing,
        )
        statements = [statement for _, said in mapped for statement in said]
        if statements and await consent.record(conn, statements):
            await addresses.carry_told(
                conn, self.connection, [row.external_id for row, said in mapped if said], object
            )
        return runs.Counts(
            created=merged.created, changed=merged.changed, unchanged=merged.unchanged, gone=merged.gone, erased=merged.erased
        )  # fmt: skip

    async def _keep_company(self, conn: Any, mapped: Sequence[tuple[companies.CompanyRow]]) -> runs.Counts:
        merged = await companies.merge(
            conn,
            self.connection,
            [row for (row,) in mapped],
            on_blank=self.mapping.on_blank("company"),
            run_id=self.run_id,
            now=self.clock.now(),
        )
        return runs.Counts(
            created=merged.created, changed=merged.changed, unchanged=merged.unchanged, gone=merged.gone
        )

    async def _keep_deal(self, conn: Any, mapped: Sequence[tuple[deals.DealRow]]) -> runs.Counts:
        merged = await deals.merge(
            conn,
            self.connection,
            [row for (row,) in mapped],
            on_blank=self.mapping.on_blank("deal"),
            now=self.clock.now(),
        )
        return runs.Counts(
            created=merged.created, changed=merged.changed, unchanged=merged.unchanged, gone=merged.gone
        )

    async def _keep_segment(self, conn: Any, mapped: Sequence[tuple[segments.SegmentRow]]) -> runs.Counts:
        changed = [
            await segments.merge(conn, self.connection, row, now=self.clock.now()) for (row,) in mapped
        ]
        return runs.Counts(changed=sum(changed), unchanged=len(changed) - sum(changed))


def _content_hash(*parts: object) -> bytes:
    """What makes a row "the same as last time": 16 bytes over the mapped values."""
    return hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()
