"""Why a mail failed: text beats code, code beats nothing, and what is not understood never suppresses.

Codes by RFC 3463, 5248, 7372 and 7505; texts are keys that receivers' replies contain, matched without case.
The order of rules is the order of trust: who speaks, then known text, then enhanced code, then basic code.
"""

from __future__ import annotations

import re

from hub.model import BounceClass

_TEXTS: tuple[tuple[str, BounceClass], ...] = tuple(
    (pattern, kind)
    for kind, patterns in (
        # Rates and lists first: receivers word them with the codes of dead mailboxes.
        (BounceClass.TRANSIENT, (r"too quickly", r"greylist", r"try again later", r"come back later", r"too many connections")),
        (
            BounceClass.REPUTATION,
            (r"spamhaus", r"spamcop", r"barracudacentral", r"proofpoint\.com", r"block ?list", r"blacklist", r"poor reputation",
             r"low reputation", r"banned send", r"unusual rate", r"\[tss\d+\]", r"\bS3140\b|\bS3150\b", r"nemesis esmtp"),
        ),
        (BounceClass.POLICY, (r"dmarc", r"unauthenticated", r"\bspf\b", r"\bdkim\b", r"reverse dns", r"\bptr\b", r"access denied",
                              r"policy (?:reasons|violation)", r"administrative prohibition", r"not authori[sz]ed to send")),
        (BounceClass.CONTENT, (r"spam (?:message|content)", r"suspicion of spam", r"virus", r"message (?:too large|size exceeds)",
                               r"unsolicited", r"attachment")),
        (BounceClass.MAILBOX_FULL, (r"over ?quota", r"mailbox (?:is )?full", r"out of storage", r"quota exceeded",
                                    r"mailbox size limit")),
        (BounceClass.ADDRESS_WEAK, (r"(?:account|mailbox)(?: is)? (?:disabled|inactive)", r"no longer valid",
                                    r"unrouteable address", r"host (?:or domain )?name not found")),
        (BounceClass.ADDRESS, (r"user unknown", r"unknown user", r"no such (?:user|mailbox|recipient)", r"does not exist",
                               r"doesn't have an? \S+ account", r"mailbox not found", r"user not found", r"invalid mailbox",
                               r"recipient (?:address )?rejected: (?:user|undeliverable)", r"recipient not found")),
        (BounceClass.RELAY, (r"relay(?:ing)? (?:access )?denied", r"authentication required", r"daily .*limit")),
    )
    for pattern in patterns
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), kind) for pattern, kind in _TEXTS)

_CODES: tuple[tuple[str, BounceClass], ...] = (
    (r"5\.1\.[16]$|5\.1\.10$|5\.1\.3$", BounceClass.ADDRESS),
    (r".\.1\.[78]$|.\.7\.8$|.\.7\.27$", BounceClass.RELAY),
    (r"5\.1\.2$|5\.1\.4$|5\.4\.4$|5\.2\.1$|5\.4\.6$|5\.4\.1$|5\.3\.2$", BounceClass.ADDRESS_WEAK),
    (r".\.2\.2$", BounceClass.MAILBOX_FULL),
    (r".\.2\.3$|.\.3\.4$|.\.6\.\d+$", BounceClass.CONTENT),
    (r".\.7\.28$", BounceClass.REPUTATION),
    (r".\.7\.\d+$", BounceClass.POLICY),
    (r"4\.|.\.3\.|.\.4\.", BounceClass.TRANSIENT),
)
_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.]\d|\d)")


def enhanced_code(text: str) -> str:
    """The first RFC 3463 code in a reply's text, or empty."""
    match = _ENHANCED.search(text)
    return match[0] if match else ""


def classify(*, code: int = 0, enhanced: str = "", text: str = "", stage: str = "rcpt") -> BounceClass:
    """The class of a failure. `stage` is `mail`, `rcpt` or `data`; `code` the basic SMTP code or 0.

    A 4xx with a 5.x.x code is taken as temporary. A failure before RCPT says nothing about the recipient.
    """
    inner = enhanced_code(text)
    enhanced = inner if inner and (not enhanced or enhanced.endswith(".0.0")) else enhanced
    by_text = next((kind for pattern, kind in _COMPILED if pattern.search(text)), None)
    found = by_text or _by_code(code, enhanced)
    if 400 <= code < 500 and found in (BounceClass.ADDRESS, BounceClass.ADDRESS_WEAK):
        return BounceClass.TRANSIENT
    if stage == "mail" and found in (BounceClass.ADDRESS, BounceClass.ADDRESS_WEAK):
        return BounceClass.RELAY
    return found


def _by_code(code: int, enhanced: str) -> BounceClass:
    for pattern, kind in _CODES:
        if enhanced and re.match(pattern, enhanced):
            return kind
    if 400 <= code < 500:
        return BounceClass.TRANSIENT
    return BounceClass.UNKNOWN
