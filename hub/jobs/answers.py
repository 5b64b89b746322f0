"""What the commands and the console ask of a running hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.store import funnels, outbox, runs, story


async def about(runtime: Runtime, email: str) -> list[dict[str, Any]]:
    """The whole story of everybody with this address."""
    async with runtime.db.connection() as conn:
        return await story.tell(conn, email)


async def all_funnels(runtime: Runtime) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await funnels.overview(conn)


async def recent_runs(runtime: Runtime, limit: int) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await runs.recent(conn, limit)


async def one_run(runtime: Runtime, run_id: int) -> dict[str, Any] | None:
    async with runtime.db.connection() as conn:
        return await runs.one(conn, run_id)


async def rejects(runtime: Runtime, run_id: int, each: Callable[[dict[str, Any]], None]) -> int:
    """Every rejected row of a run, one after the other, however many. Returns how many."""
    count = 0
    async with runtime.db.transaction() as conn:
        if not await runs.exists(conn, run_id):
            raise HubError(f"there is no run {run_id}", "see `hub runs`")
        async for row in runs.rejects(conn, run_id):
            each(row)
            count += 1
    return count


async def replay(runtime: Runtime, connection: str, states: Sequence[str]) -> int:
    """Queue writes of a connection again that rest in these states."""
    if connection not in runtime.settings.connections:
        raise HubError(
            f"there is no connection {connection!r}",
            f"hub.yaml has {', '.join(runtime.settings.connections) or 'none'}",
        )
    async with runtime.db.transaction() as conn:
        return await outbox.replay(conn, connection, states=states)
