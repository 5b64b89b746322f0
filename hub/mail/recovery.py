"""Take back what workers left behind that are gone, by their journals where those can be believed."""

from __future__ import annotations

from pathlib import Path

import structlog

from hub.clock import Clock
from hub.mail import journal
from hub.mail.lane import fate
from hub.sdk.relay import Reply
from hub.store import ledger
from hub.store.database import Database
from hub.store.ledger import Claimed, Sent

log = structlog.get_logger()


async def recover(db: Database, clock: Clock, journals: Path) -> dict[str, int]:
    """Settle or queue again every mail of a worker that is gone. Returns how many became what: `queued`, `accepted`,
    `rejected`, `uncertain`."""
    async with db.transaction() as conn:
        gone = [w for w in await ledger.workers_gone(conn) if not journal.alive(journals, w)]
        known = {worker: journal.read(journals, worker) for worker in gone}
        fates: list[Sent] = []
        unknown: list[Claimed] = []
        for worker, mail in await ledger.lost(conn, gone):
            found = _fate(known[worker], mail)
            if found is None:
                unknown.append(mail)
            else:
                fates.append(found)
        await ledger.settle(conn, fates, now=clock.now())
        await ledger.doubt(conn, unknown)
    for worker in known:
        journal.remove(journals, worker)
    counts = {"queued": 0, "accepted": 0, "rejected": 0, "uncertain": len(unknown)}
    for each in fates:
        counts[each.state] += 1
    if any(counts.values()):
        log.warning("mails of a worker that is gone were taken back", workers=len(known), **counts)
    return counts


def _fate(left: journal.Left | None, mail: Claimed) -> Sent | None:
    """What a journal says of a mail; None when it may have been on the wire and nobody knows."""
    if left is None:
        return None
    key = (mail.id, mail.claim)
    if key not in left.offered:
        reason = "the hub stopped before it was offered"
        return Sent(mail.id, mail.claim, "queued", reason=reason, offered=False)
    relay, code, text = left.answers.get(key, ("", 0, ""))
    return fate(mail, left.subjects[key], relay, Reply(code, text, "data")) if 200 <= code < 600 else None
