"""Bring lists up to date by looking at the contacts that were touched, and at those for whom time has come.

One transaction takes the queue of touched contacts and all lists along, in the order in which they build on each
other: who joins or leaves one is looked at again by those that use it. A list is built as a whole where it is new, its
rule has changed, or so many contacts were touched that this is cheaper.

A list waits until every stream that it builds on was once read to its end. People whose deals are not here yet
must not join a list of people without deals: funnels would write to them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
import structlog

from hub.clock import Clock
from hub.config.settings import ListSection
from hub.lists.definition import compiled, in_order, told
from hub.model import Rejected
from hub.rules import Catalog, Rule, of_list
from hub.store import imports, lists, runs, touches
from hub.store.database import Connection, Database

log = structlog.get_logger()

EVALUATION_SECONDS = 300
"""A rule that takes longer is given up: it must not hold the database."""
RETRY_AFTER = timedelta(minutes=15)
LOOK_AFTER = timedelta(minutes=5)
"""How long a rule may wait whose conditions turn at moments that cannot be told."""
DRIFT_SHOWN = 1_000


@dataclass(frozen=True)
class Refreshed:
    """One list after its refresh, or what it waits for (as connection/stream), or why it could not be evaluated.

    `looked_at` is how many contacts were looked at; None for all of them.
    """

    name: str
    size: int = 0
    joined: int = 0
    left: int = 0
    waits_for: tuple[str, ...] = ()
    problem: str = ""
    looked_at: int | None = field(default=None, compare=False)


async def refresh_all(
    db: Database,
    clock: Clock,
    sections: Mapping[str, ListSection],
    catalog: Catalog,
    pulled: Mapping[str, Sequence[str]],
    *,
    verify: bool = False,
) -> list[Refreshed]:
    """Bring every list up to date. `pulled` is connection -> the streams that hub.yaml pulls of it.

    `verify` holds each list against its whole rule afterwards; what differs is put right and reported as a run.
    """
    rules = {name: compiled(name, section, catalog) for name, section in sections.items()}
    order = in_order(rules)
    async with db.transaction() as conn:
        await lists.lock_all(conn)
        now = clock.now()
        standing = await lists.register(
            conn, {name: (told(sections[name]), rules[name]) for name in order}, now=now
        )
        refresh = _Refresh(conn, now, rules, standing, await runs.not_loaded(conn, pulled))
        await refresh.take_touches()
        await conn.execute(f"SET LOCAL statement_timeout = '{EVALUATION_SECONDS}s'")
        for name in order:
            await refresh.bring(name, verify=verify)
        await conn.execute("SET LOCAL statement_timeout TO DEFAULT")
        await lists.note(conn, list(refresh.notes.values()), now=now)
        if verify:
            await refresh.report()
    return [refresh.told(name) for name in order]


class _Refresh:
    """One refresh of all lists, in one transaction."""

    def __init__(
        self,
        conn: Connection,
        now: datetime,
        rules: Mapping[str, Rule],
        standing: Mapping[str, lists.Standing],
        missing: Sequence[tuple[str, str]],
    ) -> None:
        self.conn, self.now, self.rules, self.standing, self.missing = conn, now, rules, standing, missing
        self.touched: dict[str, list[int] | None] = {}
        self.most = 0
        self.needs: dict[str, set[str]] = {}
        self.notes: dict[str, lists.Note] = {}
        self.looked_at: dict[str, int | None] = {}
        self.drift: list[Rejected] = []
        self.drifted = 0

    async def take_touches(self) -> None:
        await imports.recognise(self.conn)
        self.most = await touches.too_many(self.conn)
        wanted = {"contact"}.union(*(rule.reads for rule in self.rules.values()))
        self.touched = await touches.take(self.conn, wanted, self.most)

    async def bring(self, name: str, *, verify: bool) -> None:
        """Bring one list up to date; those that it uses are."""
        rule, standing = self.rules[name], self.standing[name]
        used = sorted(rule.lists & self.rules.keys())
        self.needs[name] = {"contacts", "leads", *rule.streams}.union(*(self.needs[each] for each in used))
        waits_for = tuple(
            f"{connection}/{stream}" for connection, stream in self.missing if stream in self.needs[name]
        )
        lame = next((each for each in used if self.notes[each].problem), None)
        if waits_for:
            self.notes[name] = lists.Note(standing.id, waits_for=waits_for)
        elif lame is not None:
            self._give_up(name, f"it uses {lame}, which could not be evaluated", self.notes[lame].retry_at)
        elif standing.retry_at is not None and standing.retry_at > self.now:
            self._give_up(name, standing.problem, standing.retry_at)
        else:
            try:
                async with self.conn.transaction():
                    await self._evaluate(name, rule, standing, verify=verify)
            except psycopg.errors.QueryCanceled:
                self._fail(name, f"its rule took longer than {EVALUATION_SECONDS} s")
            except (
                psycopg.DataError,
                psycopg.ProgrammingError,
                psycopg.IntegrityError,
                psycopg.InternalError,
            ) as error:
                self._fail(name, f"PostgreSQL refused its rule: {type(error).__name__}")

    def _fail(self, name: str, problem: str) -> None:
        log.error("a list could not be evaluated and was left as it is", list=name, problem=problem)
        self._give_up(name, problem, self.now + RETRY_AFTER)

    def _give_up(self, name: str, problem: str, retry_at: datetime | None) -> None:
        """Leave a list as it is. It is built anew when it is tried again, so nothing that was touched is forgotten."""
        self.notes[name] = lists.Note(self.standing[name].id, problem=problem, retry_at=retry_at)

    async def _evaluate(self, name: str, rule: Rule, standing: lists.Standing, *, verify: bool) -> None:
        due = standing.due_at is not None and standing.due_at <= self.now
        contacts = None if standing.needs_rebuild else await self._concerned(rule, standing, due=due)
        joining: list[int] = []
        leaving: list[int] = []
        if contacts is None or contacts:
            joining, leaving = await self._change(standing.id, rule, contacts)
        if verify and contacts is not None:
            lost, strange = await self._change(standing.id, rule, None, settled=True)
            self._tell_drift(name, lost, strange)
            joining, leaving = joining + lost, leaving + strange
        moved = joining + leaving
        self.touched[of_list(name)] = moved if len(moved) <= self.most else None
        self.looked_at[name] = None if contacts is None else len(contacts)
        self.notes[name] = lists.Note(
            standing.id, len(joining), len(leaving), rebuilt=contacts is None, verified=verify,
            due_at=await self._next_due(rule, standing, contacts, due=due),
        )  # fmt: skip

    async def _change(
        self, list_id: int, rule: Rule, contacts: Sequence[int] | None, *, settled: bool = False
    ) -> tuple[list[int], list[int]]:
        joining, leaving = await lists.difference(
            self.conn, list_id, rule, self.now, contacts, settled=settled
        )
        if joining or leaving:
            await lists.move(self.conn, list_id, joining, leaving, now=self.now)
        return joining, leaving

    async def _concerned(self, rule: Rule, standing: lists.Standing, *, due: bool) -> list[int] | None:
        """Of whom the rule may say something else than last time; None: too many to look at each."""
        found: set[int] = set()
        for what in rule.reads & self.touched.keys():
            touched = self.touched[what]
            if touched is None:
                return None
            found.update(touched)
        if due and standing.timed_to is not None:
            turning = await lists.turning(self.conn, rule, standing.timed_to, self.now, self.most)
            if turning is None:
                return None
            found.update(turning)
        return list(found) if len(found) <= self.most else None

    async def _next_due(
        self, rule: Rule, standing: lists.Standing, contacts: Sequence[int] | None, *, due: bool
    ) -> datetime | None:
        """When time alone may change the list next: later than before only where time was reckoned with just now."""
        if not rule.relative:
            return None
        anew = contacts is None or due
        moments = [] if anew else [standing.due_at]
        if anew or contacts:
            moments.append(await lists.next_turn(self.conn, rule, self.now, None if anew else contacts))
        if rule.moving:
            moments.append(self.now + LOOK_AFTER)
        return min((moment for moment in moments if moment is not None), default=None)

    # --- what is told ------------------------------------------------------------------------------------

    def _tell_drift(self, name: str, lost: Sequence[int], strange: Sequence[int]) -> None:
        self.drifted += len(lost) + len(strange)
        for contacts, words in (
            (lost, "belongs on it and was not"),
            (strange, "was on it and does not belong there"),
        ):
            for contact in contacts[: DRIFT_SHOWN - len(self.drift)]:
                self.drift.append(
                    Rejected(
                        object="contact",
                        id=str(contact),
                        code="DRIFT",
                        message=f"list {name}: {words}",
                        fix="it was put right; tell the makers of the hub what changed about the contact before",
                    )
                )

    async def report(self) -> None:
        """Write the comparison down as a run; it is `partial` when a row differed."""
        run_id = await runs.start(self.conn, "lists", "", "verify", now=self.now)
        await runs.reject(self.conn, run_id, self.drift, now=self.now)
        counts = runs.Counts(
            read=sum(note.verified or note.rebuilt for note in self.notes.values()), rejected=self.drifted
        )
        await runs.finish(self.conn, run_id, counts, state="done", now=self.now)
        if self.drifted:
            log.error("lists had drifted and were put right", rows=self.drifted, run=run_id)

    def told(self, name: str) -> Refreshed:
        note = self.notes[name]
        size = self.standing[name].size + note.joined - note.left
        return Refreshed(
            name,
            size,
            note.joined,
            note.left,
            tuple(note.waits_for),
            note.problem,
            self.looked_at.get(name, 0),
        )
