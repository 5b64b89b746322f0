"""What a person does with campaigns: look, plan, approve, pause, resume, cancel, release what is held."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from hub import lists
from hub.errors import HubError
from hub.jobs.preview import COMPOSED, compiled
from hub.jobs.runtime import Runtime
from hub.mail import campaigns as planning
from hub.mail.campaigns import Planned
from hub.mail.coverage import coverage
from hub.store import campaigns as store
from hub.store import fence
from hub.store.database import Connection


async def overview(runtime: Runtime) -> list[dict[str, Any]]:
    """Every campaign of hub.yaml and every one that was approved: its state, sums and prospects."""
    now = runtime.clock.now()
    async with runtime.db.connection() as conn:
        approved = {row["name"]: _prospects(row, now) for row in await store.overview(conn, now=now)}
    planned = [
        {"name": name, "state": "planned", "message": section.message, "list": section.list}
        for name, section in runtime.settings.campaigns.items()
        if name not in approved
    ]
    return [*approved.values(), *planned]


async def one(runtime: Runtime, name: str) -> dict[str, Any]:
    """The row of one approved campaign."""
    now = runtime.clock.now()
    async with runtime.db.connection() as conn:
        return _prospects((await store.overview(conn, now=now, name=name))[0], now)


def _prospects(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    """`settled` of `frozen` rows are in an end state; `adds_up`: no row of the snapshot is missing; `eta`: if it goes on so."""
    counts: dict[str, int] = row["counts"]
    settled = sum(counts.get(state, 0) for state in store.END_STATES)
    left = row["frozen"] - settled
    eta = None
    if row["state"] in ("approved", "sending") and left:
        eta = max(row["last_at"], now)
        if row["per_hour"]:
            eta = max(eta, now + timedelta(hours=left / row["per_hour"]))
    return {
        **row, "settled": settled, "progress": settled / row["frozen"] if row["frozen"] else 1.0, "eta": eta,
        "adds_up": sum(counts.values()) == row["frozen"],
    }  # fmt: skip


# --- plan and approve ------------------------------------------------------------------------------------------


async def plan(runtime: Runtime, name: str) -> dict[str, Any]:
    """What would be sent to whom, when, by which relays: frozen for real, and taken back. `coverage` is what the recipients
    lack for the message."""
    _known(runtime, name)
    async with runtime.db.rehearsal() as db:
        rehearsal = dataclasses.replace(runtime, db=db)
        async with db.transaction() as conn:
            known = await store.state(conn, name)
        if known is not None:
            raise HubError(f"campaign {name} was approved already: it is {known}", "see `hub campaigns`")
        planned = await _freeze(rehearsal, name, None)
        message = compiled(runtime.config, planned.message, runtime.catalog.template_fields)
        async with db.connection() as conn:
            found = await coverage(conn, message, now=runtime.clock.now(), compose=COMPOSED)
    return {**await _told(runtime, planned), "coverage": found}


async def approve(runtime: Runtime, name: str, wanted: str | None) -> dict[str, Any]:
    """Freeze a campaign. What was approved before stays as it is; `approved` says whether this did it."""
    _known(runtime, name)
    async with runtime.db.connection() as conn:
        known = await store.state(conn, name)
    new = known is None and (await _freeze(runtime, name, wanted)).new
    return {"approved": new, **await one(runtime, name)}


async def _freeze(runtime: Runtime, name: str, wanted: str | None) -> Planned:
    settings = runtime.settings
    section = settings.campaigns[name]
    # No other process refreshes meanwhile: what is frozen is what the rules say now.
    await lists.refresh_all(runtime.db, runtime.clock, settings.lists, runtime.catalog, runtime.pulled)
    file = settings.messages[section.message].template
    template = (runtime.config.base_dir / file).read_bytes() if file else b""
    now = runtime.clock.now()

    async def work(conn: Connection) -> Planned:
        return await planning.freeze(
            conn, name, settings, runtime.purposes, template=template, now=now, wanted=wanted
        )

    async with runtime.db.transaction() as conn:
        planned = await work(conn)
        if planned.new and planned.recipients and planned.late == planned.recipients:
            raise HubError(
                f"the time of campaign {name} has passed: {section.at:%Y-%m-%d %H:%M}", "set a later `at`"
            )
    return planned


async def _told(runtime: Runtime, planned: Planned) -> dict[str, Any]:
    """A plan as people read it, with the gates' verdicts."""
    relays = []
    for share in planned.shares:
        found = await runtime.gates.verdict(planned.message, share.relay) if share.relay else None
        relays.append(
            {
                **dataclasses.asdict(share), "gate": found.state if found else "failed",
                "reasons": [str(each) for each in found.reasons] if found else ["no relay serves these"],
            }
        )  # fmt: skip
    document = dataclasses.asdict(planned)
    del document["new"], document["shares"]
    return {**document, "duration_seconds": planned.duration_seconds, "relays": relays}


def _known(runtime: Runtime, name: str) -> None:
    if name not in runtime.settings.campaigns:
        known = ", ".join(runtime.settings.campaigns) or "none"
        raise HubError(f"there is no campaign {name!r}", f"hub.yaml has {known}")


# --- pause, resume, cancel, release --------------------------------------------------------------------------------


async def pause(runtime: Runtime, name: str) -> dict[str, Any]:
    return await _changed(runtime, name, store.pause)


async def resume(runtime: Runtime, name: str) -> dict[str, Any]:
    return await _changed(runtime, name, store.resume)


async def cancel(runtime: Runtime, name: str) -> dict[str, Any]:
    return await _changed(runtime, name, store.cancel)


async def _changed(runtime: Runtime, name: str, change: Callable[..., Awaitable[int]]) -> dict[str, Any]:
    """Change a campaign; `mails` is how many rows of the ledger changed with it."""
    mails = await runtime.db.repeated(lambda conn: change(conn, name, now=runtime.clock.now()))
    return {"mails": mails, **await one(runtime, name)}


async def held(runtime: Runtime) -> dict[str, Any]:
    """What is held, by campaign and reason, and why nothing at all is sent, if so."""
    async with runtime.db.connection() as conn:
        return {"fence": await fence.standing(conn), "held": await fence.held(conn)}


async def release(runtime: Runtime, campaign: str | None) -> dict[str, Any]:
    """Send what is held, of one campaign or all, except what a paused campaign holds. Returns how many became what."""
    now = runtime.clock.now()
    return await runtime.db.repeated(lambda conn: fence.release(conn, campaign, now=now))
