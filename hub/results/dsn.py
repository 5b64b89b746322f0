"""Read a mail that came back: a delivery status notification (RFC 3464 in RFC 6522), as it is met in the wild, a complaint
(RFC 5965), a person's reply, or what a machine answers (RFC 3834).

What is looked for, in the order of trust: our own signed token in the address that the report was sent to,
then the Message-ID among the returned headers. A report without either of them proves nothing and does nothing.
"""

from __future__ import annotations

import email
import logging
import re
from dataclasses import dataclass
from email.message import Message
from enum import StrEnum

import structlog

from hub.bounces import enhanced_code
from hub.results import answers
from hub.results import feedback_reports as feedback

log = structlog.get_logger()


class Verdict(StrEnum):
    BOUNCED = "bounced"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"  # a provider passes an opt-out on
    REPLIED = "replied"  # a person wrote back
    AUTO_REPLY = "auto_reply"  # out of office and the like
    IGNORED = "ignored"  # a read receipt, "not spam" and the like: no failure


@dataclass(frozen=True)
class Report:
    """What a report says. `sent_to` are the addresses it came to (our return path), `message_ids` those of the mail that it
    is about, `recipients` whom the reporter failed to reach: another address than ours, where the mail was forwarded."""

    verdict: Verdict
    sent_to: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    code: int = 0
    enhanced: str = ""
    text: str = ""
    stage: str = "rcpt"


_ACTIONS = {
    "failed": Verdict.BOUNCED,
    "delayed": Verdict.DELAYED,
    "delivered": Verdict.DELIVERED,
    "relayed": Verdict.DELIVERED,
    "expanded": Verdict.DELIVERED,
}
_MESSAGE_ID = re.compile(r"^Message-ID:\s*(<[^>\s]+>)", re.IGNORECASE | re.MULTILINE)
_BASIC = re.compile(r"\b([45]\d\d)[ -]")


def parse(raw: bytes) -> Report:
    """Never raises for what a stranger sent: what is no report comes back as `ignored`."""
    message = email.message_from_bytes(
        raw
    )  # the lenient policy: the newer one raises on some malformed headers
    sent_to = _addresses(message)
    if (complaint := feedback.read(message)) is not None:
        kind, returned = complaint
        found = Verdict(kind) if kind in ("complained", "unsubscribed") else Verdict.IGNORED
        return Report(found, (*sent_to, *returned), _returned_message_ids(message), text=kind)
    if (fields := _status_fields(message)) is not None:
        return _from_fields(fields, sent_to, _returned_message_ids(message))
    if (failed := _free_text_failure(message)) is not None:
        code, text = failed
        return Report(
            Verdict.BOUNCED if code >= 500 else Verdict.DELAYED,
            sent_to,
            _returned_message_ids(message),
            code=code,
            enhanced=enhanced_code(text),
            text=text,
        )
    machine = answers.by_machine(message)
    if answers.is_report(message) or not (
        machine or answers.about(message)
    ):  # a mail that answers none of ours
        return Report(Verdict.IGNORED, sent_to)
    return Report(
        Verdict.AUTO_REPLY if machine else Verdict.REPLIED, sent_to, answers.about(message), text=machine
    )


def _addresses(message: Message[str, str]) -> tuple[str, ...]:
    """Addresses that the report was delivered to, the most trustworthy header first."""
    found: list[str] = []
    for name in ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To"):
        for value in message.get_all(name, []):
            found.extend(re.findall(r"[^\s<>,;\"]+@[^\s<>,;\"]+", str(value)))
    return tuple(dict.fromkeys(found))


def _status_fields(message: Message[str, str]) -> dict[str, str] | None:
    """The fields of the first recipient block that has an Action, merged over the per-message block."""
    for part in message.walk():
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            for block in _blocks(part):
                if "action" in block:
                    return block
    return None


def _blocks(part: Message[str, str]) -> list[dict[str, str]]:
    payload = part.get_payload()
    if isinstance(
        payload, list
    ):  # the parser split the blocks already, or took the first for a message's headers
        found = []
        for block in payload:
            if isinstance(block, Message):
                found.append({name.lower(): str(value) for name, value in block.items()})
                if not block.is_multipart():
                    found += _in_text(str(block.get_payload()))
        return found
    decoded = part.get_payload(decode=True)
    return _in_text(decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else str(payload))


def _in_text(text: str) -> list[dict[str, str]]:
    texts = re.split(r"\r?\n\s*\r?\n", text)
    return [
        {k.lower(): str(v) for k, v in email.message_from_string(block).items()}
        for block in texts
        if block.strip()
    ]


def _from_fields(fields: dict[str, str], sent_to: tuple[str, ...], message_ids: tuple[str, ...]) -> Report:
    diagnostic = re.sub(r"^\s*smtp\s*;\s*", "", fields.get("diagnostic-code", ""), flags=re.IGNORECASE)
    diagnostic = " ".join(diagnostic.split())
    basic = _BASIC.match(diagnostic + " ")
    return Report(
        verdict=_ACTIONS.get(fields.get("action", "").strip().lower(), Verdict.IGNORED),
        sent_to=sent_to,
        message_ids=message_ids,
        recipients=tuple(
            address[0].strip("<>").lower()
            for name in ("final-recipient", "original-recipient")
            if (address := re.findall(r"[^\s;]+@[^\s;]+", fields.get(name, "")))
        ),
        code=int(basic[1]) if basic else 0,
        enhanced=enhanced_code(diagnostic) or enhanced_code(fields.get("status", "")),
        text=diagnostic[:500],
        stage="data" if "end of data" in diagnostic.lower() else "rcpt",
    )


def _returned_message_ids(message: Message[str, str]) -> tuple[str, ...]:
    found = _returned_message_id(message)
    return (found,) if found else ()


def _returned_message_id(message: Message[str, str]) -> str:
    """The Message-ID of the mail that came back, from the returned message or its headers; empty when it is not there."""
    for part in message.walk():
        kind = part.get_content_type()
        if kind == "message/rfc822" and isinstance(inner := part.get_payload(), list) and inner:
            assert isinstance(inner[0], Message)  # the parser made it
            return str(inner[0].get("Message-ID", "")).strip()
        if kind in ("text/rfc822-headers", "message/rfc822-headers"):
            decoded = part.get_payload(decode=True)
            match = _MESSAGE_ID.search(
                decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""
            )
            if match:
                return match[1]
    return ""


def _free_text_failure(message: Message[str, str]) -> tuple[int, str] | None:
    """(basic code, text) of a bounce that has no delivery-status part, as qmail, Exim and others write them."""
    from flufl.bounce import all_failures

    if not str(message.get("From", "")).strip():
        return None
    logging.getLogger("flufl.bounce").setLevel(
        logging.CRITICAL
    )  # its tracebacks on odd mail would quote the mail
    if str(message.get("Auto-Submitted", "no")).lower().startswith("auto-replied") and not _from_daemon(
        message
    ):
        return None
    try:
        temporary, permanent = all_failures(message)
    except Exception as error:  # its thirty detectors trust headers that a stranger wrote
        log.info("a report could not be read for its text", reason=type(error).__name__)
        return None
    if not temporary and not permanent:
        return None
    text = " ".join(_plain_text(message).split())
    match = _BASIC.search(text)
    return (int(match[1]) if match else (550 if permanent else 450)), text[:500]


def _plain_text(message: Message[str, str]) -> str:
    for part in message.walk():
        if part.get_content_type() == "text/plain":
            decoded = part.get_payload(decode=True)
            return decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""
    return ""


def _from_daemon(message: Message[str, str]) -> bool:
    return (
        "mailer-daemon" in str(message.get("From", "")).lower()
        or str(message.get("Return-Path", "")).strip() == "<>"
    )
