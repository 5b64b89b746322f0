"""Rejected rows are kept whatever they hold."""

from __future__ import annotations

from datetime import UTC, datetime

from hub.model import Rejected
from hub.store import runs
from hub.store.database import Database


async def test_a_value_with_nul_does_not_keep_its_row_from_being_told(database: Database) -> None:
    now = datetime.now(UTC)
    async with database.transaction() as conn:
        run = await runs.start(conn, "pull", "crm", "contacts", now=now)
        bad = Rejected(
            object="contact",
            id="1\0",
            code="X",
            message="it is 'a\0b'",
            row={"na\0me": ["a\0b", {"c": "\0"}]},
        )
        await runs.reject(conn, run, [bad], now=now)
        rows = [row async for row in runs.rejects(conn, run)]
    assert [(row["external_id"], row["message"], row["row"]) for row in rows] == [
        ("1␀", "it is 'a␀b'", {"na␀me": ["a␀b", {"c": "␀"}]})
    ]
