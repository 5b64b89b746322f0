"""Why a mail failed: text beats code, code beats nothing, and what is not understood never suppresses.

Codes by RFC 3463, 5248, 7372 and 7505; texts are keys that receivers' replies contain, matched without case: replies.csv,
each row with an example and the page that tells of it. The order of trust: known text, then enhanced code, then basic code.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hub.model import BounceClass


@dataclass(frozen=True)
class KnownReply:
    """A row of replies.csv: what a receiver's reply contains, and what it means. `stage` is empty where any will do;
    `source` is the page that tells of it."""

    receiver: str
    stage: str
    pattern: re.Pattern[str]
    kind: BounceClass
    example: str
    source: str


@cache
def known_replies() -> tuple[KnownReply, ...]:
    """The maintained table, in the order of trust: the first row that fits decides."""
    text = resources.files(__package__).joinpath("replies.csv").read_text("utf-8")
    return tuple(
        KnownReply(
            row["receiver"],
            row["stage"],
            re.compile(row["pattern"], re.IGNORECASE),
            BounceClass(row["class"]),
            row["example"],
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


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
    by_text = next(
        (r.kind for r in known_replies() if r.stage in ("", stage) and r.pattern.search(text)), None
    )
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


def signature(text: str) -> str:
    """What replies of one cause have in common: a reply without addresses, names of hosts, numbers and links."""
    plain = text.lower()
    for pattern in _PERSONAL:
        plain = pattern.sub(" ", plain)
    return " ".join(plain.split())[:120]


_PERSONAL = (
    re.compile(r"https?://\S+"),
    re.compile(r"<?[^\s<>()]+@[^\s<>()]+>?"),
    re.compile(r"\S*\d\S*"),  # codes, ids, addresses of hosts
    re.compile(r"[^\w\s']"),
)
