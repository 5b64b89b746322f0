"""How much mail goes which way: routes, limits, warm-up plans, slowing, and breakers, shared by all workers.

How the sender uses it:

    async with Traffic(db, clock, settings.relays, worker=name) as traffic:
        order = traffic.routes(purpose, from_domain, country, delivery.id)  # (): no relay may carry it
        way = traffic.way(order[0])          # those that are to be left alone stand last: ask `way.usable()`
        places = await traffic.reserve(way.name, 400)  # before it is given so many mails
        traffic.give_back(way.name, count)   # places that no mail needs after all
        way.sessions()                       # how many sessions may be open now
        way.wait_seconds(domain)             # in `Source.next`: 0.0 = offer it now, it is counted; else later
        way.told(domain, reply)              # each mail that was counted ends with one of these three
        way.unsent(domain)
        way.unknown(domain)
        way.session_failed(reason, login=False)  # it did not open, or ended without an answer
        way.session_worked()                 # at an answer
        way.pipelining                       # what is remembered; set it to what was learned
        await traffic.flush()                # every second or so: tells and hears

Between two rounds nothing is held in the database, and what this worker knows stays: failures that are counted, who was
slowed how far, how fast it went. So it is opened again for each round.

`routes`, `way` and all that a way does are plain calls. Limits of a minute and longer are kept in PostgreSQL and are
never overstepped by all workers together: places are reserved there first, and those of a worker that was killed
count as used once its lease is over. A limit of a second is divided among the workers that use the relay at the
time; a worker that comes is known to the others a moment later. Windows are counted on the hub's clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hub.clock import Clock
from hub.config.settings import RelaySection
from hub.errors import HubError
from hub.mail.providers import receiver_of
from hub.mail.routing import Routing, in_orders
from hub.mail.way import SAFE_SECONDS, Purse, Receiver, Way
from hub.mail.windows import receiver_limits, relay_limits, warming
from hub.store import relays
from hub.store.database import Connection, Database
from hub.store.relays import Ask, Given, Slowed

REMEMBERED = timedelta(hours=6)
"""Who was slowed is so again after a restart, unless that is longer ago."""
LEARNED_FOR = timedelta(days=1)
"""Which pipelining works is found out anew after so long: a relay that was at fault may have been mended."""
TIDY_SECONDS = 300.0
IDLE_FLUSHES = 3


@dataclass(slots=True)
class _Deal:
    """An ask and the purse that it is for."""

    way: Way
    purse: Purse
    ask: Ask


class Traffic:
    """All relays of a hub, as one worker sees them. Open it with `async with`, once for each round of sending."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        sections: Mapping[str, RelaySection],
        *,
        worker: str,
        monotonic: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.db, self.clock = db, clock
        self.holder = f"{worker}:{secrets.token_hex(4)}"
        self._routing = Routing(sections)
        self._ways = {name: Way(name, section, monotonic, dice) for name, section in sections.items()}
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._noted_slow: dict[tuple[str, str], Slowed] = {}
        self._noted_pipelining: dict[str, str | None] = {}
        self._keys = {name: _digest(section) for name, section in sections.items()}
        self._forgotten: dict[str, int] = {}  # what the database said last
        self._tidied = monotonic()

    async def __aenter__(self) -> Traffic:
        async with self.db.connection() as conn:
            states = await relays.states(conn, self.holder)
            slowed = await relays.slowed(conn, changed_after=self.clock.now() - REMEMBERED)
        for name, way in self._ways.items():
            way.begin()
            state = states.get(name, relays.State(name))
            way.breaker.adopt(state)
            # What was found and could not be told yet is kept.
            if way.pipelining == self._noted_pipelining.get(name):
                way.pipelining = self._noted_pipelining[name] = self._remembered(state)
            self._hear_forgotten(way, state)
            self._hear_slowed(way, {row.receiver: row for row in slowed if row.relay == name})
        return self

    def _remembered(self, state: relays.State) -> str | None:
        """Which pipelining is known to work: found not long ago, of the relay as hub.yaml has it."""
        fresh = state.learned_at is not None and self.clock.now() - state.learned_at < LEARNED_FOR
        return state.pipelining if fresh and state.learned_of == self._keys.get(state.relay) else None

    def _hear_forgotten(self, way: Way, state: relays.State) -> None:
        """An admin may have said that a relay be learned anew."""
        if self._forgotten.setdefault(way.name, state.forgotten) != state.forgotten:
            self._forgotten[way.name] = state.forgotten
            way.forget()
            self._noted_pipelining[way.name] = None

    def _hear_slowed(self, way: Way, rows: Mapping[str, Slowed]) -> None:
        """At the beginning of a round: those slowed here go on as they are, unless somebody freed them meanwhile."""
        ours = way.slowed()
        for who in ours:
            if (way.name, who) in self._noted_slow and who not in rows:
                way.free(who)
                del self._noted_slow[way.name, who]
        for who, row in rows.items():
            if who not in ours:
                way.resume_slow(row)
            self._noted_slow[way.name, who] = row

    async def __aexit__(self, *_: object) -> None:
        """Tell what is not told, and give back every place."""
        for way in self._ways.values():
            way.purse.promised = 0
        async with self._turn:
            await self._talk(last=True)
            await self.db.repeated(lambda conn: relays.leave(conn, self.holder))

    def way(self, relay: str) -> Way:
        """The way out through a relay: what is asked for each mail and each session."""
        return self._ways[relay]

    def routes(self, purpose: str, from_domain: str, country: str, delivery: int) -> tuple[str, ...]:
        """Relays in the order to try them, the same for a delivery each time; those to be left alone stand last.

        Empty when none may carry it. `country` is empty when it is unknown.
        """
        found = self._routing.routes(purpose, from_domain, country, delivery)
        for name in found:
            if self._ways[name].breaker.open:
                return self._with_open_last(found)
        return found

    def _with_open_last(self, found: Sequence[str]) -> tuple[str, ...]:
        good: list[str] = []
        bad: list[str] = []
        for name in found:
            breaker = self._ways[name].breaker
            # An open relay is probed with a mail that would have gone its way, not with one that has a better way.
            leads = not breaker.open or (not good and breaker.leads())
            (good if leads else bad).append(name)
        return (*good, *bad)

    async def reserve(self, relay: str, wanted: int) -> int:
        """Places for up to so many mails in all windows of a relay. Each is used by `wait_seconds` or given back."""
        way, purse = self._ways[relay], self._ways[relay].purse
        if not way.metered and (purse.known or not way.section.limits.per_second):
            return wanted
        async with self._turn:
            missing = wanted - self._spare(purse) if way.metered else 0
            if missing > 0 or not purse.known:
                deals = [self._relay_deal(way, max(0, missing))]
                deals += [
                    self._receiver_deal(way, e, e.purse)
                    for e in way.receivers()
                    if e.purse and e.purse.starved
                ]
                await self._exchange(deals)
            if not way.metered:
                return wanted
            granted = max(0, min(wanted, self._spare(purse)))
            purse.promised += granted
            return granted

    def give_back(self, relay: str, count: int) -> None:
        """Places of `reserve` that no mail will use."""
        purse = self._ways[relay].purse
        purse.promised = max(0, purse.promised - count)

    def room_in_seconds(self, relay: str) -> float:
        """After `reserve` gave less than was wanted: when there may be more."""
        return max(0.0, self._ways[relay].purse.room_at - self._monotonic())

    async def flush(self) -> None:
        """Tell the others what happened here, and hear what happened there."""
        async with self._turn:
            await self._talk()
            if self._monotonic() - self._tidied >= TIDY_SECONDS:
                self._tidied = self._monotonic()
                await self.db.repeated(lambda conn: relays.forget(conn, now=self.clock.now()))

    # --- places ---------------------------------------------------------------------------------------------

    def _spare(self, purse: Purse) -> int:
        return purse.held - purse.promised if self._monotonic() < purse.good_until else 0

    def _relay_deal(self, way: Way, wanted: int, *, last: bool = False) -> _Deal:
        purse = way.purse
        waiting = way.waits(self._monotonic())
        purse.starved = False
        purse.idle = 0 if purse.used or purse.promised or wanted or waiting else purse.idle + 1
        keep = purse.held if purse.idle < IDLE_FLUSHES and not last else min(purse.held, purse.promised)
        purse.held = keep
        stay = purse.idle < IDLE_FLUSHES and not last
        limits = relay_limits(way.section, self.clock.now())
        before = way.metered and purse.known and bool(keep or purse.used)
        return _Deal(
            way, purse,
            Ask(way.name, "", self.holder, purse.used, keep, wanted, limits, before, stay),
        )  # fmt: skip

    def _receiver_deal(self, way: Way, to: Receiver, purse: Purse, *, last: bool = False) -> _Deal:
        wish = 0 if last else purse.wish()
        keep = purse.held = min(purse.held, wish)
        before = purse.known and bool(keep or purse.used)
        return _Deal(
            way, purse,
            Ask(way.name, to.name, self.holder, purse.used, keep, wish - keep, to.limits, before, stay=False),
        )  # fmt: skip

    def _deals(self, *, last: bool = False) -> list[_Deal]:
        """What is to be told and asked of every relay and receiver now."""
        found = []
        for way in self._ways.values():
            purse = way.purse
            if purse.known or purse.used or purse.promised:
                missing = 0 if last or not way.metered else max(0, purse.promised - purse.held)
                found.append(self._relay_deal(way, missing, last=last))
            for to in way.receivers():
                p = to.purse
                if p and (p.known or p.used or p.starved):
                    found.append(self._receiver_deal(way, to, p, last=last))
        return found

    async def _exchange(self, deals: list[_Deal]) -> None:
        began = self._monotonic()
        given = await self.db.repeated(lambda conn: self._ask(conn, deals))
        self._apply(deals, given, began)

    async def _ask(self, conn: Connection, deals: list[_Deal]) -> list[Given]:
        now = self.clock.now()
        deals.sort(key=lambda deal: (deal.ask.relay, deal.ask.scope))
        return [await relays.exchange(conn, deal.ask, now=now) for deal in deals]

    def _apply(self, deals: list[_Deal], given: list[Given], began: float) -> None:
        for deal, answer in zip(deals, given, strict=True):
            purse, ask = deal.purse, deal.ask
            purse.used -= ask.used
            if answer.lost:
                purse.held = 0
            purse.held += answer.granted
            purse.known = ask.stay or ask.keep + answer.granted > 0
            purse.good_until = began + SAFE_SECONDS
            purse.room_at = began + answer.room_in_seconds if answer.granted < ask.wanted else 0.0
            if not ask.scope:
                deal.way.shared_by(answer.workers)

    # --- everything else ------------------------------------------------------------------------------------

    async def _talk(self, *, last: bool = False) -> None:
        for way in self._ways.values():
            way.turn_page()
        deals = self._deals(last=last)
        slowed = {(name, who): row for name, way in self._ways.items() for who, row in way.slowed().items()}
        changed = [row for key, row in slowed.items() if _differs(row, self._noted_slow.get(key))]
        freed = sorted(self._noted_slow.keys() - slowed.keys())
        news = {name: way.breaker.news for name, way in self._ways.items() if way.breaker.news}
        learned = {
            n: g.pipelining for n, g in self._ways.items() if g.pipelining != self._noted_pipelining.get(n)
        }
        pauses = {name: self._ways[name].breaker.pause_seconds() for name in news}

        async def work(conn: Connection) -> tuple[list[Given], dict[str, relays.State]]:
            now = self.clock.now()
            given = await self._ask(conn, deals)
            for name, way in sorted(self._ways.items()):
                if name in learned:
                    await relays.learned(
                        conn,
                        name,
                        learned[name],
                        of=self._keys[name],
                        forgotten=self._forgotten[name],
                        now=now,
                    )
                if news.get(name) == "closed":
                    await relays.closed(conn, name, now=now)
                elif news.get(name) == "open":
                    await relays.opened(
                        conn, name, self.holder, way.breaker.reason, pause_seconds=pauses[name], now=now
                    )
                elif way.breaker.open and way.breaker.missed and not last:
                    await relays.take_probe(conn, name, self.holder)
            await relays.keep_slowed(conn, changed, freed, now=now)
            return given, await relays.states(conn, self.holder)

        began = self._monotonic()
        given, states = await self.db.repeated(work)
        self._apply(deals, given, began)
        self._noted_pipelining |= learned
        for name, way in self._ways.items():
            if way.breaker.news == news.get(name, ""):  # nothing new meanwhile
                way.breaker.news = ""
                way.breaker.adopt(states.get(name, relays.State(name)))
            if way.pipelining is None and name in states:
                way.pipelining = self._noted_pipelining[name] = self._remembered(states[name])
            self._hear_forgotten(way, states.get(name, relays.State(name)))
        self._noted_slow |= {(row.relay, row.receiver): row for row in changed}
        for key in freed:
            del self._noted_slow[key]


def _differs(row: Slowed, noted: Slowed | None) -> bool:
    """Whether a rate is worth noting again: it is kept coarsely."""
    return noted is None or not 0.8 < row.per_second / noted.per_second < 1.25


def _digest(section: RelaySection) -> str:
    """Of where the relay is and how it is talked to; secrets stand there as references only."""
    return hashlib.sha256(json.dumps(section.own, sort_keys=True, default=str).encode()).hexdigest()[:16]


async def forget(
    db: Database, clock: Clock, sections: Mapping[str, RelaySection], relay: str
) -> dict[str, Any]:
    """Forget what was found of a relay. Returns what that was. Raises HubError for one that hub.yaml does not have."""
    if relay not in sections:
        raise HubError(f"there is no relay {relay!r}", f"hub.yaml has {', '.join(sections) or 'none'}")
    async with db.transaction() as conn:
        known = await relays.overview(conn, relay, now=clock.now())
        await relays.forget_relay(conn, relay, now=clock.now())
    return {
        "relay": relay,
        "pipelining": known["pipelining"],
        "left_alone": known["reason"] if known["state"] == "open" else None,
        "slowed": [row["receiver"] for row in known["slowed"]],
    }


async def overview(db: Database, clock: Clock, sections: Mapping[str, RelaySection]) -> list[dict[str, Any]]:
    """For people: how each relay is, what was used of its windows, its warm-up, and who asked for less."""
    now = clock.now()
    orders = {name: order for order, names in in_orders(sections).items() for name in names}
    found = []
    for name, section in sections.items():
        async with db.connection() as conn:
            known = await relays.overview(conn, name, now=now)
        used = known.pop("used")
        known["state"] = "used" if known["state"] == "closed" else "left alone"
        stage = warming(section.warm_up, now) if section.warm_up else None
        by_receiver = {key: receiver_limits(section, limits) for key, limits in section.domains.items()}
        found.append(
            {
                "relay": name,
                **known,
                "order": orders[name],
                "weight": section.weight,
                "windows": _windows(used.get("", {}), relay_limits(section, now)),
                "warm_up": {"day": stage.day, "allowance": stage.allowance} if stage else None,
                "receivers": {
                    key: _windows(used.get(receiver_of(key.lower()), {}), limits)
                    for key, limits in by_receiver.items()
                },
            }
        )
    return found


def _windows(used: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, dict[str, int | None]]:
    """span -> used and limit, for spans that are limited or were used."""
    return {
        span: {"used": used.get(span, 0), "limit": limits.get(span)}
        for span in relays.SPANS
        if span in limits or used.get(span)
    }
