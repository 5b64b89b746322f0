"""Applications beside the hub's: one that only reads the body, and one that is written without a second thought.

    python -m scripts.benches.peers.webhook_apps null|naive PORT DATABASE_URL

`naive` checks the signature, parses with json and inserts event by event, as one statement with many parameters; its table
refuses what it has already.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scripts.benches.hearing.posts import PATH, SECRET

INSERT = """
    INSERT INTO inbox (connection, event_key, object, external_id, action, payload, occurred_at, received_at)
    VALUES ('naive', %s, 'contact', %s, 'changed', %s, %s, now()) ON CONFLICT (connection, event_key) DO NOTHING
"""


async def null(request: Request) -> JSONResponse:
    return JSONResponse({"read": len(await request.body())})


async def naive(request: Request) -> JSONResponse:
    body = await request.body()
    stamp = request.headers["x-hubspot-request-timestamp"]
    text = f"POST{request.url}".encode() + body + stamp.encode()
    expected = b64encode(hmac.new(SECRET.encode(), text, hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(expected, request.headers["x-hubspot-signature-v3"]):
        return JSONResponse({}, status_code=401)
    rows = [
        (
            f"{event['portalId']}:{event['subscriptionId']}:{event['eventId']}:{event['objectId']}:{event['occurredAt']}",
            str(event["objectId"]), json.dumps({"property": event["propertyName"], "source": event["changeSource"]}),
            datetime.fromtimestamp(event["occurredAt"] / 1000, UTC),
        )
        for event in json.loads(body)
    ]  # fmt: skip
    async with request.app.state.pool.connection() as conn, conn.cursor() as cursor:
        await cursor.executemany(INSERT, rows)
    return JSONResponse({"events": len(rows)})


def application(kind: str, database_url: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncConnectionPool(database_url, min_size=1, max_size=16, open=False) as pool:
            app.state.pool = pool
            yield

    handler = null if kind == "null" else naive
    return Starlette(
        routes=[Route(PATH, handler, methods=["POST"]), Route("/healthz", null)], lifespan=lifespan
    )


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1], sys.argv[3]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
    )
