"""One message as one contact would get it, for people to look at: what it says, what it carries, what is missing.

Previews are composed with `signing.Unsigned`: no link of theirs unsubscribes anybody or counts for anything. What is
shown leads straight to where its links lead; sizes are those of the mail as it would be sent, tracked.
"""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.message import EmailMessage
from typing import Any

from hub.errors import ConfigError, HubError
from hub.mail.compose import UNCOMPOSABLE, Message, Recipient, why_not
from hub.mail.fields import DEALS

GMAIL_CLIPS_BYTES = 102_000
"""Gmail shows no more of a mail's HTML than 102 KB ("[Message clipped] View entire message"); images and other parts do
not count. Senders measured it, Google does not document it: Spam Resource, "What is Gmail clipping and what to do
about it" (2022), saw 102 to 105 KB."""


def preview(message: Message, to: Recipient, *, now: datetime) -> dict[str, Any]:
    """What `hub preview` tells of a mail; `eml` is its bytes, `page` its HTML as a browser shows it.

    Raises ConfigError when the mail cannot be composed, as it would be rejected.
    """
    try:
        sent = message.render(to, now=now).content
        shown = message.render(to, now=now, track=False)
    except UNCOMPOSABLE as error:
        fix = (
            ""
            if isinstance(error, HubError)
            else "let the template see to a blank: {{ contact.city or '...' }}"
        )
        what = f"message {message.name} cannot be composed for this contact: {why_not(error)}"
        raise ConfigError(what, fix) from None
    mail = email.message_from_bytes(shown.content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    files = [_file(part) for part in mail.walk() if part.get_filename()]
    language = message.language_for(to.contact.get("language"))
    wording = message.wording(language)
    html_bytes = len(message.html_of(sent))
    return {
        "message": message.name,
        "email": to.email,
        "language": wording.language,
        "chosen_for": to.contact.get("language") if len(message.uses) > 1 else None,
        "headers": {name: str(value) for name, value in mail.items() if name not in _FRAMING},
        "subject": shown.subject,
        "preheader": shown.preheader,
        "text": _body(mail, "plain"),
        "html": _body(mail, "html"),
        "attachments": [each for each in files if each["disposition"] == "attachment"],
        "images": [each for each in files if each["disposition"] == "inline"],
        "size_bytes": len(sent),
        "html_bytes": html_bytes,
        "clipped": html_bytes > GMAIL_CLIPS_BYTES,
        "tracking": {kind: seen._asdict() for kind, seen in message.tracking(to.contact.get("country")).items()},
        "fields": _fields(message.uses[language], to),
        "eml": shown.content,
        "page": _with_images(_body(mail, "html"), mail.walk()),
    }  # fmt: skip


_FRAMING = ("MIME-Version", "Content-Type", "Content-Transfer-Encoding")


def _body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def _file(part: Any) -> dict[str, Any]:
    return {
        "name": part.get_filename(), "type": part.get_content_type(), "disposition": part.get_content_disposition(),
        "bytes": len(part.get_payload(decode=True)),
    }  # fmt: skip


def _fields(uses: Mapping[str, bool] | None, to: Recipient) -> list[dict[str, Any]]:
    """Each field that the template uses: its value, whether it is blank, and whether the template sees to that."""
    values = {**to.contact, **({DEALS: to.deals} if to.deals or (uses and DEALS in uses) else {})}
    named = dict.fromkeys(values, False) if uses is None else uses
    return [
        {"field": name, "value": values.get(name), "blank": blank(values.get(name)), "seen_to": seen_to}
        for name, seen_to in sorted(named.items())
    ]


def blank(value: object) -> bool:
    """Whether a mail shows nothing for a value; `hub.store.audience` says the same in SQL."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip(" \t\r\n\f\v"))


def _with_images(html: str, parts: Iterable[Any]) -> str:
    """The HTML with its images inside, since a browser knows no `cid:`."""
    for part in parts:
        if content_id := part["Content-ID"]:
            data = base64.b64encode(part.get_payload(decode=True)).decode()
            html = html.replace(
                f"cid:{str(content_id).strip('<>')}", f"data:{part.get_content_type()};base64,{data}"
            )
    return html
