"""The limit: pages parsed by msgspec, COPYed into a temporary table and from there INSERTed ... ON CONFLICT into one table of 11
typed columns and a JSONB, ten thousand rows a transaction. No mapping, no identity, no lineage, no quota, no cursor.

    python -m scripts.benches.peers.copy_upsert DATABASE_URL PORT
"""

from __future__ import annotations

import http.client
import sys
from operator import itemgetter
from typing import Any

import msgspec
import psycopg

from scripts.benches.common import measured

COLUMNS = (
    "email", "firstname", "lastname", "company", "jobtitle", "phone", "country", "city", "hs_language", "hs_timezone",
    "lifecyclestage", "hubspot_owner_id", "createdate", "hs_email_optout", "lastmodifieddate",
)  # fmt: skip
TYPED = (
    "email", "firstname", "lastname", "company", "jobtitle", "phone", "country", "city", "lifecyclestage", "createdate",
    "lastmodifieddate",
)  # fmt: skip
REST = ("hs_language", "hs_timezone", "hubspot_owner_id", "hs_email_optout")
BATCH = 10_000


class Contact(msgspec.Struct):
    id: str
    properties: dict[str, str | None]


class Page(msgspec.Struct):
    results: list[Contact]
    paging: dict[str, Any] = {}


def main(url: str, port: int) -> None:
    decoder = msgspec.json.Decoder(Page)
    columns = ", ".join(f"{name} {'timestamptz' if name.endswith('date') else 'text'}" for name in TYPED)
    names = ", ".join(TYPED)
    taken = ", ".join(f"{name} = excluded.{name}" for name in (*TYPED, "rest"))
    upsert = f"""
        INSERT INTO bench_limit AS b (id, {names}, rest) SELECT id, {names}, rest FROM incoming
        ON CONFLICT (id) DO UPDATE SET {taken}
        WHERE (b.{", b.".join(TYPED)}, b.rest) IS DISTINCT FROM (excluded.{", excluded.".join(TYPED)}, excluded.rest)
    """.encode()
    with psycopg.connect(url) as conn:
        conn.execute("DROP TABLE IF EXISTS bench_limit")
        conn.execute(f"CREATE TABLE bench_limit (id text PRIMARY KEY, {columns}, rest jsonb)".encode())
        conn.execute(
            f"CREATE TEMPORARY TABLE incoming (id text, {columns}, rest jsonb) ON COMMIT DELETE ROWS".encode()
        )
        conn.commit()
        vendor = http.client.HTTPConnection("127.0.0.1", port)
        measured.begin()
        after, rows = "1", []
        while after:
            vendor.request("GET", f"/crm/v3/objects/contacts?limit=100&after={after}")
            page = decoder.decode(vendor.getresponse().read())
            rows += [_line(row) for row in page.results]
            after = (page.paging.get("next") or {}).get("after", "")
            if len(rows) >= BATCH or not after:
                with conn.cursor() as cursor, cursor.copy("COPY incoming FROM STDIN") as copy:
                    copy.write("".join(rows).encode())
                conn.execute(upsert)
                conn.commit()
                rows = []
        measured.end()


_typed, _rest = itemgetter(*TYPED), itemgetter(*REST)


def _line(row: Contact) -> str:
    """A row for COPY; the bench's values hold nothing to escape, and no blank."""
    rest = msgspec.json.encode(dict(zip(REST, _rest(row.properties), strict=True))).decode()
    return "\t".join((row.id, *_typed(row.properties), rest)) + "\n"  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
