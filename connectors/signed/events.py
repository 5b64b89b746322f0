"""Events of any relay, in the hub's own words, signed with a shared secret: for your own mail server, or a small adapter."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from pydantic import Field, SecretStr

from hub.errors import SignatureError
from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import MARK, EventSettings, RelayEvent, RelayEvents, check_hex_hmac, enhanced_code
from hub.sdk.signatures import check_fresh

WORDS = {"accepted": ResultKind.SENT, **{kind.value: kind for kind in ResultKind}}


class SignedEventSettings(EventSettings):
    """`events: {from: signed, ...}`"""

    secret: SecretStr = Field(description="shared with whoever calls; at least 16 characters", min_length=16)
    header: str | None = Field(
        None,
        pattern=r"^X-[A-Za-z0-9-]+$",
        description="a header that each mail gets with its token, e.g. X-Mailyard-Token",
    )


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """One event as it is written in the call."""

    id: str
    event: str
    at: datetime
    token: str = ""
    message_id: str = ""
    code: int = 0
    enhanced: str = ""
    reason: str = ""
    bounce_class: BounceClass | None = None
    link: str = ""
    user_agent: str = ""
    ip: str = ""
    machine: bool = False


class Call(msgspec.Struct, forbid_unknown_fields=True):
    events: list[Told]


class SignedEvents(RelayEvents):
    """See the module."""

    title = "Events with a shared secret"
    Settings = SignedEventSettings

    @property
    def marks(self) -> dict[str, str]:
        return {self.settings.header: "{token}"} if self.settings.header else {}

    async def verify(self, request: WebhookRequest) -> None:
        stamp = request.headers.get("x-mailyard-timestamp", "")
        check_hex_hmac(
            request.headers.get("x-mailyard-signature", "").removeprefix("sha256="),
            self.settings.secret, stamp.encode(), b".", request.body,
        )  # fmt: skip
        try:
            at = datetime.fromtimestamp(int(stamp), UTC)
        except (ValueError, OverflowError):
            raise SignatureError("the timestamp is no number of seconds", "sign each call anew") from None
        check_fresh(at, request.received_at)

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        found = msgspec.json.decode(request.body, type=Call)
        for each in found.events:
            if each.event not in WORDS or not each.id or each.at.tzinfo is None:
                raise ValueError("an event has no id, an unknown word, or a time without its zone")
        return [
            RelayEvent(
                key=each.id, kind=WORDS[each.event], occurred_at=each.at, token=each.token, message_id=each.message_id,
                code=each.code, enhanced=each.enhanced or enhanced_code(each.reason), text=each.reason[:2_000],
                bounce=each.bounce_class, link=each.link, agent=each.user_agent, address=each.ip,
                machine=f"{MARK} was told that a machine did it" if each.machine else "", type=each.event,
            )
            for each in found.events
        ]  # fmt: skip
