"""Complaints as providers send them: Abuse Reporting Format (RFC 5965), of which addresses are often taken out (RFC 6590)."""

from __future__ import annotations

import re
from email.message import Message

COMPLAINTS = ("abuse", "fraud", "virus", "other")
OPT_OUTS = ("opt-out", "opt-out-list")


def read(message: Message[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """(`complained`, `unsubscribed` or the type as it is, addresses that the mail was sent from); None when it is no report.

    `not-spam` and reports on authentication are no complaints.
    """
    for part in message.walk():
        if part.get_content_type() == "message/feedback-report":
            fields = _fields(part)
            type = fields.get("feedback-type", "").strip().lower()
            return_paths = re.findall(r"[^\s<>]+@[^\s<>]+", fields.get("original-mail-from", ""))
            kind = "complained" if type in COMPLAINTS else "unsubscribed" if type in OPT_OUTS else type
            return kind or "untyped", (*return_paths, *_returned_paths(message))
    return None


def _fields(part: Message[str, str]) -> dict[str, str]:
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else None
    if isinstance(inner, Message) and inner.items():  # the parser takes the fields for headers
        return {name.lower(): str(value) for name, value in inner.items()}
    decoded = part.get_payload(decode=True)
    text = decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else str(payload or "")
    found = re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", text, re.MULTILINE)
    return {name.lower(): value.strip() for name, value in found}


def _returned_paths(message: Message[str, str]) -> tuple[str, ...]:
    """The return path in the headers of the mail that was complained of."""
    for part in message.walk():
        payload = part.get_payload()
        if part.get_content_type() == "message/rfc822" and isinstance(payload, list) and payload:
            assert isinstance(payload[0], Message)
            return tuple(re.findall(r"[^\s<>]+@[^\s<>]+", str(payload[0].get("Return-Path", ""))))
        if part.get_content_type() in ("text/rfc822-headers", "message/rfc822-headers"):
            decoded = part.get_payload(decode=True)
            text = decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""
            found = re.search(r"^Return-Path:\s*<?([^\s<>]+@[^\s<>]+)", text, re.MULTILINE | re.IGNORECASE)
            return (found[1],) if found else ()
    return ()
