"""One relay's way out: mails that are composed and wait, the sessions that take them, and what became of each.

A lane is the `Source` of its sessions. Mails go in at one end (`put`), fates come out at the other (`fates`), and
each mail that went in comes out once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import structlog

from hub.bounces import classify
from hub.mail.journal import Journal
from hub.mail.way import Way
from hub.sdk.relay import NotSent, Offer, Pipelining, Relay, Reply
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 60.0, 3_600.0
AHEAD, MOST_WAITING = 200, 400
"""Mails that wait for a session before more are composed; and together with those that wait for their receiver."""
PARKED_SECONDS = 5.0
MAX_OFFERS = 3
"""A mail whose offer ends that many sessions waits like one that was refused: it may be what ends them."""


Known = tuple[Claimed, str, str]
"""What the hub knows of an offer, its `note`: the mail, its subject, and the recipient's domain in lower case."""


class Lane:
    """The sessions of one relay. `progress` is called when there is room for more, and when a session has ended."""

    def __init__(self, relay: Relay, way: Way, journal: Journal, progress: Callable[[], None]) -> None:
        self.relay, self.way, self.journal, self.name = relay, way, journal, relay.name
        self.places = 0  # reserved in the relay's windows for mails to come
        self.fates: list[Sent] = []
        self.failure = ""  # why the last session gave nothing; empty while the relay works
        self._progress = progress
        self._ready: deque[Offer] = deque()
        self._parked: dict[str, _Parked] = {}  # by domain: their receiver takes no more at the moment
        self._offers: dict[int, int] = {}
        self._answers = 0
        self._proved = False  # an answer came since the last failure
        self._closing = False
        self._fresh = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()
        relay.pipelining = cast("Pipelining | None", way.pipelining)
        way.unlearn = self._unlearn

    @property
    def ready(self) -> int:
        """Mails that a session may take now."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """Mails that no session has taken yet."""
        return len(self._ready) + sum(len(parked.offers) for parked in self._parked.values())

    @property
    def away(self) -> bool:
        """Whether the relay is not to be reached: no session may be opened, or the last one failed and none is left."""
        return not self._sessions and (bool(self.failure) or not self.way.usable())

    def put(self, offers: Iterable[Offer]) -> None:
        """Take in mails, each `Known`, and open sessions for them."""
        self._ready += offers
        self._fresh.set()
        while not self._closing and len(self._sessions) < min(self.way.sessions(), self.waiting):
            session = asyncio.create_task(self._session())
            self._sessions.add(session)
            session.add_done_callback(self._ended)

    def take_back(self) -> list[Offer]:
        """Everything that no session has taken, to be offered elsewhere or given back."""
        found = [offer for each in self._parked.values() for offer in each.offers] + [*self._ready]
        self._parked.clear()
        self._ready.clear()
        return found

    async def close(self) -> None:
        """Let the sessions answer for what they have taken, then end them."""
        self._closing = True
        self._fresh.set()
        if self._sessions:
            await asyncio.wait(self._sessions)

    # --- sessions ----------------------------------------------------------------------------------------

    def _unlearn(self) -> None:
        self.relay.pipelining = None

    async def _session(self) -> None:
        """Sessions one after the other: relays end them after some mails or some time. One without any answer says that
        the relay is away."""
        while self.waiting and not self._closing and self.way.usable():
            before = self._answers
            try:
                async with self.relay.session() as session:
                    self.failure = ""
                    await session.run(self)
            except NotSent as error:
                log.warning("a relay's session ended", relay=self.name, reason=error.what)
                if self._answers == before:
                    self._failed(error.what, login=error.login)
                    return
            finally:
                self.way.pipelining = self.relay.pipelining

    def _failed(self, reason: str, *, login: bool = False) -> None:
        self.failure, self._proved = reason, False
        self.way.session_failed(reason, login=login)

    def _ended(self, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        if not session.cancelled() and (error := session.exception()) is not None:
            log.error("a relay's session failed", relay=self.name, exc_info=error)
            self._failed(f"{type(error).__name__} within the session")
        self._progress()

    # --- as a source -------------------------------------------------------------------------------------

    def next(self) -> Offer | None:
        if self._closing:
            return None
        if self._parked and (offer := self._unparked()) is not None:
            return offer
        ready = self._ready
        while ready:
            if len(ready) == AHEAD:
                self._progress()
            offer = ready.popleft()
            domain = offer.note[2]
            if domain in self._parked:
                self._parked[domain].offers.append(offer)
                continue
            wait = self.way.wait_seconds(domain)
            if not wait:
                return offer
            self._park(domain, offer, wait)
        return None

    async def more(self) -> bool:
        while not self._closing:
            if self._ready:
                return True
            self._fresh.clear()
            if not self._parked:
                await self._fresh.wait()
                continue
            pause = min(parked.until for parked in self._parked.values()) - time.monotonic()
            if pause <= 0:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._fresh.wait(), pause)
        return False

    def begun(self, offer: Offer) -> None:
        claimed, subject, _ = offer.note
        self.journal.offered(claimed.id, claimed.claim, self.name, subject)

    def answered(self, offer: Offer, reply: Reply) -> None:
        claimed, subject, domain = offer.note
        self.journal.answered(claimed.id, reply.code, reply.text)
        self._answers += 1
        if not self._proved:
            self._proved = True
            self.way.session_worked()
        self.way.told(domain, reply)
        self.fates.append(fate(claimed, subject, self.name, reply))

    def unsent(self, offer: Offer, reason: str) -> None:
        claimed, _, domain = offer.note
        self.journal.forget([offer.id])
        self.way.unsent(domain)
        tries = self._offers[offer.id] = self._offers.get(offer.id, 0) + 1
        if tries < MAX_OFFERS:
            self._ready.appendleft(offer)
            return
        del self._offers[offer.id]
        self.fates.append(
            Sent(claimed.id, claimed.claim, "queued", self.name, reason=reason, retry_seconds=pause(claimed))
        )

    def unknown(self, offer: Offer, reason: str) -> None:
        claimed, subject, domain = offer.note
        self.way.unknown(domain)
        self.fates.append(
            Sent(claimed.id, claimed.claim, "uncertain", self.name, reason=reason, subject=subject)
        )

    # --- receivers that take no more now ---------------------------------------------------------------------

    def _park(self, domain: str, offer: Offer, wait: float) -> None:
        """Set a mail aside for a moment; one that would wait long goes back, so that others can come."""
        if wait <= PARKED_SECONDS:
            self._parked[domain] = _Parked(time.monotonic() + wait, deque([offer]))
            return
        claimed = offer.note[0]
        reason = "the relay or the receiver takes no more at the moment"
        self.fates.append(
            Sent(
                claimed.id,
                claimed.claim,
                "queued",
                self.name,
                reason=reason,
                retry_seconds=wait,
                offered=False,
            )
        )

    def _unparked(self) -> Offer | None:
        """The first mail that was set aside and may go now."""
        now = time.monotonic()
        for domain, parked in self._parked.items():
            if parked.until > now:
                continue
            wait = self.way.wait_seconds(domain)
            if wait:
                parked.until = now + wait
                continue
            offer = parked.offers.popleft()
            if not parked.offers:
                del self._parked[domain]
            return offer
        return None


@dataclass
class _Parked:
    """Mails to one domain, and when to ask again (monotonic)."""

    until: float
    offers: deque[Offer]


def pause(claimed: Claimed) -> float:
    """How long a mail waits before its next try, in seconds: doubled with each."""
    return float(min(FIRST_RETRY_SECONDS * 2.0 ** (claimed.attempts - 1), LAST_RETRY_SECONDS))


def fate(claimed: Claimed, subject: str, relay: str, reply: Reply) -> Sent:
    """What a relay's reply means for the ledger."""
    code, text, stage, _ = reply
    text = text[:500]
    if stage == "data" and 200 <= code < 300:  # `reply.accepted`: most of them
        return Sent(claimed.id, claimed.claim, "accepted", relay, code, text, "", subject)
    if reply.temporary:
        return Sent(
            claimed.id, claimed.claim, "queued", relay, reply.code, text, "the relay asked to try later", subject, pause(claimed)
        )  # fmt: skip
    kind = classify(code=reply.code, enhanced=reply.enhanced, text=reply.text, stage=reply.stage)
    bounce = {
        "class": kind.value, "code": reply.code, "enhanced": reply.enhanced, "reason": text, "stage": reply.stage,
    }  # fmt: skip
    return Sent(
        claimed.id, claimed.claim, "rejected", relay, reply.code, text, "refused by the relay", subject, bounce=bounce
    )  # fmt: skip
