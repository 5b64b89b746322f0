"""The limit: pages parsed by msgspec, COPYed beside one table and upserted by id, a thousand rows a transaction. No mapping, no
identity, no lineage.

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
BATCH = 1_000


class Contact(msgspec.Struct):
    id: str
    properties: dict[str, str | None]


class Page(msgspec.Struct):
    results: list[Contact]
    paging: dict[str, Any] = {}


def main(url: str, port: int) -> None:
    names = ", ".join(COLUMNS)
    updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
    decoder = msgspec.json.Decoder(Page)
    with psycopg.connect(url) as conn:
        conn.execute("DROP TABLE IF EXISTS bench_limit")
        columns = ", ".join(f"{name} text" for name in COLUMNS)
        conn.execute(f"CREATE TABLE bench_limit (id text PRIMARY KEY, {columns})".encode())
        conn.execute(f"CREATE TEMPORARY TABLE incoming (id text, {columns}) ON COMMIT PRESERVE ROWS".encode())
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
                conn.execute("TRUNCATE incoming")
                with (
                    conn.cursor() as cursor,
                    cursor.copy(f"COPY incoming (id, {names}) FROM STDIN".encode()) as copy,
                ):
                    for row in rows:
                        values = row.properties
                        copy.write_row((row.id, *(values[name] for name in COLUMNS)))
                conn.execute(
                    f"""INSERT INTO bench_limit (id, {names}) SELECT id, {names} FROM incoming
                        ON CONFLICT (id) DO UPDATE SET {updates}""".encode()
                )
                conn.commit()
                rows = []
        measured.end()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
