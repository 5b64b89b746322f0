"""Everything that is held of one person, table by table: for whoever asks for it, and for its erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.store.database import Connection


@dataclass(frozen=True)
class Person:
    """A person as the tables know one: contacts (merged ones, too), addresses, and (connection, object, id) at the vendors."""

    ids: Sequence[int]
    emails: Sequence[str]
    identities: Sequence[tuple[str, str, str]]

    @property
    def values(self) -> dict[str, Any]:
        """For the conditions of `HELD`."""
        return {
            "ids": list(self.ids), "emails": list(self.emails),
            "refs": [f"{connection}\x01{id}" for connection, _, id in self.identities],
        }  # fmt: skip


_REF = "t.connection || E'\\x01' || "
HELD: Mapping[str, str] = {
    "contact": "t.id = ANY(%(ids)s)",
    "contact_address": "t.contact_id = ANY(%(ids)s)",
    "contact_identity": "t.contact_id = ANY(%(ids)s)",
    "contact_change": "t.contact_id = ANY(%(ids)s)",
    "contact_merge": "t.loser = ANY(%(ids)s) OR t.survivor = ANY(%(ids)s)",
    "contact_apart": "t.one = ANY(%(ids)s) OR t.other = ANY(%(ids)s)",
    "contact_parted": "t.contact_id = ANY(%(ids)s) OR t.other = ANY(%(ids)s)",
    "copy_touch": "t.contact_id = ANY(%(ids)s)",
    "copy_rest": "t.contact_id = ANY(%(ids)s)",
    "company_contact": f"{_REF}t.contact_ref = ANY(%(refs)s)",
    "mirror_member": f"{_REF}t.ref = ANY(%(refs)s)",
    "deal": f"""t.id IN (SELECT deal_id FROM deal_contact t WHERE {_REF}t.contact_ref = ANY(%(refs)s))""",
    "deal_contact": f"{_REF}t.contact_ref = ANY(%(refs)s)",
    "segment_member": f"{_REF}t.contact_ref = ANY(%(refs)s)",
    "list_member": "t.contact_id = ANY(%(ids)s)",
    "list_change": "t.contact_id = ANY(%(ids)s)",
    "list_import": "t.contact_id = ANY(%(ids)s) OR t.address = ANY(%(emails)s)",
    "list_touch": "t.contact_id = ANY(%(ids)s) OR t.contacts && %(ids)s::bigint[]",
    "funnel_entry": "t.contact_id = ANY(%(ids)s)",
    "funnel_log": "t.entry_id IN (SELECT id FROM funnel_entry WHERE contact_id = ANY(%(ids)s))",
    "delivery": "t.contact_id = ANY(%(ids)s)",
    "event": "t.contact_id = ANY(%(ids)s)",
    "report": "t.delivery_id IN (SELECT id FROM delivery WHERE contact_id = ANY(%(ids)s))",
    "inbox": f"""{_REF}t.external_id = ANY(%(refs)s) OR EXISTS (
        SELECT FROM unnest(%(emails)s::text[]) e WHERE strpos(lower(t.payload::text || coalesce(t.record::text, '')), e) > 0
           OR position(convert_to(e, 'UTF8') IN coalesce(t.body, '')) > 0)""",
    "outbox": "t.contact_id = ANY(%(ids)s)",
    "run_reject": """EXISTS (SELECT FROM run r WHERE r.id = t.run_id
                AND r.connection || E'\\x01' || t.external_id = ANY(%(refs)s))
        OR EXISTS (SELECT FROM unnest(%(emails)s::text[]) e
                   WHERE strpos(lower(t.message || t.row::text || t.external_id), e) > 0)""",
    "consent": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
    "consent_verdict": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
    "consent_request": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
    "consent_obligation": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
    "suppression": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
    "decision": """t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)
        OR t.delivery_id IN (SELECT id FROM delivery WHERE contact_id = ANY(%(ids)s))""",
    "erasure": "t.email_hash IN (SELECT address_hash(e) FROM unnest(%(emails)s::text[]) e)",
}
"""table -> which of its rows `t` are of a person."""
OF_NOBODY = frozenset({
    "instance", "segment", "cursor", "run", "list", "list_size", "list_rule", "funnel", "quota", "quota_pause", "token",
    "relay_state", "relay_use", "relay_hold", "relay_slow", "campaign", "vendor_schema", "consent_target", "erasure_receipt",
    "erased", "company", "company_change", "company_deal", "mirror", "incident",
})  # fmt: skip
"""Tables without rows of a person. A new table belongs here or into `HELD`."""


async def find(conn: Connection, email: str) -> Person:
    """The person behind an address: whoever has it now or among their others, and whom merges made one with them."""
    cursor = await conn.execute(
        """
        WITH RECURSIVE one (id) AS (
            SELECT id FROM contact WHERE email = lower(%(email)s)
            UNION SELECT contact_id FROM contact_address WHERE email = lower(%(email)s)
            UNION SELECT c.id FROM one JOIN contact m ON m.id = one.id
                  JOIN contact c ON c.merged_into = one.id OR c.id = m.merged_into
        )
        SELECT id FROM one ORDER BY id
        """,
        {"email": email},
    )
    ids = [row[0] for row in await cursor.fetchall()]
    cursor = await conn.execute(
        """
        SELECT DISTINCT lower(e) FROM (
            SELECT %(email)s AS e UNION SELECT email FROM contact WHERE id = ANY(%(ids)s)
            UNION SELECT email FROM contact_address WHERE contact_id = ANY(%(ids)s)
            UNION SELECT said -> 'email' ->> 'v' FROM contact_identity WHERE contact_id = ANY(%(ids)s)
            UNION SELECT email FROM delivery WHERE contact_id = ANY(%(ids)s)
        ) x WHERE e <> '' ORDER BY 1
        """,
        {"email": email, "ids": ids},
    )
    emails = [row[0] for row in await cursor.fetchall()]
    cursor = await conn.execute(
        "SELECT connection, object, external_id FROM contact_identity WHERE contact_id = ANY(%s) ORDER BY 1, 2, 3",
        [ids],
    )
    return Person(ids, emails, await cursor.fetchall())


async def held(conn: Connection, person: Person) -> dict[str, list[dict[str, Any]]]:
    """table -> the person's rows, whole. Tables without any are left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table, condition in HELD.items():
        cursor = await conn.execute(
            f"SELECT to_jsonb(t) FROM {table} t WHERE {condition}".encode(), person.values
        )
        if rows := [row for (row,) in await cursor.fetchall()]:
            found[table] = [{k: _plain(k, v) for k, v in row.items()} for row in rows]
    return found


def _plain(name: str, value: Any) -> Any:
    """A webhook's body as it reads; other bytes are hashes, and stay hexadecimal."""
    if name == "body" and isinstance(value, str) and value.startswith("\\x"):
        return bytes.fromhex(value[2:]).decode("utf-8", "replace")
    return value
