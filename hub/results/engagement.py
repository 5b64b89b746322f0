"""Opens, clicks and unsubscriptions: each open and click is judged with all others of its mail, whether a person did it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from hub.clock import Clock
from hub.machines import Hit, Network, as_evidence, is_machine, judge, network_of
from hub.model import ResultKind
from hub.store import events
from hub.store.database import Database

MOST_HITS = 100
"""Of one mail. Whoever has its links can follow them for ever."""


@dataclass(frozen=True)
class Watch:
    """How machines are told from people: see `hub.machines.judge`."""

    soon: timedelta = timedelta(seconds=3)
    networks: Sequence[Network] = ()


@dataclass(frozen=True)
class Visit:
    """Who came: a program's own name, an address, and what else is known. `said` is a relay's word that it was a machine."""

    agent: str = ""
    address: str = ""
    trap: bool = False
    said: str = ""
    known: bool = True  # false: a relay told of it without agent and address
    source: str = "web"
    key: str = ""  # a relay's own name of the event
    detail: dict[str, Any] = field(default_factory=dict)


async def opened(
    db: Database, clock: Clock, delivery_id: int, visit: Visit = Visit(), watch: Watch = Watch()
) -> bool:
    """The pixel was loaded. Returns whether that was kept: once for each program, and once more when its verdict differs."""
    now = clock.now()
    return await db.repeated(
        lambda conn: hit(conn, ResultKind.OPENED, delivery_id, visit, watch, at=now, now=now)
    )


async def clicked(
    db: Database, clock: Clock, delivery_id: int, link: str, visit: Visit = Visit(), watch: Watch = Watch()
) -> bool:
    """A link was followed. Returns whether that was kept, as in `opened`, for each link."""
    now = clock.now()
    return await db.repeated(
        lambda conn: hit(conn, ResultKind.CLICKED, delivery_id, visit, watch, at=now, now=now, link=link)
    )


async def unsubscribed(db: Database, clock: Clock, delivery_id: int, *, how: str) -> bool:
    """An opt-out from the mail's purpose, effective at once. `how` is `one-click` or `page`."""
    now = clock.now()
    evidence = events.Evidence(
        delivery_id, ResultKind.UNSUBSCRIBED, now, "web", f"unsubscribed:{delivery_id}", {"how": how}
    )
    return await db.repeated(lambda conn: events.record(conn, evidence, now=now))


async def hit(
    conn: AsyncConnection[Any],
    kind: ResultKind,
    delivery_id: int,
    visit: Visit,
    watch: Watch,
    *,
    at: datetime,
    now: datetime,
    link: str = "",
) -> bool:
    """Keep an open or a click in the caller's transaction, and judge all of the mail's anew. Returns whether it is new."""
    if not await events.lock(conn, delivery_id):
        return False
    sent_at, kept = await events.hits(conn, delivery_id)
    agent, network = _kept(visit.agent), network_of(visit.address)
    base = visit.key or _key(kind, delivery_id, link, agent, network, visit.trap)
    again = [h for h in kept if h.key == base or h.key.startswith(f"{base}#")]
    key = f"{base}#{len(again)}" if again else base
    new = Hit(key, kind.value, at, agent, network, link[:2_000], visit.trap, visit.said, visit.known)
    if len(kept) >= MOST_HITS or (again and visit.key):
        return False
    signs = judge([*kept, new], sent_at, soon=watch.soon, networks=watch.networks)
    machine = is_machine(signs[key])
    if any(kept[h] == machine for h in again):
        return False
    for other, was in kept.items():
        if is_machine(signs[other.key]) != was:
            await events.judged(
                conn, other.key, machine=not was, about=_about(other, sent_at, signs[other.key])
            )
    detail = {**({"link": new.link} if link else {}), "user_agent": agent, **visit.detail}
    evidence = events.Evidence(
        delivery_id, kind, at, visit.source, key, detail, machine, _about(new, sent_at, signs[key])
    )
    return await events.record(conn, evidence, now=now)


def _about(hit: Hit, sent_at: datetime | None, signs: Any) -> dict[str, Any]:
    about = dict(as_evidence(hit, sent_at, signs))
    about |= {"trap": True} if hit.trap else {}
    about |= {"said": hit.said} if hit.said else {}
    return about | ({} if hit.known else {"known": False})


def _key(kind: ResultKind, delivery_id: int, link: str, agent: str, network: str, trap: bool) -> str:
    """The same for the same program that does the same again."""
    who = hashlib.sha256(f"{link}\n{agent}\n{network}\n{trap}".encode()).hexdigest()[:16]
    return f"{kind}:{delivery_id}:{who}"


def _kept(user_agent: str) -> str:
    """What a program says of itself, as PostgreSQL can keep it."""
    return user_agent[:200].replace("\x00", "")
