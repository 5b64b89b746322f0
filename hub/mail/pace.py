"""How fast mails may follow each other: an even pace that no burst doubles, and one that a receiver sets by refusing.

Time is what the caller says it is, in seconds of a clock that never goes back.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from hub.bounces import enhanced_code
from hub.sdk.relay import Reply

LATE_SECONDS = 0.05
"""A pace may catch up on so much lateness of timers; the second's limit holds all the same."""

FLOOR_PER_SECOND = 0.1
HOLD_SECONDS = 2.0
"""Refusals this soon after a slowing are of mails that were under way before it."""
RECOVERY_SECONDS = 30.0
"""A rate that is not refused has doubled after so long."""

_ALMOST = 1e-9


class Pace:
    """At most `per_second` mails within any second, evenly spread.

    Below one a second: one within any 1/`per_second` seconds. A limit that is no whole number is rounded up within
    a second, and kept over several.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._ring = [-math.inf] * math.ceil(per_second)
        self._at = 0
        self._next = -math.inf
        self.shared_by(1)

    def shared_by(self, workers: int) -> None:
        """Use only the share of one of so many workers."""
        rate = self.per_second / workers
        self._gap = 1.0 / rate
        self._most = math.ceil(rate)
        self._window = self._most * self._gap

    def wait(self, now: float) -> float:
        """Seconds until the next one may go; 0.0: now."""
        even = self._next - LATE_SECONDS - now
        full = self._ring[self._at - self._most] + self._window - now
        wait = even if even > full else full
        return wait if wait > _ALMOST else 0.0

    def count(self, now: float) -> None:
        """One goes."""
        self._next = (now if now > self._next else self._next) + self._gap
        self._ring[self._at] = now
        self._at = (self._at + 1) % len(self._ring)


class Slow:
    """The pace of a receiver that asked for less: halved by each refusal, a little more with each acceptance.

    It ends (`over`) when it is back at the rate at which it began.
    """

    def __init__(self, per_second: float, free_at: float, reason: str) -> None:
        self.per_second, self.free_at, self.reason = max(per_second, FLOOR_PER_SECOND), free_at, reason
        self._gain = self.per_second / RECOVERY_SECONDS
        self._deaf_until = self._next = -math.inf

    @classmethod
    def begun(cls, measured: float, reason: str, now: float) -> Slow:
        """Half of what was measured."""
        slow = cls(measured / 2, max(measured, 2 * FLOOR_PER_SECOND), reason)
        slow._deaf_until = now + HOLD_SECONDS
        slow._next = now + 1.0 / slow.per_second
        return slow

    @property
    def over(self) -> bool:
        return self.per_second >= self.free_at

    def wait(self, now: float) -> float:
        wait = self._next - now
        return wait if wait > _ALMOST else 0.0

    def count(self, now: float) -> None:
        late = now - LATE_SECONDS
        self._next = (late if late > self._next else self._next) + 1.0 / self.per_second

    def refused(self, reason: str, now: float) -> None:
        """Slower still, once for all that was under way together."""
        if now < self._deaf_until:
            return
        self.per_second, self.reason = max(self.per_second / 2, FLOOR_PER_SECOND), reason
        self._gain = self.per_second / RECOVERY_SECONDS
        self._deaf_until = now + HOLD_SECONDS
        self._next = now + 1.0 / self.per_second

    def accepted(self) -> None:
        """A second of acceptances at the full rate adds one step."""
        self.per_second += self._gain / self.per_second


_GREYLIST = re.compile(r"gr[ae]y-?\s?list", re.IGNORECASE)
_LATER = re.compile(r"(?:try|come) (?:again|back)(?: later| in\b)", re.IGNORECASE)
_RATE = re.compile(
    r"\brate|too (?:many|much|quick|fast)|quickly|busy|limit|volume|unusual|throttl|overload", re.IGNORECASE
)
_RELAY_RATE = re.compile(r"throttling failure|sending rate exceeded", re.IGNORECASE)


def slows(reply: Reply) -> Literal["", "receiver", "relay"]:
    """Whom a reply asks to be slower: nobody, the receiver of the mail, or the relay as a whole.

    Greylisting wants time, not a lower rate, and 4.1.x and 4.2.x are about one mailbox (RFC 3463). What is refused
    before the recipient was named, and a relay's own throttle (SES: "454 Throttling failure"), is the relay's.
    """
    if not 400 <= reply.code < 500:
        return ""
    text = reply.text
    if _RELAY_RATE.search(text):
        return "relay"
    if _GREYLIST.search(text) or (
        _LATER.search(text) and reply.code in (450, 451) and not _RATE.search(text)
    ):
        return ""
    enhanced = reply.enhanced or enhanced_code(text)
    if reply.stage not in ("rcpt", "data"):
        return "relay"
    if enhanced.startswith(("4.1.", "4.2.")):
        return ""
    if reply.code in (421, 450, 451, 452) or enhanced.startswith("4.7."):
        return "receiver"
    return ""
