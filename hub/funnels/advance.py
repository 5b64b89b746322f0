"""Advance people through funnels: set by set, position by position, each batch one transaction.

What a step causes (a mail in the ledger, a write in the outbox) is committed together with the step being
taken. So a crash repeats a batch from its beginning or not at all. A wait counts from the moment the step is
reached; a branch sees what is known at the moment it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.clock import Clock
from hub.config.settings import FunnelSection, MessageSection, Send, SetFields, Wait, When
from hub.funnels.definition import END, Definition, compiled
from hub.rules import Catalog, Rule
from hub.store import funnels, ledger, outbox
from hub.store.database import Database
from hub.store.funnels import Entry

BATCH = 500


@dataclass
class Advanced:
    """What one call did, in people; `mails` and `writes` are what it caused."""

    entered: int = 0
    mails: int = 0
    writes: dict[str, int] = field(default_factory=dict)
    left: int = 0
    done: int = 0
    taken: int = 0


async def advance(
    db: Database,
    clock: Clock,
    sections: Mapping[str, FunnelSection],
    catalog: Catalog,
    messages: Mapping[str, MessageSection],
    *,
    batch: int = BATCH,
) -> Advanced:
    """Take in who joined, then take every step that is due now."""
    made = [compiled(name, section, catalog) for name, section in sections.items()]
    told = Advanced()
    async with db.transaction() as conn:
        ids = await funnels.register(conn, [d.name for d in made], now=clock.now())
    for definition in made:
        funnel_id = ids[definition.name]
        enter = definition.section.enter
        async with db.transaction() as conn:
            told.entered += await funnels.take_in(
                conn, funnel_id, enter.list, again=enter.again == "each_time", now=clock.now()
            )
        while True:
            async with db.transaction() as conn:
                now = clock.now()
                entries = await funnels.due(conn, funnel_id, batch, now=now)
                if not entries:
                    break
                await _Batch(conn, definition, messages, now, told).take(entries)
    return told


class _Batch:
    """One set of people of one funnel, in one transaction."""

    def __init__(
        self,
        conn: Any,
        definition: Definition,
        messages: Mapping[str, MessageSection],
        now: datetime,
        told: Advanced,
    ) -> None:
        self.conn, self.definition, self.messages, self.now, self.told = conn, definition, messages, now, told

    async def take(self, entries: Sequence[Entry]) -> None:
        self.told.taken += len(entries)
        staying = await self._let_leave(entries)
        at: dict[str, list[Entry]] = {}
        for entry in staying:
            at.setdefault(entry.position, []).append(entry)
        while at:
            position = next(iter(at))
            here = at.pop(position)
            for following, people in (await self._step(position, here)).items():
                at.setdefault(following, []).extend(people)

    async def _let_leave(self, entries: Sequence[Entry]) -> list[Entry]:
        """People who are gone, whose step no longer exists, or for whom the leave rule holds, end here."""
        gone = [e for e in entries if e.state != "live"]
        lost = [
            e
            for e in entries
            if e.state == "live" and e.position not in self.definition.steps and e.position != END
        ]
        staying = [e for e in entries if e not in gone and e not in lost]
        if gone:
            await self._end(gone, "left", "the contact is gone", "contact-gone")
        if lost:
            await self._end(lost, "left", "the step no longer exists in hub.yaml", "step-gone")
        if self.definition.leave and staying:
            held = await self._holds(self.definition.leave, staying)
            leaving = [e for e in staying if e.contact_id in held]
            if leaving:
                await self._end(leaving, "left", f"leave rule: {self.definition.leave.text}", "leave-rule")
                staying = [e for e in staying if e.contact_id not in held]
        return staying

    async def _step(self, position: str, people: Sequence[Entry]) -> dict[str, list[Entry]]:
        """Take one step with everybody who is at it. Returns who goes on at once, by their next position."""
        people = [Entry(e.id, e.contact_id, e.occurrence, position, e.state) for e in people]
        if position == END:
            await self._end(people, "done", "")
            return {}
        step, following = self.definition.steps[position], self.definition.after[position]
        if isinstance(step, Wait):
            wake_at = self.now + step.wait
            await funnels.log(
                self.conn, [(e, "wait", {"until": wake_at.isoformat()}) for e in people], now=self.now
            )
            await funnels.move(self.conn, people, [following] * len(people), wake_at)
            return {}
        if isinstance(step, When):
            return await self._branch(position, people)
        if isinstance(step, Send):
            await self._send(step, position, people)
        if isinstance(step, SetFields):
            await self._set(step, position, people)
        return {following: list(people)}

    async def _branch(self, position: str, people: Sequence[Entry]) -> dict[str, list[Entry]]:
        rule = self.definition.rules[position]
        held = await self._holds(rule, people)
        await funnels.log(
            self.conn,
            [(e, "branch", {"when": rule.text, "holds": e.contact_id in held}) for e in people],
            now=self.now,
        )
        found: dict[str, list[Entry]] = {}
        for entry in people:
            found.setdefault(self.definition.branch(position, holds=entry.contact_id in held), []).append(
                entry
            )
        return found

    async def _send(self, step: Send, position: str, people: Sequence[Entry]) -> None:
        rows = [
            ledger.NewDelivery(
                message=step.send,
                contact_id=e.contact_id,
                occurrence=f"funnel:{self.definition.name}:{e.occurrence}:{position}",
                purpose=self.messages[step.send].purpose,
                queued_at=self.now,
                funnel=self.definition.name,
                funnel_entry_id=e.id,
            )
            for e in people
        ]
        self.told.mails += await ledger.queue(self.conn, rows)
        await funnels.log(self.conn, [(e, "send", {"message": step.send}) for e in people], now=self.now)

    async def _set(self, step: SetFields, position: str, people: Sequence[Entry]) -> None:
        rows = [
            outbox.NewPush(
                connection,
                "field",
                f"funnel:{self.definition.name}:{e.id}:{position}:{connection}",
                {"fields": dict(fields)},
                self.now,
                e.contact_id,
            )
            for e in people
            for connection, fields in step.set.items()
        ]
        await outbox.enqueue(self.conn, rows)
        for row in rows:
            self.told.writes[row.connection] = self.told.writes.get(row.connection, 0) + 1
        await funnels.log(self.conn, [(e, "set", dict(step.set)) for e in people], now=self.now)

    async def _holds(self, rule: Rule, people: Sequence[Entry]) -> set[int]:
        values = rule.values(self.now, contacts=[e.contact_id for e in people])
        return await funnels.true_for(self.conn, rule.select(only_contacts=True), values)

    async def _end(self, people: Sequence[Entry], state: str, reason: str, code: str = "") -> None:
        await funnels.finish(self.conn, people, state, reason, code=code, now=self.now)
        if state == "done":
            self.told.done += len(people)
        else:
            self.told.left += len(people)
