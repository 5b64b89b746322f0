"""Whether a relay is worth trying: closed while it works, open while it does not, one probe at a time in between.

What this worker sees is kept here and told to the others by `hub.store.relays`; what they saw comes back the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from hub.store.relays import State

FAILURES = 5
"""Sessions in a row that failed to open, or ended without an answer."""
FIRST_PAUSE_SECONDS, LOGIN_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 15.0, 300.0, 1_800.0
JITTER = 0.2
PROBE_MAILS = 5
"""Mails that are led to a relay under probe: one is enough if it gets through."""


class Breaker:
    """One relay's breaker in this worker. `news` is what the others do not know yet: `open`, `closed` or empty."""

    def __init__(self, dice: Callable[[], float] = random.random) -> None:
        self._dice = dice
        self.open = self.probing = False
        self.reason = ""
        self.trips = 0
        self.news = ""
        self.missed = False  # a mail would have gone this way
        self._led = 0
        self._failures = 0
        self._first_pause = FIRST_PAUSE_SECONDS

    def sessions(self, most: int) -> int:
        """How many sessions may be open: `most`, one for a probe, or none."""
        if not self.open:
            return most
        return 1 if self.probing else 0

    def leads(self) -> bool:
        """Whether one more mail should be led this way. While the relay is probed only a few are."""
        if not self.open:
            return True
        self.missed = True
        if not self.probing or self._led >= PROBE_MAILS:
            return False
        self._led += 1
        return True

    def failed(self, reason: str, *, login: bool = False) -> None:
        """A session could not be opened, or ended without an answer. `login`: it was refused, and will be again."""
        self._failures += 1
        if self.open and not self.probing:
            return  # a session from before it opened
        if login or self.probing or self._failures >= FAILURES:
            self._first_pause = LOGIN_PAUSE_SECONDS if login else FIRST_PAUSE_SECONDS
            self.open, self.probing, self.reason, self.news = True, False, reason, "open"

    def worked(self) -> None:
        """An answer came."""
        self._failures = 0
        if self.open:
            self.open, self.probing, self.reason, self.trips, self.news = False, False, "", 0, "closed"

    def forget(self) -> None:
        """Somebody says that the relay is mended: it is tried as if nothing had been."""
        if self.open:
            self.news = "closed"
        self.open, self.probing, self.reason, self.trips = False, False, "", 0
        self._failures = 0

    def pause_seconds(self) -> float:
        """How long to leave the relay alone now: doubled with each failed probe, never all workers at once."""
        pause = min(self._first_pause * 2.0**self.trips, LAST_PAUSE_SECONDS)
        return pause * (1 + JITTER * (2 * self._dice() - 1))

    def adopt(self, state: State) -> None:
        """Take over what all workers know, unless this one has news for them."""
        if self.news:
            return
        was_open, self.open = self.open, state.state == "open"
        self.reason, self.trips, probing = state.reason, state.trips, state.probing and self.open
        if probing and not self.probing:
            self._led, self.missed = 0, False
        self.probing = probing
        if was_open and not self.open:
            self._failures = 0
