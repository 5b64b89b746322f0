"""The cases of our own connectors: each with its vendor's stand-in, seeded, and how to reach into it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from connectors.google_analytics import GoogleAnalytics
from connectors.hubspot import HubSpot
from connectors.smtp import Smtp
from connectors.webhook import Webhook
from contracts.google_analytics.sandbox import GoogleAnalyticsSandbox
from contracts.hubspot.limits import Limits
from contracts.hubspot.preferences import define_subscription
from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.hubspot.webhooks import sign_v3
from contracts.smtp.audience import Audience, Fate, Person
from contracts.smtp.relay import RelaySandbox
from contracts.smtp.server import Rules
from hub.model import ConsentWrite, Erase, FieldWrite, Push, Result, ResultKind
from hub.sdk.conformance import ConnectorCase, ListeningCase, RelayCase
from hub.sdk.connector import WebhookRequest

NEWS = 730_001
PEOPLE, COMPANIES, DEALS, SEGMENTS = 105, 101, 102, 2


class HubSpotCase(ConnectorCase):
    """An account with two pages of contacts, two of companies, two of deals and two lists; signed in by a private app's token."""

    connector = HubSpot
    full_streams = frozenset({"segments"})
    sandbox: HubSpotSandbox

    def __init__(self) -> None:
        super().__init__()
        self.sandbox = HubSpotSandbox(clock=self.clock, limits=Limits.generous(), seed=_fill)
        self.leaver = self.sandbox.record("contacts", "p9@example.com").id

    def settings(self) -> dict[str, Any]:
        return {
            "base_url": self.sandbox.url,
            "token": self.sandbox.token,
            "webhook_secret": self.sandbox.client_secret,
        }

    def seeded(self, stream: str) -> Collection[str]:
        if stream == "segments":
            return [str(s.number) for s in self.sandbox.segments.all.values() if not s.deleted_ms]
        return [record.id for record in self.sandbox.account.store(stream).live.values()]

    def change(self, stream: str, id: str) -> None:
        if stream == "segments":
            self._regroup(id)
        else:
            values = {
                "contacts": {"city": "Graz"},
                "companies": {"city": "Graz"},
                "deals": {"amount": "4711"},
            }[stream]
            self.sandbox.edit(stream, id, values)

    def _regroup(self, id: str) -> None:
        segment = self.sandbox.segments.all[int(id)]
        with self.sandbox.account.lock:
            self.sandbox.segments.change(segment, [], [str(next(iter(segment.members)))])

    def remove(self, stream: str, id: str) -> None:
        if stream == "segments":
            with self.sandbox.account.lock:
                self.sandbox.segments.all[int(id)].deleted_ms = self.sandbox.account.now_ms()
        else:
            self.sandbox.archive(stream, id)

    def pushes(self) -> list[Push]:
        ann, bob, eve = (self.sandbox.record("contacts", f"p{n}@example.com").id for n in (1, 2, 3))
        now = self.clock.now()

        def result(delivery: str, kind: ResultKind, ref: str, minutes: int, **detail: str) -> Result:
            return Result(
                id=f"{delivery}:{kind}", kind=kind, delivery_id=delivery, occurred_at=now - timedelta(minutes=minutes),
                message="welcome", subject="Welcome", email=f"p{ref}@example.com", contact_ref=ref,
                sent_at=now - timedelta(minutes=60), detail=detail,
            )  # fmt: skip

        return [
            result("d1", ResultKind.SENT, ann, 60),
            result("d1", ResultKind.OPENED, ann, 50),
            result("d2", ResultKind.SENT, bob, 60),
            result("d2", ResultKind.BOUNCED, bob, 40, reason="no such user", **{"class": "address"}),
            result("d3", ResultKind.CLICKED, eve, 30, link="https://mailyard.example/start"),
            FieldWrite(id="f1", contact_ref=ann, email="p1@example.com", fields={"city": "Linz"}),
            FieldWrite(id="f2", contact_ref=bob, email="p2@example.com", fields={"jobtitle": "Buyer"}),
            ConsentWrite(id="c1", email="p3@example.com", purpose="news", subscription=str(NEWS), at=now, proof="link"),
            ConsentWrite(id="c2", email="p4@example.com", purpose="news", subscription=str(NEWS), at=now, proof="link"),
            Erase(id="e1", contact_ref=self.leaver),
        ]  # fmt: skip

    def bad_pushes(self) -> list[Push]:
        eve = self.sandbox.record("contacts", "p3@example.com").id
        now = self.clock.now()
        return [
            FieldWrite(id="b1", contact_ref=eve, fields={"no_such_property": "x"}),
            FieldWrite(id="b2", contact_ref="99999999", fields={"city": "Linz"}),
            ConsentWrite(id="b3", email="p5@example.com", purpose="news", subscription="99", at=now),
            ConsentWrite(
                id="b4", email="p6@example.com", purpose="news", subscription=str(NEWS), at=now, opted_in=True
            ),
            Result(id="b5", kind=ResultKind.SENT, delivery_id="d9", occurred_at=now, message="welcome",
                   email="gone@example.com", contact_ref="99999999", sent_at=now),
        ]  # fmt: skip

    def written(self) -> list[str]:
        account = self.sandbox.account
        with account.lock:
            mails = [
                f"mail {p.get('mailyard_delivery')} {p.get('mailyard_results')} {p.get('hs_email_text')!r}"
                f" of {[n for n, _ in account.links.targets('emails', mail.number, 'contacts')]}"
                for mail in account.store("emails").live.values()
                for p in [mail.properties]
                if p.get("mailyard_delivery") != "d9"
            ]
            kept = ("mailyard_", "city", "jobtitle")
            people = [
                f"{person.id} {name}={value}"
                for person in account.store("contacts").live.values()
                for name, value in person.properties.items()
                if name.startswith(kept)
            ]
            consent = [
                f"{address} {number} {status.state}"
                for address, statuses in account.preferences.statuses.items()
                for number, status in statuses.items()
            ]
        gone = (
            []
            if self.leaver in {p.id for p in account.store("contacts").live.values()}
            else [f"{self.leaver} erased"]
        )
        return [*mails, *people, *consent, *gone]

    def webhook_bodies(self) -> list[bytes]:
        def event(number: int, kind: str, **more: Any) -> dict[str, Any]:
            return {
                "eventId": number, "subscriptionId": 11, "portalId": 44100200, "appId": 4411002,
                "occurredAt": 1795510800000 + number, "subscriptionType": kind, "attemptNumber": 0,
                "objectId": 1001 + number, "changeSource": "CRM_UI", **more,
            }  # fmt: skip

        one = event(1, "contact.propertyChange", propertyName="email", propertyValue="p1@example.com")
        # eventId alone is not unique, as HubSpot's documentation warns.
        same_id = {
            **event(2, "contact.propertyChange", propertyName="city", propertyValue="Köln"),
            "eventId": 1,
        }
        several = [
            event(3, "deal.creation"),
            event(4, "contact.deletion"),
            event(5, "contact.privacyDeletion"),
        ]
        merge = event(
            6, "contact.merge", primaryObjectId=1007, mergedObjectIds=[1008], newObjectId=1300, numberOfPropertiesMoved=2
        )  # fmt: skip
        return [json.dumps(body).encode() for body in ([one], [same_id], several, [merge])]

    def repeated(self, body: bytes) -> bytes:
        return json.dumps([{**event, "attemptNumber": 1} for event in json.loads(body)]).encode()

    def sign(self, body: bytes, at: datetime, *, wrong: bool = False) -> WebhookRequest:
        url, stamp = "https://hub.example/webhooks/crm?of=a%3Ab", int(at.timestamp() * 1000)
        secret = "somebody-else's" if wrong else self.sandbox.client_secret
        headers = {
            "x-hubspot-signature-v3": sign_v3(secret, "POST", url, body, stamp),
            "x-hubspot-request-timestamp": str(stamp),
        }
        return WebhookRequest("POST", url, headers, body, at)


class HubSpotOAuthCase(HubSpotCase):
    """The same account, signed in by OAuth: a token that expires is renewed on the way."""

    def __init__(self) -> None:
        super().__init__()
        tokens = self.sandbox.tokens
        form = {
            "grant_type": "authorization_code", "code": tokens.issue_code(), "client_id": self.sandbox.client_id,
            "client_secret": self.sandbox.client_secret,
        }  # fmt: skip
        self.refresh_token = str(tokens.exchange(form, v3=False)["refresh_token"])

    def settings(self) -> dict[str, Any]:
        s = self.sandbox
        return {
            "base_url": s.url, "client_id": s.client_id, "client_secret": s.client_secret,
            "refresh_token": self.refresh_token, "webhook_secret": [s.client_secret, "the-secret-before"],
        }  # fmt: skip


def _fill(sandbox: HubSpotSandbox) -> None:
    account = sandbox.account
    define_subscription(account, NEWS, "News", "About the product")
    people = [
        sandbox.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": "Wien"})
        for n in range(PEOPLE)
    ]
    for n in range(COMPANIES):
        company = sandbox.create(
            "companies", {"name": f"Company {n}", "domain": f"c{n}.example", "industry": "RETAIL"}
        )
        account.links.add("companies", company.number, "contacts", people[n].number, [2])
    for n in range(DEALS):
        values = {"dealname": f"Deal {n}", "pipeline": "default", "dealstage": "closedwon", "amount": str(n)}
        deal = sandbox.create("deals", values)
        account.links.add("deals", deal.number, "contacts", people[n].number, [3])
    for n in range(SEGMENTS):
        segment = sandbox.segments.create(f"Group {n}", "MANUAL")
        sandbox.segments.change(segment, [p.id for p in people[n :: SEGMENTS + 1]], [])


class GoogleAnalyticsCase(ConnectorCase):
    """A web stream. The vendor has no key against repetition, so every event is looked for twice."""

    connector = GoogleAnalytics
    sandbox: GoogleAnalyticsSandbox

    def __init__(self) -> None:
        super().__init__()
        self.sandbox = GoogleAnalyticsSandbox(clock=self.clock)

    def settings(self) -> dict[str, Any]:
        return {
            "base_url": self.sandbox.url,
            "measurement_id": self.sandbox.measurement_id,
            "api_secret": self.sandbox.api_secret,
        }

    def pushes(self) -> list[Push]:
        kinds = [kind for kind in ResultKind if kind is not ResultKind.DELAYED]
        return [self._result(f"{person}:{kind}", kind, person) for person in ("ann", "bob") for kind in kinds]

    def bad_pushes(self) -> list[Push]:
        return [
            self._result("b1", ResultKind.DELAYED, "ann"),
            self._result("b2", ResultKind.SENT, "bob", hours=73),
            FieldWrite(id="b3", contact_ref="1", fields={"city": "Linz"}),
        ]

    def _result(self, id: str, kind: ResultKind, person: str, *, hours: int = 1) -> Result:
        return Result(
            id=id, kind=kind, delivery_id=f"d-{person}", occurred_at=self.clock.now() - timedelta(hours=hours),
            message="welcome", email=f"{person}@example.com", contact_key=f"key-of-{person}",
        )  # fmt: skip

    def written(self) -> list[str]:
        return [f"{event.name} {event.params.get('event_id')}" for event in self.sandbox.events]


class SmtpCase(RelayCase):
    """A relay that demands STARTTLS and a login."""

    relay = Smtp
    stand_in_loggers = ("mail.",)
    login = ("mailyard", "correct horse battery")

    @contextmanager
    def serve(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            audience = Audience(bounce=0, refuse=0, open=0, click=0, unsubscribe=0)
            audience.put(self.refused_recipient, Person(Fate.REFUSED))
            rules = Rules(require_tls=True, login=self.login)
            self.sandbox = RelaySandbox(maildir=Path(folder) / "bounces", audience=audience, rules=rules)
            with self.sandbox.serve():
                yield

    def settings(self) -> dict[str, Any]:
        return {
            "host": self.sandbox.host, "port": self.sandbox.port, "tls": "starttls", "ca_file": str(self.sandbox.ca_file),
            "username": self.login[0], "password": self.login[1], "timeout_seconds": 10,
        }  # fmt: skip

    def wrong_login(self) -> dict[str, Any]:
        return {**self.settings(), "password": "wrong horse"}

    def fault(self, kind: str) -> None:
        plans: dict[str, dict[str, str]] = {
            "temporary": {"kind": "reply", "stage": "rcpt", "text": "450 4.2.1 try again later"},
            "drop": {"kind": "drop", "stage": "rcpt"},
            "lost": {"kind": "drop_after_data"},
            "closing": {"kind": "reply", "stage": "mail", "text": "421 4.3.2 closing"},
        }
        plan = dict(plans[kind])
        self.sandbox.faults.plan(plan.pop("kind"), **plan)

    def received(self) -> Collection[bytes]:
        return [delivery.content for delivery in self.sandbox.office.deliveries]


class WebhookCase(ListeningCase):
    """A system of one's own, of which nothing is served: it calls."""

    connector = Webhook
    KEY = b"a key of the test, not a secret."

    def settings(self) -> dict[str, Any]:
        return {"secret": "whsec_" + base64.b64encode(self.KEY).decode()}

    def webhook_bodies(self) -> list[bytes]:
        def event(kind: str, id: str, **fields: Any) -> dict[str, Any]:
            return {"type": kind, "timestamp": self.clock.now().isoformat(), "data": {"id": id, **fields}}

        one = event("contact.changed", "4711", email="ann@example.com", first_name="Ann")
        several = [
            event("deal.changed", "7", stage="won", contacts=["4711", "4712"]),
            event("contact.deleted", "4712"),
        ]
        return [json.dumps(one).encode(), json.dumps(several).encode()]

    def sign(self, body: bytes, at: datetime, *, wrong: bool = False) -> WebhookRequest:
        key = b"somebody else's key, no secret" if wrong else self.KEY
        id, stamp = f"msg_{hashlib.sha256(body).hexdigest()[:12]}", str(int(at.timestamp()))
        signature = base64.b64encode(hmac.digest(key, f"{id}.{stamp}.".encode() + body, "sha256")).decode()
        headers = {
            "webhook-id": id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1a,ed25519 v1,{signature}",
        }
        return WebhookRequest("POST", "https://hub.example/webhooks/shop", headers, body, at)
