"""Count and sample a rule that no list has yet. Reads only, and is given up when it takes too long."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import psycopg

from hub.errors import RuleError
from hub.rules import Rule
from hub.store import lists
from hub.store.database import Database

PREVIEW_SECONDS = 60


async def preview(db: Database, rule: Rule, now: datetime, *, samples: int) -> dict[str, Any]:
    """`count`, `contacts` (of how many live ones), `samples` (contact_id, name, email) and `seconds`.

    Raises RuleError when the rule takes longer than a minute.
    """
    started = time.perf_counter()
    try:
        async with db.transaction() as conn:
            await conn.execute(
                f"SET LOCAL statement_timeout = '{PREVIEW_SECONDS}s'; SET LOCAL transaction_read_only = on"
            )
            count = await lists.count(conn, rule, now)
            some = await lists.some(conn, rule, now, samples)
            contacts = await lists.contacts(conn)
    except psycopg.errors.QueryCanceled:
        raise RuleError(
            f"the rule takes longer than {PREVIEW_SECONDS} s", "ask for less in one rule"
        ) from None
    return {
        "rule": rule.text, "count": count, "contacts": contacts, "samples": some, "seconds": time.perf_counter() - started,
    }  # fmt: skip
