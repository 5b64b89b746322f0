"""The limit: rows that are ready, COPYed a thousand a transaction and inserted where their key is new. Nothing is parsed.

python -m scripts.benches.peers.copy_events DATABASE_URL FIRST POSTS EVENTS
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import psycopg

from scripts.benches.common import measured
from scripts.benches.hearing import posts

COLUMNS = "event_key, object, external_id, action, merged_ids, payload, occurred_at"


def rows(number: int, events: int) -> bytes:
    """The rows that the hub makes of a call, as COPY reads them."""
    made = []
    for event in json.loads(posts.body(number, events)):
        key = ":".join(
            str(event[name]) for name in ("portalId", "subscriptionId", "eventId", "objectId", "occurredAt")
        )
        payload = json.dumps(
            {
                "type": event["subscriptionType"],
                "source": event["changeSource"],
                "property": event["propertyName"],
            }
        )
        at = datetime.fromtimestamp(event["occurredAt"] / 1000, UTC).isoformat()
        made.append(f"{key}\tcontact\t{event['objectId']}\tchanged\t{{}}\t{payload}\t{at}\n")
    return "".join(made).encode()


def main(url: str, first: int, count: int, events: int) -> None:
    calls = [rows(first + n, events) for n in range(count)]
    with psycopg.connect(url) as conn:
        conn.execute(
            """CREATE TEMPORARY TABLE incoming (event_key text, object text, external_id text, action text,
               merged_ids text[], payload jsonb, occurred_at timestamptz) ON COMMIT DELETE ROWS"""
        )
        conn.commit()
        measured.begin()
        for call in calls:
            with (
                conn.cursor() as cursor,
                cursor.copy(f"COPY incoming ({COLUMNS}) FROM STDIN".encode()) as copy,
            ):
                copy.write(call)
            conn.execute(
                f"""INSERT INTO inbox (connection, {COLUMNS}, received_at) SELECT 'crm', {COLUMNS}, now() FROM incoming
                    ON CONFLICT (connection, event_key) DO NOTHING""".encode()
            )
            conn.commit()
        measured.end()


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:5]))
