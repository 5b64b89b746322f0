"""The way out through one relay: whether a mail to a domain may take it now, counted as it does.

Everything here is plain work without waiting: it is asked for every mail. What workers share is fetched in advance
and told afterwards by `hub.mail.traffic`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from hub.config.settings import DomainLimits, RelaySection
from hub.mail.breaker import Breaker
from hub.mail.pace import Pace, Slow, slows
from hub.mail.providers import domains_of, receiver_of
from hub.mail.windows import has_windows, receiver_limits
from hub.sdk.relay import Reply
from hub.store.relays import LEASE_SECONDS, Slowed

SOON_SECONDS = 0.2
"""When to ask again where places are on their way."""
SAFE_SECONDS = LEASE_SECONDS - 5.0
"""For so long held places may be used without a word from the database; its lease lasts longer."""
MEASURE_SECONDS = 10.0
FIRST_CHUNK, LAST_CHUNK = 10, 1_000
TOLD_TIMES = 3


@dataclass(slots=True)
class Purse:
    """Places in the shared windows of a relay or of one receiver: taken in advance, used one by one."""

    held: int = 0
    promised: int = 0  # of `held`, or soon to be: reserved for mails that are not offered yet
    used: int = 0  # since it was last told
    good_until: float = 0.0
    known: bool = False  # the database has a row of ours
    room_at: float = 0.0  # when there may be room, after there was none
    starved: bool = False  # somebody was turned away since the last fill
    chunk: int = FIRST_CHUNK
    idle: int = 0

    def wait(self, now: float) -> float:
        if self.held > 0 and now < self.good_until:
            return 0.0
        self.starved = True
        return max(SOON_SECONDS, self.room_at - now)

    def use(self) -> None:
        self.held -= 1
        self.used += 1
        if self.promised:
            self.promised -= 1

    def unuse(self) -> None:
        """A place that was used goes back, if its use was not told yet."""
        if self.used:
            self.used -= 1
            self.held += 1

    def wish(self) -> int:
        """How many places to hold from now on, by what went since the last fill."""
        if self.starved and not self.room_at:  # it would have had more if it had asked for more
            self.chunk = min(LAST_CHUNK, self.chunk * 2)
        elif self.used < self.chunk // 4:
            self.chunk = max(FIRST_CHUNK, self.chunk // 2)
        self.idle = 0 if self.used or self.starved else self.idle + 1
        self.starved = False
        return self.chunk if self.idle < 3 else 0


@dataclass(slots=True)
class Receiver:
    """A receiver with limits of its own, or one that asked for less."""

    name: str
    limits: dict[str, int] = field(default_factory=dict)
    at_once: int | None = None
    pace: Pace | None = None
    purse: Purse | None = None
    slow: Slow | None = None
    under_way: int = 0

    @classmethod
    def configured(cls, name: str, section: RelaySection, limits: DomainLimits) -> Receiver:
        spans = receiver_limits(section, limits)
        pace = Pace(limits.per_second) if limits.per_second else None
        return cls(name, spans, limits.connections, pace, Purse() if spans else None)

    @property
    def fixed(self) -> bool:
        """hub.yaml gives it limits; else it is there only while it is slowed."""
        return bool(self.limits or self.pace or self.at_once)

    def wait(self, now: float) -> float:
        wait = self.purse.wait(now) if self.purse else 0.0
        if self.pace and (other := self.pace.wait(now)) > wait:
            wait = other
        if self.slow and (other := self.slow.wait(now)) > wait:
            wait = other
        if self.at_once and self.under_way >= self.at_once and wait < SOON_SECONDS:
            wait = SOON_SECONDS
        return wait

    def count(self, now: float) -> None:
        self.under_way += 1
        if self.purse:
            self.purse.use()
        if self.pace:
            self.pace.count(now)
        if self.slow:
            self.slow.count(now)


def _nothing() -> None:
    """There is no relay yet."""


class Way:
    """See `hub.mail.traffic` for how it is used. Domains are in lower case."""

    def __init__(
        self, name: str, section: RelaySection, monotonic: Callable[[], float], dice: Callable[[], float]
    ) -> None:
        self.name, self.section = name, section
        self.breaker = Breaker(dice)
        self.pipelining: str | None = None
        self.unlearn: Callable[[], None] = _nothing  # lets the relay forget which pipelining works
        self.purse = Purse()
        self.metered = has_windows(section)
        self.workers, self._fewer = 1, 0
        self.slow: Slow | None = None
        self._pace = Pace(section.limits.per_second) if section.limits.per_second else None
        self._monotonic = monotonic
        self._receivers: dict[str, Receiver] = {}
        for key, limits in section.domains.items():
            who = receiver_of(key.lower())
            to = Receiver.configured(who, section, limits)
            self._receivers.update(dict.fromkeys(domains_of(who), to))
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._before: dict[str, int] = {}
        self._counted_from = self._before_from = monotonic()
        self._open = not (self._pace or self.metered)

    # --- for every mail -------------------------------------------------------------------------------------

    def wait_seconds(self, domain: str) -> float:
        """0.0: a mail to this domain may be offered now, and is counted. Else how long not to ask again."""
        to = self._receivers.get(domain)
        if self._open and to is None:
            self.purse.used += 1
            self._counts[domain] += 1
            return 0.0
        now = self._monotonic()
        wait = self.purse.wait(now) if self.metered else 0.0
        pace, slow = self._pace, self.slow
        if pace is not None and (other := pace.wait(now)) > wait:
            wait = other
        if slow is not None and (other := slow.wait(now)) > wait:
            wait = other
        if to is not None and (other := to.wait(now)) > wait:
            wait = other
        if wait:
            return wait
        if self.metered:
            self.purse.use()
        else:
            self.purse.used += 1
        if pace is not None:
            pace.count(now)
        if slow is not None:
            slow.count(now)
        if to is not None:
            to.count(now)
        self._counts[domain] += 1
        return 0.0

    def told(self, domain: str, reply: Reply) -> None:
        """The relay's answer to a mail that went through."""
        to = self._receivers.get(domain)
        if to is not None:
            to.under_way -= 1
        if reply.code < 400:
            if to is not None and to.slow is not None:
                to.slow.accepted()
                if to.slow.over:
                    self._free(to)
            if self.slow is not None:
                self.slow.accepted()
                if self.slow.over:
                    self.free("")
        elif reply.code < 500 and (who := slows(reply)):
            self._slow_down(who, domain, f"{reply.code} {reply.text}"[:200])

    def unsent(self, domain: str) -> None:
        """A mail that went through was not offered after all: its places are free again."""
        to = self._receivers.get(domain)
        if to is not None:
            to.under_way -= 1
            if to.purse:
                to.purse.unuse()
        if self.metered:
            self.purse.unuse()
        elif self.purse.used:
            self.purse.used -= 1

    def unknown(self, domain: str) -> None:
        """The answer to a mail that went through was lost: its places stay used."""
        if (to := self._receivers.get(domain)) is not None:
            to.under_way -= 1

    # --- for every session ----------------------------------------------------------------------------------

    def sessions(self) -> int:
        """How many sessions may be open now: all, one while the relay is probed, none while it is left alone."""
        return self.breaker.sessions(self.section.limits.connections)

    def usable(self) -> bool:
        """Whether any session may be opened now."""
        return self.sessions() > 0

    def session_failed(self, reason: str, *, login: bool = False) -> None:
        """A session could not be opened (`login`: for want of credentials), or ended without a single answer."""
        self.breaker.failed(reason, login=login)

    def session_worked(self) -> None:
        """A session got an answer."""
        self.breaker.worked()

    # --- slowing --------------------------------------------------------------------------------------------

    def measured(self, domains: tuple[str, ...] | None = None) -> float:
        """Mails a second that went to these domains (None: to all) within the last ten to twenty seconds."""
        seconds = max(self._monotonic() - self._before_from, 1.0)
        if domains is None:
            return (sum(self._counts.values()) + sum(self._before.values())) / seconds
        return sum(self._counts.get(d, 0) + self._before.get(d, 0) for d in domains) / seconds

    def turn_page(self) -> None:
        """Forget what was measured long ago."""
        now = self._monotonic()
        if (passed := now - self._counted_from) >= MEASURE_SECONDS:
            if passed < 2 * MEASURE_SECONDS:
                self._before, self._before_from = dict(self._counts), self._counted_from
            else:  # nobody sent for a while
                self._before, self._before_from = {}, now
            self._counts.clear()
            self._counted_from = now

    def _slow_down(self, who: str, domain: str, reason: str) -> None:
        now = self._monotonic()
        if who == "relay":
            if self.slow is None:
                self.slow = Slow.begun(self.measured(), reason, now)
                self._open = False
            else:
                self.slow.refused(reason, now)
            return
        to = self._receivers.get(domain) or self._new_receiver(receiver_of(domain))
        if to.slow is None:
            to.slow = Slow.begun(self.measured(domains_of(to.name)), reason, now)
        else:
            to.slow.refused(reason, now)

    def _new_receiver(self, who: str) -> Receiver:
        to = Receiver(who)
        self._receivers.update(dict.fromkeys(domains_of(who), to))
        return to

    def free(self, who: str) -> None:
        """Nobody slows this receiver (`""`: the relay itself) any more."""
        if not who:
            self.slow = None
            self._open = not (self._pace or self.metered)
        elif (to := self._receivers.get(domains_of(who)[0])) is not None:
            self._free(to)

    def _free(self, to: Receiver) -> None:
        to.slow = None
        if not to.fixed:
            for domain in domains_of(to.name):
                self._receivers.pop(domain, None)

    # --- for the room that shares it with others ------------------------------------------------------------

    def forget(self) -> None:
        """Nothing is known of the relay any more."""
        for who in self.slowed():
            self.free(who)
        self.breaker.forget()
        self.pipelining = None
        self.unlearn()

    def begin(self) -> None:
        """A round of sending begins: nothing is under way, and what was known at the end of the last one still holds."""
        self.turn_page()
        self.purse.promised = self.purse.idle = 0
        for to in self.receivers():
            to.under_way = 0

    def receivers(self) -> list[Receiver]:
        """Receivers with limits or slowed, by name."""
        return sorted({id(to): to for to in self._receivers.values()}.values(), key=lambda to: to.name)

    def slowed(self) -> dict[str, Slowed]:
        """receiver -> how slowed; `""` is the relay itself."""
        found = {to.name: to.slow for to in self.receivers() if to.slow}
        if self.slow:
            found[""] = self.slow
        return {
            who: Slowed(self.name, who, slow.per_second, slow.free_at, slow.reason)
            for who, slow in found.items()
        }

    def resume_slow(self, row: Slowed) -> None:
        """As it was when it was last noted."""
        slow = Slow(row.per_second, row.free_at, row.reason)
        if not row.receiver:
            self.slow, self._open = slow, False
            return
        to = self._receivers.get(domains_of(row.receiver)[0]) or self._new_receiver(row.receiver)
        to.slow = slow

    def waits(self, now: float) -> bool:
        """Whether mails wait for places in some window: then this worker still counts among those that use the relay."""
        purses = [self.purse, *(to.purse for to in self.receivers() if to.purse)]
        return any(purse.starved or purse.room_at > now for purse in purses)

    def shared_by(self, workers: int) -> None:
        """So many workers use the relay now: each takes its share of what is limited by the second.

        One more is believed at once. One less only when it is said again: it may have paused, as this one did.
        """
        self._fewer = self._fewer + 1 if workers < self.workers else 0
        if workers == self.workers or 0 < self._fewer < TOLD_TIMES:
            return
        self.workers, self._fewer = workers, 0
        for pace in (self._pace, *(to.pace for to in self.receivers())):
            if pace:
                pace.shared_by(workers)
