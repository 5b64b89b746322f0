"""SendGrid's Event Webhook: lists of events, signed with ECDSA over the timestamp and the raw body."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import Field, field_validator

from hub.errors import SignatureError
from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import (
    MARK,
    EventSettings,
    RelayEvent,
    RelayEvents,
    digest,
    enhanced_code,
    objects,
    text_of,
)
from hub.sdk.signatures import check_fresh

RETRIED_FOR = 26 * 3_600.0
"""Seconds: the vendor repeats a call for 24 hours, and does not say whether its stamp is renewed."""
KINDS = {
    "processed": ResultKind.SENT, "deferred": ResultKind.DELAYED, "delivered": ResultKind.DELIVERED,
    "bounce": ResultKind.BOUNCED, "dropped": ResultKind.BOUNCED, "open": ResultKind.OPENED, "click": ResultKind.CLICKED,
    "spamreport": ResultKind.COMPLAINED, "unsubscribe": ResultKind.UNSUBSCRIBED, "group_unsubscribe": ResultKind.UNSUBSCRIBED,
}  # fmt: skip


def _key(text: str) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(base64.b64decode(text))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("it is no key of an elliptic curve")
    return key


class SendGridEventSettings(EventSettings):
    """`events: {from: sendgrid, ...}`"""

    public_key: str = Field(
        description="the verification key that SendGrid shows for the webhook, base64 on one line"
    )

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, text: str) -> str:
        try:
            _key(text)
        except ValueError:
            raise ValueError("this is no public key; copy it from the webhook's security features") from None
        return text


class SendGridEvents(RelayEvents):
    """See the module."""

    title = "SendGrid Event Webhook"
    Settings = SendGridEventSettings

    @property
    def marks(self) -> Mapping[str, str]:
        return {"X-SMTPAPI": '{{"unique_args": {{"' + MARK + '": "{token}"}}}}'}

    async def verify(self, request: WebhookRequest) -> None:
        stamp = request.headers.get("x-twilio-email-event-webhook-timestamp", "")
        given = request.headers.get("x-twilio-email-event-webhook-signature", "")
        try:
            signed = base64.b64decode(given, validate=True)
            _key(self.settings.public_key).verify(signed, stamp.encode() + request.body, ec.ECDSA(SHA256()))
            at = datetime.fromtimestamp(int(stamp), UTC)
        except (InvalidSignature, ValueError, OverflowError):
            raise SignatureError(
                "the signature is wrong",
                "check public_key: SendGrid makes a new one when signing is switched on again",
            ) from None
        check_fresh(at, request.received_at, max_age_seconds=RETRIED_FOR)

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        return [event for row in objects(request.body) if (event := _read(row)) is not None]


def _read(row: Mapping[str, Any]) -> RelayEvent | None:
    name = text_of(row, "event")
    if name not in KINDS:
        return None
    at = datetime.fromtimestamp(int(row["timestamp"]), UTC)
    text = text_of(row, "reason", "response")
    status = text_of(row, "status")
    return RelayEvent(
        key=text_of(row, "sg_event_id")
        or digest(name, at, row.get("sg_message_id"), row.get("email"), row.get("url")),
        kind=KINDS[name],
        occurred_at=at,
        token=text_of(row, MARK),
        message_id=text_of(row, "smtp-id"),
        code=int(text[:3]) if text[:3].isdigit() else 0,
        enhanced=enhanced_code(status) or enhanced_code(text),
        text=text,
        bounce=BounceClass.RELAY if name == "dropped" else None,  # never tried: its own suppressions
        link=text_of(row, "url"),
        agent=text_of(row, "useragent"),
        address=text_of(row, "ip"),
        machine="SendGrid says that a machine opened it" if row.get("sg_machine_open") is True else "",
        type=" ".join(part for part in (name, text_of(row, "type")) if part),
    )
