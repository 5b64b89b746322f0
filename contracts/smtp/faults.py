"""Ways in which a relay fails, planned by a test and used up as they strike."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

STAGES = ("connect", "mail", "rcpt", "data")
KINDS = ("reply", "slow", "drop", "drop_in_data", "drop_after_data", "lose_after_data")


@dataclass
class SmtpFault:
    """One way to fail, used up after `times` matching moments.

    kind: `reply` (answers `text`, a whole SMTP reply such as `450 4.2.1 try later`, at `stage`), `slow` (waits
    `seconds` before answering at `stage`), `drop` (hangs up at `stage` without an answer), `drop_in_data` (hangs up
    in the middle of the message), `drop_after_data` (takes the message and hangs up without an answer),
    `lose_after_data` (hangs up after the message as well, but did not take it).
    """

    kind: str
    stage: str = "data"
    times: int = 1
    skip: int = 0  # let this many matching moments pass first
    text: str = "451 4.3.0 Try again later"
    seconds: float = 1.0
    recipient: str = ""  # a regular expression searched in the first recipient; stages rcpt and data only

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known are {', '.join(KINDS)}")
        if self.stage not in STAGES:
            raise ValueError(f"unknown stage {self.stage!r}; known are {', '.join(STAGES)}")
        if self.kind == "reply" and not re.match(r"[245]\d\d ", self.text):
            raise ValueError(f"{self.text!r} is no SMTP reply")
        if self.kind in ("drop_in_data", "drop_after_data", "lose_after_data"):
            self.stage = "data"


@dataclass
class SmtpFaults:
    """The faults of one relay, and how many of each kind struck."""

    planned: list[SmtpFault] = field(default_factory=list)
    struck: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def plan(self, kind: str, **settings: object) -> None:
        """`plan("reply", stage="rcpt", text="450 4.2.1 busy", times=3)`. Raises ValueError for an impossible fault."""
        fault = SmtpFault(kind, **settings)  # type: ignore[arg-type]
        with self.lock:
            self.planned.append(fault)

    def take(self, stage: str, recipient: str = "", *kinds: str) -> SmtpFault | None:
        """The next fault for this moment, counted as struck. `kinds` narrows the choice."""
        with self.lock:
            for fault in self.planned:
                if fault.stage != stage or not re.search(fault.recipient, recipient):
                    continue
                if kinds and fault.kind not in kinds:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                if fault.times <= 0:
                    self.planned.remove(fault)
                self.struck[fault.kind] = self.struck.get(fault.kind, 0) + 1
                return fault
        return None
