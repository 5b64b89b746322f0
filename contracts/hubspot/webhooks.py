"""Webhooks as HubSpot sends them: subscriptions, batches of up to 100, signatures, retries, doubles, disorder.

Sources: HubSpot developer docs "Webhooks API", "Validating requests".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.routing import BaseRoute

from contracts.hubspot.account import Account
from contracts.hubspot.answers import Answer, Json, bad_request, field_of, iso, not_found, to_ms
from contracts.hubspot.calls import Call, Gate
from contracts.hubspot.records import Author

MAX_EVENTS, MAX_ATTEMPTS, ANSWER_SECONDS = 100, 10, 5.0
URI_ESCAPES = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")",
    "%2A": "*", "%2C": ",", "%3B": ";",
}  # fmt: skip
CHANGES = ("creation", "propertyChange", "deletion", "merge", "restore", "associationChange")
EVENT_TYPES = {f"{kind}.{what}" for kind in ("contact", "company", "deal") for what in CHANGES} | {
    "contact.privacyDeletion"
}


def sign_v3(secret: str, method: str, uri: str, body: bytes, timestamp_ms: int) -> str:
    """X-HubSpot-Signature-v3: base64 of HMAC-SHA256 over method, partly decoded URI, body and timestamp."""
    for escape, character in URI_ESCAPES.items():
        uri = uri.replace(escape, character).replace(escape.lower(), character)
    text = f"{method}{uri}".encode() + body + str(timestamp_ms).encode()
    return base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()


def sign_v2(secret: str, method: str, uri: str, body: bytes) -> str:
    """Hex SHA-256 over secret, method, URI and body: workflows and cards."""
    return hashlib.sha256(f"{secret}{method}{uri}".encode() + body).hexdigest()


def sign_v1(secret: str, body: bytes) -> str:
    """Hex SHA-256 over secret and body: sent with CRM events beside v3."""
    return hashlib.sha256(secret.encode() + body).hexdigest()


@dataclass(slots=True)
class Subscription:
    """What an app wants to be told. `property_name` empty stands for every property."""

    number: int
    event_type: str
    property_name: str
    active: bool
    created_ms: int
    updated_ms: int

    def as_json(self) -> Json:
        body: Json = {
            "id": str(self.number),
            "eventType": self.event_type,
            "active": self.active,
            "createdAt": iso(self.created_ms),
            "updatedAt": iso(self.updated_ms),
        }
        return body | {"propertyName": self.property_name} if self.property_name else body


@dataclass(slots=True)
class Webhooks:
    """The app's subscriptions and the queue of events on their way to its one target URL.

    `send_twice` lets the next n batches go out double; `disorder` turns each batch around.
    """

    account: Account
    app_id: int
    secret: str
    url: str | None = None
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    queue: deque[Json] = field(default_factory=deque)
    given_up: list[Json] = field(default_factory=list)
    send_twice: int = 0
    disorder: bool = False
    max_in_flight: int = 10
    requests_sent: int = 0
    retry_seconds: float = 1.0
    _serial: int = 0
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False

    def subscribe(self, event_type: str, property_name: str = "", *, active: bool = True) -> Subscription:
        now, number = self.account.now_ms(), max(self.subscriptions, default=1000) + 1
        self.subscriptions[number] = made = Subscription(number, event_type, property_name, active, now, now)
        return made

    def subscribe_all(self) -> None:
        """Everything about contacts and deals."""
        for event_type in sorted(t for t in EVENT_TYPES if not t.startswith("company.")):
            self.subscribe(event_type)

    def hear(self, event_type: str, number: int, fields: Json, author: Author) -> None:
        """Queue one event for each active subscription that asks for it."""
        name = fields.get("propertyName")
        for subscription in self.subscriptions.values():
            wanted = subscription.event_type == event_type and subscription.property_name in ("", name or "")
            if self.url and subscription.active and wanted:
                self.queue.append(self._event(subscription, number, fields, author))
        self._wake.set()

    def _event(self, subscription: Subscription, number: int, fields: Json, author: Author) -> Json:
        self._serial += 1
        return {
            "eventId": 100_000_000 + self._serial % 50_000_000,
            "subscriptionId": subscription.number,
            "portalId": self.account.portal_id,
            "appId": self.app_id,
            "occurredAt": self.account.now_ms(),
            "subscriptionType": subscription.event_type,
            "attemptNumber": 0,
            "objectId": number,
            "changeSource": author.source,
            "sourceId": author.source_id,
            **fields,
        }

    # -- delivery -----------------------------------------------------------------------------------------

    def flush(self) -> int:
        """Deliver what is queued, each event tried once. Returns how many events were taken with a 2xx."""
        with self._busy:
            taken, waiting = 0, len(self.queue)
            while waiting > 0:
                batch = [self.queue.popleft() for _ in range(min(MAX_EVENTS, waiting))]
                waiting -= len(batch)
                taken += len(batch) if self._deliver(batch) else 0
            return taken

    def _deliver(self, batch: list[Json]) -> bool:
        body = msgspec.json.encode(batch[::-1] if self.disorder else batch)
        accepted = self._post(body)
        if self.send_twice > 0:
            self.send_twice -= 1
            self._post(body)
        if not accepted:
            again = [event | {"attemptNumber": event["attemptNumber"] + 1} for event in batch]
            self.queue.extend(event for event in again if event["attemptNumber"] < MAX_ATTEMPTS)
            self.given_up.extend(event for event in again if event["attemptNumber"] >= MAX_ATTEMPTS)
        return accepted

    def _post(self, body: bytes) -> bool:
        url, stamp = self.url or "", to_ms(self.account.clock.wall())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "HubSpot Connect 2.0 (sandbox)",
            "X-HubSpot-Signature": sign_v1(self.secret, body),
            "X-HubSpot-Signature-Version": "v1",
            "X-HubSpot-Signature-v3": sign_v3(self.secret, "POST", url, body, stamp),
            "X-HubSpot-Request-Timestamp": str(stamp),
        }
        self.requests_sent += 1
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - the admin's own URL
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return bool(200 <= answer.status < 300)
        except (urllib.error.URLError, OSError):
            return False  # the vendor tries again, whatever went wrong

    def run(self) -> None:
        """Deliver in the background until `stop`; what was refused rests `retry_seconds` first."""
        self._stopped = False
        while not self._stopped:
            self._wake.wait(0.2)
            self._wake.clear()
            if self.queue and self.flush() == 0 and not self._stopped:
                threading.Event().wait(self.retry_seconds)

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()


class WebhookApi:
    """/webhooks/v3/{appId}: settings and subscriptions, by developer key."""

    def __init__(self, webhooks: Webhooks) -> None:
        self.webhooks, self.account = webhooks, webhooks.account

    def routes(self, gate: Gate) -> list[BaseRoute]:
        base = "/webhooks/v3/{app_id:int}"
        every, one = base + "/subscriptions", base + "/subscriptions/{id:int}"
        return [
            gate.route("GET", f"{base}/settings", self.get_settings, key=True),
            gate.route("PUT", f"{base}/settings", self.put_settings, key=True),
            gate.route("GET", every, self.all, key=True),
            gate.route("POST", every, self.create, key=True),
            gate.route("POST", f"{every}/batch/update", self.batch_update, key=True),
            gate.route("GET", one, self.get, key=True),
            gate.route("PATCH", one, self.update, key=True),
            gate.route("DELETE", one, self.delete, key=True),
        ]

    def get_settings(self, call: Call) -> Answer:
        now = iso(self.account.now_ms())
        throttling = {"maxConcurrentRequests": self.webhooks.max_in_flight}
        return Answer(
            {
                "targetUrl": self.webhooks.url or "",
                "throttling": throttling,
                "createdAt": now,
                "updatedAt": now,
            }
        )

    def put_settings(self, call: Call) -> Answer:
        throttling = field_of(call.body, "throttling", dict)
        self.webhooks.max_in_flight = field_of(throttling, "maxConcurrentRequests", int)
        self.webhooks.url = field_of(call.body, "targetUrl", str)
        return self.get_settings(call)

    def _one(self, number: Any) -> Subscription:
        found = self.webhooks.subscriptions.get(int(number))
        if found is None:
            raise not_found(f"Subscription {number} does not exist")
        return found

    def all(self, call: Call) -> Answer:
        return Answer({"results": [s.as_json() for s in self.webhooks.subscriptions.values()]})

    def get(self, call: Call) -> Answer:
        return Answer(self._one(call.path["id"]).as_json())

    def create(self, call: Call) -> Answer:
        event_type, name = (
            field_of(call.body, "eventType", str),
            field_of(call.body, "propertyName", str, "") or "",
        )
        if event_type not in EVENT_TYPES:
            raise bad_request(f"eventType {event_type} is not known")
        if event_type.endswith(".propertyChange") and not name:
            raise bad_request("propertyName is required for a propertyChange subscription")
        active = bool(field_of(call.body, "active", bool, False))
        return Answer(self.webhooks.subscribe(event_type, name, active=active).as_json(), 201)

    def update(self, call: Call) -> Answer:
        return Answer(self._activate(call.path["id"], call.body))

    def batch_update(self, call: Call) -> Answer:
        now = iso(self.account.now_ms())
        results = [self._activate(field_of(i, "id", int), i) for i in field_of(call.body, "inputs", list)]
        return Answer({"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now})

    def _activate(self, number: Any, body: Any) -> Json:
        subscription = self._one(number)
        subscription.active, subscription.updated_ms = field_of(body, "active", bool), self.account.now_ms()
        return subscription.as_json()

    def delete(self, call: Call) -> Answer:
        self.webhooks.subscriptions.pop(int(call.path["id"]), None)
        return Answer(None, 204)
