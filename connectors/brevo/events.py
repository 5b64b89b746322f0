"""Brevo's transactional webhooks: one event a call, or a list. Proved by a bearer token, or a user name and a password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, SecretStr, model_validator

from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import (
    EventSettings,
    RelayEvent,
    RelayEvents,
    check_basic,
    check_bearer,
    classify,
    digest,
    enhanced_code,
    objects,
    text_of,
)

KINDS = {
    "request": ResultKind.SENT, "delivered": ResultKind.DELIVERED, "deferred": ResultKind.DELAYED,
    "hard_bounce": ResultKind.BOUNCED, "soft_bounce": ResultKind.BOUNCED, "invalid_email": ResultKind.BOUNCED,
    "blocked": ResultKind.BOUNCED, "spam": ResultKind.COMPLAINED, "opened": ResultKind.OPENED,
    "proxy_open": ResultKind.OPENED, "click": ResultKind.CLICKED, "unsubscribe": ResultKind.UNSUBSCRIBED,
    "unsubscribed": ResultKind.UNSUBSCRIBED,
}  # fmt: skip
"""`unique_opened` comes beside the first `opened` and is left out."""
UNREAD = {
    "soft_bounce": BounceClass.TRANSIENT, "invalid_email": BounceClass.ADDRESS_WEAK,
}  # fmt: skip
"""What such an event means when its reason is not understood."""


class BrevoEventSettings(EventSettings):
    """`events: {from: brevo, ...}`"""

    token: SecretStr | None = Field(None, description="the webhook's bearer token")
    username: str | None = Field(None, description="instead of token: of the webhook's URL")
    password: SecretStr | None = Field(None, description="together with username")

    @model_validator(mode="after")
    def _one_proof(self) -> BrevoEventSettings:
        if (self.token is None) == (self.username is None) or (self.username is None) != (
            self.password is None
        ):
            raise ValueError("give either token, or username and password")
        return self


class BrevoEvents(RelayEvents):
    """See the module."""

    title = "Brevo webhooks"
    Settings = BrevoEventSettings

    @property
    def marks(self) -> Mapping[str, str]:
        return {"X-Mailin-custom": "{token}"}

    async def verify(self, request: WebhookRequest) -> None:
        given = self.settings
        if given.token is not None:
            check_bearer(request, given.token)
        else:
            check_basic(request, given.username, given.password)

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        return [event for row in objects(request.body) if (event := _read(row)) is not None]


def _read(row: Mapping[str, Any]) -> RelayEvent | None:
    name = text_of(row, "event")
    if name not in KINDS:
        return None
    at = _time(row)
    text = text_of(row, "reason")
    found = re.search(r"\b([45]\d\d)[ -]", f"{text} ")
    code, enhanced = int(found[1]) if found else 0, enhanced_code(text)
    bounce = BounceClass.RELAY if name == "blocked" else None
    if name in UNREAD and classify(code=code, enhanced=enhanced, text=text) is BounceClass.UNKNOWN:
        bounce = UNREAD[name]
    message_id = text_of(row, "message-id")
    return RelayEvent(
        key=digest(name, message_id, text_of(row, "email"), at, text_of(row, "link")),
        kind=KINDS[name],
        occurred_at=at,
        token=text_of(row, "X-Mailin-custom"),
        message_id=message_id,
        code=code,
        enhanced=enhanced,
        text=text,
        bounce=bounce,
        link=text_of(row, "link"),
        agent=text_of(row, "user_agent"),
        address=text_of(row, "ip"),
        machine="Brevo says that a proxy opened it" if name == "proxy_open" else "",
        type=name,
    )


def _time(row: Mapping[str, Any]) -> datetime:
    """`ts_epoch` counts milliseconds and is the only time whose zone is sure."""
    if row.get("ts_epoch"):
        return datetime.fromtimestamp(int(row["ts_epoch"]) / 1_000, UTC)
    return datetime.fromtimestamp(int(row.get("ts_event") or row["ts"]), UTC)
