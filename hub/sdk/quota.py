"""Quotas of a vendor's account, shared by everything that calls it: pulls, pushes and webhooks alike.

A call is admitted against every limit that counts it. A short window (a burst) is waited for; a long one (a
day) is not: the caller gets `QuotaExhausted` with the time when it may go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from hub.errors import QuotaExhausted
from hub.sdk.connector import Limit

MAX_WAIT_SECONDS = 30.0
PULL_SHARE = 0.8
"""What pulls may use of a limit that is too long to wait for; the rest is kept for pushes and webhooks."""

Sleep = Callable[[float], Awaitable[None]]


class Quota(Protocol):
    """Counts calls of an account. `take` is one attempt; `admit` waits where that is short."""

    async def take(
        self, account: str, limits: Sequence[Limit], *, cost: int, share: float
    ) -> tuple[float, str]:
        """Count a call if every limit has room; else (seconds until the fullest one has, its name), nothing counted."""
        ...

    async def pause(self, account: str, limit: str, seconds: float, reason: str) -> None:
        """A vendor ordered a stop: no call of this account for so long."""
        ...

    async def usage(self, account: str) -> dict[str, int]:
        """limit -> calls used in its window that ends now."""
        ...


async def admit(
    quota: Quota,
    account: str,
    limits: Sequence[Limit],
    *,
    scope: str = "",
    cost: int = 1,
    share: float = 1.0,
    sleep: Sleep = asyncio.sleep,
    max_wait_seconds: float = MAX_WAIT_SECONDS,
) -> None:
    """Return when a call may be made. Raises `QuotaExhausted` when that is more than `max_wait_seconds` away."""
    counted = [limit for limit in limits if limit.scope in ("", scope)]
    waited = 0.0
    while True:
        wait, name = await quota.take(account, counted, cost=cost, share=share)
        if wait <= 0:
            return
        if waited + wait > max_wait_seconds:
            raise QuotaExhausted(
                f"the quota {name!r} of {account} is used up; it has room again in {wait:.0f} s",
                code="QUOTA",
                fix="the run goes on by itself then",
                retry_after_seconds=wait,
            )
        await sleep(wait)
        waited += wait


class MemoryQuota:
    """Counts within one process: for a connector's own tests and for the conformance suite."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._taken: dict[tuple[str, str], deque[tuple[float, int]]] = {}  # when, and how many
        self._paused: dict[str, tuple[float, str]] = {}

    async def take(
        self, account: str, limits: Sequence[Limit], *, cost: int, share: float
    ) -> tuple[float, str]:
        now = self._now()
        until, reason = self._paused.get(account, (0.0, ""))
        if until > now:
            return until - now, reason
        fullest = (0.0, "")
        for limit in limits:
            taken = self._taken.setdefault((account, limit.name), deque())
            while taken and now - taken[0][0] >= limit.seconds:
                taken.popleft()
            over = sum(calls for _, calls in taken) + cost - room(limit, share)
            for at, calls in taken:
                if over <= 0:
                    break
                over -= calls
                fullest = max(fullest, (max(at + limit.seconds - now, 0.001), limit.name))
            if over > 0:
                fullest = max(fullest, (limit.seconds, limit.name))
        if fullest[0] <= 0:
            for limit in limits:
                self._taken[account, limit.name].append((now, cost))
        return fullest

    async def pause(self, account: str, limit: str, seconds: float, reason: str) -> None:
        self._paused[account] = (self._now() + seconds, reason or limit)

    async def usage(self, account: str) -> dict[str, int]:
        counted = (
            (name, taken) for (owner, name), taken in self._taken.items() if owner == account and taken
        )
        return {name: sum(calls for _, calls in taken) for name, taken in counted}


def room(limit: Limit, share: float) -> int:
    """Calls that may be used of a limit. Only windows too long to wait for are shared out."""
    return limit.calls if limit.seconds <= MAX_WAIT_SECONDS else max(1, int(limit.calls * share))
