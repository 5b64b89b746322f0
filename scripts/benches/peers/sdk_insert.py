"""The vendor's official SDK with an INSERT a row, committed a page: what a script of a hundred lines does.

python -m scripts.benches.peers.sdk_insert DATABASE_URL PORT
"""

from __future__ import annotations

import sys

import hubspot
import psycopg

from scripts.benches.common import measured
from scripts.benches.peers.copy_upsert import COLUMNS


def main(url: str, port: int) -> None:
    names, marks = ", ".join(COLUMNS), ", ".join(["%s"] * len(COLUMNS))
    updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
    insert = (
        f"INSERT INTO bench_sdk (id, {names}) VALUES (%s, {marks}) ON CONFLICT (id) DO UPDATE SET {updates}"
    )
    pages = hubspot.HubSpot(access_token="bench", host=f"http://127.0.0.1:{port}").crm.contacts.basic_api  # noqa: S106
    with psycopg.connect(url) as conn:
        conn.execute("DROP TABLE IF EXISTS bench_sdk")
        columns = ", ".join(f"{name} text" for name in COLUMNS)
        conn.execute(f"CREATE TABLE bench_sdk (id text PRIMARY KEY, {columns})".encode())
        conn.commit()
        measured.begin()
        after: str | None = "1"
        while after:
            page = pages.get_page(limit=100, after=after, properties=list(COLUMNS))
            for row in page.results:
                conn.execute(insert.encode(), [row.id, *(row.properties[name] for name in COLUMNS)])
            conn.commit()
            after = page.paging.next.after if page.paging else None
        measured.end()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
