"""Push a connection's outbox: batches claimed, written by the connector, settled by what the vendor said row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hub.clock import Clock
from hub.errors import Drop, FixNeeded, HubError, Retry, Unclear, VendorError
from hub.mapping import Mapping as FieldMapping
from hub.model import ConsentWrite, Erase, FieldWrite, Outcome, OutcomeStatus, Push, Rejected, Result
from hub.sdk.connector import Connector
from hub.sdk.http import Stats, metered
from hub.store import contacts, copies, outbox, runs
from hub.store.database import Connection, Database
from hub.sync.pull import Progress, Pulled
from hub.sync.vanished import GONE, TRUSTED


async def push(
    db: Database,
    clock: Clock,
    connector: Connector[Any],
    mapping: FieldMapping | None,
    *,
    progress: Progress | None = None,
) -> Pulled | None:
    """Write what is due. Returns None when nothing was; else the run.

    One bad row never fails its batch. A quota ends the run `partial`; the rows stay queued.
    """
    repeatable = connector.manifest.repeatable
    async with db.transaction() as conn:
        await outbox.recover(conn, connector.name, repeatable=repeatable)
    counts, spent, run_id, reason = runs.Counts(), Stats(), 0, ""
    while True:
        async with db.transaction() as conn:
            claimed = await outbox.claim(conn, connector.name, connector.manifest.batch)
            if claimed and not run_id:
                run_id = await runs.start(conn, "push", connector.name, "outbox", now=clock.now())
        if not claimed:
            break
        with metered() as calls:
            outcomes, reason = await _offer(db, connector, mapping, claimed)
        spent.add(calls)
        await _settle(db, clock, connector.name, mapping, run_id, claimed, outcomes, counts)
        if progress:
            progress(connector.name, "push", counts)
        if reason:
            break
    if not run_id:
        return None
    counts.http = spent.as_dict()
    async with db.transaction() as conn:
        await runs.finish(
            conn, run_id, counts, state="partial" if reason else "done", now=clock.now(), reason=reason
        )
    return Pulled(run_id, "partial" if reason or counts.rejected else "done", counts, reason)


async def _offer(
    db: Database, connector: Connector[Any], mapping: FieldMapping | None, claimed: Sequence[outbox.Claimed]
) -> tuple[dict[str, Outcome], str]:
    """(an outcome for every claimed row, why the run must stop here or empty)."""
    outcomes: dict[str, Outcome] = {}
    pushes: list[Push] = []
    async with db.connection() as conn:
        refs = await contacts.refs(conn, connector.name, [c.contact_id for c in claimed if c.contact_id])
    for row in claimed:
        made = _to_push(row, refs.get(row.contact_id or 0, ""), mapping)
        if isinstance(made, Outcome):
            outcomes[row.dedupe_key] = made
        else:
            pushes.append(made)
    reason = ""
    if pushes:
        try:
            answers = await connector.push(pushes)
        except VendorError as error:
            answers = [_outcome_of(error, p.id) for p in pushes]
            reason = str(error) if isinstance(error, Retry) else ""
        outcomes.update({a.id: a for a in answers})
        for p in pushes:  # a connector that forgot a row must not lose it
            outcomes.setdefault(p.id, _forgotten(p.id, repeatable=connector.manifest.repeatable))
        outcomes.update(await _without_the_gone(connector, pushes, outcomes))
    return outcomes, reason


async def _without_the_gone(
    connector: Connector[Any], pushes: Sequence[Push], outcomes: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Refused writes again, without the fields that the vendor no longer has: one that vanished fails, the others go on."""
    refused = [
        p
        for p in pushes
        if isinstance(p, FieldWrite)
        and len(p.fields) > 1
        and outcomes[p.id].status is OutcomeStatus.FIX_NEEDED
    ]
    try:
        live = await connector.live_fields("contact", max_age=TRUSTED) if refused else None
        gone = {p.id: [name for name in p.fields if live is not None and name not in live] for p in refused}
        again = [
            msgspec.structs.replace(p, fields={k: v for k, v in p.fields.items() if k not in gone[p.id]})
            for p in refused
            if 0 < len(gone[p.id]) < len(p.fields)
        ]
        answers = await connector.push(again) if again else []
    except VendorError:
        return {}  # what was said of the rows stands
    return {
        a.id: msgspec.structs.replace(
            a,
            code=GONE,
            message=f"the vendor has no contact field {', '.join(map(repr, gone[a.id]))} any more; the others are written",
            fix=f"mend the mapping; see `hub mapping check {connector.name}`",
        )
        for a in answers
        if a.status is OutcomeStatus.DONE
    }


def _to_push(row: outbox.Claimed, contact_ref: str, mapping: FieldMapping | None) -> Push | Outcome:
    """The typed push of an outbox row, or the outcome when it cannot be made."""
    if row.kind == "result":
        return msgspec.convert(
            {**row.payload, "id": row.dedupe_key, "contact_ref": contact_ref}, Result, strict=False
        )
    if row.kind == "consent":
        return msgspec.convert(
            {**row.payload, "id": row.dedupe_key, "contact_ref": contact_ref}, ConsentWrite, strict=False
        )
    if row.kind == "erase":
        return Erase(id=row.dedupe_key, contact_ref=row.payload["contact_ref"])
    contact_ref = row.payload.get("ref", contact_ref)
    if not contact_ref:
        return Outcome(id=row.dedupe_key, status=OutcomeStatus.DROPPED, code="NO_CONTACT",
                       message="the contact does not exist in this system", fix="create it there, then replay")  # fmt: skip
    if mapping is None:
        return Outcome(id=row.dedupe_key, status=OutcomeStatus.FIX_NEEDED, code="NO_MAPPING",
                       message="the connection has no mapping", fix="name a mapping in hub.yaml")  # fmt: skip
    try:
        fields = mapping.push("contact", row.payload["fields"])
    except HubError as error:
        return Outcome(
            id=row.dedupe_key,
            status=OutcomeStatus.FIX_NEEDED,
            code="MAPPING",
            message=error.what,
            fix=error.fix,
        )
    return FieldWrite(id=row.dedupe_key, contact_ref=contact_ref, fields=fields)


def _outcome_of(error: VendorError, id: str) -> Outcome:
    status = OutcomeStatus.FIX_NEEDED
    if isinstance(error, Unclear):
        status = OutcomeStatus.UNCERTAIN
    elif isinstance(error, Retry):
        status = OutcomeStatus.RETRY
    elif isinstance(error, Drop):
        status = OutcomeStatus.DROPPED
    elif not isinstance(error, FixNeeded) and error.status >= 500:
        status = OutcomeStatus.RETRY
    return Outcome(id=id, status=status, code=error.code or str(error.status or ""), message=error.message, fix=error.fix,
                   retry_after_seconds=error.retry_after_seconds)  # fmt: skip


def _forgotten(id: str, *, repeatable: bool) -> Outcome:
    status = OutcomeStatus.RETRY if repeatable else OutcomeStatus.UNCERTAIN
    return Outcome(
        id=id, status=status, code="NO_ANSWER", message="the connector gave no outcome for this row"
    )


async def _settle(
    db: Database,
    clock: Clock,
    connection: str,
    mapping: FieldMapping | None,
    run_id: int,
    claimed: Sequence[outbox.Claimed],
    outcomes: dict[str, Outcome],
    counts: runs.Counts,
) -> None:
    """Outcomes, what copies left at the vendor, and rejected rows in one transaction."""
    refused = [
        Rejected(object=row.kind, id=row.dedupe_key, code=o.code, message=o.message, fix=o.fix)
        for row in claimed
        if (o := outcomes[row.dedupe_key]).status in (OutcomeStatus.FIX_NEEDED, OutcomeStatus.DROPPED)
        or o.code == GONE
    ]
    in_part = sum(outcomes[row.dedupe_key].code == GONE for row in claimed)
    copied = [(row, outcomes[row.dedupe_key]) for row in claimed if "ref" in row.payload]

    async def record(conn: Connection) -> outbox.Settled:
        done = await outbox.settle(conn, claimed, outcomes, now=clock.now())
        for row, outcome in copied:
            if mapping is not None and outcome.status is OutcomeStatus.DONE:
                fields = _as_held(row.payload["fields"], outcome.wrote, mapping)
                await copies.wrote(
                    conn, connection, row.payload["ref"], fields, row.payload["seen"], now=clock.now()
                )
        await runs.reject(conn, run_id, refused, now=clock.now())
        return done

    settled = await db.repeated(record)
    counts.add(
        runs.Counts(
            read=len(claimed), written=settled.done, retried=settled.retried,
            rejected=settled.dead + settled.dropped + in_part, uncertain=settled.uncertain, pages=1,
        )
    )  # fmt: skip


def _as_held(
    fields: Mapping[str, Any], wrote: Mapping[str, str], mapping: FieldMapping
) -> dict[str, tuple[Any, Any]]:
    """field -> (what was written, how it will come back), of those that the vendor took."""
    found: dict[str, tuple[Any, Any]] = {}
    read = mapping.pull("contact")
    for name, value in fields.items():
        entry = mapping.entries.get("contact", {}).get(name)
        if entry is None or (wrote and entry.field not in wrote):
            continue
        back = read(mapping.push("contact", {name: value}))
        values = {**back.fill, **back.custom, **back.columns}
        found[name] = (value, values.get(name) if entry.pulls else value)
    return found
