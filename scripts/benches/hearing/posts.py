"""Webhook calls as HubSpot makes them, but larger: a thousand events each, and signed when they are sent."""

from __future__ import annotations

import json
import time

from contracts.hubspot.webhooks import sign_v3

SECRET = "no secret"  # noqa: S105  # the bench's
PATH = "/webhooks/crm"
PORTAL = 44100200
OCCURRED = 1795510800000


def body(number: int, events: int) -> bytes:
    """The body of a call: every event of every number differs from all others."""
    return json.dumps(
        [
            {
                "eventId": n, "subscriptionId": 11, "portalId": PORTAL, "appId": 4411002, "occurredAt": OCCURRED + n,
                "subscriptionType": "contact.propertyChange", "attemptNumber": 0, "objectId": n % 100_000 + 1,
                "propertyName": "city", "propertyValue": f"Wien {n % 23}", "changeSource": "CRM_UI", "changeFlag": "NEW",
            }
            for n in range(number * events, (number + 1) * events)
        ]
    ).encode()  # fmt: skip


def head(url: str, body: bytes) -> bytes:
    """The head of the HTTP request, signed now. `url` is the hub's public address."""
    stamp = int(time.time() * 1000)
    host = url.split("/", 3)[2]
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-HubSpot-Signature-v3: {sign_v3(SECRET, 'POST', url + PATH, body, stamp)}\r\n"
        f"X-HubSpot-Request-Timestamp: {stamp}\r\n\r\n"
    ).encode()
