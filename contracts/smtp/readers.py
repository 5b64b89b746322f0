"""The people who read: they load images, follow links and use the one-click unsubscription, over real HTTP."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from contracts.smtp.audience import Audience
from contracts.smtp.letter import Envelope, Traces, read_traces

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.0"
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class NotDone(Exception):
    """A person could not do what they wanted; the text says why, without address or URL."""


@dataclass
class Browser:
    """HTTP with one kept connection per thread and host; waits out a server that is away, for a bounded time.

    Never follows a redirect. Talks to the hosts in `reach` only: a rehearsal must not touch the world outside.
    """

    patience_seconds: float = 60.0
    reach: frozenset[str] = LOOPBACK
    stopped: threading.Event = field(default_factory=threading.Event)
    kept: threading.local = field(default_factory=threading.local)

    def request(
        self, method: str, url: str, body: bytes | None = None, accept: str = "*/*"
    ) -> tuple[int, str]:
        """(status, Location). Raises `NotDone` when no answer below 500 came in time."""
        parts = urlsplit(url)
        if parts.hostname not in self.reach:
            raise NotDone(f"{method}: the host is not among those that may be reached")
        deadline, tries, last = time.monotonic() + self.patience_seconds, 0, ""
        while True:
            try:
                status, location = self._once(method, url, body, accept)
                if status < 500 and status != 429:
                    return status, location
                last = f"status {status}"
            except (OSError, http.client.HTTPException) as e:
                last = type(e).__name__
            pause = PAUSES[min(tries, len(PAUSES) - 1)]
            tries += 1
            if time.monotonic() + pause > deadline or self.stopped.wait(pause):
                raise NotDone(f"{method}: {last} after {tries} tries")

    def _once(self, method: str, url: str, body: bytes | None, accept: str) -> tuple[int, str]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        connections: dict[str, http.client.HTTPConnection] = self.kept.__dict__.setdefault("open", {})
        connection = connections.get(origin)
        if connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = connections[origin] = kind(parts.netloc, timeout=15)
        headers = {"User-Agent": AGENT, "Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = connection.getresponse()
            answer.read()
        except BaseException:
            connection.close()
            raise
        return answer.status, answer.getheader("Location", "")


Done = Callable[[str], None]
"""Told `opened`, `clicked` or `unsubscribed` when the sender's web confirmed it."""
Failed = Callable[[str], None]
"""Told why a person could not do what they wanted."""


@dataclass
class Readers:
    """Everybody who reads. Deterministic in what they do; patient with a web that is being restarted."""

    audience: Audience
    browser: Browser = field(default_factory=Browser)

    def read(self, recipient: str, envelope: Envelope, content: bytes, done: Done, failed: Failed) -> None:
        """One person takes one mail: opens, clicks the first tracked link, unsubscribes, each as the draw says."""
        wish = self.audience.reaction(recipient, envelope.subject)
        if not wish.any:
            return
        traces = read_traces(content, envelope) if wish.opens or wish.clicks else Traces((), ())
        acts: list[tuple[bool, str, Callable[[], None]]] = [
            (wish.opens, "opened", lambda: self._open(traces)),
            (wish.clicks, "clicked", lambda: self._click(traces)),
            (wish.unsubscribes, "unsubscribed", lambda: self._unsubscribe(envelope)),
        ]
        for wanted, name, act in acts:
            if not wanted:
                continue
            try:
                act()
            except NotDone as e:
                failed(f"not {name}: {e}")
            else:
                done(name)

    def _open(self, traces: Traces) -> None:
        if not traces.images:
            raise NotDone("the mail has no image on its sender's host")
        for url in traces.images:
            status, _ = self.browser.request("GET", url, accept="image/*")
            if status != 200:
                raise NotDone(f"the image answers {status}")

    def _click(self, traces: Traces) -> None:
        if not traces.links:
            raise NotDone("the mail has no tracked link")
        status, location = self.browser.request("GET", traces.links[0], accept="text/html")
        if status not in (302, 303):
            raise NotDone(f"the link answers {status}")
        if not location:
            raise NotDone("the link leads nowhere: its redirect has no Location")

    def _unsubscribe(self, envelope: Envelope) -> None:
        if not envelope.unsubscribe_url or not envelope.one_click:
            raise NotDone("the mail offers no one-click unsubscription (RFC 8058)")
        status, _ = self.browser.request("POST", envelope.unsubscribe_url, b"List-Unsubscribe=One-Click")
        if not 200 <= status < 300:
            raise NotDone(f"the unsubscription answers {status}")
