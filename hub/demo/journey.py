"""Play a rehearsal through: let the hub work until nothing is left, jump to what comes next, until nothing comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hub.demo.stage import Stage
from hub.errors import HubError
from hub.jobs import stages
from hub.jobs.runtime import Runtime
from hub.store import backlog, status

Watch = Callable[[dict[str, Any]], None]
"""Told the hub's numbers a few times a second."""

POLL_SECONDS = 0.15
CALM_POLLS = 3
JUMP_BEYOND = timedelta(
    seconds=90
)  # people enter a funnel within seconds of each other: one jump for all of them


class Journey:
    """Drives one stage. `watch` sees the numbers; a test's watch may also kill, flush and restart things."""

    def __init__(
        self, stage: Stage, runtime: Runtime, watch: Watch, *, idle_limit_seconds: float = 120.0
    ) -> None:
        self.stage, self.runtime, self.watch = stage, runtime, watch
        self.idle_limit_seconds = idle_limit_seconds
        self.jumps = 0

    async def play(self) -> dict[str, Any]:
        """Until no work, no wait and no reader is left. Returns the hub's last numbers."""
        while True:
            numbers = await self._calm()
            async with self.runtime.db.connection() as conn:
                due = await backlog.next_due(
                    conn,
                    delivered_after=self.runtime.settings.results.delivered_after,
                    now=self.runtime.clock.now(),
                )
            if due is None:
                return numbers
            self.stage.clock.jump(max(due - self.runtime.clock.now(), timedelta()) + JUMP_BEYOND)
            self.jumps += 1

    async def _calm(self) -> dict[str, Any]:
        """Wait until nothing is under way. A hub that makes no progress for too long is an error that says where it hangs."""
        calm = 0
        seen: tuple[object, ...] = ()
        changed_at = time.monotonic()
        while True:
            self.stage.supervisor.tend()
            numbers, left = await self._look()
            self.watch(numbers)
            calm = 0 if left else calm + 1
            if calm >= CALM_POLLS:
                return numbers
            if (now := (str(numbers), str(left))) != seen:
                seen, changed_at = now, time.monotonic()
            if time.monotonic() - changed_at > self.idle_limit_seconds:
                raise HubError(
                    f"the hub stands still with work left: {left}", f"read {self.stage.folder / 'worker.log'}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> tuple[dict[str, Any], dict[str, int]]:
        """(the hub's numbers, what is still to be done and by whom)."""
        async with self.runtime.db.connection() as conn:
            numbers = await status.numbers(conn, now=self.runtime.clock.now())
            left = await backlog.busy(conn)
        for waiting in await stages.waiting(self.runtime):
            left[f"{waiting.kind} {waiting.key}".strip()] = waiting.count
        relay = await asyncio.to_thread(self.stage.relay_status)
        if relay["pending"]:
            left["readers"] = relay["pending"]
        return numbers, left
