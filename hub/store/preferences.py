"""What the person behind a mail's link may see and change: what they get, and nothing of who they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from hub.model import ConsentHow, ConsentSource, ResultKind
from hub.store import addresses, consent, events
from hub.store.database import Connection


async def reached_by(conn: Connection, delivery_id: int) -> dict[str, Any] | None:
    """Whose mail it is: `email`, `message`, `purpose`, `contact_id`, `language`. None when nothing is held of it any more."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT d.email, d.message, d.purpose, d.contact_id, c.language FROM delivery d
               JOIN contact c ON c.id = d.contact_id WHERE d.id = %s AND coalesce(d.email, '') <> ''""",
            [delivery_id],
        )
        return await cursor.fetchone()


async def states(conn: Connection, email: str, purposes: Mapping[str, bool]) -> dict[str, bool]:
    """purpose -> whether the address gets its mails; `purposes` is as in `ledger.claim`."""
    found = {
        row["purpose"]: row["status"]
        for row in await consent.verdicts(conn, email)
        if row["channel"] == "email"
    }
    stands = {name: found.get(name, found.get("*", "none")) for name in purposes}
    return {
        name: stands[name] == "in" or (stands[name] == "none" and not purposes[name]) for name in purposes
    }


async def suppressed(conn: Connection, email: str) -> bool:
    """Whether the address gets nothing, whatever its owner says here."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM suppression WHERE email_hash = address_hash(%s))", [email]
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def change(
    conn: Connection, delivery_id: int, wishes: Sequence[tuple[str, bool, str]], *, now: datetime
) -> int:
    """Record (purpose, whether it is wanted, proof), in the caller's transaction. Returns how many words were new.

    An opt-out of the mail's own purpose, or of all, is also a result of that mail.
    """
    whose = await reached_by(conn, delivery_id)
    if whose is None:
        return 0
    said = [
        consent.Statement(
            whose["email"], purpose, "in" if wanted else "out", consent.WEB, now, whose["contact_id"], proof,
            ConsentSource.PAGE, ConsentHow.SINGLE,
        )
        for purpose, wanted, proof in wishes
    ]  # fmt: skip
    new = await consent.record(conn, [s for s in said if not await consent.repeated(conn, s)])
    outs = {purpose for purpose, wanted, _ in wishes if not wanted}
    if outs:
        await addresses.carry_opt_outs(conn, [whose["contact_id"]])
    if outs & {whose["purpose"], "*"}:
        key = f"unsubscribed:{delivery_id}"
        left = events.Evidence(delivery_id, ResultKind.UNSUBSCRIBED, now, "web", key, {"how": "preferences"})
        await events.record(conn, left, now=now)
    return new
