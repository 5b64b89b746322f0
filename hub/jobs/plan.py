"""What would happen now: the stages themselves are run inside a transaction that is taken back."""

from __future__ import annotations

import dataclasses
from typing import Any

from hub import funnels, lists
from hub.errors import VendorError
from hub.jobs.runtime import Runtime
from hub.results import plan as results
from hub.store import ledger, mirrors, planned
from hub.sync import copying
from hub.sync import pull as sync  # the stage, not this option


async def plan(runtime: Runtime, *, pull: bool, samples: int) -> dict[str, Any]:
    """Counts and samples of list changes, mails and writes to vendors, as they would be made. Keeps nothing."""
    async with runtime.db.rehearsal() as db:
        rehearsal = dataclasses.replace(runtime, db=db)
        problems = await _pulled(rehearsal) if pull else []
        async with db.connection() as conn:
            before = await planned.marks(conn)
        sizes = await lists.refresh_all(
            db, rehearsal.clock, rehearsal.settings.lists, rehearsal.catalog, rehearsal.pulled
        )
        await funnels.advance(
            db, rehearsal.clock, rehearsal.settings.funnels, rehearsal.catalog, rehearsal.settings.messages
        )
        await copying.copy(db, rehearsal.clock, rehearsal.copied)
        await results.plan(db, rehearsal.clock, rehearsal.targets)
        async with db.transaction() as conn:
            while await ledger.claim(
                conn, rehearsal.purposes, worker="plan", limit=1_000, now=rehearsal.clock.now()
            ):
                continue
            found = await planned.since(conn, before, samples=samples)
            await mirrors.register(conn, rehearsal.mirrored)
            connections = sorted({connection for _, connection in rehearsal.mirrored})
            ours = [each for name in connections for each in await mirrors.of(conn, name)]
            found["mirrors"] = await mirrors.planned(conn, ours)
        found["lists"] = [
            {
                "list": r.name,
                "size": r.size,
                "joined": r.joined,
                "left": r.left,
                "waits_for": list(r.waits_for),
                "problem": r.problem,
                "samples": found["joined"].get(r.name, []),
            }
            for r in sizes
        ]
        found["problems"] = problems
        found.pop("joined")
        return found


async def _pulled(runtime: Runtime) -> list[str]:
    """Read the vendors into the rehearsal. A vendor that fails is told, and the plan is made without it."""
    problems = []
    for name, section in runtime.settings.sync.items():
        connector = await runtime.connector(name, pulling=True)
        for stream in section.pull:
            try:
                done = await sync.pull(runtime.db, runtime.clock, connector, runtime.mapping(name), stream)
            except VendorError as error:
                problems.append(f"{name} {stream}: {error}")
                continue
            if done.state != "done":
                problems.append(f"{name} {stream}: {done.state}: {done.reason}")
    return problems
