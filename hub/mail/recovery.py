"""Take back what workers left behind that are gone, by their journals where those can be believed."""

from __future__ import annotations

from itertools import groupby
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
        lost = await ledger.lost(conn, gone)
        known = {worker: journal.read(journals, worker) for worker in {worker for worker, _, _ in lost}}
        fates: list[Sent] = []
        for worker, mails in groupby(lost, key=lambda row: row[0]):
            if (left := known[worker]) is not None:
                fates += [
                    found for _, relay, mail in mails if (found := _fate(left, relay, mail)) is not None
                ]
        await ledger.settle(conn, fates, now=clock.now())
        queued, uncertain = await ledger.recover(conn, gone)
    for worker in known:
        journal.remove(journals, worker)
    counts = {"queued": queued, "accepted": 0, "rejected": 0, "uncertain": uncertain}
    for each in fates:
        counts[each.state] += 1
    if any(counts.values()):
        log.warning("mails of a worker that is gone were taken back", workers=len(known), **counts)
    return counts


def _fate(left: journal.Left, relay: str, mail: Claimed) -> Sent | None:
    """What a journal says of a mail; None when it was on the wire and nobody knows."""
    key = (mail.id, mail.claim)
    if key not in left.offered:
        reason = "the hub stopped before it was offered"
        return Sent(mail.id, mail.claim, "queued", reason=reason, offered=False)
    code, text = left.answers.get(key, (0, ""))
    return fate(mail, relay, Reply(code, text, "data")) if 200 <= code < 600 else None
