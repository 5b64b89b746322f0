"""Who answered a mail: a person, or a program for a person who is away (RFC 3834, and what is older than it)."""

from __future__ import annotations

import re
from email.header import decode_header, make_header
from email.message import Message

_AWAY = re.compile(
    r"^\s*(?:out of (?:the )?office|auto(?:matic)?[- ]?(?:reply|response)|automatische antwort|abwesen|ich bin nicht"
    r"|r[eé]ponse automatique|absence|respuesta autom[aá]tica|risposta automatica|resposta autom[aá]tica|autosvar"
    r"|vacation|i am away|afwezig|automatisch antwoord|автоответ)",
    re.IGNORECASE,
)
_HEADERS = ("X-Autoreply", "X-Autorespond", "X-Autoresponse", "X-Auto-Reply-From", "X-Mail-Autoreply")
_NOBODY = re.compile(
    r"(?:^|<|\s)(?:mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)(?:[+@-])", re.IGNORECASE
)


def by_machine(message: Message[str, str]) -> str:
    """Why this is no person's answer; empty when it is one."""
    submitted = str(message.get("Auto-Submitted", "no")).split(";")[0].strip().lower()
    if submitted not in ("", "no"):
        return f"Auto-Submitted: {submitted[:40]}"
    if str(message.get("Precedence", "")).strip().lower() in ("bulk", "junk", "list", "auto_reply"):
        return "Precedence"
    for name in _HEADERS:
        if str(message.get(name, "no")).strip().lower() not in ("no", ""):
            return name
    if "Return-Path" in message and not str(message["Return-Path"]).strip().strip("<>"):
        return "an empty return path"
    if _NOBODY.search(str(message.get("From", ""))):
        return "nobody's address"
    return "its subject" if _AWAY.search(_subject(message)) else ""


def is_report(message: Message[str, str]) -> bool:
    """A receipt, or a report that says nothing of a delivery."""
    return message.get_content_type() == "multipart/report" or any(
        part.get_content_type() == "message/disposition-notification" for part in message.walk()
    )


def about(message: Message[str, str]) -> tuple[str, ...]:
    """Message-IDs that this answers, the nearest first (RFC 5322, 3.6.4)."""
    nearest = re.findall(r"<[^<>\s]+>", str(message.get("In-Reply-To", "")))
    older = re.findall(r"<[^<>\s]+>", str(message.get("References", "")))
    return tuple(dict.fromkeys([*nearest, *reversed(older)]))[:20]


def _subject(message: Message[str, str]) -> str:
    raw = str(message.get("Subject", ""))
    try:
        return str(make_header(decode_header(raw)))
    except (ValueError, LookupError):  # an unknown charset
        return raw
