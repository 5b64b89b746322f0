"""What may leave for a relay, and as which bytes: the last gate before the wire, passed by every message.

Nothing with a bare CR or LF in it is sent, and neither is an address that could hold a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hub.sdk.content import inspect
from hub.sdk.relay import Offer, Reply

NOT_IN_ADDRESSES = frozenset(map(chr, (*range(33), ord("<"), ord(">"), 127)))
UTF8_MISSING = "the relay takes no addresses beyond ASCII (no SMTPUTF8)"


@dataclass(frozen=True)
class Extensions:
    """What the relay's EHLO offers. `max_bytes` is 0 where it names no limit (RFC 1870)."""

    size: bool = False
    max_bytes: int = 0
    eight_bit: bool = False
    utf8: bool = False
    pipelining: bool = False

    @classmethod
    def of(cls, offered: dict[str, str]) -> Extensions:
        """From the keywords in lower case with their parameters."""
        limit = offered.get("size", "").strip()
        return cls(
            size="size" in offered,
            max_bytes=int(limit) if limit.isascii() and limit.isdigit() else 0,
            eight_bit="8bitmime" in offered,
            utf8="smtputf8" in offered,
            pipelining="pipelining" in offered,
        )


Envelope = tuple[bytes, bytes, bool]
"""MAIL and RCPT for one message, and whether some of its lines begin with a dot."""


def envelope(offer: Offer, relay: Extensions) -> Envelope | Reply:
    """The envelope of this message, or the refusal that it gets from us: then nothing of it is sent."""
    _, sender, recipient, content, plain, _ = offer
    both = sender + recipient
    if not (recipient and both.isascii() and both.isprintable()) or " " in both or "<" in both or ">" in both:
        if not NOT_IN_ADDRESSES.isdisjoint(sender):
            return Reply(553, "not sent: the return path is no address", "mail", "5.1.7")
        if not NOT_IN_ADDRESSES.isdisjoint(recipient) or not recipient:
            return Reply(553, "not sent: the recipient is no address", "rcpt", "5.1.3")
    sound, dotted = (True, False) if plain else inspect(content)
    if not sound:
        return Reply(554, "not sent: the message has a bare CR, a bare LF or a NUL", "data", "5.6.0")
    options = b""
    if relay.size:
        size = len(content) if plain else len(content) + 2 * (not content.endswith(b"\r\n"))
        if size > relay.max_bytes > 0:
            return Reply(552, f"not sent: {size} bytes, the relay takes {relay.max_bytes}", "mail", "5.3.4")
        options = b" SIZE=%d" % size
    if not plain and not content.isascii():
        if not relay.eight_bit:
            return Reply(554, "not sent: 8-bit content, and the relay offers no 8BITMIME", "data", "5.6.3")
        options += b" BODY=8BITMIME"
    if not both.isascii():
        if not relay.utf8:
            return Reply(553, UTF8_MISSING, "mail" if recipient.isascii() else "rcpt", "5.6.7")
        options += b" SMTPUTF8"
    try:
        mail = b"MAIL FROM:<%b>%b\r\n" % (sender.encode(), options)
        return mail, b"RCPT TO:<%b>\r\n" % recipient.encode(), dotted
    except UnicodeEncodeError:
        return Reply(553, "not sent: an address has a half of a surrogate pair", "rcpt", "5.1.3")


def with_end(content: bytes, *behind: bytes, dotted: bool) -> bytes:
    """The message as it goes out (RFC 5321, 4.5.2: no line of the message is a lone dot), and what goes behind it."""
    if dotted:
        content = content.replace(b"\r\n.", b"\r\n..")
        if content[:1] == b".":
            content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return b"".join((content, end, *behind))


def reply(code: int, text: bytes, stage: str) -> Reply:
    """A relay's answer: `text` are its words without the codes."""
    words = " ".join(text.decode("utf-8", "replace").split())
    enhanced = words.partition(" ")[0]
    return Reply(code, words, stage, enhanced if _is_status(enhanced) else "")


@lru_cache(maxsize=256)
def _is_status(text: str) -> bool:
    """RFC 3463: class, subject, detail."""
    if text[:2] not in ("2.", "4.", "5.") or len(text) > 9 or not text.isascii():
        return False
    _, subject, *detail = text.split(".")
    return len(detail) == 1 and subject.isdigit() and detail[0].isdigit()
