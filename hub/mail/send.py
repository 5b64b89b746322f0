"""Send what is due: claimed in chunks, composed, begun in groups, offered to relays, settled in group commits.

    ledger --claim--> compose (sign) --begin--> lane --sessions--> relay
       ^------------------ settle <------------- fates

Another relay is tried only for failures before acceptance. What was lost after the end of DATA is uncertain
and stays so until something comes back of it. One bad recipient never fails the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from jinja2 import TemplateError

from hub.clock import Clock
from hub.config.settings import RelaySection
from hub.errors import HubError
from hub.mail.compose import Composer, Recipient
from hub.mail.dkim import Signer
from hub.mail.lane import AHEAD, Begun, Lane
from hub.sdk.relay import Offer, Relay
from hub.store import ledger
from hub.store.database import Database
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()

CHUNK = 1_000
GROUP = 200
"""Mails that are begun in one commit."""
SETTLE_SECONDS = 0.02
RENEW_SECONDS = ledger.LEASE_SECONDS / 4


@dataclass
class Tally:
    """Mails by outcome."""

    accepted: int = 0
    rejected: int = 0
    uncertain: int = 0
    requeued: int = 0

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
        signer: Signer | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.db, self.clock, self.composer, self.sections = db, clock, composer, sections
        self.worker, self.signer, self.stop = worker, signer, stop or asyncio.Event()
        self.tally = Tally()
        self._progress = asyncio.Event()
        self._lanes = {
            name: Lane(relay, sections[name], self._progress.set) for name, relay in relays.items()
        }
        self._open = 0  # mails that are claimed and not settled
        self._fates: list[Sent] = []

    async def send_due(self, purposes: Mapping[str, bool]) -> Tally:
        """Send everything that is due, until nothing is, no relay answers, or `stop` is set.

        While it runs it holds the lock of its worker's name, by which the others know that it is alive.
        """
        async with self.db.exclusive(f"worker:{self.worker}"):
            async with self.db.transaction() as conn:
                await ledger.recover(conn)
            async with asyncio.TaskGroup() as tasks:
                settling = tasks.create_task(self._settle_for_ever())
                stopping = tasks.create_task(self._close_on_stop())
                try:
                    await self._send(purposes)
                finally:
                    stopping.cancel()
                    await self._wind_up()
                    settling.cancel()
            await self._settle()
        return self.tally

    # --- from the ledger to the lanes -----------------------------------------------------------------------

    async def _send(self, purposes: Mapping[str, bool]) -> None:
        while not self.stop.is_set() and await self._room_of_the_day():
            claimed = await self._claim(purposes)
            if claimed:
                await self._offer_all(claimed)
            elif self._open == 0:
                return
            else:
                await self._until(lambda: self._open == 0)
            if self._lane() is None:
                return

    async def _claim(self, purposes: Mapping[str, bool]) -> list[Claimed]:
        """The next mails; none when nothing is due."""
        while True:
            now = self.clock.now()
            async with self.db.transaction() as conn:
                claimed = await ledger.claim(conn, purposes, worker=self.worker, limit=CHUNK, now=now)
                if claimed or not await ledger.due(conn, now=now):
                    self._open += len(claimed)
                    return claimed

    async def _offer_all(self, claimed: Sequence[Claimed]) -> None:
        """Compose, begin and offer a chunk, group by group; what cannot be offered now is given back."""
        left = list(claimed)
        while left and not self.stop.is_set() and self._lane() is not None:
            group, left = left[:GROUP], left[GROUP:]
            await self._offer(await self._composed(group))
            await self._until(lambda: self._waiting <= AHEAD)
        if left:
            await self.db.repeated(lambda conn: ledger.release(conn, left))
            self._open -= len(left)

    async def _offer(self, mails: Sequence[Begun]) -> None:
        """Begin mails with the first relay that is not away, and hand them to its lane."""
        lane = self._lane()
        if lane is None:
            self._give_back(mails, "no relay is to be reached")
            return
        pairs = [(mail.claimed, mail.subject) for mail in mails]
        ours = await self.db.repeated(lambda conn: ledger.begin(conn, pairs, lane.name))
        self._open -= len(mails) - len(ours)
        lane.put(mail for mail in mails if mail.claimed.id in ours)

    def _lane(self) -> Lane | None:
        """The first lane whose relay is not away."""
        return next((lane for lane in self._lanes.values() if not lane.away), None)

    def _give_back(self, mails: Sequence[Begun], reason: str) -> None:
        """Nothing of these was offered: they wait for the next round as if they had never been claimed."""
        self._fates += [
            Sent(c.id, c.claim, "queued", reason=reason, retry_seconds=1.0, offered=False)
            for c, _, _ in mails
        ]
        self._progress.set()

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so, or the hub stops. What stands before a relay that is away goes to the next one."""
        while not reached() and not self.stop.is_set():
            stranded = next((lane for lane in self._lanes.values() if lane.away and lane.waiting), None)
            if stranded is None:
                self._progress.clear()
                await self._progress.wait()
            else:
                log.warning("a relay is not to be reached", relay=stranded.name, left=stranded.waiting)
                await self._offer(stranded.take_back())

    @property
    def _waiting(self) -> int:
        return sum(lane.waiting for lane in self._lanes.values())

    async def _room_of_the_day(self) -> bool:
        """Whether any relay's day still has room; one whose day is over is left out."""
        for name, lane in self._lanes.items():
            per_day = self.sections[name].limits.per_day
            if per_day is None or lane.away:
                continue
            await self._until(lambda: self._open == 0)
            async with self.db.connection() as conn:
                used = await ledger.sent_since(conn, name, self.clock.now() - timedelta(days=1))
            if used >= per_day:
                lane.failure = "its day is over"
        return self._lane() is not None

    # --- composing --------------------------------------------------------------------------------------------

    async def _composed(self, claimed: Sequence[Claimed]) -> list[Begun]:
        """Every mail that can be composed; the others are rejected with the reason."""
        found: list[Begun] = []
        for name in dict.fromkeys(each.message for each in claimed):
            found += await self._composed_of(name, [each for each in claimed if each.message == name])
        if self.signer is not None and found:
            signed = await self.signer.sign_all([mail.offer.content for mail in found])
            found = [
                mail._replace(offer=mail.offer._replace(content=content))
                for mail, content in zip(found, signed, strict=True)
            ]
        return found

    async def _composed_of(self, name: str, claimed: Sequence[Claimed]) -> list[Begun]:
        try:
            message = self.composer.message(name)
        except HubError as error:
            for each in claimed:
                self._reject(each, str(error))
            return []
        async with self.db.connection() as conn:
            people = await ledger.people(
                conn, [each.contact_id for each in claimed], message.fields, deals=message.needs_deals
            )
        now = self.clock.now()
        found: list[Begun] = []
        for each in claimed:
            try:
                contact, deals = people[each.contact_id]
                mail = message.render(Recipient(each.id, each.email, contact, deals), now=now)
            except (HubError, TemplateError, ValueError, TypeError, ArithmeticError, LookupError) as error:
                self._reject(each, str(error) if isinstance(error, HubError) else _short(error))
            else:
                offer = Offer(each.id, mail.return_path, each.email, mail.content)
                found.append(Begun(each, mail.subject, offer))
        return found

    def _reject(self, claimed: Claimed, reason: str) -> None:
        self._fates.append(
            Sent(claimed.id, claimed.claim, "rejected", reason=f"cannot be composed: {reason}"[:500])
        )
        self._progress.set()

    # --- from the lanes to the ledger ---------------------------------------------------------------------------

    async def _settle_for_ever(self) -> None:
        """Group commits of what has become of mails, and leases renewed while they wait."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            await self._settle()
            if time.monotonic() - renewed > RENEW_SECONDS:
                await self.db.repeated(lambda conn: ledger.renew(conn, self.worker))
                renewed = time.monotonic()

    async def _settle(self) -> None:
        fates, self._fates = self._fates, []
        for lane in self._lanes.values():
            fates += lane.fates
            lane.fates = []
        if not fates:
            return
        await self.db.repeated(lambda conn: ledger.settle(conn, fates, now=self.clock.now()))
        for state, count in Counter(fate.state for fate in fates).items():
            kind = "requeued" if state == "queued" else state
            setattr(self.tally, kind, getattr(self.tally, kind) + count)
        self._open -= len(fates)
        self._progress.set()

    async def _close_on_stop(self) -> None:
        await self.stop.wait()
        self._progress.set()

    async def _wind_up(self) -> None:
        """Let every session answer for what it has taken; the rest goes back."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        for lane in self._lanes.values():
            self._give_back(lane.take_back(), "the hub stopped before it was offered")


def _short(error: Exception) -> str:
    """An error's kind and words, without values of the contact that it may quote."""
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        if isinstance(error, TemplateError)
        else type(error).__name__
    )
