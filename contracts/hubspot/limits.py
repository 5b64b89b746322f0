"""The three buckets that HubSpot counts requests in, and its 429.

Windows run on real time, not on the hub's clock. Source: HubSpot developer docs "Usage guidelines", "Search".
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.hubspot.answers import Refusal

BURST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests are let through. The defaults are those of a Professional account."""

    private_per_10_s: int = 190
    oauth_per_10_s: int = 110
    daily: int = 625_000
    search_per_second: int = 5

    @classmethod
    def generous(cls) -> Limits:
        """For demonstrations: the headers stay, the walls are out of reach."""
        return cls(100_000, 100_000, 1_000_000_000, 100_000)


class Window:
    """A rolling window of `seconds`: `take` counts a request and says how many are left, or None when full."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.times: deque[float] = deque()

    def take(self, allowed: int, now: float) -> int | None:
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        if len(self.times) >= allowed:
            return None
        self.times.append(now)
        return allowed - len(self.times)


class Counter:
    """Counts requests per app and account; raises the vendor's 429 when a bucket is empty."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.monotonic = limits, monotonic
        self.bursts: defaultdict[str, Window] = defaultdict(lambda: Window(BURST_SECONDS))
        self.search = Window(1.0)
        self.day, self.used_today = "", 0

    def burst(self, app: str, *, oauth: bool) -> dict[str, str]:
        """Count an ordinary request; gives the rate headers of its answer."""
        self._daily()
        allowed = self.limits.oauth_per_10_s if oauth else self.limits.private_per_10_s
        left = self.bursts[app].take(allowed, self.monotonic())
        headers = {
            "X-HubSpot-RateLimit-Max": str(allowed),
            "X-HubSpot-RateLimit-Remaining": str(left or 0),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(BURST_SECONDS * 1000)),
        }
        if not oauth:
            headers["X-HubSpot-RateLimit-Daily"] = str(self.limits.daily)
            headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(self.limits.daily - self.used_today)
        if left is None:
            raise too_many("TEN_SECONDLY_ROLLING", headers)
        return headers

    def searched(self) -> dict[str, str]:
        """Count a search: a bucket of its own, per account, whose answers carry no rate headers."""
        self._daily()
        if self.search.take(self.limits.search_per_second, self.monotonic()) is None:
            raise too_many("SECONDLY", {})
        return {}

    def _daily(self) -> None:
        today = datetime.now(UTC).date().isoformat()
        if today != self.day:
            self.day, self.used_today = today, 0
        if self.used_today >= self.limits.daily:
            raise too_many("DAILY", {"X-HubSpot-RateLimit-Daily-Remaining": "0"})
        self.used_today += 1


class TooMany(Refusal):
    """A 429 with the headers that go with it."""

    def __init__(self, policy: str, headers: dict[str, str]) -> None:
        super().__init__(
            429,
            "RATE_LIMITS",
            f"You have reached your {policy.lower()} limit.",
            errorType="RATE_LIMIT",
            policyName=policy,
        )
        self.headers = headers


def too_many(policy: str, headers: dict[str, str]) -> TooMany:
    return TooMany(policy, headers)
