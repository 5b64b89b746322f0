"""Text as mail carries it: quoted-printable bodies (RFC 2045), encoded words in headers (RFC 2047), CRLF lines only.

Bodies are made of pieces that know nothing of each other: each begins at the start of a line, and a soft line break
stands between two. So what is the same for everybody is encoded once, and a value alone for each recipient.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

from markupsafe import escape

from hub.sdk.content import sound

SOFT_BREAK = b"=\r\n"
LINE = 76
MAX_WORD = 900  # a line may have 998 octets (RFC 5322, 2.1.1)
_WORD_BYTES, _FIRST_LINE = 39, 66
_PLAIN = bytes(c for c in range(32, 127) if c != ord("="))
_DOTTED = re.compile(rb"\r\n\.")
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


def quoted_printable(text: str) -> bytes:
    """Text encoded for a place at the start of a line; its last line stays open (no line end is added).

    Every line is at most 76 octets, none begins with a dot (SMTP's own), and every line end is CRLF.
    """
    data = text.encode("utf-8", "replace")
    if len(data) < LINE and not data.translate(None, _PLAIN) and not data.startswith(b"."):
        return data
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    encoded = (
        binascii.b2a_qp(data, quotetabs=False, istext=True).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    )
    if encoded.startswith(b".") or _DOTTED.search(encoded):
        encoded = b"\r\n".join([_without_dot(line) for line in encoded.split(b"\r\n")])
    if len(encoded) - encoded.rfind(b"\n") > LINE:  # no room for the "=" of the soft break after it
        encoded = _with_room(encoded)
    return sound(encoded)


def _with_room(encoded: bytes) -> bytes:
    """The last line broken before its last character, or the escape (=XX) that it ends with."""
    at = -3 if encoded[-3:-2] == b"=" else -1
    return encoded[:at] + SOFT_BREAK + (encoded[at:] if encoded[at:] != b"." else b"=2E")


def _without_dot(line: bytes) -> bytes:
    """A line with a dot at its start encoded; broken again where it grew too long."""
    if not line.startswith(b"."):
        return line
    line = b"=2E" + line[1:]
    return line if len(line) <= LINE else b"=2E" + SOFT_BREAK + _without_dot(line[3:])


def printed(value: object, *, html: bool) -> str:
    """A value as Jinja prints it: a blank as nothing, escaped in HTML."""
    if value is None:
        return ""
    return str(escape(value)) if html else str(value)


def static_piece(text: str, *, first: bool) -> bytes:
    """What is the same for everybody, ready to stand between values. `first`: nothing stands before it."""
    encoded = quoted_printable(text)
    start = b"" if first else SOFT_BREAK
    return start + encoded + (b"" if not encoded or encoded.endswith(b"\r\n") else SOFT_BREAK)


def one_line(text: str) -> str:
    """A header's value: no line breaks, no control characters, single blanks.

    What joins emoji, turns the writing direction or keeps words together stays: it is part of the text.
    """
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text)
    return " ".join(filter(None, text.split(" "))) if "  " in text else text.strip(" ")


@lru_cache(maxsize=8192)
def subject_field(text: str) -> bytes:
    """The Subject of a mail (`text` is `one_line`), folded; encoded words where it is not plain ASCII."""
    if not text.isascii() or "=?" in text or max(map(len, text.split(" "))) > MAX_WORD:
        made = _encoded_words(text)
    else:
        made = text.encode() if len(text) <= _FIRST_LINE else _folded(text, _FIRST_LINE)
    return sound(b"Subject: %b\r\n" % made)


def _folded(text: str, room: int) -> bytes:
    """ASCII text folded at blanks (RFC 5322, 2.2.3): the blank stays, at the start of the new line."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > room:
            lines.append(line)
            line, room = word, LINE
        else:
            line = f"{line} {word}" if line else word
    return "\r\n ".join([*lines, line]).encode()


def _encoded_words(text: str) -> bytes:
    """Words of at most 75 octets (RFC 2047, 2), none of which cuts a character; the first leaves room for a name."""
    data = text.encode("utf-8", "replace")
    words, start = [], 0
    while len(data) - start > _WORD_BYTES:
        end = start + _WORD_BYTES
        while data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        words.append(data[start:end])
        start = end
    words.append(data[start:])
    return b"\r\n ".join([b"=?utf-8?b?%b?=" % base64.b64encode(word) for word in words])
