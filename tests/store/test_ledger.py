"""What becomes of mails is written down as it was said."""

from __future__ import annotations

from hub.clock import ManualClock
from hub.store import ledger
from hub.store.database import Database

ODD = [
    "plain",
    "",
    "a,b",
    '"quoted"',
    "back\\slash",
    '\\"',
    "{}",
    "NULL",
    "line\nbreak",
    "Grüße 🎈",
    " ",
    "end\\",
]


async def test_subjects_and_answers_of_a_whole_group_are_kept_to_the_letter(
    database: Database, clock: ManualClock
) -> None:
    """NUL, which PostgreSQL's texts cannot hold, is left out: of its own text only."""
    said = [*ODD, "a\0b", "\0", "c"]
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, %s) n",
            [len(said)],
        )
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'w', id, 1, now() + interval '1 minute'
               FROM contact ORDER BY id"""
        )
        fates = [
            ledger.Sent(number, number, "accepted", f"relay {text}", 250, text[::-1], subject=text)
            for number, text in enumerate(said, 1)
        ]
        assert await ledger.settle(conn, fates[::-1], now=clock.now()) == len(said)
        rows = await (
            await conn.execute("SELECT subject, reply_text, relay FROM delivery ORDER BY id")
        ).fetchall()
    kept = [text.replace("\0", "") for text in said]
    assert rows == [(text, text[::-1], f"relay {text}") for text in kept]
