"""What a person does with lists: look, ask why, try a rule, import into one, see who was on it, have them verified."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

from hub import lists
from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.lists import csv_file
from hub.rules import parse
from hub.store import contacts, imports, mirrors, runs, snapshots
from hub.store import lists as store
from hub.sync import mirroring


async def overview(runtime: Runtime) -> list[dict[str, Any]]:
    """Every list: size, age, who joined and left in the last week, and what it waits for."""
    async with runtime.db.connection() as conn:
        return await store.all_sizes(conn, now=runtime.clock.now())


async def one(runtime: Runtime, name: str) -> dict[str, Any]:
    """`sizes` by day, the newest `changes` and the `mirrors` of a list."""
    _known(runtime, name)
    async with runtime.db.connection() as conn:
        return {
            "list": name,
            "sizes": await store.sizes(conn, name),
            "changes": await store.newest_changes(conn, name),
            "mirrors": await mirrors.all_of(conn, name),
        }


async def why(runtime: Runtime, name: str, email: str) -> list[dict[str, Any]]:
    """For each contact with this address: each condition of the list, what it looked at, and which decided."""
    _known(runtime, name)
    rule = lists.compiled(name, runtime.settings.lists[name], runtime.catalog)
    async with runtime.db.connection() as conn:
        people = await contacts.by_email(conn, email)
        return [await lists.why(conn, name, rule, person, runtime.clock.now()) for person in people]


async def preview(runtime: Runtime, text: str, samples: int) -> dict[str, Any]:
    """How many a rule is true for, and some of them."""
    return await lists.preview(runtime.db, parse(text, runtime.catalog), runtime.clock.now(), samples=samples)


async def take_in(
    runtime: Runtime, name: str, file: Path, column: str | None, *, replace: bool
) -> dict[str, Any]:
    """Import a CSV file into a static list as one run, and bring the lists up to date."""
    _known(runtime, name)
    if not runtime.settings.lists[name].static:
        raise HubError(f"list {name} has a rule", "only a list with `static: true` can be imported into")
    addresses, bad = csv_file.addresses(file, column)
    if replace and not addresses:
        raise HubError(f"{file} holds no address", "leave --replace out, or take the list out of hub.yaml")
    await refresh(runtime)
    now = runtime.clock.now()
    async with runtime.db.transaction() as conn:
        run_id = await runs.start(conn, "import", "", name, now=now)
        gone = await imports.keep_only(conn, name, addresses) if replace else 0
        new, waiting = await imports.add(conn, name, addresses, run_id, now=now)
        counts = runs.Counts(
            read=len(addresses) + len(bad),
            created=new,
            unchanged=len(addresses) - new,
            gone=gone,
            rejected=len(bad),
        )
        await runs.reject(conn, run_id, bad, now=now)
        await runs.finish(conn, run_id, counts, state="done", now=now)
    done = {each.name: each for each in await refresh(runtime)}[name]
    return {
        "list": name, "run": run_id, "new": new, "known": len(addresses) - new, "removed": gone, "waiting": waiting,
        "rejected": [{"line": each.id, "message": each.message} for each in bad], "members": done.size,
        "joined": done.joined, "left": done.left, "waits_for": list(done.waits_for),
    }  # fmt: skip


async def snapshot(
    runtime: Runtime,
    name: str | None,
    at: datetime | None,
    campaign: str | None,
    *,
    limit: int,
    file: Path | None,
) -> dict[str, Any]:
    """Who was on a list at a time, or whose mails a campaign froze; the whole of it into `file` as CSV."""
    async with runtime.db.transaction() as conn:
        values: dict[str, Any] = {"list": name, "at": at or runtime.clock.now(), "campaign": campaign}
        if campaign:
            frozen = await snapshots.campaign(conn, campaign)
            if frozen is None:
                raise HubError(f"campaign {campaign} was not approved", "see `hub campaigns`")
            values |= frozen
        rule = await snapshots.rule_at(conn, values["list"], values["at"])
        if rule is None:
            raise HubError(
                f"there was no list {values['list']!r} at {values['at']:%Y-%m-%d %H:%M}", "see `hub lists`"
            )
        size = await snapshots.size(conn, values)
        members = [row async for row in snapshots.rows(conn, values, limit)]
        if file is not None:
            with file.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                columns = ("contact_id", "email", *(("state", "reason") if campaign else ("since",)))
                writer.writerow(columns)
                async for row in snapshots.rows(conn, values):
                    writer.writerow([row[column] for column in columns])
    return {**values, "rule": rule, "size": size, "members": members}


async def refresh(runtime: Runtime, *, verify: bool = False) -> list[lists.Refreshed]:
    return await lists.refresh_all(
        runtime.db, runtime.clock, runtime.settings.lists, runtime.catalog, runtime.pulled, verify=verify
    )


async def verify(runtime: Runtime) -> dict[str, Any]:
    """Hold every list against its whole rule now. Returns the run, with the rows that differed under `rejects`."""
    await refresh(runtime, verify=True)
    async with runtime.db.connection() as conn:
        found = await runs.newest(conn, "lists")
        assert found is not None
        return found


async def prepared(runtime: Runtime, connection: str, *, dry: bool) -> list[str]:
    """Make the segments of a connection that lists are mirrored into. Returns what was, or would be, made."""
    names = [segment for (_, each), segment in runtime.mirrored.items() if each == connection]
    return await mirroring.prepare(await runtime.connector(connection), names, dry=dry) if names else []


def _known(runtime: Runtime, name: str) -> None:
    if name not in runtime.settings.lists:
        raise HubError(
            f"there is no list {name!r}", f"hub.yaml has {', '.join(runtime.settings.lists) or 'none'}"
        )
