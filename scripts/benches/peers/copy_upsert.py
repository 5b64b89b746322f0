"""The limit: pages parsed by msgspec, COPYed and upserted by id, a thousand rows a transaction, into the tables that the hub
keeps: the contact, its identity and its first line of lineage. No mapping, no matching, no quota, no cursor.

    python -m scripts.benches.peers.copy_upsert DATABASE_URL PORT
"""

from __future__ import annotations

import http.client
import sys
from typing import Any

import msgspec
import psycopg

from scripts.benches.common import measured

COLUMNS = (
    "email", "firstname", "lastname", "company", "jobtitle", "phone", "country", "city", "hs_language", "hs_timezone",
    "lifecyclestage", "hubspot_owner_id", "createdate", "hs_email_optout", "lastmodifieddate",
)  # fmt: skip
OURS = (
    "email", "first_name", "last_name", "company", "job_title", "phone", "country", "city", "language", "time_zone",
    "lifecycle", "owner", "created_at",
)  # fmt: skip
UPDATE = f"""
    UPDATE contact c SET {", ".join(f"{name} = n.{name}" for name in OURS)}, changed_at = now()
    FROM incoming n JOIN contact_identity i ON i.connection = 'limit' AND i.object = 'contact' AND i.external_id = n.id
    WHERE c.id = i.contact_id
"""
INSERT = f"""
    WITH new AS MATERIALIZED (
        SELECT nextval('contact_id_seq') AS contact_id, n.* FROM incoming n
        LEFT JOIN contact_identity i ON i.connection = 'limit' AND i.object = 'contact' AND i.external_id = n.id
        WHERE i.contact_id IS NULL
    ), people AS (
        INSERT INTO contact (id, {", ".join(OURS)}, changed_at) SELECT contact_id, {", ".join(OURS)}, now() FROM new
    ), lineage AS (
        INSERT INTO contact_change (contact_id, at, connection, kind) SELECT contact_id, now(), 'limit', 'created' FROM new
    )
    INSERT INTO contact_identity (connection, object, external_id, contact_id, vendor_changed_at, seen_at)
    SELECT 'limit', 'contact', id, contact_id, changed_at, now() FROM new
"""
BATCH = 1_000


class Contact(msgspec.Struct):
    id: str
    properties: dict[str, str | None]


class Page(msgspec.Struct):
    results: list[Contact]
    paging: dict[str, Any] = {}


def main(url: str, port: int) -> None:
    decoder = msgspec.json.Decoder(Page)
    with psycopg.connect(url) as conn:
        columns = ", ".join(
            f"{name} {'timestamptz' if name.endswith('_at') else 'text'}" for name in (*OURS, "changed_at")
        )
        conn.execute(f"CREATE TEMPORARY TABLE incoming (id text, {columns})".encode())
        conn.commit()
        vendor = http.client.HTTPConnection("127.0.0.1", port)
        measured.begin()
        after, rows = "1", []
        while after:
            vendor.request("GET", f"/crm/v3/objects/contacts?limit=100&after={after}")
            page = decoder.decode(vendor.getresponse().read())
            rows += page.results
            after = (page.paging.get("next") or {}).get("after", "")
            if len(rows) >= BATCH or not after:
                _upsert(conn, rows)
                rows = []
        measured.end()


def _upsert(conn: psycopg.Connection[Any], rows: list[Contact]) -> None:
    named = (*COLUMNS[:13], "lastmodifieddate")
    conn.execute("DELETE FROM incoming")
    with conn.cursor() as cursor, cursor.copy("COPY incoming FROM STDIN") as copy:
        for row in rows:
            values = row.properties
            copy.write_row((row.id, *(values[name] for name in named)))
    conn.execute(UPDATE.encode())
    conn.execute(INSERT.encode())
    conn.commit()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
