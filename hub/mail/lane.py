"""One relay's way out: mails that are begun and wait, the sessions that take them, and what became of each.

A lane is the `Source` of its sessions. Mails go in at one end (`put`), fates come out at the other (`fates`), and
each mail that went in comes out once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from hub.bounces import classify
from hub.config.settings import RelaySection
from hub.sdk.relay import NotSent, Offer, Relay, Reply
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 60.0, 3_600.0
AHEAD = 400
"""Mails that wait for a session at most: what a crash leaves uncertain is what was begun."""
MAX_OFFERS = 3
"""A mail whose offer ends that many sessions waits like one that was refused: it may be what ends them."""


class Begun(NamedTuple):
    """A mail that the ledger knows to be on its way."""

    claimed: Claimed
    subject: str
    offer: Offer


class Lane:
    """The sessions of one relay. `progress` is called when there is room for more, and when a session has ended."""

    def __init__(self, relay: Relay, section: RelaySection, progress: Callable[[], None]) -> None:
        self.relay, self.section, self.name = relay, section, relay.name
        self.fates: list[Sent] = []
        self.failure = ""  # why the last session gave nothing; empty while the relay works
        self._progress = progress
        self._ready: deque[Offer] = deque()
        self._begun: dict[int, Begun] = {}
        self._offers: dict[int, int] = {}
        self._answers = 0
        self._closing = False
        self._fresh = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()
        self._pace = Pace(section.limits.per_second)

    @property
    def waiting(self) -> int:
        """Mails that no session has taken yet."""
        return len(self._ready)

    @property
    def away(self) -> bool:
        """Whether the relay was not to be reached, and no session is left that could still reach it."""
        return bool(self.failure) and not self._sessions

    def put(self, mails: Iterable[Begun]) -> None:
        """Take in mails that are begun in the ledger, and open sessions for them."""
        for mail in mails:
            self._begun[mail.offer.id] = mail
            self._ready.append(mail.offer)
        self._fresh.set()
        while not self._closing and len(self._sessions) < min(
            self.section.limits.connections, len(self._ready)
        ):
            session = asyncio.create_task(self._session())
            self._sessions.add(session)
            session.add_done_callback(self._ended)

    def take_back(self) -> list[Begun]:
        """Everything that no session has taken, to be offered elsewhere or given back."""
        found = [self._begun.pop(offer.id) for offer in self._ready]
        self._ready.clear()
        return found

    async def close(self) -> None:
        """Let the sessions answer for what they have taken, then end them."""
        self._closing = True
        self._fresh.set()
        if self._sessions:
            await asyncio.wait(self._sessions)

    # --- sessions ----------------------------------------------------------------------------------------

    async def _session(self) -> None:
        """Sessions one after the other: relays end them after some mails or some time. One without any answer says that
        the relay is away."""
        while self._ready and not self._closing:
            before = self._answers
            try:
                async with self.relay.session() as session:
                    self.failure = ""
                    await session.run(self)
            except NotSent as error:
                log.warning("a relay's session ended", relay=self.name, reason=error.what)
                if self._answers == before:
                    self.failure = error.what
                    return

    def _ended(self, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        if not session.cancelled() and (error := session.exception()) is not None:
            log.error("a relay's session failed", relay=self.name, exc_info=error)
            self.failure = f"{type(error).__name__} within the session"
        self._progress()

    # --- as a source -------------------------------------------------------------------------------------

    def next(self) -> Offer | None:
        if self._closing or not self._ready or not self._pace.turn():
            return None
        if len(self._ready) == AHEAD:
            self._progress()
        return self._ready.popleft()

    async def more(self) -> bool:
        while not self._closing:
            if self._ready:
                if (pause := self._pace.seconds()) <= 0:
                    return True
                await asyncio.sleep(pause)
                continue
            self._fresh.clear()
            await self._fresh.wait()
        return False

    def begun(self, offer: Offer) -> None:
        """Nothing to note: the ledger says `sending` already."""

    def answered(self, offer: Offer, reply: Reply) -> None:
        self._answers += 1
        claimed = self._begun.pop(offer.id).claimed
        if reply.accepted:
            fate = Sent(claimed.id, claimed.claim, "accepted", self.name, reply.code, reply.text[:500])
        else:
            fate = _refused(claimed, self.name, reply)
        self.fates.append(fate)

    def unsent(self, offer: Offer, reason: str) -> None:
        tries = self._offers[offer.id] = self._offers.get(offer.id, 0) + 1
        if tries < MAX_OFFERS:
            self._ready.appendleft(offer)
            return
        claimed = self._begun.pop(offer.id).claimed
        self.fates.append(
            Sent(claimed.id, claimed.claim, "queued", self.name, reason=reason, retry_seconds=pause(claimed))
        )

    def unknown(self, offer: Offer, reason: str) -> None:
        claimed = self._begun.pop(offer.id).claimed
        self.fates.append(Sent(claimed.id, claimed.claim, "uncertain", self.name, reason=reason))


def pause(claimed: Claimed) -> float:
    """How long a mail waits before its next try, in seconds: doubled with each."""
    return float(min(FIRST_RETRY_SECONDS * 2.0 ** (claimed.attempts - 1), LAST_RETRY_SECONDS))


def _refused(claimed: Claimed, relay: str, reply: Reply) -> Sent:
    """What a relay's refusal means for the ledger."""
    text = reply.text[:500]
    if reply.temporary:
        return Sent(
            claimed.id, claimed.claim, "queued", relay, reply.code, text, "the relay asked to try later", pause(claimed)
        )  # fmt: skip
    kind = classify(code=reply.code, enhanced=reply.enhanced, text=reply.text, stage=reply.stage)
    bounce = {
        "class": kind.value, "code": reply.code, "enhanced": reply.enhanced, "reason": text, "stage": reply.stage,
    }  # fmt: skip
    return Sent(
        claimed.id, claimed.claim, "rejected", relay, reply.code, text, "refused by the relay", bounce=bounce
    )


class Pace:
    """At most so many turns a second, spread evenly."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1.0 / per_second if per_second else 0.0
        self._next = 0.0

    def seconds(self) -> float:
        """How long until the next turn."""
        return self._next - time.monotonic() if self._gap else 0.0

    def turn(self) -> bool:
        """Whether it is anybody's turn now; then it is taken."""
        if not self._gap:
            return True
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = max(self._next, now) + self._gap
        return True
