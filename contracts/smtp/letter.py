"""What a mail program sees in a message: who sent it with what subject, its images, its links, its unsubscribe button."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from html.parser import HTMLParser
from urllib.parse import urlsplit

_HEADERS = BytesHeaderParser()
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"""<(?:img|a)\s(?:"[^"]*"|'[^']*'|[^'">])*>""", re.IGNORECASE)
_ANGLED = re.compile(r"<\s*(https?://[^>\s]+)\s*>", re.IGNORECASE)


@dataclass(frozen=True)
class Envelope:
    """The headers that matter. `unsubscribe_url` is the http(s) one of List-Unsubscribe, empty where there is none."""

    message_id: str
    subject: str
    unsubscribe_url: str
    one_click: bool  # RFC 8058: List-Unsubscribe-Post says so


@dataclass(frozen=True)
class Traces:
    """URLs on the sender's own host in an HTML part, in their order: images, and links that are no unsubscription."""

    images: tuple[str, ...]
    links: tuple[str, ...]


def read_headers(content: bytes) -> Envelope:
    """Cheap: the body is not parsed."""
    headers = _HEADERS.parsebytes(content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    angled = _ANGLED.search(_unfolded(headers, "List-Unsubscribe"))
    post = _unfolded(headers, "List-Unsubscribe-Post").replace(" ", "").lower()
    return Envelope(
        message_id=_unfolded(headers, "Message-ID"),
        subject=str(make_header(decode_header(_unfolded(headers, "Subject")))),
        unsubscribe_url=angled[1] if angled else "",
        one_click=post == "list-unsubscribe=one-click",
    )


def _unfolded(headers: Message[str, str], name: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", str(headers.get(name, ""))).strip()


def read_traces(content: bytes, envelope: Envelope) -> Traces:
    """Parse the whole message. The sender's own host is the one that takes its unsubscriptions."""
    html = _html(content)
    if html is None or not envelope.unsubscribe_url:
        return Traces((), ())
    collector = _Collector()
    for tag in _TAG.finditer(_COMMENT.sub("", html)):  # the parser is slow, and a mail is mostly other tags
        collector.feed(tag[0])
    home = urlsplit(envelope.unsubscribe_url)
    return Traces(
        tuple(u for u in collector.images if urlsplit(u)[:2] == home[:2]),
        tuple(u for u in collector.links if (p := urlsplit(u))[:2] == home[:2] and p.path != home.path),
    )


def _html(content: bytes) -> str | None:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    part = message.get_body(("html",))
    if not isinstance(part, EmailMessage):
        return None
    text = part.get_content()
    return text if isinstance(text, str) else None


class _Collector(HTMLParser):
    """Images and links of a page; what only Outlook's conditional comments hold is not seen, as in other programs."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"img": ("src", self.images), "a": ("href", self.links)}.get(tag)
        if wanted is None:
            return
        for name, value in attrs:
            if name == wanted[0] and value:
                wanted[1].append(value.strip())
