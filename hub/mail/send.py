"""Send what is due: claimed in chunks, composed in groups, offered to relays, settled in group commits.

    ledger --claim--> compose (sign) --> lane --sessions--> relay
       ^---------------- settle <-------- fates

Another relay is tried only for failures before acceptance. What was lost after the end of DATA is uncertain
and stays so until something comes back of it. One bad recipient never fails the others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from hub.clock import Clock
from hub.errors import HubError
from hub.mail.compose import UNCOMPOSABLE, Composer, Message, Recipient, why_not
from hub.mail.dkim import Signer
from hub.mail.gates import Gates
from hub.mail.journal import Journal
from hub.mail.journal import folder as journal_folder
from hub.mail.lane import AHEAD, MOST_WAITING, Known, Lane
from hub.mail.recovery import recover
from hub.mail.traffic import Traffic
from hub.sdk.relay import Offer, Relay
from hub.store import ledger
from hub.store.database import Database, Line
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()

CHUNK = 500
"""Mails that are claimed in one commit. Where no journal can be believed, a crash leaves all that is claimed uncertain."""
GROUP = 64
"""Mails that are composed (and signed) together: few, so that they are still in the processor's cache when they leave."""
SETTLE_SECONDS, SETTLE_MAILS = 0.1, 250
"""What became of mails is recorded after so long, or so many, or when nothing else is under way."""
TICK_SECONDS = 0.01
FLUSH_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""When a mail that no relay may carry now is looked at again."""
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


Addressed = tuple[Claimed, Message, Recipient]
"""A claimed mail and for whom its message is to be composed."""


class Sender:
    """Sends through the configured relays: which one carries a mail, and how fast, is `Traffic`'s to say."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        composer: Composer,
        relays: Mapping[str, Relay],
        traffic: Traffic,
        *,
        worker: str,
        signer: Signer | None = None,
        gates: Gates | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.db, self.clock, self.composer, self.relays = db, clock, composer, relays
        self.worker, self.signer, self.gates, self.stop = worker, signer, gates, stop or asyncio.Event()
        self.tally = Tally()
        self.traffic = traffic
        self.journal = Journal(journal_folder(), worker)
        self._lanes: dict[str, Lane] = {}
        self._progress = asyncio.Event()
        self._over = False
        self._reading: Line
        self._writing: Line
        self._open = 0  # mails that are claimed and not settled
        self._fates: list[Sent] = []
        self._bars: dict[
            tuple[str, str], tuple[str, float]
        ] = {}  # what gates said, and until when it is believed
        self._barred: set[str] = set()  # messages that the gates keep back

    async def send_due(self, purposes: Mapping[str, bool]) -> Tally:
        """Send everything that is due, until nothing is, no relay answers, or `stop` is set.

        While it runs it holds the lock of its worker's name, by which the others know that it is alive. What this
        worker itself left behind, should its last round have failed, is taken back first.
        """
        await recover(self.db, self.clock, self.journal.path.parent)
        async with (
            self.db.exclusive(f"worker:{self.worker}"),
            self.traffic,
            self.db.line() as self._reading,
            self.db.line() as self._writing,
        ):
            for name, relay in self.relays.items():
                self._lanes[name] = Lane(relay, self.traffic.way(name), self.journal, self._progress.set)
            await self._ask_for_probes()
            with self.journal:
                try:
                    await self._send_and_settle(purposes)
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None
        return self.tally

    async def _send_and_settle(self, purposes: Mapping[str, bool]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle_until_over())
            stopping = tasks.create_task(self._close_on_stop())
            try:
                await self._send(purposes)
            finally:
                await self._wind_up()
                self._over = True
                stopping.cancel()

    # --- from the ledger to the lanes -----------------------------------------------------------------------

    async def _send(self, purposes: Mapping[str, bool]) -> None:
        while not self.stop.is_set():
            room = await self._room()
            claimed = await self._claim(purposes, min(CHUNK, room)) if room else []
            if claimed:
                await self._offer_all(claimed)
            elif self._open == 0:
                return
            else:
                await self._until(lambda: self._open == 0)

    async def _ask_for_probes(self) -> None:
        """A relay that is left alone is tried again when its pause is over: by one worker, with one session."""
        alone = [lane for lane in self._lanes.values() if not lane.way.usable()]
        for lane in alone:
            lane.way.breaker.leads()
        if alone:
            await self.traffic.flush()

    async def _room(self) -> int:
        """How many mails the relays may be given now, all together; their places are reserved."""
        room = 0
        for name, lane in self._lanes.items():
            if not lane.away:
                lane.places += await self.traffic.reserve(name, max(0, CHUNK - lane.places))
                room += lane.places
        return room

    async def _claim(self, purposes: Mapping[str, bool], limit: int) -> list[Claimed]:
        """The next mails; none when nothing is due."""
        while True:
            now = self.clock.now()
            claimed = await self._reading.do(
                partial(
                    ledger.claim,
                    purposes=purposes,
                    worker=self.worker,
                    limit=limit,
                    now=now,
                    without=self._barred,
                )
            )
            if claimed or not await self._reading.do(partial(ledger.due, now=now, without=self._barred)):
                self._open += len(claimed)
                return claimed

    async def _offer_all(self, claimed: Sequence[Claimed]) -> None:
        """Compose and offer a chunk, group by group; what cannot be offered now is given back."""
        left = await self._known_people(claimed)
        while left and not self.stop.is_set() and not all(lane.away for lane in self._lanes.values()):
            group, left = left[:GROUP], left[GROUP:]
            await self._offer(await self._composed(group))
            if not self._hungry:
                await self._until(lambda: self._hungry)
        if left:
            await self._reading.do(partial(ledger.release, rows=[each for each, _, _ in left]), attempts=5)
            self._open -= len(left)

    async def _offer(self, offers: Sequence[Offer]) -> None:
        """Hand each mail to the lane of the relay that is to carry it."""
        for message in {claimed.message for claimed, _, _ in (offer.note for offer in offers)}:
            for relay in self._lanes:
                await self._ask_gates(message, relay)
        lots: dict[str, list[Offer]] = {}
        for offer in offers:
            name = self._relay_for(offer)
            if name is not None:
                lots.setdefault(name, []).append(offer)
        for name, lot in lots.items():
            self._lanes[name].put(lot)

    def _relay_for(self, offer: Offer) -> str | None:
        """The first relay on the mail's route that is not away, has a place and is let through by the gates; else the
        mail goes back, with the reason."""
        to: Claimed = offer.note[0]
        domain = self.composer.message(to.message).from_domain
        reason, pause = "no relay serves it; see `serves` in hub.yaml", AGAIN_SECONDS
        for name in self.traffic.routes(to.purpose, domain, to.country, to.id):
            lane = self._lanes[name]
            if lane.away:
                reason, pause = f"relay {name} is not to be reached", 1.0
            elif lane.places <= 0:
                reason, pause = (
                    f"relay {name} takes no more at the moment",
                    self.traffic.room_in_seconds(name),
                )
            elif bar := self._bars[to.message, name][0]:
                reason = bar
                self._barred.add(to.message)
            else:
                lane.places -= 1
                self._barred.discard(to.message)
                return name
        self._give_back([offer], reason[:500], pause)
        return None

    async def _ask_gates(self, message: str, relay: str) -> None:
        """Find out which gates keep a message from going out by a relay: empty when none does."""
        if self.gates is None:
            self._bars[message, relay] = "", math.inf
        elif (message, relay) not in self._bars or time.monotonic() >= self._bars[message, relay][1]:
            verdict = await self.gates.verdict(message, relay)
            bar = "" if verdict.ok else "; ".join(str(f) for f in verdict.reasons if f.bars)
            self._bars[message, relay] = bar, time.monotonic() + FLUSH_SECONDS

    def _give_back(self, offers: Sequence[Offer], reason: str, pause_seconds: float) -> None:
        """Nothing of these was offered: they wait as if they had never been claimed."""
        self._fates += [
            Sent(c.id, c.claim, "queued", reason=reason, retry_seconds=pause_seconds, offered=False)
            for c, _, _ in (offer.note for offer in offers)
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
    def _hungry(self) -> bool:
        """Whether the lanes may have more."""
        lanes = self._lanes.values()
        return (
            sum(lane.ready for lane in lanes) <= AHEAD * len(lanes)
            and sum(lane.waiting for lane in lanes) <= MOST_WAITING
        )

    # --- composing --------------------------------------------------------------------------------------------

    async def _known_people(self, claimed: Sequence[Claimed]) -> list[Addressed]:
        """Each with what its message says of the contact. Those whose message is a mistake are rejected."""
        found: list[Addressed] = []
        for name in dict.fromkeys(each.message for each in claimed):
            ours = [each for each in claimed if each.message == name]
            try:
                message = self.composer.message(name)
            except HubError as error:
                for each in ours:
                    self._reject(each, str(error))
                continue
            ids = [each.contact_id for each in ours]
            people = await self._reading.do(
                partial(ledger.people, ids=ids, fields=message.fields, deals=message.needs_deals), attempts=5
            )
            for each in ours:
                if (known := people.get(each.contact_id)) is not None:
                    found.append((each, message, Recipient(each.id, each.email, *known)))
                else:
                    self._reject(each, "its contact is gone")
        return found

    async def _composed(self, people: Sequence[Addressed]) -> list[Offer]:
        """Every mail that can be composed; the others are rejected with the reason."""
        now = self.clock.now()
        found: list[Offer] = []
        for claimed, message, to in people:
            try:
                content, _, return_path, subject, _, plain = message.render(to, now=now)
            except UNCOMPOSABLE as error:
                self._reject(claimed, why_not(error))
            else:
                known: Known = (claimed, subject, to.email.rpartition("@")[2].lower())
                found.append(Offer(claimed.id, return_path, to.email, content, plain, known))
        if self.signer is not None and found:
            signed = await self.signer.sign_all([offer.content for offer in found])
            found = [offer._replace(content=content) for offer, content in zip(found, signed, strict=True)]
        return found

    def _reject(self, claimed: Claimed, reason: str) -> None:
        self._fates.append(
            Sent(claimed.id, claimed.claim, "rejected", reason=f"cannot be composed: {reason}"[:500])
        )
        self._progress.set()

    # --- from the lanes to the ledger ---------------------------------------------------------------------------

    async def _settle_until_over(self) -> None:
        """Group commits of what has become of mails; leases renewed while they wait; word with the other workers."""
        settled = renewed = told = time.monotonic()
        while not self._over or self._known:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            known = self._known
            if known and (now - settled >= SETTLE_SECONDS or known >= SETTLE_MAILS or known == self._open):
                await self._settle()
                settled = time.monotonic()
            if now - told > FLUSH_SECONDS:
                await self.traffic.flush()
                told = time.monotonic()
            if now - renewed > RENEW_SECONDS:
                await self._writing.do(partial(ledger.renew, worker=self.worker), attempts=5)
                renewed = time.monotonic()

    @property
    def _known(self) -> int:
        """Mails of which is known what became of them, and not recorded yet."""
        return len(self._fates) + sum(len(lane.fates) for lane in self._lanes.values())

    async def _settle(self) -> None:
        fates, self._fates = self._fates, []
        for lane in self._lanes.values():
            fates += lane.fates
            lane.fates = []
        if not fates:
            return
        now = self.clock.now()
        await self._writing.do(lambda conn: ledger.settle(conn, fates, now=now), attempts=5)
        self.journal.forget(fate.id for fate in fates)
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
            self._give_back(lane.take_back(), "the hub stopped before it was offered", 0.0)
            self.traffic.give_back(lane.name, lane.places)
