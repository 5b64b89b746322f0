"""Why somebody is on a list or not: each condition with what it looked at, and which conditions decided."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hub.rules import Condition, Rule
from hub.rules.functions import FUNCTIONS
from hub.store import facts, lists
from hub.store.database import Connection


async def why(
    conn: Connection, name: str, rule: Rule, contact: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The answer for one contact (a row of the table).

    `on_list` is what the list holds, `belongs` what its rule says now; they differ until the next refresh. `conditions`
    have `condition`, `holds`, `decided` and `values`: rows of what, value, source, at and run.
    """
    id = contact["id"]
    answers = await lists.ask(conn, [c.sql for c in rule.conditions], rule.values(now), id)
    live = contact["state"] == "live"
    deciding = rule.shape.deciding(answers) if live else set()
    conditions = [
        {
            "condition": condition.text, "holds": bool(answer), "decided": number in deciding,
            "values": await _values(conn, condition, id),
        }
        for number, (condition, answer) in enumerate(zip(rule.conditions, answers, strict=True))
    ]  # fmt: skip
    if not live:
        values = await facts.of_state(conn, id)
        conditions.insert(
            0, {"condition": "is live in some system", "holds": False, "decided": True, "values": values}
        )
    since = await lists.member_since(conn, name, id)
    return {
        "list": name, "contact_id": id, "email": contact["email"], "on_list": since is not None, "since": since,
        "belongs": live and rule.shape.holds(answers) is True, "conditions": conditions,
    }  # fmt: skip


async def _values(conn: Connection, condition: Condition, contact_id: int) -> list[dict[str, Any]]:
    """What a condition looked at."""
    given = condition.given
    if condition.function == "imported":
        return await facts.of_import(conn, contact_id, given["name"])
    if not condition.function:
        own = [name for name in condition.fields if not name.startswith("company.")]
        of_company = [name.removeprefix("company.") for name in condition.fields if name not in own]
        found = await facts.of_fields(conn, contact_id, own) if own else []
        return found + (await facts.of_companies(conn, contact_id, of_company) if of_company else [])
    reads, _, name = FUNCTIONS[condition.function].reads(given).partition(":")
    match reads:
        case "deals":
            return await facts.of_deals(conn, contact_id)
        case "companies":
            return await facts.of_companies(conn, contact_id)
        case "segments":
            return await facts.of_segments(conn, contact_id, given["name"])
        case "event":
            return await facts.of_events(conn, contact_id, name, given.get("message"))
        case "consent":
            return await facts.of_consent(conn, contact_id, given.get("purpose", "*"))
        case "list":
            return await facts.of_list(conn, contact_id, name)
        case _:
            return []
