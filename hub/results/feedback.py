"""What relays tell by webhook, worked: each event matched to its mail and kept, once, whatever comes twice or out of order."""

from __future__ import annotations

from datetime import datetime

import structlog
from psycopg import AsyncConnection

from hub.bounces import classify
from hub.clock import Clock
from hub.errors import SignatureError
from hub.model import ResultKind
from hub.results import engagement
from hub.results.engagement import Visit, Watch
from hub.sdk.connector import WebhookEvent
from hub.sdk.events import RelayEvent
from hub.signing import Signer
from hub.store import events, inbox
from hub.store.database import Connection, Database

log = structlog.get_logger()

BATCH = 200
NOT_OURS = "of no mail of this hub"
_HITS = (ResultKind.OPENED, ResultKind.CLICKED)


def inbox_of(relay: str) -> str:
    """Under which name a relay's events wait in the inbox: a connection's name holds no blank."""
    return f"relay {relay}"


def post(
    relay: str, told: list[RelayEvent], received_at: datetime, body: bytes, unread: str = ""
) -> inbox.Post:
    """A call as the inbox keeps it, to be worked later; `unread` says why it was not understood."""
    return inbox.Post(
        inbox_of(relay), [_entry(each) for each in told], received_at, body if unread else b"", unread=unread
    )


def _entry(event: RelayEvent) -> WebhookEvent:
    return WebhookEvent(
        key=event.once or event.key, object="mail", id=event.token or event.message_id or "unnamed", action="none",
        occurred_at=event.occurred_at, payload=inbox.packed(event),
    )  # fmt: skip


async def work(db: Database, clock: Clock, signer: Signer, watch: Watch, relay: str) -> int:
    """Work everything that waits of a relay, each event in a transaction of its own. Returns how many were."""
    worked = 0
    while True:
        async with db.connection() as conn:
            waiting = await inbox.payloads(conn, inbox_of(relay), BATCH)
        for id, payload in waiting:
            try:
                event = inbox.unpacked(payload, RelayEvent)
                async with db.transaction() as conn:
                    ours = await apply(conn, clock, signer, watch, relay, event)
                    await inbox.done(conn, [id], "" if ours else NOT_OURS)
            except ValueError as error:  # only what was stored by another version cannot be read
                log.warning("a relay's event was not understood", relay=relay, reason=type(error).__name__)
                async with db.transaction() as conn:
                    await inbox.failed(conn, [id], f"not understood: {type(error).__name__}", final=True)
        worked += len(waiting)
        if len(waiting) < BATCH:
            return worked


async def apply(
    conn: Connection, clock: Clock, signer: Signer, watch: Watch, relay: str, event: RelayEvent
) -> bool:
    """One event in the caller's transaction. Returns whether it is of a mail of ours."""
    delivery_id = await _match(conn, signer, event)
    if delivery_id is None:
        return False
    source, now = inbox_of(relay), clock.now()
    if event.kind in _HITS:
        visit = Visit(
            event.agent, event.address, said=event.machine, known=bool(event.agent), source=source,
            key=f"{source}:{event.key}", detail={"told": event.type},
        )  # fmt: skip
        await engagement.hit(
            conn, event.kind, delivery_id, visit, watch, at=event.occurred_at, now=now, link=event.link
        )
        return True
    # A mail has one `sent` event, whoever tells of it first.
    key = f"sent:{delivery_id}" if event.kind is ResultKind.SENT else f"{source}:{event.key}"
    detail: dict[str, object] = {"told": event.type} if event.type else {}
    if event.kind in (ResultKind.BOUNCED, ResultKind.DELAYED):
        found = event.bounce or classify(code=event.code, enhanced=event.enhanced, text=event.text)
        detail |= {
            "class": found.value, "code": event.code, "enhanced": event.enhanced, "reason": event.text[:500],
        }  # fmt: skip
    evidence = events.Evidence(delivery_id, event.kind, event.occurred_at, source, key, detail)
    await events.record(conn, evidence, now=now)
    return True


async def _match(conn: AsyncConnection[object], signer: Signer, event: RelayEvent) -> int | None:
    """The mail that an event is of, by what only our mails carry: the token, the return path, the Message-ID."""
    tries = (
        (signer.read_return_path, f"x+{event.token}@x"),
        (signer.read_return_path, event.token),
        (signer.read_message_id, event.message_id),
    )
    for read, text in tries:
        try:
            delivery_id = read(text)
        except SignatureError:
            continue
        if await events.exists(conn, delivery_id):
            return delivery_id
    return None
