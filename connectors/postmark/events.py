"""Postmark's webhooks: one record a call. They are not signed, so a user name and a password in the URL are a must."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, SecretStr

from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import (
    MARK,
    EventSettings,
    RelayEvent,
    RelayEvents,
    check_basic,
    digest,
    enhanced_code,
    objects,
    text_of,
)

KINDS = {
    "Delivery": ResultKind.DELIVERED, "Open": ResultKind.OPENED, "Click": ResultKind.CLICKED,
    "SpamComplaint": ResultKind.COMPLAINED,
}  # fmt: skip
BOUNCES: dict[int, tuple[ResultKind | None, BounceClass | None]] = {
    1: (ResultKind.BOUNCED, None), 100000: (ResultKind.BOUNCED, None), 2048: (ResultKind.BOUNCED, None),
    2: (ResultKind.DELAYED, None), 4096: (ResultKind.BOUNCED, None), 256: (ResultKind.BOUNCED, BounceClass.TRANSIENT),
    512: (ResultKind.BOUNCED, BounceClass.CONTENT), 8192: (ResultKind.BOUNCED, BounceClass.CONTENT),
    100006: (ResultKind.BOUNCED, BounceClass.REPUTATION), 100009: (ResultKind.BOUNCED, BounceClass.POLICY),
    100007: (ResultKind.BOUNCED, BounceClass.RELAY), 100002: (ResultKind.BOUNCED, BounceClass.RELAY),
    100001: (ResultKind.COMPLAINED, None), 16: (ResultKind.UNSUBSCRIBED, None),
}  # fmt: skip
"""TypeCode -> (result, class); a class of None is read from the receiver's words. Other codes are no failure of a mail."""
TIMES = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")


class PostmarkEventSettings(EventSettings):
    """`events: {from: postmark, ...}`"""

    username: str = Field(description="of the webhook's URL, https://USERNAME:PASSWORD@...")
    password: SecretStr = Field(description="of the webhook's URL")


class PostmarkEvents(RelayEvents):
    """See the module."""

    title = "Postmark webhooks"
    Settings = PostmarkEventSettings

    @property
    def marks(self) -> Mapping[str, str]:
        return {f"X-PM-Metadata-{MARK}": "{token}", "X-PM-KeepID": "true"}

    async def verify(self, request: WebhookRequest) -> None:
        check_basic(request, self.settings.username, self.settings.password)

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        return [event for row in objects(request.body) if (event := _read(row)) is not None]


def _read(row: Mapping[str, Any]) -> RelayEvent | None:
    record = text_of(row, "RecordType")
    kind, bounce = KINDS.get(record), None
    if record == "Bounce":
        kind, bounce = BOUNCES.get(int(row["TypeCode"]), (None, None))
    elif record == "SubscriptionChange" and row.get("SuppressSending") is True:
        # Its own words for a bounce or a complaint came with the record of that.
        kind = ResultKind.UNSUBSCRIBED if row.get("SuppressionReason") == "ManualSuppression" else None
    if kind is None:
        return None
    at = _time(text_of(row, *TIMES))
    text = text_of(row, "Details", "Description") if record == "Bounce" else ""
    code = re.search(r"\b([45]\d\d)[ -]", text)
    own = f"{record}:{row['ID']}" if record in ("Bounce", "SpamComplaint") and row.get("ID") else ""
    return RelayEvent(
        key=own or digest(record, row.get("MessageID"), row.get("Recipient"), at, row.get("OriginalLink")),
        kind=kind,
        occurred_at=at,
        token=text_of(row.get("Metadata") or {}, MARK),
        code=int(code[1]) if code else 0,
        enhanced=enhanced_code(text),
        text=text,
        bounce=bounce,
        link=text_of(row, "OriginalLink"),
        agent=text_of(row, "UserAgent"),
        address=text_of(row.get("Geo") or {}, "IP"),
        type=" ".join(part for part in (record, text_of(row, "Type")) if part),
    )


def _time(text: str) -> datetime:
    """ISO 8601 with up to seven digits behind the second."""
    found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return found if found.tzinfo else found.replace(tzinfo=UTC)
