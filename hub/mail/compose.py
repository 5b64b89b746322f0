"""Compose mails: a message is compiled once, then filled in for each recipient.

Headers by RFC 5322 and 2369, one-click unsubscription by RFC 8058, List-Id by RFC 2919. Lines end in CRLF, no
header can be injected, and the Message-ID follows from the ledger's row, so that a mail is the same mail
however often it is composed.
"""

from __future__ import annotations

import html as html_lib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hub.config.settings import MessageSection, Settings
from hub.errors import ConfigError
from hub.mail import template
from hub.signing import Signer

_HREF = re.compile(r'(<a\b[^>]*?\bhref=)(["\'])(https?://[^"\']+)\2', re.IGNORECASE)
_POLICY = SMTP.clone(max_line_length=78)

UNSUBSCRIBE = (
    '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}<br>'
    '<a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
POSTAL = '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}</p>'
PREHEADER = '<div style="display:none;max-height:0;overflow:hidden">{{ preheader }}</div>'


@dataclass(frozen=True)
class Recipient:
    """Whom a mail is for: the ledger's row and what templates may name."""

    delivery_id: int
    email: str
    contact: dict[str, Any]
    deals: list[dict[str, Any]]


@dataclass(frozen=True)
class Mail:
    """A finished mail. `content` has CRLF lines only."""

    content: bytes
    message_id: str
    return_path: str
    subject: str


class Composer:
    """Composes the configured messages. `contact_fields` are the names that templates may use after `contact.`."""

    def __init__(
        self, settings: Settings, base_dir: Path, signer: Signer, *, contact_fields: Collection[str]
    ) -> None:
        self.settings, self.base_dir, self.signer = settings, base_dir, signer
        self.contact_fields = contact_fields
        self._messages: dict[str, Message] = {}

    def message(self, name: str) -> Message:
        """The compiled message. Raises ConfigError when it is not configured or its template is wrong."""
        if name not in self._messages:
            section = self.settings.messages.get(name)
            if section is None:
                raise ConfigError(f"there is no message {name!r}", "define it under messages in hub.yaml")
            self._messages[name] = Message(name, section, self)
        return self._messages[name]


class Message:
    """One compiled message."""

    def __init__(self, name: str, section: MessageSection, composer: Composer) -> None:
        self.name, self.section, self.composer = name, section, composer
        settings = composer.settings
        self.marketing = settings.purposes[section.purpose].marketing
        self.base_url = settings.web.public_url.rstrip("/")
        html = self._source()
        self._subject = template.compiled(section.subject, html=False)
        self._preheader = template.compiled(section.preheader, html=False)
        self._text = template.compiled(section.text or template.as_text(html), html=False)
        self._html = template.compiled(
            _within_body(html, PREHEADER if section.preheader else "", ""), html=True
        )

    @cached_property
    def _sender(self) -> Address:
        name, address = parseaddr(self.section.from_)
        return Address(_one_line(name), addr_spec=address)

    def _source(self) -> str:
        """The HTML template, with the footer that the law asks for where it has none."""
        if self.section.template is not None:
            file = self.composer.base_dir / self.section.template
            try:
                source = file.read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(
                    f"cannot be read: {error.strerror}", "check the message's template", str(file)
                ) from None
            html = template.as_html(source, mjml=file.suffix == ".mjml")
        else:
            html = template.as_html(self.section.html or "", mjml=False)
        if self.marketing and "unsubscribe_url" not in html:
            return _within_body(html, "", UNSUBSCRIBE)
        if self.marketing and "postal_address" not in html and self.composer.settings.sender.postal_address:
            return _within_body(html, "", POSTAL)
        return html

    def render(self, to: Recipient, *, now: datetime) -> Mail:
        """The mail for one recipient. Raises jinja2 errors and ConfigError for values that the template cannot take."""
        signer, settings = self.composer.signer, self.composer.settings
        unsubscribe_url = f"{self.base_url}/u/{signer.token('unsubscribe', to.delivery_id)}"
        values: dict[str, Any] = {
            "contact": {**dict.fromkeys(self.composer.contact_fields), **to.contact},
            "deals": to.deals,
            "unsubscribe_url": unsubscribe_url,
            "message": self.name,
            "postal_address": settings.sender.postal_address,
        }
        subject = _one_line(self._subject(values))
        values["preheader"] = _one_line(self._preheader(values))
        html = self._tracked(self._html(values), to.delivery_id, unsubscribe_url)
        message_id = (
            f"<{to.delivery_id}.{signer.token('message', to.delivery_id)}@{settings.sender.list_domain}>"
        )
        mail = EmailMessage(policy=_POLICY)
        mail["From"] = self._sender
        mail["To"] = Address(addr_spec=to.email)
        if self.section.reply_to:
            mail["Reply-To"] = _one_line(self.section.reply_to)
        mail["Subject"] = subject
        mail["Date"] = format_datetime(now)
        mail["Message-ID"] = message_id
        for name, value in self._list_headers(unsubscribe_url).items():
            mail[name] = value
        mail.set_content(self._text(values), cte="quoted-printable")
        mail.add_alternative(html, subtype="html", cte="quoted-printable")
        content = re.sub(rb"\r\n|\r|\n", b"\r\n", mail.as_bytes())
        return Mail(
            content, message_id, signer.return_path(settings.bounces.return_path, to.delivery_id), subject
        )

    def _list_headers(self, unsubscribe_url: str) -> dict[str, str]:
        domain = self.composer.settings.sender.list_domain
        headers = {"Feedback-ID": f"{self.name}:{self.section.purpose}::mailyard"}
        if not self.marketing:
            return {**headers, "Auto-Submitted": "auto-generated"}
        return {
            **headers,
            "List-Id": f"<{self.section.purpose}.{domain}>",
            "List-Unsubscribe": f"<{unsubscribe_url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }

    def _tracked(self, html: str, delivery_id: int, unsubscribe_url: str) -> str:
        """Links led through the hub and the pixel, where the message wants them. A link's address is signed."""
        signer = self.composer.signer

        def through_hub(found: re.Match[str]) -> str:
            url = html_lib.unescape(found[3])
            if url == unsubscribe_url:
                return found[0]
            tracked = f"{self.base_url}/c/{signer.token('click', delivery_id, url)}?u={quote(url, safe='')}"
            return f"{found[1]}{found[2]}{html_lib.escape(tracked)}{found[2]}"

        if self.section.track.clicks:
            html = _HREF.sub(through_hub, html)
        if self.section.track.opens:
            pixel = f'<img src="{self.base_url}/o/{signer.token("open", delivery_id)}" width="1" height="1" alt="">'
            html = _within_body(html, "", pixel)
        return html


def _within_body(html: str, first: str, last: str) -> str:
    """Put something at the beginning and the end of the body."""
    if first:
        html, count = re.subn(
            r"(<body\b[^>]*>)", lambda found: found[1] + first, html, count=1, flags=re.IGNORECASE
        )
        html = html if count else first + html
    if last:
        at = html.lower().rfind("</body>")
        html = html[:at] + last + html[at:] if at >= 0 else html + last
    return html


def _one_line(text: str) -> str:
    """A header's value: no line breaks, no control characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in str(text)).split())
