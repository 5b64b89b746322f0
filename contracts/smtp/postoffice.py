"""What the relay accepted and what became of it: bounces written, mails read, and the counts of all that."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.smtp import bounce
from contracts.smtp.audience import Audience, Fate
from contracts.smtp.letter import Envelope, read_headers
from contracts.smtp.readers import Readers
from hub.clock import Clock

THREADS = 6
COUNTED = ("opened", "clicked", "unsubscribed")


@dataclass
class Delivery:
    """One accepted message for one recipient. `envelope` is known and `content` may be dropped once it was handled."""

    number: int
    return_path: str
    recipient: str
    content: bytes
    size_bytes: int
    accepted_at: datetime
    secure: bool
    head: bytes
    envelope: Envelope | None = None
    fate: str = ""
    did: list[str] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        return self.envelope.message_id if self.envelope else ""

    def as_dict(self) -> dict[str, Any]:
        lines = self.head.decode("utf-8", "replace").replace("\r\n ", " ").replace("\r\n\t", " ").splitlines()
        headers = [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines)]
        return {
            "number": self.number,
            "mail_from": self.return_path,
            "recipient": self.recipient,
            "message_id": self.message_id,
            "subject": self.envelope.subject if self.envelope else "",
            "size_bytes": self.size_bytes,
            "tls": self.secure,
            "fate": self.fate,
            "did": list(self.did),
            "headers": headers,
        }


@dataclass
class PostOffice:
    """Takes messages from the SMTP thread without delay and deals with them in threads of its own.

    A (Message-ID, recipient) that comes twice is counted as a duplicate and read once.
    """

    audience: Audience
    readers: Readers
    maildir: bounce.Maildir
    clock: Clock
    keep_content: bool = True
    threads: int = THREADS

    def __post_init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._pairs: set[tuple[str, str]] = set()
        self._bounced: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._handled = 0
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="reader")

    # -- from the SMTP thread -----------------------------------------------------------------------------------

    def take(self, return_path: str, recipients: list[str], content: bytes, secure: bool) -> None:
        """Keep an accepted message; returns at once."""
        now, head = self.clock.now(), content.partition(b"\r\n\r\n")[0]
        for recipient in recipients:
            with self._changed:
                delivery = Delivery(
                    len(self.deliveries) + 1, return_path, recipient, content, len(content), now, secure, head
                )
                self.deliveries.append(delivery)
            self._pool.submit(self._handle, delivery)

    def refuse(self, return_path: str, recipient: str) -> None:
        with self._changed:
            self.counts["refusals"] += 1
            self._refused.add((return_path, recipient.lower()))

    # -- in the threads -----------------------------------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> None:
        try:
            self._deal(delivery)
        except Exception as e:  # whatever a mail holds, it must not stay pending for ever
            self._failed(f"the mail could not be read: {type(e).__name__}: {e}")
        finally:
            if not self.keep_content:
                delivery.content = b""
            with self._changed:
                self._handled += 1
                self._changed.notify_all()

    def _deal(self, delivery: Delivery) -> None:
        delivery.envelope = envelope = read_headers(delivery.content)
        pair = (envelope.message_id or f"#{delivery.number}", delivery.recipient.lower())
        with self._changed:
            first = pair not in self._pairs
            self._pairs.add(pair)
            self.counts["duplicates"] += not first
        fate = self.audience.fate(delivery.recipient)
        delivery.fate = fate.value
        if fate in (Fate.BOUNCED, Fate.DELAYED):
            self._send_back(delivery, fate, pair)
        if fate is not Fate.BOUNCED and first:

            def done(what: str) -> None:
                delivery.did.append(what)
                with self._changed:
                    self.counts[what] += 1

            self.readers.read(delivery.recipient, envelope, delivery.content, done, self._failed)

    def _send_back(self, delivery: Delivery, fate: Fate, pair: tuple[str, str]) -> None:
        status, text = self.audience.refusal(delivery.recipient)
        self.maildir.add(
            bounce.report(
                return_path=delivery.return_path,
                recipient=delivery.recipient,
                original=delivery.content,
                arrived=delivery.accepted_at,
                now=self.clock.now(),
                action="failed" if fate is Fate.BOUNCED else "delayed",
                status=status,
                text=text,
            )
        )
        with self._changed:
            self.counts["reports"] += 1
            if fate is Fate.BOUNCED:
                self._bounced.add(pair)

    def _failed(self, why: str) -> None:
        with self._changed:
            self.failures[why] += 1

    # -- what is known ------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Accepted mails that nobody has dealt with to the end."""
        with self._changed:
            return len(self.deliveries) - self._handled

    @property
    def drained(self) -> bool:
        return self.pending == 0

    def wait_drained(self, timeout_seconds: float = 30.0) -> None:
        """Return when everything accepted was dealt with; TimeoutError says how much is left."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while left := len(self.deliveries) - self._handled:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{left} mails are not dealt with after {timeout_seconds} s")

    def status(self) -> dict[str, Any]:
        """The counts: people and mails, not attempts, except `accepted`, `refusals` and `reports`."""
        with self._changed:
            return {
                "accepted": len(self.deliveries),
                "distinct": len(self._pairs),
                "duplicates": self.counts["duplicates"],
                "refused": len(self._refused),
                "refusals": self.counts["refusals"],
                "bounced_dsn": len(self._bounced),
                "reports": self.counts["reports"],
                "pending": len(self.deliveries) - self._handled,
                **{what: self.counts[what] for what in COUNTED},
                "failures": self.failures.total(),
                "failed_because": dict(self.failures.most_common(10)),
            }

    def find(self, recipient: str = "", limit: int = 100) -> list[Delivery]:
        """The newest deliveries, the newest first."""
        with self._changed:
            known = list(self.deliveries)
        wanted = (d for d in reversed(known) if not recipient or d.recipient.lower() == recipient.lower())
        return [d for d, _ in zip(wanted, range(limit), strict=False)]

    def close(self) -> None:
        """Let everybody stop where they are."""
        self.readers.browser.stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
