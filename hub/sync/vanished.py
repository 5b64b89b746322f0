"""Fields that vanish at the vendor while the hub reads: each fails alone and loudly, the others go on.

A field that a record does not even name is blank at one vendor and gone at another. So the vendor is asked for its schema:
when the last record of a batch lacks a mapped field, or when it refuses to read at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hub.clock import Clock
from hub.errors import VendorError
from hub.mapping import Mapping, drift
from hub.model import Record, RecordState, Rejected, VendorField
from hub.sdk.connector import Connector

GONE = "FIELD_GONE"
TRUSTED = timedelta(minutes=1)
"""For so long a schema is believed. Where a blank empties our field it is asked for anew each time."""


class Watch:
    """What one run has found missing. `mapping` is the connection's without that."""

    def __init__(self, connector: Connector[Any], mapping: Mapping, clock: Clock) -> None:
        self.connector, self.mapping, self.clock = connector, mapping, clock
        self._whole = mapping

    async def look(self, object: str, records: Sequence[Record]) -> list[Rejected]:
        """A row for each mapped field that is gone since, as these records show."""
        last = next((r for r in reversed(records) if r.state is RecordState.LIVE), None)
        if last is None:
            return []
        missing = [name for name in self.mapping.vendor_fields(object) if name not in last.fields]
        if not missing:
            return []
        clearing = [
            e.field
            for e in self.mapping.entries[object].values()
            if e.field in missing and e.on_blank == "clear"
        ]
        try:
            return await self._confirm(object, missing, timedelta() if clearing else TRUSTED)
        except VendorError as error:  # it cannot be asked: nothing is emptied on a guess
            self.mapping = self.mapping.without(object, clearing)
            what = "is blank or gone, and the schema cannot be read: nothing is emptied"
            return [
                Rejected(
                    object=object,
                    id="",
                    code="FIELD_UNCLEAR",
                    message=f"the {object} field {name!r} {what} ({error.message})",
                    fix=error.fix or "the next run asks again",
                    row={"field": name},
                )
                for name in clearing
            ]

    async def refused(self, object: str) -> list[Rejected]:
        """As `look`, for when the vendor refuses to read: any mapped field may be why."""
        try:
            return await self._confirm(object, self.mapping.vendor_fields(object), timedelta())
        except VendorError:
            return []  # it refuses that, too: its fields are not the reason

    def narrowed(self, object: str) -> Connector[Any]:
        """The connector, asking for what is left."""
        return self.connector.asking_for(object, self.mapping.vendor_fields(object))

    async def _confirm(self, object: str, missing: Sequence[str], age: timedelta) -> list[Rejected]:
        live = await self.connector.live_fields(object, max_age=age)
        if live is None:
            return []
        gone = [name for name in missing if name not in live]
        if not gone:
            return []
        self.mapping = self.mapping.without(object, gone)
        return [self._told(object, name, live) for name in gone]

    def _told(self, object: str, name: str, live: dict[str, VendorField]) -> Rejected:
        entries = self._whole.entries.get(object, {})
        taken = {entry.field for entry in entries.values()}
        entry = next((e for e in entries.values() if e.field == name), None)
        if entry is None:
            what = f"the vendor has no {object} field {name!r} any more: its opt-outs are not heard"
            fix = "map the opt-out to another field"
        else:
            finding = drift.gone(entry, object, live, {}, taken)
            what, fix = finding.what, finding.fix
        fix += f"; see `hub mapping check {self.connector.name}`"
        return Rejected(object=object, id="", code=GONE, message=what, fix=fix, row={"field": name})
