"""Send what is due: claimed in chunks, begun in small groups, offered to a relay, settled in group commits.

Another relay is tried only for failures before acceptance. What was lost after the end of DATA is uncertain
and stays so until something comes back of it. One bad recipient never fails the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from jinja2 import TemplateError

from hub.bounces import classify
from hub.clock import Clock
from hub.config.settings import RelaySection
from hub.errors import HubError
from hub.mail.compose import Composer, Mail, Recipient
from hub.sdk.relay import NotSent, Relay, RelaySession, Reply, UnknownOutcome
from hub.store import ledger
from hub.store.database import Database
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()

CHUNK = 400
GROUP = 20
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 60.0, 3_600.0


@dataclass
class Tally:
    """Mails by outcome."""

    accepted: int = 0
    rejected: int = 0
    uncertain: int = 0
    requeued: int = 0

    @property
    def answered(self) -> int:
        return self.accepted + self.rejected

    @property
    def total(self) -> int:
        return self.accepted + self.rejected + self.uncertain + self.requeued


class Sender:
    """Sends through the configured relays, in their order."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        composer: Composer,
        relays: Mapping[str, Relay],
        sections: Mapping[str, RelaySection],
        *,
        worker: str,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.db, self.clock, self.composer, self.relays, self.sections = db, clock, composer, relays, sections
        self.worker, self.stop = worker, stop or asyncio.Event()
        self.tally = Tally()

    async def send_due(self, purposes: Mapping[str, bool]) -> Tally:
        """Send everything that is due, until nothing is, no relay answers, or `stop` is set.

        While it runs it holds the lock of its worker's name, by which the others know that it is alive.
        """
        async with self.db.exclusive(f"worker:{self.worker}"):
            return await self._send_all(purposes)

    async def _send_all(self, purposes: Mapping[str, bool]) -> Tally:
        async with self.db.transaction() as conn:
            await ledger.recover(conn)
        while not self.stop.is_set():
            name = await self._relay_with_room()
            if name is None:
                break
            now = self.clock.now()
            async with self.db.transaction() as conn:
                claimed = await ledger.claim(conn, purposes, worker=self.worker, limit=CHUNK, now=now)
                more = bool(claimed) or await ledger.due(conn, now=now)
            if not more:
                break
            if claimed and not await self._send_chunk(claimed, name):
                break
        return self.tally

    async def _relay_with_room(self) -> str | None:
        """The first relay whose day still has room."""
        for name in self.relays:
            per_day = self.sections[name].limits.per_day
            if per_day is None:
                return name
            async with self.db.connection() as conn:
                used = await ledger.sent_since(conn, name, self.clock.now() - timedelta(days=1))
            if used < per_day:
                return name
        return None

    async def _send_chunk(self, claimed: Sequence[Claimed], first: str) -> bool:
        """Send one chunk over as many sessions as the relay may have. Returns False when no relay could be reached."""
        composed = await self._composed(claimed)
        names = [first, *(name for name in self.relays if name != first)]
        for name in names:
            waiting = asyncio.Queue[tuple[Claimed, Mail]]()
            for each in composed:
                waiting.put_nowait(each)
            sessions = min(self.sections[name].limits.connections, max(1, len(composed)))
            pace = _Pace(self.sections[name].limits.per_second)
            await asyncio.gather(*(self._sessions(name, waiting, pace) for _ in range(sessions)))
            composed = [waiting.get_nowait() for _ in range(waiting.qsize())]
            if not composed or self.stop.is_set():
                break
            log.warning("a relay is not to be reached", relay=name, left=len(composed))
        if composed:
            async with self.db.transaction() as conn:
                await ledger.release(conn, [c for c, _ in composed])
        return not composed

    async def _composed(self, claimed: Sequence[Claimed]) -> list[tuple[Claimed, Mail]]:
        """Every mail of the chunk that can be composed; the others are rejected with the reason."""
        found: list[tuple[Claimed, Mail]] = []
        failed: list[Sent] = []
        for number, each in enumerate(claimed):
            if number % 25 == 24:
                await asyncio.sleep(0)  # composing is plain work: let the others have their turn
            try:
                message = self.composer.message(each.message)
                to = Recipient(each.id, each.email, each.contact, each.deals)
                found.append((each, message.render(to, now=self.clock.now())))
            except (HubError, TemplateError, ValueError, TypeError, ArithmeticError, LookupError) as error:
                reason = (
                    f"cannot be composed: {error}"
                    if isinstance(error, HubError)
                    else f"cannot be composed: {_short(error)}"
                )
                failed.append(Sent(each.id, each.claim, "rejected", reason=reason[:500]))
        await self._settle(failed)
        return found

    async def _sessions(self, name: str, waiting: asyncio.Queue[tuple[Claimed, Mail]], pace: _Pace) -> None:
        """Sessions one after the other until the queue is empty: relays end them after some mails or some time.

        One that ends before any answer says that the relay is away.
        """
        while not self.stop.is_set() and not waiting.empty():
            before = self.tally.answered
            await self._session(name, waiting, pace)
            if self.tally.answered == before:
                return

    async def _session(self, name: str, waiting: asyncio.Queue[tuple[Claimed, Mail]], pace: _Pace) -> None:
        """One session taking groups from the queue. What it did not begin goes back into the queue."""
        group: list[tuple[Claimed, Mail]] = []
        try:
            async with self.relays[name].session() as session:
                while not self.stop.is_set():
                    group = [waiting.get_nowait() for _ in range(min(GROUP, waiting.qsize()))]
                    if not group:
                        return
                    group = await self._send_group(name, session, group, pace)
        except NotSent as error:
            log.warning("a relay's session ended", relay=name, reason=error.what)
        finally:
            for each in group:
                waiting.put_nowait(each)

    async def _send_group(
        self, name: str, session: RelaySession, group: Sequence[tuple[Claimed, Mail]], pace: _Pace
    ) -> list[tuple[Claimed, Mail]]:
        """Begin (committed), offer, settle. Returns what was not offered, should the session end early."""
        async with self.db.transaction() as conn:
            ours = await ledger.begin(
                conn,
                [c for c, _ in group],
                {c.id: m.message_id for c, m in group},
                {c.id: m.subject for c, m in group},
                name,
            )
        outcomes: list[Sent] = []
        todo = [(c, m) for c, m in group if c.id in ours]
        offering = True  # whether the first of `todo` is being offered
        try:
            while todo:
                await pace.turn()
                claimed, mail = todo[0]
                try:
                    reply = await session.send(mail.return_path, claimed.email, mail.content)
                    outcomes.append(_outcome(claimed, mail, name, reply))
                except UnknownOutcome as error:
                    outcomes.append(
                        Sent(claimed.id, claimed.claim, "uncertain", name, mail.message_id, reason=error.what)
                    )
                    todo.pop(0)
                    offering = False
                    raise NotSent(error.what) from None
                todo.pop(0)
        except NotSent as error:
            # Begun, but nothing of these reached the relay: they go back, to be tried on another session soon.
            outcomes += [
                Sent(
                    c.id,
                    c.claim,
                    "queued",
                    name,
                    reason=error.what,
                    retry_seconds=1.0,
                    offered=offering and not n,
                )
                for n, (c, _) in enumerate(todo)
            ]
            raise
        finally:
            await self._settle(outcomes)
        return []

    async def _settle(self, outcomes: Sequence[Sent]) -> None:
        if not outcomes:
            return
        await self.db.repeated(lambda conn: ledger.settle(conn, outcomes, now=self.clock.now()))
        for outcome in outcomes:
            kind = "requeued" if outcome.state == "queued" else outcome.state
            setattr(self.tally, kind, getattr(self.tally, kind) + 1)


def _outcome(claimed: Claimed, mail: Mail, relay: str, reply: Reply) -> Sent:
    """What a relay's reply means for the ledger."""
    about: dict[str, Any] = {
        "relay": relay, "message_id": mail.message_id, "subject": mail.subject, "reply_code": reply.code,
        "reply_text": reply.text[:500],
    }  # fmt: skip
    if reply.accepted:
        return Sent(claimed.id, claimed.claim, "accepted", **about)
    if reply.temporary:
        pause = min(FIRST_RETRY_SECONDS * 2.0 ** (claimed.attempts - 1), LAST_RETRY_SECONDS)
        return Sent(
            claimed.id,
            claimed.claim,
            "queued",
            **about,
            reason="the relay asked to try later",
            retry_seconds=pause,
        )
    return Sent(
        claimed.id, claimed.claim, "rejected", **about, reason="refused by the relay", bounce=_refusal(reply)
    )


def _refusal(reply: Reply) -> dict[str, object]:
    """The detail of the `bounced` event that a permanent refusal is."""
    kind = classify(code=reply.code, enhanced=reply.enhanced, text=reply.text, stage=reply.stage)
    return {
        "class": kind.value,
        "code": reply.code,
        "enhanced": reply.enhanced,
        "reason": reply.text[:500],
        "stage": reply.stage,
    }


def _short(error: Exception) -> str:
    """An error's kind and words, without values of the contact that it may quote."""
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if isinstance(error, TemplateError)
        else type(error).__name__
    )


class _Pace:
    """At most so many turns a second, spread evenly."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1.0 / per_second if per_second else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        if not self._gap:
            return
        now = time.monotonic()
        self._next = max(self._next, now) + self._gap
        if self._next - self._gap > now:
            await asyncio.sleep(self._next - self._gap - now)
