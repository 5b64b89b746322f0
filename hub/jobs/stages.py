"""What each kind of work does, and which kinds follow from it. The only place where the five stages meet.

pull, inbox -> copy -> push
pull, inbox -> lists -> mirror
pull, inbox -> lists -> funnels -> mail -> results -> push
                 ^------------ reports, web ----'
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from hub import funnels, lists
from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.mail.send import Sender
from hub.results import feedback, plan, reports
from hub.store import backlog, campaigns, events, fence, incidents, mirrors
from hub.sync import copying, inbox, mirroring, pull, push

log = structlog.get_logger()


@dataclass(frozen=True)
class Done:
    """How many rows were worked and what to wake next."""

    worked: int = 0
    wakes: tuple[Wake, ...] = ()


async def run(runtime: Runtime, kind: str, key: str) -> Done:
    """Do all work of a kind that waits now. Work that another process is at is left to it."""
    if kind == "mail":  # any number of senders may share the ledger
        return await _mail(runtime, key)
    async with runtime.db.exclusive(f"{kind}:{key}") as mine:
        return await _STAGES[kind](runtime, key) if mine else Done()


async def waiting(runtime: Runtime) -> list[backlog.Waiting]:
    """Everything that is due now: what PostgreSQL knows, and reports in the mailbox."""
    async with runtime.db.connection() as conn:
        found = await backlog.waiting(
            conn,
            now=runtime.clock.now(),
            delivered_after=runtime.settings.results.delivered_after,
            schedule={name: (s.every, s.pull) for name, s in runtime.settings.sync.items()},
            entrances={name: f.enter.list for name, f in runtime.settings.funnels.items()},
        )
        late = await mirrors.waiting(conn, now=runtime.clock.now()) if runtime.mirrored else []
    found += [backlog.Waiting("mirror", connection, 1) for connection in late]
    # What waits for a connection that hub.yaml no longer has, waits on.
    known = {*runtime.settings.connections, *map(feedback.inbox_of, runtime.events)}
    found = [w for w in found if w.kind not in ("push", "inbox", "mirror") or w.key in known]
    if runtime.maildir and (unread := reports.unread(runtime.maildir)):
        found.append(backlog.Waiting("reports", "", unread))
    return found


async def _pull(runtime: Runtime, key: str) -> Done:
    connection, stream = key.split("/")
    connector = await runtime.connector(connection, pulling=True)
    pulled = await pull.pull(
        runtime.db, runtime.clock, connector, runtime.mapping(connection), stream, progress=runtime.progress
    )
    return Done(pulled.counts.read, (Wake("lists"), Wake("copy")))


async def _inbox(runtime: Runtime, key: str) -> Done:
    if key.startswith(RELAY := feedback.inbox_of("")):
        told = await feedback.work(
            runtime.db, runtime.clock, runtime.signer, runtime.watch, key.removeprefix(RELAY)
        )
        return Done(told, (Wake("results"), Wake("lists")) if told else ())
    worked = await inbox.work(runtime.db, runtime.clock, await runtime.connector(key), runtime.mapping(key))
    return Done(worked.done, (Wake("lists"), Wake("copy")) if worked.done else ())


async def _copy(runtime: Runtime, key: str) -> Done:
    """Queue what the records of one person lack of each other; with the key `all` of everybody."""
    queued = await copying.copy(runtime.db, runtime.clock, runtime.copied, everybody=key == "all")
    return Done(sum(queued.values()), tuple(Wake("push", connection) for connection in sorted(queued)))


async def _lists(runtime: Runtime, key: str) -> Done:
    refreshed = await lists.refresh_all(
        runtime.db,
        runtime.clock,
        runtime.settings.lists,
        runtime.catalog,
        runtime.pulled,
        verify=key == "verify",
    )
    moved = sum(r.joined + r.left for r in refreshed)
    mirrors = sorted({connection for _, connection in runtime.mirrored})
    return Done(moved, (Wake("funnels"), *(Wake("mirror", connection) for connection in mirrors)))


async def _mirror(runtime: Runtime, key: str) -> Done:
    """Carry the members of lists into segments of one connection."""
    connector = await runtime.connector(key)
    return Done(await mirroring.mirror(runtime.db, runtime.clock, connector, runtime.mirrored))


async def _funnels(runtime: Runtime, key: str) -> Done:
    advanced = await funnels.advance(
        runtime.db, runtime.clock, runtime.settings.funnels, runtime.catalog, runtime.settings.messages
    )
    wakes = [Wake("mail")] if advanced.mails else []
    wakes += [Wake("push", connection) for connection in sorted(advanced.writes)]
    return Done(advanced.entered + advanced.taken, tuple(wakes))


async def _campaigns(runtime: Runtime, key: str) -> Done:
    """Hold what is too late, and note which campaigns have begun or are finished."""
    now = runtime.clock.now()
    async with runtime.db.transaction() as conn:
        late = await campaigns.hold_late(conn, now=now)
        turned = await campaigns.tend(conn, now=now)
    if late:
        log.warning("mails are held: their time has passed", mails=late, fix="hub release")
    for name, state in turned:
        log.info("campaign", name=name, state=state)
    return Done(late + len(turned))


async def _mail(runtime: Runtime, key: str) -> Done:
    if await fence.closed(runtime.db, now=runtime.clock.now()):
        return Done()
    await _campaigns(runtime, key)
    sender = Sender(
        runtime.db, runtime.clock, runtime.composer, runtime.relays, runtime.traffic, worker=runtime.worker,
        signer=runtime.dkim if runtime.settings.dkim else None, gates=runtime.gates, stop=runtime.stopping,
    )  # fmt: skip
    tally = await sender.send_due(runtime.purposes)
    await _campaigns(runtime, key)
    return Done(tally.total, (Wake("results"),) if tally.total else ())


async def _reports(runtime: Runtime, key: str) -> Done:
    if runtime.maildir is None:
        return Done()
    taken = await reports.take(runtime.db, runtime.clock, runtime.signer, runtime.maildir)
    return Done(taken.read, (Wake("results"), Wake("lists")) if taken.read else ())


async def _results(runtime: Runtime, key: str) -> Done:
    settled = 0
    limits = runtime.settings.bounces.incident
    async with runtime.db.transaction() as conn:
        found = await incidents.watch(conn, now=runtime.clock.now(), mails=limits.mails, within=limits.within)
    for each in found:
        log.warning(
            "an incident: bounces are about us, not about the addresses",
            relay=each.relay, receiver=each.receiver, why=each.why, bounces=each.bounces, lifted=each.lifted,
        )  # fmt: skip
    before = runtime.clock.now() - runtime.settings.results.delivered_after
    while True:
        async with runtime.db.transaction() as conn:
            quiet = await events.settle_delivered(conn, sent_before=before, now=runtime.clock.now())
        settled += quiet
        if not quiet:
            break
    busy = await plan.plan(runtime.db, runtime.clock, runtime.targets)
    return Done(settled, tuple(Wake("push", connection) for connection in sorted(busy)))


async def _push(runtime: Runtime, key: str) -> Done:
    pushed = await push.push(
        runtime.db,
        runtime.clock,
        await runtime.connector(key),
        runtime.mapping(key),
        progress=runtime.progress,
    )
    return Done(pushed.counts.written if pushed else 0)


_STAGES: dict[str, Callable[[Runtime, str], Awaitable[Done]]] = {
    "pull": _pull,
    "inbox": _inbox,
    "copy": _copy,
    "lists": _lists,
    "mirror": _mirror,
    "funnels": _funnels,
    "campaigns": _campaigns,
    "reports": _reports,
    "results": _results,
    "push": _push,
}


async def sync_now(
    runtime: Runtime, connection: str | None, *, full: bool, push_too: bool
) -> list[dict[str, Any]]:
    """Pull every configured stream of one connection or all, refresh the lists, write the outbox. One row a run."""
    if connection is not None and connection not in runtime.settings.sync:
        known = ", ".join(runtime.settings.sync) or "none"
        raise HubError(f"nothing is synced with {connection!r}", f"hub.yaml syncs {known}")
    rows: list[dict[str, Any]] = []

    def note(name: str, stream: str, done: pull.Pulled) -> None:
        rows.append(
            {"run": done.run_id, "connection": name, "stream": stream, "state": done.state, "counts": done.counts.as_dict(),
             "reason": done.reason}
        )  # fmt: skip

    chosen = {name: s for name, s in runtime.settings.sync.items() if connection in (None, name)}
    for name, section in chosen.items():
        connector = await runtime.connector(name, pulling=True)
        for stream in section.pull:
            async with runtime.db.exclusive(f"pull:{name}/{stream}") as mine:
                if mine:
                    note(name, stream, await pull.pull(
                        runtime.db, runtime.clock, connector, runtime.mapping(name), stream, full=full, progress=runtime.progress
                    ))  # fmt: skip
    if runtime.settings.lists:
        await run(runtime, "lists", "")
    await run(runtime, "copy", "all" if full else "")
    for name in sorted({each for _, each in runtime.mirrored} & chosen.keys() if push_too else ()):
        await run(runtime, "mirror", name)
    for name, section in chosen.items():
        if push_too and section.push:
            connector = await runtime.connector(name)
            async with runtime.db.exclusive(f"push:{name}") as mine:
                done = (
                    await push.push(
                        runtime.db, runtime.clock, connector, runtime.mapping(name), progress=runtime.progress
                    )
                    if mine
                    else None
                )
            if done:
                note(name, "push", done)
    return rows
