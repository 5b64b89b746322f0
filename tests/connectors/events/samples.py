"""Calls as the vendors document them, with our token in the place where it comes back. No person of these exists."""

from __future__ import annotations

from typing import Any

AT = 1_795_600_000  # 2026-11-25 in Unix seconds, like the stamps below


def sendgrid(event: str, token: str, **more: Any) -> dict[str, Any]:
    return {
        "email": "ann@example.com", "timestamp": AT, "event": event, "sg_event_id": f"sg-{event}", "mailyard": token,
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>",
        **more,
    }  # fmt: skip


SENDGRID: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    (sendgrid("processed", "{token}"), ("sent", "")),
    (sendgrid("deferred", "{token}", response="400 try again later", attempt="5"), ("delayed", "")),
    (sendgrid("delivered", "{token}", response="250 OK"), ("delivered", "")),
    (
        sendgrid("bounce", "{token}", type="bounce", status="5.1.1", reason="550 5.1.1 The email account does not exist"),
        ("bounced", "address"),
    ),
    (
        sendgrid("bounce", "{token}", type="blocked", status="5.7.1", reason="550 5.7.1 blocked using zen.spamhaus.org"),
        ("bounced", "reputation"),
    ),
    (sendgrid("dropped", "{token}", reason="Bounced Address"), ("bounced", "relay")),
    (sendgrid("open", "{token}", useragent="Mozilla/5.0 (Macintosh) Mail/1", ip="203.0.113.9"), ("opened", "person")),
    (sendgrid("open", "{token}", useragent="Mozilla/5.0", ip="203.0.113.9", sg_machine_open=True), ("opened", "machine")),
    (sendgrid("click", "{token}", useragent="Mozilla/5.0 (Macintosh)", ip="203.0.113.9", url="https://a.example/"),
     ("clicked", "person")),
    (sendgrid("spamreport", "{token}"), ("complained", "")),
    (sendgrid("group_unsubscribe", "{token}", asm_group_id=10), ("unsubscribed", "")),
    (sendgrid("group_resubscribe", "{token}", asm_group_id=10), None),
]  # fmt: skip


def mailgun(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event, "id": f"mg-{event}", "timestamp": AT + 0.25, "recipient": "ann@example.com",
        "message": {"headers": {"message-id": "20261125.1@example.com", "to": "ann@example.com"}},
        "user-variables": {"mailyard": "{token}"}, **more,
    }  # fmt: skip


MAILGUN: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    (mailgun("accepted"), ("sent", "")),
    (mailgun("delivered", **{"delivery-status": {"code": 250, "message": "OK"}}), ("delivered", "")),
    (
        mailgun("failed", severity="temporary", **{"delivery-status": {"code": 421, "message": "try again later"}}),
        ("delayed", ""),
    ),
    (
        mailgun("failed", severity="permanent", reason="bounce",
                **{"delivery-status": {"code": 550, "message": "5.1.1 user unknown", "enhanced-code": "5.1.1"}}),
        ("bounced", "address"),
    ),
    (mailgun("failed", severity="permanent", reason="suppress-bounce", **{"delivery-status": {"code": 605, "message": "",
     "description": "Not delivering to previously bounced address"}}), ("bounced", "relay")),
    (mailgun("opened", ip="203.0.113.9", **{"client-info": {"user-agent": "Mozilla/5.0 (Macintosh)", "bot": ""}}),
     ("opened", "person")),
    (mailgun("opened", ip="203.0.113.9", **{"client-info": {"user-agent": "Mozilla/5.0 (Macintosh)", "bot": "apple"}}),
     ("opened", "machine")),
    (mailgun("clicked", ip="203.0.113.9", url="https://a.example/", **{"client-info": {"user-agent": "Mozilla/5.0 (X11)"}}),
     ("clicked", "person")),
    (mailgun("complained"), ("complained", "")),
    (mailgun("unsubscribed"), ("unsubscribed", "")),
]  # fmt: skip


def postmark(record: str, **more: Any) -> dict[str, Any]:
    return {
        "RecordType": record, "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483", "Metadata": {"mailyard": "{token}"}, **more,
    }  # fmt: skip


WHEN = "2026-11-25T13:28:10.2735393-04:00"
POSTMARK: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    (postmark("Delivery", Recipient="ann@example.com", DeliveredAt="2026-11-25T16:33:54.0000000Z", Details="Test"),
     ("delivered", "")),
    (postmark("Bounce", ID=42, Type="HardBounce", TypeCode=1, Email="ann@example.com", BouncedAt=WHEN,
              Details="smtp;550 5.1.1 The email account that you tried to reach does not exist."), ("bounced", "address")),
    (postmark("Bounce", ID=43, Type="HardBounce", TypeCode=1, Email="ann@example.com", BouncedAt=WHEN,
              Details="smtp;550 5.7.1 Service unavailable, Client host blocked using Spamhaus"), ("bounced", "reputation")),
    (postmark("Bounce", ID=44, Type="Transient", TypeCode=2, BouncedAt=WHEN, Description="try again later"), ("delayed", "")),
    (postmark("Bounce", ID=45, Type="SMTPApiError", TypeCode=100007, BouncedAt=WHEN), ("bounced", "relay")),
    (postmark("Bounce", ID=46, Type="DMARCPolicy", TypeCode=100009, BouncedAt=WHEN), ("bounced", "policy")),
    (postmark("Bounce", ID=47, Type="AutoResponder", TypeCode=64, BouncedAt=WHEN), None),
    (postmark("SpamComplaint", ID=48, Type="SpamComplaint", TypeCode=100001, BouncedAt=WHEN), ("complained", "")),
    (postmark("Open", FirstOpen=True, Recipient="ann@example.com", UserAgent="Mozilla/5.0 (Macintosh)",
              Geo={"IP": "203.0.113.9"}, ReceivedAt=WHEN), ("opened", "person")),
    (postmark("Click", Recipient="ann@example.com", UserAgent="Mozilla/5.0 (Macintosh)", OriginalLink="https://a.example/",
              Geo={"IP": "203.0.113.9"}, ReceivedAt=WHEN), ("clicked", "person")),
    (postmark("SubscriptionChange", Recipient="ann@example.com", ChangedAt="2026-11-25T10:53:34Z", SuppressSending=True,
              SuppressionReason="ManualSuppression", Origin="Recipient"), ("unsubscribed", "")),
    (postmark("SubscriptionChange", Recipient="ann@example.com", ChangedAt="2026-11-25T10:53:34Z", SuppressSending=True,
              SuppressionReason="HardBounce", Origin="Recipient"), None),
]  # fmt: skip


def brevo(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event, "email": "ann@example.com", "id": 1, "ts_epoch": AT * 1_000, "message-id": "<201798300811@relay.example>",
        "X-Mailin-custom": "{token}", **more,
    }  # fmt: skip


BREVO: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    (brevo("request"), ("sent", "")),
    (brevo("delivered"), ("delivered", "")),
    (brevo("deferred", reason="spam"), ("delayed", "")),
    (brevo("hard_bounce", reason="550 5.1.1 user unknown"), ("bounced", "address")),
    (brevo("hard_bounce", reason="server is down"), ("bounced", "unknown")),
    (brevo("soft_bounce", reason="server is down"), ("bounced", "transient")),
    (brevo("soft_bounce", reason="552 5.2.2 mailbox full"), ("bounced", "mailbox-full")),
    (brevo("invalid_email"), ("bounced", "address-weak")),
    (brevo("blocked", reason="blocked : due to blacklist user"), ("bounced", "relay")),
    (brevo("spam"), ("complained", "")),
    (brevo("opened", user_agent="Mozilla/5.0 (Macintosh)"), ("opened", "person")),
    (brevo("unique_opened"), None),
    (brevo("proxy_open"), ("opened", "machine")),
    (brevo("click", link="https://a.example/"), ("clicked", "person")),
    (brevo("unsubscribe"), ("unsubscribed", "")),
    (brevo("list_addition"), None),
]  # fmt: skip


def ses(event: str, part: dict[str, Any], **mail: Any) -> dict[str, Any]:
    name = event[0].lower() + event[1:]
    return {
        "eventType": event, name: {"timestamp": "2026-11-25T14:59:38.237Z", **part},
        "mail": {"timestamp": "2026-11-25T14:59:38.237Z", "messageId": "EXAMPLE7c191be45", "source": "bounce@m.example",
                 "destination": ["ann@example.com"], "tags": {"mailyard": ["{token}"], "ses:source-ip": ["192.0.2.0"]}, **mail},
    }  # fmt: skip


def ses_bounce(kind: str, sub: str, diagnostic: str, status: str = "5.1.1") -> dict[str, Any]:
    who = {
        "emailAddress": "ann@example.com",
        "action": "failed",
        "status": status,
        "diagnosticCode": diagnostic,
    }
    return ses(
        "Bounce",
        {
            "bounceType": kind,
            "bounceSubType": sub,
            "bouncedRecipients": [who],
            "feedbackId": "01000157c44f053b",
        },
    )


SES: list[tuple[dict[str, Any], tuple[str, str] | None]] = [
    (ses("Send", {}), ("sent", "")),
    (ses("Delivery", {"smtpResponse": "250 2.6.0 Message received", "recipients": ["ann@example.com"]}), ("delivered", "")),
    (ses("DeliveryDelay", {"delayType": "TransientCommunicationFailure",
                           "delayedRecipients": [{"emailAddress": "ann@example.com", "status": "4.4.1",
                                                  "diagnosticCode": "smtp; 421 4.4.1 Unable to connect"}]}), ("delayed", "")),
    (ses_bounce("Permanent", "General", "smtp; 550 5.1.1 user unknown"), ("bounced", "address")),
    (ses_bounce("Permanent", "General", "smtp; 550 5.7.1 blocked, see proofpoint.com", "5.7.1"), ("bounced", "reputation")),
    (ses_bounce("Permanent", "OnAccountSuppressionList", "Amazon SES did not send the message"), ("bounced", "relay")),
    (ses_bounce("Transient", "MailboxFull", "smtp; 552 5.2.2 full", "5.2.2"), ("bounced", "mailbox-full")),
    (ses_bounce("Transient", "General", "", ""), ("bounced", "transient")),
    (ses("Complaint", {"complainedRecipients": [{"emailAddress": "ann@example.com"}], "complaintFeedbackType": "abuse"}),
     ("complained", "")),
    (ses("Complaint", {"complaintFeedbackType": "not-spam"}), None),
    (ses("Open", {"ipAddress": "203.0.113.9", "userAgent": "Mozilla/5.0 (iPhone)"}), ("opened", "person")),
    (ses("Click", {"ipAddress": "203.0.113.9", "userAgent": "Mozilla/5.0 (X11)", "link": "https://a.example/"}),
     ("clicked", "person")),
    (ses("Subscription", {"newTopicPreferences": {"unsubscribeAll": True}}), ("unsubscribed", "")),
    (ses("Rendering Failure", {}), None),
]  # fmt: skip
