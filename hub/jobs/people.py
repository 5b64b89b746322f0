"""What `hub duplicates` does: suspected pairs, merges and their undoing, each followed by the lists."""

from __future__ import annotations

from typing import Any

from hub.errors import HubError
from hub.jobs import stages
from hub.jobs.runtime import Runtime
from hub.mapping import Standing
from hub.store import duplicates, merging


async def suspected(runtime: Runtime, limit: int) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await duplicates.suspected(conn, limit=limit)


async def merged(runtime: Runtime, limit: int) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await duplicates.merged(conn, limit=limit)


async def parted(runtime: Runtime, limit: int) -> list[dict[str, Any]]:
    async with runtime.db.connection() as conn:
        return await duplicates.parted(conn, limit=limit)


async def merge(runtime: Runtime, loser: int, survivor: int) -> dict[str, Any]:
    """Make one of two, and bring the lists in line."""
    async with runtime.db.transaction() as conn:
        await merging.merge(conn, loser, survivor, standing=_standing(runtime), now=runtime.clock.now())
    await stages.run(runtime, "lists", "")
    return {"contact": loser, "into": survivor}


async def unmerge(runtime: Runtime, contact: int) -> dict[str, Any]:
    """Make two of what `merge` made one, and bring the lists in line."""
    async with runtime.db.transaction() as conn:
        other = await merging.unmerge(conn, contact, standing=_standing(runtime), now=runtime.clock.now())
    await stages.run(runtime, "lists", "")
    return {"contact": contact, "other": other}


async def apart(runtime: Runtime, one: int, other: int) -> dict[str, Any]:
    """Note that two contacts are two people."""
    if one == other:
        raise HubError("a contact cannot be told apart from itself", "name two contacts")
    async with runtime.db.transaction() as conn:
        known = await merging.existing(conn, [one, other])
        for each in (one, other):
            if each not in known:
                raise HubError(f"there is no contact {each}", "see `hub duplicates`")
        await duplicates.tell_apart(conn, one, other, runtime.clock.now())
    return {"one": min(one, other), "other": max(one, other)}


def _standing(runtime: Runtime) -> tuple[Standing, ...]:
    """Who wins over whom, as every mapping knows it."""
    names = list(runtime.settings.connections)
    return runtime.mapping(names[0]).standing if names else ()
