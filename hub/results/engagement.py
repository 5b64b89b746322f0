"""Opens, clicks and unsubscriptions as our own web endpoints see them."""

from __future__ import annotations

import hashlib

from hub.clock import Clock
from hub.model import ResultKind
from hub.store import events
from hub.store.database import Database


async def opened(db: Database, clock: Clock, delivery_id: int, *, user_agent: str = "") -> bool:
    """The pixel was loaded. The first load counts; returns whether this was it."""
    detail = {"user_agent": _kept(user_agent)}
    return await _record(db, clock, delivery_id, ResultKind.OPENED, f"opened:{delivery_id}", detail)


async def clicked(db: Database, clock: Clock, delivery_id: int, link: str, *, user_agent: str = "") -> bool:
    """A link was followed. The first click on each link counts."""
    key = hashlib.sha256(link.encode()).hexdigest()[:16]
    detail = {"link": link[:2_000], "user_agent": _kept(user_agent)}
    return await _record(db, clock, delivery_id, ResultKind.CLICKED, f"clicked:{delivery_id}:{key}", detail)


async def unsubscribed(db: Database, clock: Clock, delivery_id: int, *, how: str) -> bool:
    """An opt-out from the mail's purpose, effective at once. `how` is `one-click` or `page`."""
    return await _record(
        db, clock, delivery_id, ResultKind.UNSUBSCRIBED, f"unsubscribed:{delivery_id}", {"how": how}
    )


def _kept(user_agent: str) -> str:
    """What a program says of itself, as PostgreSQL can keep it."""
    return user_agent[:200].replace("\x00", "")


async def _record(
    db: Database, clock: Clock, delivery_id: int, kind: ResultKind, key: str, detail: dict[str, str]
) -> bool:
    evidence = events.Evidence(delivery_id, kind, clock.now(), "web", key, detail)
    return await db.repeated(lambda conn: events.record(conn, evidence, now=clock.now()))
