"""A system of one's own that calls when a contact or a deal changes, and says all of it.

Signed as Standard Webhooks 1.0 has it: HMAC-SHA-256 over `id.timestamp.body`, in `webhook-signature` as one or more `v1,base64`.
Source: standardwebhooks.com, "Standard Webhooks specification".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
from pydantic import Field, SecretStr, field_validator

from hub.errors import SignatureError
from hub.model import Link, Record, RecordState
from hub.sdk.connector import (
    Connector,
    ConnectorSettings,
    Finding,
    Manifest,
    Unreadable,
    WebhookEvent,
    WebhookRequest,
    each_event,
)
from hub.sdk.signatures import check_fresh

OBJECTS = ("contact", "deal")
STATES = {"changed": RecordState.LIVE, "deleted": RecordState.DELETED}


class WebhookSettings(ConnectorSettings):
    secret: SecretStr = Field(
        description="base64 of the key that both sides share, with or without `whsec_` before it"
    )
    old_secret: SecretStr | None = Field(
        None, description="the one before it, still taken while it is being changed"
    )

    @field_validator("secret", "old_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(_key(value)) < 16:
            raise ValueError("is shorter than 16 octets in base64; make one with `openssl rand -base64 32`")
        return value


class _Told(msgspec.Struct):
    """The body of a call, or one of several."""

    type: str
    timestamp: datetime
    data: dict[str, Any]


_ONE = msgspec.json.Decoder(_Told)
_RAW = msgspec.json.Decoder(list[msgspec.Raw])


class Webhook(Connector[WebhookSettings]):
    """A connection that only listens."""

    Settings = WebhookSettings
    manifest: ClassVar[Manifest] = Manifest(
        name="webhook",
        title="Systems of one's own, by webhook",
        auth=("shared secret",),
        webhooks=tuple(f"{object}.{what}" for object in OBJECTS for what in STATES),
        docs="docs/connectors/webhook.md",
        whole_events=True,
    )

    async def test(self) -> list[Finding]:
        kept = "two secrets" if self.settings.old_secret else "one secret"
        return [
            Finding(True, f"calls to /webhooks/{self.name} are taken under {kept}; there is nobody to ask")
        ]

    def verify(self, request: WebhookRequest) -> None:
        """All three headers, a time that is at most five minutes off, and one signature that fits one secret."""
        id, stamp, given = (
            request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not id or not given or not (stamp.isascii() and stamp.isdigit()) or len(stamp) > 12:
            raise SignatureError(
                "the call is not signed",
                "send webhook-id, webhook-timestamp and webhook-signature (Standard Webhooks)",
            )
        check_fresh(datetime.fromtimestamp(int(stamp), UTC), request.received_at)
        signed = b".".join((id.encode(), stamp.encode(), request.body))
        secrets = [
            secret for secret in (self.settings.secret, self.settings.old_secret) if secret is not None
        ]
        expected = [base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)) for secret in secrets]
        signatures = [one[3:].encode() for one in given.split(" ")[:10] if one.startswith("v1,")]
        # All are compared, so that time does not tell which nearly fitted.
        if not sum(hmac.compare_digest(one, right) for one in signatures for right in expected):
            raise SignatureError("the signature is wrong", "check that both sides have the same secret")

    def events(self, request: WebhookRequest) -> Sequence[WebhookEvent | Unreadable]:
        """One event, or a list of them under one id."""
        body = request.body.lstrip()
        try:
            told = _RAW.decode(body) if body.startswith(b"[") else [msgspec.Raw(body)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"the body is no JSON: {type(error).__name__}") from None
        if not told:
            raise ValueError("the body holds no event")
        id = request.headers.get("webhook-id", "")
        if not id:
            raise ValueError("the call has no webhook-id")
        return each_event(enumerate(told), lambda each: _event(f"{id}:{each[0]}", each[1]))


def _event(key: str, raw: msgspec.Raw) -> WebhookEvent:
    try:
        told = _ONE.decode(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    object, _, what = told.type.partition(".")
    if object not in OBJECTS or what not in STATES:
        raise ValueError("its type is unknown")
    if told.timestamp.tzinfo is None:
        raise ValueError("its timestamp has no zone")
    fields = dict(told.data)
    id = str(fields.pop("id"))
    contacts = fields.pop("contacts", ()) if object == "deal" else ()
    record = Record(
        object=object,
        id=id,
        fields=fields,
        changed_at=told.timestamp,
        state=STATES[what],
        links=tuple(Link("contact", str(each)) for each in contacts),
    )
    return WebhookEvent(
        key=key,
        object=object,
        id=id,
        action=what,
        occurred_at=told.timestamp,
        payload={"type": told.type},
        record=record,
    )


def _key(secret: SecretStr) -> bytes:
    try:
        return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("is no base64; make one with `openssl rand -base64 32`") from None
