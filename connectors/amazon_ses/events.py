"""Amazon SES events through SNS: an envelope with a signature whose certificate comes from the topic's own region."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from pydantic import Field

from hub.errors import SignatureError, VendorError
from hub.model import BounceClass, ResultKind
from hub.sdk.connector import WebhookRequest
from hub.sdk.events import (
    MARK,
    EventSettings,
    RelayEvent,
    RelayEvents,
    classify,
    enhanced_code,
    objects,
    text_of,
)
from hub.sdk.signatures import check_fresh

RETRIED_FOR = 25 * 3_600.0
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
    "UnsubscribeConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
}
"""The fields that are signed, in the order of their names; one that is absent is left out."""
ARN = re.compile(r"arn:aws(-cn)?:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]+")
CERTIFICATE = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]+\.pem")
KINDS = {
    "Send": ResultKind.SENT, "Delivery": ResultKind.DELIVERED, "DeliveryDelay": ResultKind.DELAYED,
    "Bounce": ResultKind.BOUNCED, "Reject": ResultKind.BOUNCED, "Complaint": ResultKind.COMPLAINED,
    "Open": ResultKind.OPENED, "Click": ResultKind.CLICKED,
}  # fmt: skip
BY_SUBTYPE = {
    "Suppressed": BounceClass.RELAY, "OnAccountSuppressionList": BounceClass.RELAY,
    "UnsubscribedRecipient": BounceClass.RELAY, "MailboxFull": BounceClass.MAILBOX_FULL,
    "MessageTooLarge": BounceClass.CONTENT, "ContentRejected": BounceClass.CONTENT,
    "AttachmentRejected": BounceClass.CONTENT,
}  # fmt: skip


class SesEventSettings(EventSettings):
    """`events: {from: amazon_ses, ...}`"""

    topic: str = Field(
        pattern=f"^{ARN.pattern}$",
        description="ARN of the SNS topic, e.g. arn:aws:sns:eu-west-1:123456789012:mails",
    )
    configuration_set: str | None = Field(
        None, pattern="^[A-Za-z0-9_-]+$", description="the configuration set whose events go to the topic"
    )
    signature_version: int = Field(1, ge=1, le=2, description="2: refuse calls that are signed with SHA-1")


class SesEvents(RelayEvents):
    """See the module."""

    title = "Amazon SES by SNS"
    Settings = SesEventSettings

    def __init__(self, relay: str, settings: SesEventSettings, context: Any) -> None:
        super().__init__(relay, settings, context)
        found = ARN.fullmatch(settings.topic)
        assert found is not None  # the settings are checked
        self.host = f"sns.{found[2]}.amazonaws.com" + (".cn" if found[1] else "")
        self._certificates: dict[str, x509.Certificate] = {}

    @property
    def marks(self) -> Mapping[str, str]:
        marks = {"X-SES-MESSAGE-TAGS": f"{MARK}={{token}}"}
        if self.settings.configuration_set:
            marks["X-SES-CONFIGURATION-SET"] = self.settings.configuration_set
        return marks

    # --- the envelope ----------------------------------------------------------------------------------------

    async def verify(self, request: WebhookRequest) -> None:
        envelope = _envelope(request)
        if envelope.get("TopicArn") != self.settings.topic:
            raise SignatureError("the call is of another topic", "check `topic` under `events`")
        version = text_of(envelope, "SignatureVersion")
        if version not in ("1", "2") or int(version) < self.settings.signature_version:
            raise SignatureError(
                f"the call has signature version {version[:3]!r}", "set SignatureVersion to 2 on the topic"
            )
        certificate = await self._certificate(text_of(envelope, "SigningCertURL"), request.received_at)
        key = certificate.public_key()
        signed = "".join(
            f"{name}\n{envelope[name]}\n" for name in SIGNED[envelope["Type"]] if name in envelope
        ).encode()
        try:
            if not isinstance(key, rsa.RSAPublicKey):
                raise ValueError("no RSA key")
            signature = base64.b64decode(text_of(envelope, "Signature"), validate=True)
            key.verify(signature, signed, padding.PKCS1v15(), SHA256() if version == "2" else SHA1())  # noqa: S303
            at = datetime.fromisoformat(text_of(envelope, "Timestamp"))
        except (InvalidSignature, ValueError):
            raise SignatureError("the signature is wrong", "the call is none of Amazon's") from None
        check_fresh(at, request.received_at, max_age_seconds=RETRIED_FOR)

    async def _certificate(self, url: str, now: datetime) -> x509.Certificate:
        """From the topic's own region only: whoever calls must not choose whom the hub asks."""
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != f"https://{self.host}" or not CERTIFICATE.fullmatch(
            parts.path
        ):
            raise SignatureError(
                "the certificate is not where Amazon keeps those of this region",
                "the call is none of Amazon's",
            )
        if parts.query or parts.fragment:
            raise SignatureError("the certificate's address has a query", "the call is none of Amazon's")
        found = self._certificates.get(parts.path)
        if found is None:
            try:
                answer = await self._http().request("GET", parts.path, expect_json=False)
                found = x509.load_pem_x509_certificate(answer.body)
            except (VendorError, ValueError) as error:
                raise SignatureError(
                    f"the certificate could not be read ({type(error).__name__})",
                    f"check that this machine reaches https://{self.host}",
                ) from None
            self._certificates[parts.path] = found
        if not found.not_valid_before_utc - timedelta(minutes=5) <= now <= found.not_valid_after_utc:
            raise SignatureError("the certificate is not valid now", "check this machine's clock")
        return found

    def _http(self) -> Any:
        return self.context.http.configured(f"https://{self.host}")

    async def greet(self, request: WebhookRequest) -> bool:
        """Confirm the subscription of our own topic, by an address that is made here and not the one that was told."""
        envelope = _envelope(request)
        if envelope["Type"] == "SubscriptionConfirmation":
            asked = {
                "Action": "ConfirmSubscription", "TopicArn": self.settings.topic, "Token": text_of(envelope, "Token"),
            }  # fmt: skip
            await self._http().request("GET", "/", params=asked, expect_json=False)
        return str(envelope["Type"]) != "Notification"

    # --- the events --------------------------------------------------------------------------------------------

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        envelope = _envelope(request)
        (message,) = objects(str(envelope["Message"]).encode())
        name = text_of(message, "eventType", "notificationType")
        if name == "Subscription":
            return self._subscription(message, str(envelope["MessageId"]))
        if name not in KINDS:
            return []
        part = message.get(name[0].lower() + name[1:]) or {}
        mail = message["mail"]
        recipients = part.get("bouncedRecipients") or part.get("delayedRecipients") or [{}]
        text = text_of(recipients[0], "diagnosticCode") or text_of(part, "smtpResponse", "reason")
        words = re.sub(r"^\s*smtp;\s*", "", text, flags=re.IGNORECASE)
        code = int(words[:3]) if words[:3].isdigit() else 0
        enhanced = enhanced_code(words) or enhanced_code(text_of(recipients[0], "status"))
        kind, bounce = KINDS[name], None
        if name == "Reject":
            bounce = BounceClass.CONTENT  # a virus, says the vendor
        elif name == "Bounce":
            kind, bounce = _bounce(part, code, enhanced, words)
        elif name == "Complaint" and part.get("complaintFeedbackType") == "not-spam":
            return []
        return [_event(str(envelope["MessageId"]), kind, mail, part, name, code, enhanced, words, bounce)]

    def _subscription(self, message: Mapping[str, Any], key: str) -> list[RelayEvent]:
        part, mail = message.get("subscription") or {}, message["mail"]
        if (part.get("newTopicPreferences") or {}).get("unsubscribeAll") is not True:
            return []
        return [_event(key, ResultKind.UNSUBSCRIBED, mail, part, "Subscription")]


def _bounce(
    part: Mapping[str, Any], code: int, enhanced: str, text: str
) -> tuple[ResultKind, BounceClass | None]:
    """Permanent is not believed without the receiver's own words; what is passing and says nothing else stays passing."""
    bounce = BY_SUBTYPE.get(text_of(part, "bounceSubType"))
    if bounce is None and part.get("bounceType") == "Transient":
        read = classify(code=code, enhanced=enhanced, text=text)
        passing = (BounceClass.UNKNOWN, BounceClass.ADDRESS, BounceClass.ADDRESS_WEAK)
        bounce = BounceClass.TRANSIENT if read in passing else read
    return ResultKind.BOUNCED, bounce


def _event(
    key: str,
    kind: ResultKind,
    mail: Mapping[str, Any],
    part: Mapping[str, Any],
    name: str,
    code: int = 0,
    enhanced: str = "",
    text: str = "",
    bounce: BounceClass | None = None,
) -> RelayEvent:
    tags = (mail.get("tags") or {}).get(MARK) or [""]
    headers = {str(h.get("name", "")).lower(): str(h.get("value", "")) for h in mail.get("headers") or []}
    common = mail.get("commonHeaders") or {}
    return RelayEvent(
        key=key,
        kind=kind,
        occurred_at=datetime.fromisoformat(text_of(part, "timestamp") or text_of(mail, "timestamp")),
        token=str(tags[0]) or text_of(mail, "source"),  # the source is the return path
        message_id=headers.get("message-id", "") or text_of(common, "messageId"),
        code=code,
        enhanced=enhanced,
        text=text,
        bounce=bounce,
        link=text_of(part, "link"),
        agent=text_of(part, "userAgent"),
        address=text_of(part, "ipAddress"),
        type=" ".join(p for p in (name, text_of(part, "bounceType"), text_of(part, "bounceSubType")) if p),
    )


def _envelope(request: WebhookRequest) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(request.body)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict) or found.get("Type") not in SIGNED:
        raise SignatureError(
            "the call is no envelope of SNS",
            "switch raw message delivery off: without an envelope nothing is signed",
        )
    return found
