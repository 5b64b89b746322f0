"""What an admin does when somebody asks for their data or for its erasure."""

from __future__ import annotations

from typing import Any

from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.lists.csv_file import ADDRESS
from hub.sdk import registry
from hub.store import consent, erasing, persons


async def export(runtime: Runtime, email: str) -> dict[str, Any]:
    """One document with everything that is held of whoever has an address: by table, and what consent follows."""
    email = _address(email)
    async with runtime.db.transaction() as conn:
        person = await persons.find(conn, email)
        return {
            "email": email, "made_at": runtime.clock.now(), "contacts": list(person.ids), "addresses": list(person.emails),
            "consent": await consent.verdicts(conn, email), "held": await persons.held(conn, person),
        }  # fmt: skip


async def plan(runtime: Runtime, email: str) -> dict[str, Any]:
    """What an erasure would take away: rows by table, and which systems are asked or must be done by hand."""
    email = _address(email)
    async with runtime.db.transaction() as conn:
        person = await persons.find(conn, email)
        held = await persons.held(conn, person)
    able = _able(runtime)
    names = sorted({connection for connection, object, _ in person.identities if object == "contact"})
    return {
        "email": email, "contacts": list(person.ids), "addresses": list(person.emails),
        "rows": {table: len(rows) for table, rows in held.items()},
        "systems": [{"connection": n, "how": "by its API" if able.get(n) else "by hand"} for n in names],
    }  # fmt: skip


async def erase(runtime: Runtime, email: str, *, by: str) -> dict[str, Any]:
    """Erase somebody, and ask every system that can. Returns the receipts as they stand now."""
    email = _address(email)
    now = runtime.clock.now()
    async with runtime.db.transaction() as conn:
        person = await persons.find(conn, email)
        number = await erasing.erase(conn, person, email, _able(runtime), by=by, now=now)
        (found,) = await erasing.receipts(conn, erasure_id=number)
    asked = sorted({system["connection"] for system in found["systems"] if system["state"] == "waiting"})
    await runtime.bell.ring([Wake("lists"), *(Wake("push", connection) for connection in asked)])
    return found


async def receipts(runtime: Runtime, email: str | None) -> list[dict[str, Any]]:
    """Erasures with each system's receipt, the newest first."""
    async with runtime.db.connection() as conn:
        return await erasing.receipts(conn, email=email)


def _able(runtime: Runtime) -> dict[str, bool]:
    kinds = registry.connectors()
    return {
        name: section.connector in kinds and "erasure" in kinds[section.connector].manifest.pushes
        for name, section in runtime.settings.connections.items()
    }


def _address(email: str) -> str:
    email = email.strip().lower()
    if not ADDRESS.fullmatch(email):
        raise HubError("this is no address", "write ann@example.com")
    return email
