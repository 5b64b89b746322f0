"""Compose mails: a message is compiled once into byte skeletons, then only values are encoded for each recipient.

Headers by RFC 5322 and 2369, one-click unsubscription by RFC 8058, List-Id by RFC 2919. Lines end in CRLF, no
header can be injected, and the Message-ID follows from the ledger's row, so that a mail is the same mail
however often it is composed.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Collection, Mapping
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError, TemplateSyntaxError

from hub.config.settings import MessageSection, Settings, Tracking, TrackingSection
from hub.errors import ConfigError, HubError
from hub.mail import fields, footer, parts, program, template, utm
from hub.mail.encoding import one_line, subject_field
from hub.mail.links import Links
from hub.mail.skeleton import Given
from hub.mail.variant import Variant, Wording, looked_up
from hub.sdk.content import sound
from hub.signing import Signer

UNCOMPOSABLE = (HubError, TemplateError, ValueError, TypeError, ArithmeticError, LookupError)
"""What `render` may raise for one recipient's values; `why_not` puts it into words."""
_ADDRESS = re.compile(r'[^\s<>"(),:;\\\[\]@\x00-\x1f\x7f]+@([^\s<>"(),:;\\\[\]@\x00-\x1f\x7f]+)')


class Recipient(NamedTuple):
    """Whom a mail is for: the ledger's row and what templates may name."""

    delivery_id: int
    email: str
    contact: dict[str, Any]
    deals: list[dict[str, Any]]


class Mail(NamedTuple):
    """A finished mail. `plain` says of its content what `hub.sdk.relay.Offer` means by it."""

    content: bytes
    message_id: str
    return_path: str
    subject: str
    preheader: str = ""
    plain: bool = False


class Seen(NamedTuple):
    """Whether opens or clicks of a mail are counted, and by whose word."""

    on: bool
    why: str


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
            self._messages[name] = self._compiled(name, section)
        return self._messages[name]

    def _compiled(self, name: str, section: MessageSection) -> Message:
        if section.purpose not in self.settings.purposes:
            what = f"message {name} is of the purpose {section.purpose!r}, which there is not"
            raise ConfigError(what, "define it under purposes in hub.yaml")
        if (section.template is None) == (section.html is None):
            raise ConfigError(f"message {name} has not just one of template and html", "give one of them")
        try:
            return Message(name, section, self)
        except TemplateSyntaxError as error:
            raise template.mistake(error) from None


class Message:
    """One compiled message. `fields` are the contact fields that it needs (None: any), `all_fields` those that
    it could need, `needs_deals` whether it names deals, `needs_company` whether the contact's main company."""

    def __init__(self, name: str, section: MessageSection, composer: Composer) -> None:
        self.name, self.section, self.composer = name, section, composer
        settings = composer.settings
        purpose = settings.purposes[section.purpose]
        self.marketing = purpose.marketing
        self.from_domain = parseaddr(section.from_)[1].rpartition("@")[2].lower()
        wishes = {
            "the message says so": section.track,
            f"the purpose {section.purpose} says so": purpose.track,
        }
        self._seen = {kind: _first(wishes, settings.tracking, kind) for kind in ("opens", "clicks")}
        self.opens, self.clicks = self._seen["opens"].on, self._seen["clicks"].on
        self._off_in = frozenset(settings.tracking.off_in if self.opens or self.clicks else ())
        self._trap = self.clicks and settings.tracking.machines.trap
        self._utm = utm.of_message(settings, name)
        self._base_url = settings.web.public_url.rstrip("/")
        self._list_domain = settings.sender.list_domain
        self._content_ids = {each: f"{each}@{settings.sender.list_domain}" for each in section.images}
        self._wordings = self._in_all_languages()
        self._look_for_names([source for each in self._wordings.values() for source in each.sources])
        self.uses = {key: fields.uses(each.sources) for key, each in self._wordings.items()}
        """language -> field -> whether a blank is seen to; of a language that takes the contact as a whole None."""
        self._header = self._headers()
        self._plain = all(part.isascii() for part in self._header if isinstance(part, bytes))
        self._frame = self._files()
        self._return_path = settings.bounces.return_path.rpartition("@")
        self._constants = {"message": self.name, "postal_address": settings.sender.postal_address}
        self._variants: dict[tuple[str, bool], Variant] = {}
        # Whatever a recipient may need is compiled now, so that mistakes show before the first mail.
        for language in self._wordings:
            for tracked in (True, False) if self._off_in else (True,):
                self._variant(language, tracked)
        self._only = self._variants["", True] if len(self._variants) == 1 else None

    # --- compiled once -----------------------------------------------------------------------------------

    def _in_all_languages(self) -> dict[str, Wording]:
        """language in lower case -> wording; the message's own stands under the empty text."""
        section = self.section
        html = self._html(section.template, section.html)
        own = Wording(
            section.language or "",
            section.subject,
            section.preheader,
            html,
            section.text or template.as_text(html),
        )
        found = {"": own}
        for language, other in section.languages.items():
            if other.template is None and other.html is None:
                html, text = own.html, other.text or own.text
            else:
                html = self._html(other.template, other.html)
                text = other.text or template.as_text(html)
            subject = own.subject if other.subject is None else other.subject
            preheader = own.preheader if other.preheader is None else other.preheader
            found[language.lower()] = Wording(language, subject, preheader, html, text)
        return found

    def _html(self, file_name: str | None, source: str | None) -> str:
        """A template as HTML, with the footer that the law asks for where it has none."""
        mjml = False
        if file_name is not None:
            file = self.composer.base_dir / file_name
            mjml = file.suffix == ".mjml"
            try:
                source = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise ConfigError(
                    f"cannot be read: {words}", "check the message's template", str(file)
                ) from None
        html = parts.with_images(template.as_html(source or "", mjml=mjml), self._content_ids)
        postal_address = self.composer.settings.sender.postal_address
        return footer.with_footer(html, postal_address) if self.marketing else html

    def _look_for_names(self, sources: list[str]) -> None:
        try:
            used = [program.fields_used(source, template.TEXT) for source in sources]
            names = set().union(*(program.names_used(source, template.TEXT) for source in sources))
        except TemplateSyntaxError as error:
            raise template.mistake(error) from None
        known = set(self.composer.contact_fields)
        wanted = {"language"} if len(self._wordings) > 1 else set()
        wanted |= {"country"} if self._off_in else set()
        # Who takes the contact as a whole beside its company names all fields: `contact` alone holds none of a company.
        self.needs_company = "company" in names
        named = known if None in used and self.needs_company else set().union(*filter(None, used)) | wanted
        self.fields: frozenset[str] | None = (
            None if None in used and not self.needs_company else frozenset(named & known)
        )
        self.needs_deals = "deals" in names
        self.all_fields = known if self.needs_company else {n for n in known if not n.startswith("company.")}
        self._pages = tuple((name, path) for name, path in template.PAGES.items() if name in names)
        self._blank = dict.fromkeys(self.all_fields if self.fields is None else self.fields)

    def _headers(self) -> list[bytes | Given]:
        """The header, with places for what is the recipient's own."""
        section, settings = self.section, self.composer.settings
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
        fixed = b"".join(_header(key, value) for key, value in fields.items())
        ids = [b"Message-ID: <", Given("message"), f"@{settings.sender.list_domain}>\r\n".encode()]
        links = [f"List-Unsubscribe: <{self._base_url}/u/".encode(), Given("unsubscribe"), b">\r\n"]
        own = [*ids, *(links if self.marketing else ())]
        found = [top + b"To: ", Given("to"), b"\r\n", Given("subject"), Given("date"), *own, fixed]
        sound(b"".join(part for part in found if isinstance(part, bytes)))
        return found

    def _files(self) -> parts.Frame:
        base, section = self.composer.base_dir, self.section
        images = [parts.shown(base / file, self._content_ids[name]) for name, file in section.images.items()]
        attachments = [parts.attached(base / file) for file in section.attachments]
        size = sum(map(len, [*images, *attachments]))
        if size > section.max_size:
            raise ConfigError(
                f"the files of message {self.name} make it {size:,} bytes larger, more than {section.max_size:,}",
                "link to them instead, or raise max_size",
            )
        return parts.Frame(*map(sound, parts.frame(self.name, images, attachments)))

    def _variant(self, language: str, tracked: bool) -> Variant:
        """The message in a language of `_wordings`, tracked as it wishes or not at all."""
        found = self._variants.get((language, tracked))
        if found is None:
            wording = self._wordings[language]
            last = _header("Content-Language", wording.language) if wording.language else b""
            found = self._variants[language, tracked] = Variant(
                wording,
                Links(clicks=self.clicks and tracked, base_url=self._base_url, signer=self.composer.signer, utm=self._utm),
                opens=self.opens and tracked,
                trap=self._trap and tracked,
                header=[*self._header, last + b"MIME-Version: 1.0\r\n"],
                frame=self._frame,
                contact_fields=self.composer.contact_fields,
                constants=self._constants,
            )  # fmt: skip
        return found

    # --- for each recipient ------------------------------------------------------------------------------

    def language_for(self, wished: object) -> str:
        """Which of `uses` a contact of this language gets."""
        return looked_up(str(wished), self._wordings) if len(self._wordings) > 1 and wished else ""

    def wording(self, language: str) -> Wording:
        """The templates in one of the languages of `uses`."""
        return self._wordings[language]

    def tracking(self, country: object) -> dict[str, Seen]:
        """Whether `opens` and `clicks` of a mail to a contact of this country are counted, and why."""
        if self._tracked_in(country):
            return self._seen
        why = f"`tracking.off_in` holds {country or 'unknown'}"
        return {kind: Seen(False, why) if seen.on else seen for kind, seen in self._seen.items()}

    def _tracked_in(self, country: object) -> bool:
        return not self._off_in or str(country or "unknown") not in self._off_in

    def _chosen(self, contact: dict[str, Any], track: bool) -> Variant:
        language = self.language_for(contact.get("language"))
        return self._variant(language, track and self._tracked_in(contact.get("country")))

    def render(self, to: Recipient, *, now: datetime, track: bool = True) -> Mail:
        """The mail for one recipient. Raises jinja2 errors and ConfigError for values that the template cannot take.

        `track`: false for a preview, which no click or open may count for.
        """
        variant = self._only if track and self._only is not None else self._chosen(to.contact, track)
        tokens = self.composer.signer.tokens(to.delivery_id)
        opened, click, unsubscribe, message, bounce = tokens
        values: dict[str, Any] = {"contact": {**self._blank, **to.contact}}
        if variant.asks_for_more:
            values |= self._constants
            values["deals"] = to.deals
            values["unsubscribe_url"] = f"{self._base_url}/u/{unsubscribe.decode()}"
            values["click"] = click.decode()
            for name, path in self._pages:  # all of a mail's links to us speak for its mailbox: one token
                values[name] = f"{self._base_url}/{path}/{unsubscribe.decode()}"
            if variant.opens:
                values["open_url"] = f"{self._base_url}/o/{opened.decode()}"
            if variant.trap:
                values["trap_url"] = f"{self._base_url}/t/{click.decode()}"
        if self.needs_company:
            company = {
                name.removeprefix("company."): None for name in self._blank if name.startswith("company.")
            }
            values["company"] = company | {
                name.removeprefix("company."): value
                for name, value in to.contact.items()
                if name.startswith("company.")
            }
        subject = variant.subject(values)
        preheader = ""
        if variant.has_preheader:
            preheader = values["preheader"] = variant.preheader(values)
        own = (_mailbox(to.email), subject_field(subject), _date(now), *tokens)
        content = variant.mail.filled(values, own)
        local, _, domain = self._return_path
        return Mail(
            content,
            f"<{message.decode()}@{self._list_domain}>",
            f"{local}+{bounce.decode()}@{domain}",
            subject,
            preheader,
            self._plain and to.email.isascii(),
        )

    def html_of(self, content: bytes) -> bytes:
        """The HTML within a mail of this message, decoded: UTF-8 with CRLF."""
        begin = content.index(self._frame.between) + len(self._frame.between)
        return a2b_qp(content[begin : len(content) - len(self._frame.after)])


def why_not(error: Exception) -> str:
    """Why a mail cannot be composed, without values of the contact that an error may quote."""
    if isinstance(error, HubError):
        return str(error)
    if isinstance(error, TemplateError | TypeError):  # these name types, not values
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    return type(error).__name__


def _first(wishes: Mapping[str, Tracking], otherwise: TrackingSection, kind: str) -> Seen:
    """What the nearest of those says that says something."""
    for why, wish in wishes.items():
        if (on := getattr(wish, kind)) is not None:
            return Seen(on, why)
    said = kind in otherwise.model_fields_set
    return Seen(getattr(otherwise, kind), "`tracking` says so" if said else "nothing says otherwise")


@lru_cache(maxsize=16)
def _date(now: datetime) -> bytes:
    return f"Date: {format_datetime(now)}\r\n".encode()


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
