"""Files in mails, languages, links for web analytics, and tracking by purpose and country."""

from __future__ import annotations

import email
import email.policy
import html as html_lib
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from hub.check import check
from hub.config.settings import Settings
from hub.errors import ConfigError
from hub.mail.compose import Composer, Message, Recipient
from hub.mail.variant import looked_up
from hub.signing import Signer

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
FIELDS = ("email", "first_name", "city", "country", "language")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
PDF = b"%PDF-1.7\n.\n\r\n" + b"x" * 5_000


def message(folder: Path, *, top: dict[str, Any] | None = None, **section: Any) -> Message:
    given = {
        "purposes": {"news": {"title": "News"}},
        "messages": {"hello": {"subject": "Hello", "from": "ann@m.example", "purpose": "news", "html": "<p>Hi</p>", **section}},
        "bounces": {"return_path": "bounce@m.example"},
        "sender": {"list_domain": "m.example"},
        "web": {"public_url": "https://hub.example"},
        **(top or {}),
    }  # fmt: skip
    composer = Composer(Settings.model_validate(given), folder, Signer(b"k" * 32), contact_fields=FIELDS)
    return composer.message("hello")


def written(made: Message, **contact: Any) -> EmailMessage:
    content = made.render(Recipient(7, "bob@example.com", contact, []), now=NOW).content
    lines = content.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or line.startswith(b".") for line in lines)
    assert max(map(len, lines)) <= 998
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not any(part.defects for part in found.walk())
    return found


def body(mail: EmailMessage, kind: str = "html") -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


# --- files -------------------------------------------------------------------------------------------------------


def put(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_images_and_attachments_as_email_message_frames_them(tmp_path: Path) -> None:
    put(tmp_path, **{"logo.png": PNG, "Übersicht für Sie.pdf": PDF, "notes.txt": b"a\n.\nb"})
    found = written(
        message(
            tmp_path,
            html='<p><img src="cid:logo"></p>',
            images={"logo": "logo.png"},
            attachments=["Übersicht für Sie.pdf", "notes.txt"],
        )
    )
    plain = EmailMessage(policy=email.policy.SMTP)
    plain.set_content("x")
    plain.add_alternative("<p>x</p>", subtype="html")
    html = plain.get_payload()[1]  # type: ignore[index]
    assert isinstance(html, EmailMessage)
    html.add_related(PNG, "image", "png", cid="<logo@m.example>", filename="logo.png", disposition="inline")
    plain.add_attachment(PDF, "application", "pdf", filename="Übersicht für Sie.pdf")
    plain.add_attachment(b"a\n.\nb", "text", "plain", filename="notes.txt")
    assert shape(found) == shape(email.message_from_bytes(plain.as_bytes(), policy=email.policy.default))
    assert 'src="cid:logo@m.example"' in body(found)
    related = next(part for part in found.walk() if part.get_content_type() == "multipart/related")
    assert related.get_param("type") == "text/html"  # RFC 2387, 3.1


def shape(mail: Any) -> list[Any]:
    """Each part: its type, name, disposition, Content-ID, and what it holds when it is a file."""
    return [
        (
            part.get_content_type(),
            part.get_filename(),
            part.get_content_disposition(),
            part["Content-ID"],
            part.get_payload(decode=True) if part.get_filename() else None,
        )
        for part in mail.walk()
    ]


def test_a_name_of_any_length_and_a_type_that_nobody_knows(tmp_path: Path) -> None:
    names = ["日" * 60 + ".pdf", "a.unheard-of", "old.tar.gz", "mail.eml", 'q"uo;te.csv']
    put(tmp_path, **dict.fromkeys(names, b"\x00\xff\r\n.\r\n"))
    found = written(message(tmp_path, attachments=names))
    attached = list(found.iter_attachments())
    assert [part.get_filename() for part in attached] == names
    assert [part.get_payload(decode=True) for part in attached] == [b"\x00\xff\r\n.\r\n"] * len(names)
    types = [part.get_content_type() for part in attached]
    assert types == ["application/pdf", *["application/octet-stream"] * 3, "text/csv"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"attachments": ["gone.pdf"]}, "gone.pdf cannot be read: No such file"),
        ({"images": {"logo": "gone.png"}, "html": '<img src="cid:logo">'}, "gone.png cannot be read"),
        ({"images": {"logo": "terms.pdf"}}, "terms.pdf is no image by its name"),
        ({"html": '<img src="cid:nobody">'}, "cid:nobody, which is none of the message's images"),
        ({"attachments": ["terms.pdf"], "max_size": "6 KB"}, r"6,9\d\d bytes larger, more than 6,000"),
    ],
)
def test_files_that_cannot_go_out(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    put(tmp_path, **{"terms.pdf": PDF})
    with pytest.raises(ConfigError, match=words):
        message(tmp_path, **section)


# --- languages ---------------------------------------------------------------------------------------------------

LANGUAGES = {
    "de": {"subject": "Hallo {{ contact.first_name }}", "html": "<p>Guten Tag</p>"},
    "pt": {"html": "<p>Bom dia</p>", "text": "Bom dia!"},
    "pt-BR": {"subject": "Oi", "preheader": "Bem-vindo"},
}


@pytest.mark.parametrize(
    ("wished", "header", "subject", "words"),
    [
        ("de", "de", "Hallo Ann", "Guten Tag"), ("de-AT", "de", "Hallo Ann", "Guten Tag"),
        ("DE_ch", "de", "Hallo Ann", "Guten Tag"),
        ("pt-PT", "pt", "Hello", "Bom dia"), ("pt-br", "pt-BR", "Oi", "Hi"), ("fr", "en", "Hello", "Hi"),
        (None, "en", "Hello", "Hi"),
        ("", "en", "Hello", "Hi"), ("de-x-private", "de", "Hallo Ann", "Guten Tag"), (7, "en", "Hello", "Hi"),
    ],
)  # fmt: skip
def test_the_language_is_the_contacts(
    tmp_path: Path, wished: Any, header: str, subject: str, words: str
) -> None:
    made = message(tmp_path, language="en", languages=LANGUAGES)
    assert made.fields == {"first_name", "language"}
    found = written(made, language=wished, first_name="Ann")
    assert (found["Content-Language"], found["Subject"]) == (header, subject)
    assert words in body(found)
    assert words in body(found, "plain")


def test_languages_are_looked_up_by_rfc_4647() -> None:
    assert looked_up("zh-Hant-CN-x-private1-private2", {"zh-hant"}) == "zh-hant"  # the RFC's own example, 3.4
    assert looked_up("en-a-bbb-x-a-ccc", {"en-a", "en-a-bbb-x", "en-a-bbb"}) == "en-a-bbb"
    assert looked_up("d", {"de"}) == looked_up("", {"de"}) == ""


# --- links for web analytics -----------------------------------------------------------------------------------

UTM = {"source": "mailyard", "medium": "email", "campaign": "{{ funnel }}", "content": "{{ message }}"}
ADDED = "utm_source=mailyard&utm_medium=email&utm_campaign=on%20board&utm_content=hello"
FUNNELS = {"on board": {"enter": {"list": "all"}, "steps": [{"send": "hello"}]}}


@pytest.mark.parametrize("clicks", [True, False])
@pytest.mark.parametrize("loop", ["", "{% for d in deals %}{% endfor %}"])
@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ("https://shop.example", f"https://shop.example?{ADDED}"),
        ("https://shop.example/a?x=1&y=2#top", f"https://shop.example/a?x=1&y=2&{ADDED}#top"),
        ("http://www.shop.example/?a=", f"http://www.shop.example/?a=&{ADDED}"),
        ("https://shop.example/?utm_source=own", "https://shop.example/?utm_source=own"),
        ("https://shop.example/{{ contact.city }}#a?b", f"https://shop.example/a&b?{ADDED}#a?b"),
        ("https://other.example/{{ contact.city }}", "https://other.example/a&b"),
        ("https://notshop.example/", "https://notshop.example/"),
        ("mailto:x@shop.example", "mailto:x@shop.example"),
        ("https://shop.example/x_(y)", f"https://shop.example/x_(y)?{ADDED}"),
    ],
)
def test_links_carry_their_parameters(
    tmp_path: Path, link: str, wanted: str, loop: str, clicks: bool
) -> None:
    made = message(
        tmp_path, top={"utm": {**UTM, "hosts": ["shop.example"]}, "funnels": FUNNELS}, track={"clicks": clicks},
        html=f'<a href="{link.replace("&", "&amp;")}">x</a>{loop}', text=f"Go: {link}.\n{loop}",
    )  # fmt: skip
    found = written(made, city="a&b")
    (shown,) = [
        html_lib.unescape(url) for url in re.findall(r'href="([^"]*)"', body(found)) if "/u/" not in url
    ]
    tracked = re.fullmatch(r"https://hub\.example/c/([\w-]+\.[\w-]+)\?u=(.*)", shown)
    assert (tracked is not None) == (clicks and wanted.startswith("http"))
    if tracked:
        assert Signer(b"k" * 32).read_click(tracked[1], wanted) == 7
    assert (unquote(tracked[2]) if tracked else shown) == wanted
    assert body(found, "plain").startswith(f"Go: {wanted}.")


def test_a_message_overrides_or_leaves_out_parameters(tmp_path: Path) -> None:
    link = '<a href="https://shop.example/">x</a>'
    top = {"utm": {"source": "mailyard", "medium": "email"}, "tracking": {"clicks": False}}
    assert "/?utm_source=mailyard&amp;utm_medium=sms" in body(
        written(message(tmp_path, top=top, html=link, utm={"medium": "sms"}))
    )
    assert 'href="https://shop.example/"' in body(written(message(tmp_path, top=top, html=link, utm=False)))
    with pytest.raises(ConfigError, match="utm of message hello: 'funnel' is undefined"):
        message(tmp_path, top={"utm": UTM})  # no funnel sends it


def test_the_unsubscribe_link_carries_none(tmp_path: Path) -> None:
    found = written(message(tmp_path, top={"utm": {"source": "x"}}))
    assert "utm_" not in body(found) + body(found, "plain")


# --- tracking ----------------------------------------------------------------------------------------------------

HTML = '<a href="https://shop.example/">x</a>'


def seen(mail: EmailMessage) -> tuple[bool, bool]:
    return "/o/" in body(mail), "/c/" in body(mail)


@pytest.mark.parametrize(
    ("top", "purpose", "own", "wanted"),
    [
        ({}, {}, {}, (True, True)),
        ({"opens": False}, {}, {}, (False, True)),
        ({"opens": False}, {"opens": True, "clicks": False}, {}, (True, False)),
        ({}, {"opens": False, "clicks": False}, {"clicks": True}, (False, True)),
    ],
)
def test_the_nearest_word_on_tracking_counts(
    tmp_path: Path,
    top: dict[str, bool],
    purpose: dict[str, bool],
    own: dict[str, bool],
    wanted: tuple[bool, bool],
) -> None:
    given = {"tracking": top, "purposes": {"news": {"title": "News", "track": purpose}}}
    assert seen(written(message(tmp_path, top=given, html=HTML, track=own))) == wanted


@pytest.mark.parametrize(
    ("country", "tracked"), [("DE", False), ("AT", True), (None, False), ("", False), ("FR", False)]
)
def test_nobody_is_tracked_where_it_is_off(tmp_path: Path, country: str | None, tracked: bool) -> None:
    made = message(tmp_path, top={"tracking": {"off_in": ["DE", "FR", "unknown"]}}, html=HTML)
    assert made.fields == {"country"}
    assert seen(written(made, country=country)) == (tracked, tracked)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"html": "{{ contact.city | nope }}"}, "No filter named 'nope'"),
        ({"subject": "{{ contact.city | nope }}"}, "No filter named 'nope'"),
        ({"html": '<a href="{{ contact.city | nope }}">x</a>'}, "No filter named 'nope'"),
        ({"html": None}, "message hello has not just one of template and html"),
        ({"template": "latin.html"}, "message hello has not just one of template and html"),
        ({"html": None, "template": "latin.html"}, "cannot be read: it is not UTF-8"),
        ({"html": None, "template": "gone.html"}, "cannot be read: No such file or directory"),
        ({"purpose": "newz"}, "message hello is of the purpose 'newz', which there is not"),
    ],
)
def test_a_message_that_is_wrong_stops_no_other(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    """Whatever is wrong with a message is told as a ConfigError: the sender rejects its mails and goes on."""
    put(tmp_path, **{"latin.html": "ä".encode("latin-1")})
    with pytest.raises(ConfigError, match=words):
        message(tmp_path, **section)


def test_a_preview_is_not_tracked(tmp_path: Path) -> None:
    made = message(tmp_path, html=HTML)
    content = made.render(Recipient(0, "bob@example.com", {}, []), now=NOW, track=False).content
    assert b"/o/" not in content
    assert b"/c/" not in content
    assert seen(written(made)) == (True, True)  # and changes nothing for those who come after


# --- hub check ---------------------------------------------------------------------------------------------------


def test_hub_check_tells_of_files_languages_and_parameters(tmp_path: Path) -> None:
    put(tmp_path, **{"logo.png": PNG})
    (tmp_path / "hub.yaml").write_text(CHECKED)
    found = [
        (p.position.line, p.what) for p in check(tmp_path / "hub.yaml", {}).problems if "relay" not in p.what
    ]
    assert found == [
        (4, "the HTML shows cid:nobody, which is none of its images"),
        (8, "gone.pdf cannot be read: No such file or directory"),
        (9, "no HTML shows the image logo"),
        (10, "its files make the mail 14,151 bytes larger, more than 1,000"),
        (11, "utm of message hello: 'funnel' is undefined"),
        (13, "the template uses the unknown name 'nobody'"),
        (14, "the template gone.html cannot be read: No such file or directory"),
    ]


CHECKED = """\
purposes: {news: {title: News}}
sender: {list_domain: m.example}
messages:
  hello:
    subject: Hello
    from: ann@m.example
    purpose: news
    attachments: [gone.pdf]
    images: {logo: logo.png}
    max_size: 1 KB
    utm: {campaign: "{{ funnel }}"}
    languages:
      de: {subject: "Hallo {{ nobody }}"}
      pt: {template: gone.html}
    html: '<img src="cid:nobody">'
"""


# --- the trap ------------------------------------------------------------------------------------------------------

TRAP = {"tracking": {"machines": {"trap": True}}}
LINKED = '<p>Hi</p><a href="https://m.example/start">Start</a>'


@pytest.mark.parametrize(
    "html", [LINKED, "{% for d in deals %}{% if loop.first %}x{% endif %}{% endfor %}" + LINKED]
)
def test_a_link_that_no_person_sees_leads_straight_to_the_trap(tmp_path: Path, html: str) -> None:
    token = Signer(b"k" * 32).token("click", 7)
    found = body(written(message(tmp_path, top=TRAP, html=html)))
    (hidden,) = re.findall(r'<a href="([^"]+)" style="display:none" tabindex="-1" aria-hidden="true"', found)
    assert hidden == f"https://hub.example/t/{token}"
    assert "/t/" not in body(written(message(tmp_path, top=TRAP, html=html)), "plain")


def test_there_is_no_trap_unless_it_is_wanted_and_clicks_are_counted(tmp_path: Path) -> None:
    assert "/t/" not in body(written(message(tmp_path, html=LINKED)))
    assert "/t/" not in body(written(message(tmp_path, top=TRAP, html=LINKED, track={"clicks": False})))
    off = {"tracking": {"machines": {"trap": True}, "off_in": ["DE"]}}
    assert "/t/" not in body(written(message(tmp_path, top=off, html=LINKED), country="DE"))
    assert "/t/" in body(written(message(tmp_path, top=off, html=LINKED), country="AT"))
