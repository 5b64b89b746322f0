"""Mailgun's webhooks: one event a call, with an HMAC over a timestamp and a random token that is used once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, SecretStr

from hub.errors import SignatureError
from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import MARK, EventSettings, RelayEvent, RelayEvents, check_hex_hmac, objects, text_of
from hub.sdk.signatures import check_fresh

RETRIED_FOR = 9 * 3_600.0
"""Seconds: the vendor repeats a call for about eight hours."""
KINDS = {
    "accepted": ResultKind.SENT, "delivered": ResultKind.DELIVERED, "opened": ResultKind.OPENED, "clicked": ResultKind.CLICKED,
    "complained": ResultKind.COMPLAINED, "unsubscribed": ResultKind.UNSUBSCRIBED,
}  # fmt: skip


class MailgunEventSettings(EventSettings):
    """`events: {from: mailgun, ...}`"""

    signing_key: SecretStr = Field(
        description="the account's HTTP webhook signing key; it is not the API key"
    )


class MailgunEvents(RelayEvents):
    """See the module."""

    title = "Mailgun webhooks"
    Settings = MailgunEventSettings

    @property
    def marks(self) -> Mapping[str, str]:
        return {"X-Mailgun-Variables": '{{"' + MARK + '": "{token}"}}'}

    async def verify(self, request: WebhookRequest) -> None:
        try:
            (row,) = objects(request.body)
            given = row["signature"]
            stamp, token = str(given["timestamp"]), str(given["token"])
            at = datetime.fromtimestamp(float(stamp), UTC)
            signature = str(given["signature"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise SignatureError("the call has no signature", "it is none of Mailgun's") from None
        check_hex_hmac(signature, self.settings.signing_key, stamp.encode(), token.encode())
        check_fresh(at, request.received_at, max_age_seconds=RETRIED_FOR)

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        (row,) = objects(request.body)
        data = row["event-data"]
        kind, bounce = _kind(data)
        if kind is None:
            return []
        status, client = data.get("delivery-status") or {}, data.get("client-info") or {}
        headers = (data.get("message") or {}).get("headers") or {}
        code = text_of(status, "code")
        bot = text_of(client, "bot")
        return [
            RelayEvent(
                key=str(data["id"]),
                kind=kind,
                occurred_at=datetime.fromtimestamp(float(data["timestamp"]), UTC),
                token=text_of(data.get("user-variables") or {}, MARK),
                message_id=f"<{text_of(headers, 'message-id').strip('<>')}>",
                once=str(row["signature"]["token"]),  # the signature covers nothing else
                code=int(code) if code.isdigit() and 400 <= int(code) < 600 else 0,
                enhanced=text_of(status, "enhanced-code"),
                text=text_of(status, "message", "description") or text_of(data, "reason"),
                bounce=bounce,
                link=text_of(data, "url"),
                agent=text_of(client, "user-agent"),
                address=text_of(data, "ip"),
                machine=f"Mailgun says that it was a bot ({bot})" if bot else "",
                type=" ".join(
                    p
                    for p in (text_of(data, "event"), text_of(data, "severity"), text_of(data, "reason"))
                    if p
                ),
            )
        ]


def _kind(data: Mapping[str, Any]) -> tuple[ResultKind | None, BounceClass | None]:
    name = text_of(data, "event")
    if name != "failed":
        return KINDS.get(name), None
    if data.get("severity") == "temporary":
        return ResultKind.DELAYED, None
    refused = text_of(data, "reason").startswith("suppress-")  # its own suppressions: never tried
    return ResultKind.BOUNCED, BounceClass.RELAY if refused else None
