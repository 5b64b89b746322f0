"""Decide what of each event goes back where: outbox rows for every system that is to see results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.clock import Clock
from hub.model import ResultKind
from hub.store import events
from hub.store.database import Database
from hub.store.outbox import NewPush, enqueue

BATCH = 1_000
PUSHED = frozenset(k.value for k in ResultKind) - {ResultKind.DELAYED.value}


@dataclass(frozen=True)
class Target:
    """A connection that takes results."""

    connection: str
    results: bool
    needs_contact: bool = True


async def plan(db: Database, clock: Clock, targets: Sequence[Target]) -> set[str]:
    """Put the pushes of all unplanned events into the outbox. Returns the connections that now have work.

    Volume policy: the first event of a kind per delivery, so ten opens of one mail are one write. What a machine did is told
    to nobody.
    """
    busy: set[str] = set()
    while True:
        async with db.transaction() as conn:
            rows = await events.unplanned(conn, BATCH, now=clock.now())
            if not rows:
                return busy
            pushes = [p for row in rows if not row["machine"] for p in _pushes(row, targets, clock)]
            if await enqueue(conn, pushes):
                busy.update(p.connection for p in pushes)
            await events.mark_planned(conn, [row["id"] for row in rows], now=clock.now())


def _pushes(row: dict[str, Any], targets: Sequence[Target], clock: Clock) -> list[NewPush]:
    found = []
    for target in targets:
        if target.needs_contact and target.connection not in row["known_to"]:
            continue
        if target.results and row["kind"] in PUSHED:
            found.append(
                _push(
                    target, "result", f"{row['delivery_id']}:{row['kind']}", _result(row, target), row, clock
                )
            )
    return found


def _push(
    target: Target, kind: str, key: str, payload: dict[str, Any], row: dict[str, Any], clock: Clock
) -> NewPush:
    return NewPush(target.connection, kind, key, payload, clock.now(), row["contact_id"], row["id"])


def _result(row: dict[str, Any], target: Target) -> dict[str, Any]:
    """The fields of `model.Result`; an analytics tool gets no address, only an opaque key of the person."""
    detail = {**row["detail"], "relay": row["relay"]}
    return {
        "kind": row["kind"],
        "delivery_id": f"{str(row['instance'])[:8]}-{row['delivery_id']}",
        "occurred_at": row["occurred_at"],
        "message": row["message"],
        "subject": row["subject"],
        "funnel": row["funnel"],
        "email": row["email"] or "" if target.needs_contact else "",
        "contact_key": hashlib.sha256(f"{row['instance']}:{row['contact_id']}".encode()).hexdigest()[:20],
        "sent_at": row["sent_at"],
        "detail": detail,
    }
