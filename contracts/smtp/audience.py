"""The people behind the addresses: who exists, who bounces, who reads. Drawn from a keyed hash, so that every run agrees."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of mail to an address."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # 550 at RCPT
    BOUNCED = "bounced"  # accepted, then a failure report
    DELAYED = "delayed"  # accepted, a report of delay, then delivered


@dataclass(frozen=True)
class Reaction:
    """What a person does with one mail. Opening loads the images, unsubscribing is the mail program's one click."""

    opens: bool = False
    clicks: bool = False
    unsubscribes: bool = False

    @property
    def any(self) -> bool:
        return self.opens or self.clicks or self.unsubscribes


@dataclass(frozen=True)
class Person:
    """One address as a test wants it. `status` and `text` word the refusal or the report (RFC 3463)."""

    fate: Fate = Fate.DELIVERED
    reaction: Reaction = Reaction()
    status: str = ""
    text: str = ""


REFUSALS: dict[Fate, tuple[str, str]] = {
    Fate.REFUSED: ("5.1.1", "No such user here"),
    Fate.BOUNCED: ("5.1.1", "The email account that you tried to reach does not exist"),
    Fate.DELAYED: ("4.2.2", "Mailbox full, trying again"),
}


@dataclass
class Audience:
    """Shares between 0 and 1. Fate hangs on the address alone, a reaction on address and subject, never on time.

    Clickers are among the openers. `people` overrides the draw, by address or by `@domain`, in lower case.
    """

    seed: int = 7
    bounce: float = 0.03
    refuse: float = 0.01
    delay: float = 0.0
    open: float = 0.45
    click: float = 0.15
    unsubscribe: float = 0.02
    people: dict[str, Person] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def person(self, address: str) -> Person | None:
        """The override for an address, if there is one."""
        address = address.lower()
        with self.lock:
            return self.people.get(address) or self.people.get("@" + address.rpartition("@")[2])

    def put(self, address: str, person: Person) -> None:
        """From now on the address (or `@domain`) is this person."""
        with self.lock:
            self.people[address.lower()] = person

    def fate(self, address: str) -> Fate:
        if person := self.person(address):
            return person.fate
        drawn = self._draw("fate", address)
        for fate, share in (
            (Fate.REFUSED, self.refuse),
            (Fate.BOUNCED, self.bounce),
            (Fate.DELAYED, self.delay),
        ):
            if drawn < share:
                return fate
            drawn -= share
        return Fate.DELIVERED

    def refusal(self, address: str) -> tuple[str, str]:
        """(enhanced status, text) of what is said of an address that is not simply delivered to."""
        person = self.person(address)
        status, text = REFUSALS.get(self.fate(address), ("5.1.1", "No such user here"))
        return (person.status or status, person.text or text) if person else (status, text)

    def reaction(self, address: str, subject: str) -> Reaction:
        if person := self.person(address):
            return person.reaction
        interest = self._draw("interest", address, subject)
        return Reaction(
            opens=interest < max(self.open, self.click),
            clicks=interest < self.click,
            unsubscribes=self._draw("leave", address, subject) < self.unsubscribe,
        )

    def _draw(self, *what: str) -> float:
        text = "\0".join(what).lower().encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(text, digest_size=8, key=str(self.seed).encode()).digest()
        return int.from_bytes(digest) / 2**64
