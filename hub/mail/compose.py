"""Compose mails: a message is compiled once into byte skeletons, then only values are encoded for each recipient.

Headers by RFC 5322 and 2369, one-click unsubscription by RFC 8058, List-Id by RFC 2919. Lines end in CRLF, no
header can be injected, and the Message-ID follows from the ledger's row, so that a mail is the same mail
however often it is composed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jinja2 import TemplateSyntaxError

from hub.config.settings import MessageSection, Settings
from hub.errors import ConfigError
from hub.mail import footer, program, template
from hub.mail.encoding import header_text, one_line, printed, quoted_printable
from hub.mail.links import Links
from hub.mail.program import NotCompilable, Values, text_of
from hub.mail.skeleton import Body
from hub.signing import Signer, packed

_ADDRESS = re.compile(r'[^\s<>"(),:;\\\[\]@\x00-\x1f\x7f]+@([^\s<>"(),:;\\\[\]@\x00-\x1f\x7f]+)')


@dataclass(frozen=True)
class Recipient:
    """Whom a mail is for: the ledger's row and what templates may name."""

    delivery_id: int
    email: str
    contact: dict[str, Any]
    deals: list[dict[str, Any]]


class Mail(NamedTuple):
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


class _Part(Protocol):
    def pieces(self, values: Values) -> list[bytes]:
        """The encoded body for one recipient, to be joined."""
        ...


class Message:
    """One compiled message. `fields` are the contact fields that it names (None: any), `needs_deals` whether it names deals."""

    def __init__(self, name: str, section: MessageSection, composer: Composer) -> None:
        self.name, self.section, self.composer = name, section, composer
        settings = composer.settings
        self.marketing = settings.purposes[section.purpose].marketing
        self.from_domain = parseaddr(section.from_)[1].rpartition("@")[2].lower()
        self._links = Links(section.track, settings.web.public_url.rstrip("/"), composer.signer)
        html = self._source()
        text = section.text or template.as_text(html)
        html = footer.within_body(
            html,
            footer.PREHEADER if section.preheader else "",
            footer.PIXEL if section.track.opens else "",
        )
        sources = [section.subject, section.preheader, text, html]
        self._look_for_names(sources)
        self._subject = self._line(section.subject)
        self._preheader = self._line(section.preheader)
        self._text: _Part = self._part(_ended(text), html=False)
        self._html: _Part = self._part(_ended(html), html=True)
        self._top, self._middle, self._between, self._end = self._frame()
        self._return_path = settings.bounces.return_path.rpartition("@")

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
        postal_address = self.composer.settings.sender.postal_address
        return footer.with_footer(html, postal_address) if self.marketing else html

    # --- compiled once -----------------------------------------------------------------------------------

    def _look_for_names(self, sources: list[str]) -> None:
        try:
            used = [program.fields_used(source, template.TEXT) for source in sources]
            names = set().union(*(program.names_used(source, template.TEXT) for source in sources))
        except TemplateSyntaxError as error:
            raise template.mistake(error) from None
        known = set(self.composer.contact_fields)
        self.fields: frozenset[str] | None = (
            None if None in used else frozenset(set().union(*filter(None, used)) & known)
        )
        self.needs_deals = "deals" in names
        self._blank = dict.fromkeys(known if self.fields is None else self.fields)

    def _line(self, source: str) -> Callable[[Values], str]:
        """A header's template as a function."""
        try:
            found = program.compiled(source, template.TEXT, self.composer.contact_fields)
        except NotCompilable:
            render = template.compiled(source, html=False)
            return lambda values: one_line(render(dict(values)))
        return lambda values: one_line(text_of(found, values))

    def _part(self, source: str, *, html: bool) -> _Part:
        fields = self.composer.contact_fields
        constants = {
            name: (printed(value, html=html),) if value else ()
            for name, value in (
                ("message", self.name),
                ("postal_address", self.composer.settings.sender.postal_address),
            )
        }
        try:
            if html:
                return Body(self._links.compiled(source, template.HTML, fields, constants))
            return Body(program.compiled(source, template.TEXT, fields, constants))
        except NotCompilable:
            return _Rendered(template.compiled(source, html=html), self._links if html else None)

    def _frame(self) -> tuple[bytes, bytes, bytes, bytes]:
        """What is the same for everybody around the two bodies: before `To`, up to the text, between both, at the end."""
        section, settings = self.section, self.composer.settings
        # "=_" never stands in quoted-printable text, so no body can hold the boundary (RFC 2045, 6.7).
        boundary = "=_" + hashlib.sha256(self.name.encode()).hexdigest()[:24]
        name, address = parseaddr(section.from_)
        top = _header("From", Address(one_line(name), addr_spec=address))
        if section.reply_to:
            top += _header("Reply-To", one_line(section.reply_to))
        fields = {"Feedback-ID": f"{self.name}:{section.purpose}::mailyard"}
        if self.marketing:
            fields["List-Id"] = f"<{section.purpose}.{settings.sender.list_domain}>"
            fields["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        else:
            fields["Auto-Submitted"] = "auto-generated"
        fields["MIME-Version"] = "1.0"
        middle = b"".join(_header(key, value) for key, value in fields.items())
        middle += f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'.encode()
        opened = "--%s\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        return (
            top,
            middle + (opened % (boundary, "plain")).encode(),
            b"\r\n" + (opened % (boundary, "html")).encode(),
            f"\r\n--{boundary}--\r\n".encode(),
        )

    # --- for each recipient ------------------------------------------------------------------------------

    def render(self, to: Recipient, *, now: datetime) -> Mail:
        """The mail for one recipient. Raises jinja2 errors and ConfigError for values that the template cannot take."""
        signer = self.composer.signer
        ident = packed(to.delivery_id)
        unsubscribe_url = self._links.unsubscribe_url(ident)
        values: dict[str, Any] = {
            "contact": {**self._blank, **to.contact},
            "deals": to.deals,
            "unsubscribe_url": unsubscribe_url,
            "message": self.name,
            "postal_address": self.composer.settings.sender.postal_address,
            "ident": ident,
        }
        if self.section.track.opens:
            values["open_url"] = self._links.open_url(ident)
        subject = self._subject(values)
        if self.section.preheader:
            values["preheader"] = self._preheader(values)
        message_id = signer.message_id(to.delivery_id, self.composer.settings.sender.list_domain)
        local, _, domain = self._return_path
        unsubscribe = f"List-Unsubscribe: <{unsubscribe_url}>\r\n" if self.marketing else ""
        content = b"".join(
            [
                self._top,
                b"To: %b\r\nSubject: %b\r\n" % (_mailbox(to.email), header_text(subject)),
                f"Date: {_date(now.replace(microsecond=0))}\r\nMessage-ID: {message_id}\r\n{unsubscribe}".encode(),
                self._middle,
                *self._text.pieces(values),
                self._between,
                *self._html.pieces(values),
                self._end,
            ]
        )
        return Mail(content, message_id, f"{local}+{signer.bounce_token(ident)}@{domain}", subject)


class _Rendered:
    """A body part that Jinja fills in for each recipient, since its template has no program."""

    def __init__(self, render: Callable[[dict[str, Any]], str], links: Links | None) -> None:
        self._render, self._links = render, links

    def pieces(self, values: Values) -> list[bytes]:
        text = self._render(dict(values))
        return [quoted_printable(self._links.rendered(text, values) if self._links else text)]


def _ended(source: str) -> str:
    """With a line end that stays: Jinja takes one away."""
    return source.rstrip("\n") + "\n\n"


@lru_cache(maxsize=16)
def _date(now: datetime) -> str:
    return format_datetime(now)


def _mailbox(address: str) -> bytes:
    """An address as `To` carries it. Raises ConfigError for one that no header can carry."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError("the contact's address cannot stand in a mail", "correct it in the CRM")
    return address.encode() if address.isascii() else _international(address, found[1])


def _international(address: str, domain: str) -> bytes:
    """Beyond ASCII: the domain as IDNA where it can be, the rest as it is (RFC 6532)."""
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        return address.encode()
    return f"{address.rpartition('@')[0]}@{domain}".encode()


def _header(name: str, value: str | Address) -> bytes:
    """A header that is the same for everybody, as email.message writes it."""
    mail = EmailMessage(policy=SMTP.clone(max_line_length=78))
    mail[name] = value
    return mail.as_bytes().partition(b"\r\n\r\n")[0] + b"\r\n"
