"""The consent ledger: who may get what, by whose word, since when. Append-only; the strictest word stands.

An opt-out of any system stops a purpose (`*`: all of them). Only an opt-in that was said later, with its time and a
proof, lifts it. What follows is kept beside the entries as the verdict on each purpose, by the database itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hub.model import Channel, ConsentHow, ConsentSource
from hub.store import obligations

WEB = "web"
ADMIN = "admin"


@dataclass(frozen=True)
class Statement:
    """One word on consent. `status` is `in` or `out`; `source` a connection's name, `web`, `admin` or a file's name.

    `at` is when it was said. `dated`: whoever told it knows that time; of a mere flag the hub only knows when it saw it.
    `recorded_at` is the hub's time, `at` when it is absent; a word from the future counts from now.
    """

    email: str
    purpose: str
    status: str
    source: str
    at: datetime
    contact_id: int | None = None
    proof: str = ""
    kind: ConsentSource = ConsentSource.CONNECTION
    how: ConsentHow = ConsentHow.TOLD
    channel: Channel = Channel.EMAIL
    dated: bool = True
    recorded_at: datetime | None = None


async def record(conn: AsyncConnection[Any], statements: Sequence[Statement]) -> int:
    """Append what was not told before with the same time, in the caller's transaction. Returns how many were appended.

    An opt-out is owed to the other systems from then on.
    """
    if not statements:
        return 0
    columns = zip(
        *(
            (s.email, s.purpose, s.channel.value, s.status, s.source, s.kind.value, s.how.value, s.dated,
             s.at, s.recorded_at or s.at, s.contact_id, s.proof)
            for s in statements
        ),
        strict=True,
    )  # fmt: skip
    cursor = await conn.execute(
        """
        WITH said AS (
            SELECT s.*, address_hash(s.email) AS hash
            FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[],
                        %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::text[])
              AS s (email, purpose, channel, status, source, kind, how, dated, at, recorded_at, contact_id, proof)
        ), new AS (
            INSERT INTO consent (email_hash, purpose, channel, status, source, source_kind, how, dated, at, recorded_at,
                                 contact_id, proof)
            SELECT s.hash, s.purpose, s.channel, s.status, s.source, s.kind, s.how, s.dated, least(s.at, s.recorded_at),
                   s.recorded_at, s.contact_id, s.proof FROM said s
            ON CONFLICT DO NOTHING RETURNING id, email_hash, contact_id, status
        ), touched AS (  -- lists may ask for the consent of whoever has the address
            INSERT INTO list_touch SELECT c.id, 'consent' FROM said s JOIN contact c ON c.email = lower(s.email)
            WHERE s.hash IN (SELECT email_hash FROM new)
        )
        SELECT n.id, s.email, n.contact_id, n.status FROM new n JOIN (SELECT DISTINCT hash, lower(email) AS email FROM said) s
          ON s.hash = n.email_hash
        """,
        [list(column) for column in columns],
    )
    new = await cursor.fetchall()
    await obligations.open_for(conn, [(id, email, who) for id, email, who, status in new if status == "out"])
    return len(new)


async def repeated(conn: AsyncConnection[Any], said: Statement) -> bool:
    """Whether its source said the same of this purpose within a day before, and nobody said otherwise since: who presses a
    button twice, or goes on pressing it, says one thing."""
    cursor = await conn.execute(
        """SELECT EXISTS (
               SELECT FROM consent n WHERE n.email_hash = address_hash(%(email)s) AND n.channel = %(channel)s
                 AND n.purpose IN (%(purpose)s, '*') AND n.source = %(source)s AND n.status = %(status)s
                 AND n.at BETWEEN %(at)s - interval '1 day' AND %(at)s
                 AND NOT EXISTS (
                    SELECT FROM consent y WHERE y.email_hash = n.email_hash AND y.channel = n.channel AND y.status <> n.status
                      AND (y.purpose IN (n.purpose, '*') OR n.purpose = '*') AND y.at >= n.at))""",
        {"email": said.email, "channel": said.channel.value, "purpose": said.purpose, "source": said.source,
         "status": said.status, "at": said.at},
    )  # fmt: skip
    row = await cursor.fetchone()
    return bool(row and row[0])


async def suppress(
    conn: AsyncConnection[Any], email: str, reason: str, *, at: datetime, evidence: dict[str, Any]
) -> bool:
    """Never send to this address again, whatever the purpose. Returns whether that is new."""
    cursor = await conn.execute(
        """INSERT INTO suppression (email_hash, reason, at, evidence) VALUES (address_hash(%s), %s, %s, %s)
           ON CONFLICT (email_hash) DO NOTHING""",
        [email, reason, at, Jsonb(evidence)],
    )
    return cursor.rowcount == 1


async def story(conn: AsyncConnection[Any], email: str) -> list[dict[str, Any]]:
    """Everything said about an address, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT id, channel, purpose, status, source, source_kind, how, dated, at, recorded_at, proof FROM consent
               WHERE email_hash = address_hash(%s) ORDER BY at, id""",
            [email],
        )
        return list(await cursor.fetchall())


async def verdicts(conn: AsyncConnection[Any], email: str) -> list[dict[str, Any]]:
    """`channel`, `purpose`, `status` (in, out, none) of an address, and the entry that decided (`entry_id`, `source`, `at`).

    What is said of `*` holds for all purposes that have no row of their own.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """SELECT channel, purpose, status, entry_id, source, at FROM consent_verdict
               WHERE email_hash = address_hash(%s) ORDER BY channel, purpose""",
            [email],
        )
        return list(await cursor.fetchall())
