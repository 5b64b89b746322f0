"""What must hold before the first mail of a message goes out by a relay: the verdicts of the gates, and for how long each
is believed.

A gate holds, does not hold, or is unknown, since DNS did not answer: that is neither, and is asked again. Relays on
this machine are exempt: what they take goes nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Literal

from hub.clock import Clock
from hub.config.loading import Config
from hub.mail import proofs
from hub.mail.dkim import Signer
from hub.mail.proofs import Finding
from hub.mail.resolver import Answers, Resolver

State = Literal["ok", "failed", "unknown"]

RECHECK = timedelta(minutes=1)
"""After a gate that does not hold or is unknown: somebody may be mending it."""
BELIEVED = timedelta(hours=24)
"""For so long DNS may be away before what was proved no longer counts."""
LOOPBACK_NAMES = ("localhost", "localhost.localdomain")


@dataclass(frozen=True)
class Verdict:
    """Whether a message may go out by a relay. `reasons` are the findings that say no or warn.

    `unknown` means: not now, ask again soon; the mails keep waiting. `failed` means that somebody must mend something.
    """

    ok: bool
    state: State
    reasons: tuple[Finding, ...] = ()


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The sum of all gates: one that does not hold outweighs what is unknown."""
    reasons = tuple(finding for finding in findings if finding.ok is not True)
    barring = [finding.ok for finding in reasons if finding.bars]
    state: State = "failed" if False in barring else "unknown" if barring else "ok"
    return Verdict(state == "ok", state, reasons)


def exempt(own: dict[str, Any]) -> bool:
    """Whether a relay with these keys is on this machine."""
    host = str(own.get("host", "")).strip("[]").lower()
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Gates:
    """The verdicts on (message, relay), remembered for a while. One question at a time about a pair goes to DNS."""

    def __init__(
        self, config: Config, signer: Signer, clock: Clock, *, resolver: Resolver | None = None
    ) -> None:
        settings = config.settings
        self.config, self.signer, self.clock = config, signer, clock
        self.wish = settings.deliverability
        self.resolver = resolver or Resolver(
            self.wish.nameservers, lifetime_seconds=self.wish.timeout.total_seconds()
        )
        self._known: dict[tuple[str, str], tuple[Verdict, datetime]] = {}
        self._proved: dict[tuple[str, str], datetime] = {}
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}
        self._round: tuple[Answers, datetime] | None = None

    async def verdict(self, message: str, relay: str) -> Verdict:
        """Whether mails of `message` may go out by `relay` now; cheap when it was asked a moment ago.

        Never raises for what DNS says or does not say. By `deliverability.gate`: `off` asks nothing, `warn` is always ok
        and still gives the reasons. What was proved within a day holds while DNS is away."""
        pair = (message, relay)
        if self.wish.gate == "off":
            return Verdict(True, "ok")
        async with self._asking.setdefault(pair, asyncio.Lock()):
            now = self.clock.wall()
            if pair in self._known and now < self._known[pair][1]:
                return self._known[pair][0]
            found = verdict(await self.findings(message, relay))
            good = found.ok
            if good:
                self._proved[pair] = now
            elif found.state == "unknown" and now - self._proved.get(pair, now - BELIEVED) < BELIEVED:
                found = Verdict(True, "ok", found.reasons)
            if self.wish.gate == "warn":
                found = Verdict(True, found.state, found.reasons)
            self._known[pair] = (found, now + (self.wish.recheck if good else RECHECK))
            return found

    async def findings(self, message: str, relay: str) -> list[Finding]:
        """What every gate says now; none for a relay on this machine."""
        section = self.config.settings.relays[relay]
        if exempt(self.config.own(section.own)):
            return []
        now = self.clock.wall()
        if self._round is None or now >= self._round[1]:
            self._round = (Answers(self.resolver), now + RECHECK)
        return await proofs.findings(message, relay, self.config.settings, self.signer, self._round[0])
