"""What the commands and the console ask of a running hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub import lists
from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.rules import parse
from hub.store import contacts, funnels, outbox, runs, story
from hub.store import lists as list_store


async def about(runtime: Runtime, email: str) -> list[dict[str, Any]]:
    """The whole story of everybody with this address."""
    async with runtime.db.connection() as conn:
        return await story.tell(conn, email)


async def all_lists(runtime: Runtime) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await list_store.all_sizes(conn)


async def list_changes(runtime: Runtime, name: str) -> list[dict[str, Any]]:
    _known(runtime, name)
    async with runtime.db.connection() as conn:
        return await list_store.newest_changes(conn, name)


async def why(runtime: Runtime, name: str, email: str) -> list[dict[str, Any]]:
    """Each condition of a list's rule for each contact with this address: whether it holds."""
    _known(runtime, name)
    rule = parse(runtime.settings.lists[name].where, runtime.catalog)
    async with runtime.db.connection() as conn:
        people = await contacts.by_email(conn, email)
    found = []
    for person in people:
        values = {**person, **person["fields"]}
        for row in await lists.why(runtime.db, runtime.clock, rule, person["id"]):
            named = [f"{f} is {values.get(f)!r}" for f in sorted(rule.fields) if f in row["condition"]]
            found.append({"contact_id": person["id"], **row, "value": ", ".join(named)})
    return found


def _known(runtime: Runtime, name: str) -> None:
    if name not in runtime.settings.lists:
        raise HubError(
            f"there is no list {name!r}", f"hub.yaml has {', '.join(runtime.settings.lists) or 'none'}"
        )


async def all_funnels(runtime: Runtime) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await funnels.overview(conn)


async def recent_runs(runtime: Runtime, limit: int) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await runs.recent(conn, limit)


async def one_run(runtime: Runtime, run_id: int) -> dict[str, Any] | None:
    async with runtime.db.connection() as conn:
        return await runs.one(conn, run_id)


async def replay(runtime: Runtime, connection: str, states: Sequence[str]) -> int:
    """Queue writes of a connection again that rest in these states."""
    if connection not in runtime.settings.connections:
        raise HubError(
            f"there is no connection {connection!r}",
            f"hub.yaml has {', '.join(runtime.settings.connections) or 'none'}",
        )
    async with runtime.db.transaction() as conn:
        return await outbox.replay(conn, connection, states=states)
