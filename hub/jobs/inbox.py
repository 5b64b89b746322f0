"""What a person does with the webhook inbox: look at what came in, and have it worked again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hub.config.loading import nearest
from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.store import inbox


async def overview(runtime: Runtime) -> list[dict[str, Any]]:
    """Events by connection, object, action and state."""
    async with runtime.db.connection() as conn:
        return await inbox.overview(conn)


async def entries(
    runtime: Runtime, *, connection: str | None, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest events."""
    async with runtime.db.connection() as conn:
        return await inbox.entries(conn, connection=connection, state=state, limit=limit)


async def entry(runtime: Runtime, id: int) -> dict[str, Any]:
    """All that is kept of one event or call."""
    async with runtime.db.connection() as conn:
        found = await inbox.entry(conn, id)
    if found is None:
        raise HubError(f"there is no webhook {id}", "see `hub inbox list`")
    return found


async def replay(
    runtime: Runtime,
    connection: str,
    *,
    since: datetime | None,
    until: datetime | None,
    object: str | None,
    worked_too: bool,
) -> int:
    """Have what was set aside worked again (with `worked_too` also what was worked). Returns how many."""
    if connection not in runtime.settings.connections:
        raise HubError(
            f"there is no connection {connection!r}", nearest(connection, runtime.settings.connections)
        )
    states = ("set_aside", "done") if worked_too else ("set_aside",)
    async with runtime.db.transaction() as conn:
        count = await inbox.replay(conn, connection, since=since, until=until, object=object, states=states)
    await runtime.bell.ring([Wake("inbox", connection)])
    return count
