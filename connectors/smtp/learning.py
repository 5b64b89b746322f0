"""How much one relay was found to bear before an answer, shared by all of its sessions.

RFC 2920 lets an envelope go out whole where PIPELINING is offered, and even behind the end of a message; but not every
relay that offers it bears it. So `full` is tried by one session at a time, after a number of clean messages, and
whatever makes a session lose step is not tried again.
"""

from __future__ import annotations

from typing import Literal

from hub.sdk.relay import Pipelining

LEVELS: tuple[Pipelining, ...] = ("off", "envelope", "full")
CLEAN = 20
"""So many messages without a stumble before more is tried, and before what is tried counts as found."""


class Learning:
    """`found` is what the hub remembers between starts; None until it is known."""

    def __init__(self, wish: Literal["auto"] | Pipelining = "auto") -> None:
        self.wish = wish
        self.found: Pipelining | None = None
        self.tried_by: object | None = None

    def level(self, offered: bool) -> Pipelining:
        """What a session begins with. Never more than was found, nor anything that EHLO does not offer."""
        if not offered:
            return "off"
        wish: Pipelining = (self.found or "envelope") if self.wish == "auto" else self.wish
        return min(wish, self.found or wish, key=LEVELS.index)

    def try_full(self, session: object) -> bool:
        """Whether this session, clean so far with envelopes, goes on with `full`."""
        if self.found == "full":
            return self.wish in ("auto", "full")
        if self.wish != "auto" or self.found is not None or self.tried_by is not None:
            return False
        self.tried_by = session
        return True

    def proved(self) -> None:
        """`full` went well for long enough."""
        if self.found is None:
            self.found = "full"
        self.tried_by = None

    def unproved(self, session: object) -> bool:
        """Whether `full` is being tried by this session, or was wished and never seen to work."""
        return self.tried_by is session or (self.wish == "full" and self.found is None)

    def stumbled(self, level: Pipelining) -> None:
        """A session lost step at this level: sessions from now on use less."""
        lower = LEVELS[max(0, LEVELS.index(level) - 1)]
        self.found = min(lower, self.found or lower, key=LEVELS.index)

    def left(self, session: object) -> None:
        """The session is over; if it was trying, another one may."""
        if self.tried_by is session:
            self.tried_by = None
