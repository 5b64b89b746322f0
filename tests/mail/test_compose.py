"""Composed mails, read again by Python's own parser: headers by the RFCs, and values that cannot become headers."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from hub.config.settings import Settings
from hub.errors import HubError, SignatureError
from hub.mail.compose import Composer, Mail, Recipient
from hub.signing import Signer

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
FIELDS = ("email", "first_name", "last_name", "company", "city", "score", "vip")
NASTY = [
    "Ann\r\nBcc: evil@example.net", "Ann\nBcc: evil@example.net", "Ann\rBcc: evil@example.net", "\r\n\r\n<p>body</p>", "\n.\n",
    "Ann\x00Bcc", "Ann\x0bBcc: x", "Ann\x0cBcc: x", "Ann\x1c\x1d\x1eBcc: x", "Ann\x85Bcc: x", "Ann\u2028Bcc: x\u2029",
    "\x1b[31m\x07\x7f",
    "=?utf-8?q?x=0D=0ABcc=3A_evil=40example=2Enet?=", "\u202eannA", "a" * 5_000, "ä" * 3_000, "\U0001f600" * 500,
    "\ufeff\u200b", " ", "--=_x",
]  # fmt: skip


@dataclass
class Written:
    """A mail with its parts."""

    mail: Mail
    parsed: EmailMessage
    text: str
    html: str

    @property
    def token(self) -> str:
        """The one of the unsubscribe link."""
        found = re.search(r"/u/([\w-]+)", self.html)
        assert found
        return found[1]


class Desk:
    """Writes mails in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = Signer(b"k" * 32)

    def composer(self, **section: Any) -> Composer:
        message = {"subject": "Hello", "from": "Ann <ann@mailyard.example>", "purpose": "news", **section}
        if "html" not in message and "template" not in message:
            message["html"] = "<p>Hi</p>"
        settings = Settings.model_validate(
            {
                "purposes": {"news": {"title": "News"}, "service": {"title": "Service", "marketing": False}},
                "messages": {"hello": message},
                "bounces": {"return_path": "bounce@mailyard.example"},
                "sender": {"postal_address": "Mailyard & Co, Wien", "list_domain": "mailyard.example"},
                "web": {"public_url": "https://hub.example/"},
            }
        )
        return Composer(settings, self.folder, self.signer, contact_fields=FIELDS)

    def mail(
        self,
        html: str = "<p>Hi</p>",
        *,
        contact: dict[str, Any] | None = None,
        deals: list[dict[str, Any]] | None = None,
        to: str = "bob@example.com",
        id: int = 42,
        file: str = "",
        **section: Any,
    ) -> Written:
        if file:
            (self.folder / file).write_text(html, encoding="utf-8")
            section["template"] = file
        else:
            section["html"] = html
        made = (
            self.composer(**section)
            .message("hello")
            .render(Recipient(id, to, contact or {}, deals or []), now=NOW)
        )
        return read(made)


def read(made: Mail) -> Written:
    parsed = email.message_from_bytes(made.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert parsed.get_content_type() == "multipart/alternative"
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    assert text is not None
    assert html is not None
    assert [part.get_content_type() for part in parsed.iter_parts()] == ["text/plain", "text/html"]
    return Written(made, parsed, text.get_content(), html.get_content())


def sound(content: bytes) -> bool:
    """RFC 5322 and 5321: CRLF only, lines of at most 998 octets, nothing beyond ASCII or NUL."""
    lines = content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 998
    assert b"\x00" not in content
    assert content.isascii()
    return True


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- headers -----------------------------------------------------------------------------------------------------


def test_the_headers_of_marketing(desk: Desk) -> None:
    found = desk.mail(reply_to="Help <help@mailyard.example>")
    parsed = found.parsed
    assert {name: str(parsed[name]) for name in ("From", "To", "Reply-To", "Subject", "Date", "MIME-Version")} == {
        "From": "Ann <ann@mailyard.example>", "To": "bob@example.com", "Reply-To": "Help <help@mailyard.example>",
        "Subject": "Hello", "Date": "Tue, 24 Nov 2026 09:00:00 +0000", "MIME-Version": "1.0",
    }  # fmt: skip
    assert parsed["List-Unsubscribe"] == f"<https://hub.example/u/{found.token}>"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"  # RFC 8058
    assert parsed["List-Id"] == "<news.mailyard.example>"  # RFC 2919
    assert re.fullmatch(r"<[A-Za-z0-9._-]+@mailyard\.example>", parsed["Message-ID"])
    assert parsed["Auto-Submitted"] is None
    assert parsed["Bcc"] is parsed["Cc"] is parsed["Return-Path"] is None
    once = [name.lower() for name, _ in parsed.items()]
    assert len(once) == len(set(once))
    assert desk.signer.read("unsubscribe", found.token) == 42
    assert sound(found.mail.content)
    assert (found.mail.subject, found.mail.message_id) == ("Hello", parsed["Message-ID"])


def test_a_mail_of_service_has_no_list(desk: Desk) -> None:
    found = desk.mail(purpose="service")
    assert found.parsed["Auto-Submitted"] == "auto-generated"
    for name in ("List-Unsubscribe", "List-Unsubscribe-Post", "List-Id"):
        assert found.parsed[name] is None
    assert "Unsubscribe" not in found.html


def test_the_return_path_and_message_id_name_the_ledgers_row(desk: Desk) -> None:
    first, again, other = desk.mail(id=7), desk.mail(id=7), desk.mail(id=8)
    assert first.mail.message_id == again.mail.message_id != other.mail.message_id
    assert first.mail.content == again.mail.content
    assert first.mail.return_path == again.mail.return_path != other.mail.return_path
    assert re.fullmatch(r"bounce\+[a-z0-9]+@mailyard\.example", first.mail.return_path)
    assert desk.signer.read_return_path(first.mail.return_path) == 7
    assert desk.signer.read_return_path(first.mail.return_path.upper()) == 7  # mail servers may fold case
    assert len(desk.mail(id=2**62).mail.return_path.split("@")[0]) <= 64
    with pytest.raises(SignatureError):
        Signer(b"x" * 32).read_return_path(first.mail.return_path)


def test_a_change_of_the_person_leaves_the_message_id(desk: Desk) -> None:
    first = desk.mail("<p>{{ contact.city }}</p>", contact={"city": "Wien"})
    later = desk.mail("<p>{{ contact.city }}</p>", contact={"city": "Berlin"})
    assert first.mail.content != later.mail.content
    assert first.mail.message_id == later.mail.message_id


@pytest.mark.parametrize("value", NASTY)
def test_no_value_becomes_a_header(desk: Desk, value: str) -> None:
    plain = desk.mail(subject="Hello {{ contact.first_name }}!", preheader="For {{ contact.first_name }}")
    found = desk.mail(
        "<p>{{ contact.first_name }}</p>", contact={"first_name": value}, subject="Hello {{ contact.first_name }}!",
        preheader="For {{ contact.first_name }}",
    )  # fmt: skip
    assert sound(found.mail.content)
    assert found.parsed.keys() == plain.parsed.keys()
    assert found.parsed.defects == []
    assert found.parsed["Subject"].startswith("Hello ")
    assert found.parsed["Subject"].endswith("!")
    assert "\n" not in found.mail.subject
    assert "\r" not in found.mail.subject
    assert found.parsed["Bcc"] is None


def test_a_long_subject_comes_through_whole(desk: Desk) -> None:
    for name in ("Änn " * 60, "word " * 100, "日本語" * 60, "x" * 400):
        found = desk.mail(subject="{{ contact.first_name }}", contact={"first_name": name})
        assert re.sub(r"\s+", "", str(found.parsed["Subject"])) == re.sub(r"\s+", "", name)
        assert all(len(line) <= 998 for line in found.mail.content.split(b"\r\n"))


@pytest.mark.parametrize(
    "address",
    ["bob@example.com\r\nBcc: evil@example.net", "bob@example.com\nX: y", "bob@example.com, evil@example.net",
     "<bob@example.com>", "bob", "", "@example.com", "bob@", "bob@example.com\x00",
     "a b@example.com", "bob@exam ple.com", "Bob <bob@example.com>"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(desk: Desk, address: str) -> None:
    with pytest.raises((HubError, ValueError)):
        desk.mail(to=address)


@pytest.mark.parametrize(
    "address",
    ["bob@example.com", "o'neil+tag=x_y%z@sub.example.co.uk", "a@b.example", "x" * 64 + "@example.com"],
)
def test_an_address_is_the_only_recipient(desk: Desk, address: str) -> None:
    found = desk.mail(to=address)
    assert [a.addr_spec for a in found.parsed["To"].addresses] == [address]
    assert sound(found.mail.content)


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("Änn Müller <ann@mailyard.example>", "Änn Müller", "ann@mailyard.example"),
        ('"Ann, of Mailyard" <ann@mailyard.example>', "Ann, of Mailyard", "ann@mailyard.example"),
        ("山田 <ann@mailyard.example>", "山田", "ann@mailyard.example"),
        ("ann@mailyard.example", "", "ann@mailyard.example"),
    ],
)
def test_a_senders_name(desk: Desk, sender: str, name: str, address: str) -> None:
    found = desk.mail(**{"from": sender})
    (parsed,) = found.parsed["From"].addresses
    assert (parsed.display_name, parsed.addr_spec) == (name, address)
    assert sound(found.mail.content)


# --- bodies ------------------------------------------------------------------------------------------------------


def test_long_lines_and_every_character_survive(desk: Desk) -> None:
    words = "x" * 3_000 + " ÄÖÜ 日本語 \U0001f600 = . =3D " + "y" * 2_000
    found = desk.mail(
        "<p>{{ contact.company }}</p>",
        contact={"company": words},
        text="{{ contact.company }}\n.\n..\nFrom me\n",
    )
    assert sound(found.mail.content)
    assert words in found.html
    assert found.text.splitlines() == [words, ".", "..", "From me"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_any_kind_become_crlf(desk: Desk, end: str) -> None:
    found = desk.mail(
        f"<p>{{{{ contact.company }}}}</p>{end}<p>two</p>",
        contact={"company": f"a{end}b"},
        text=f"one{end}two",
    )
    assert sound(found.mail.content)
    assert found.text.splitlines() == ["one", "two"]


def test_the_footer_stands_where_the_template_has_none(desk: Desk) -> None:
    without = desk.mail("<html><body><p>Hi</p></body></html>")
    assert re.search(r"Mailyard &amp; Co, Wien.*Unsubscribe.*</body>", without.html, re.DOTALL)
    own = desk.mail("<p>{{ postal_address }} <a href='{{ unsubscribe_url }}'>Bye</a></p>")
    assert own.html.count(f"/u/{own.token}") == 1
    assert own.html.count("Mailyard &amp; Co") == 1
    half = desk.mail("<p><a href='{{ unsubscribe_url }}'>Bye</a></p>")
    assert half.html.count("Mailyard &amp; Co") == 1


def test_links_lead_through_the_hub_with_their_own_signature(desk: Desk) -> None:
    links = [
        "https://shop.example/a?x=1&y=2",
        "http://shop.example/ä",
        "https://shop.example/{{ contact.city }}",
    ]
    html = "".join(f'<a href="{link.replace("&", "&amp;")}">x</a>' for link in links)
    others = (
        '<a href="mailto:x@example.com">m</a><a href="#top">t</a><img src="https://shop.example/logo.png">'
    )
    found = desk.mail(html + others, contact={"city": "a/b&c d"})
    tracked = re.findall(r'href="https://hub\.example/c/([\w-]+\.[\w-]+)\?u=([^"]+)"', found.html)
    assert len(tracked) == 3
    urls = [unquote(url) for _, url in tracked]
    assert urls[:2] == links[:2]
    assert urls[2].startswith("https://shop.example/a")
    for (token, _), url in zip(tracked, urls, strict=True):
        assert desk.signer.read_click(token, url) == 42
        with pytest.raises(SignatureError):
            desk.signer.read_click(token, "https://evil.example/")
    for kept in ('href="mailto:x@example.com"', 'href="#top"', 'src="https://shop.example/logo.png"'):
        assert kept in found.html
    assert f'href="https://hub.example/u/{found.token}"' in found.html  # not through the hub a second time
    (pixel,) = re.findall(r"https://hub\.example/o/([\w-]+)", found.html)
    assert desk.signer.read("open", pixel) == 42


def test_no_tracking_where_it_is_not_wanted(desk: Desk) -> None:
    found = desk.mail('<a href="https://shop.example/a">x</a>', track={"opens": False, "clicks": False})
    assert 'href="https://shop.example/a"' in found.html
    assert "/c/" not in found.html
    assert "/o/" not in found.html


def test_the_preheader_comes_first_and_is_not_seen(desk: Desk) -> None:
    found = desk.mail(
        "<html><body><p>Hi</p></body></html>", preheader="For {{ contact.city }}", contact={"city": "<Wien>"}
    )
    assert re.search(r"<body[^>]*><div style=\"display:none[^>]*>For &lt;Wien&gt;</div><p>Hi</p>", found.html)
    assert "<div" not in desk.mail("<html><body><p>Hi</p></body></html>").html


def test_a_message_that_is_not_there_or_has_no_template(desk: Desk) -> None:
    with pytest.raises(HubError, match="there is no message 'nobody'; define it under messages"):
        desk.composer().message("nobody")
    with pytest.raises(HubError, match="cannot be read: No such file or directory"):
        desk.composer(template="gone.html").message("hello")


def test_one_compiled_message_serves_everybody(desk: Desk) -> None:
    message = desk.composer(
        html="<p>{{ contact.city }}{{ contact.score }}</p>", subject="{{ contact.city or 'x' }}"
    ).message("hello")
    people = [
        Recipient(n, f"p{n}@example.com", {"city": f"City {n}"} if n % 2 else {"score": n}, [])
        for n in range(1, 30)
    ]
    for to in (*people, *reversed(people)):
        found = read(message.render(to, now=NOW))
        assert found.parsed["To"] == to.email
        assert found.parsed["Subject"] == (f"City {to.delivery_id}" if to.delivery_id % 2 else "x")
        assert f"<p>{f'City {to.delivery_id}' if to.delivery_id % 2 else to.delivery_id}</p>" in found.html
