"""Random templates and random people: a compiled mail is the mail that Jinja and Python's own `email` would make.

The reference below is the plain way, and slow: render each template with Jinja, inline the styles of what came out,
lead the links through the hub, and let `EmailMessage` encode it all.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import css_inline
import jinja2
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from jinja2 import nodes

from hub.config.settings import Settings
from hub.mail import template
from hub.mail.compose import Composer, Mail, Recipient
from hub.signing import Signer

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
BASE = "https://hub.example"
SIGNER = Signer(b"k" * 32)
FIELDS = ("email", "first_name", "company", "city", "score", "vip")
FOOTER = (
    '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}<br>'
    '<a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
POSTAL_FOOTER = '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}</p>'
POSTAL = "Mailyard & Søn, Wien"


# --- the plain way -----------------------------------------------------------------------------------------------


def environment(*, html: bool) -> jinja2.Environment:
    """Jinja as docs/sending.md tells of it: a blank prints nothing, and stays one through a plain filter."""
    made = jinja2.Environment(
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: "" if value is None else value,
    )

    def kept(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda value, *more, **named: None if value is None else plain(value, *more, **named)

    for name in ("capitalize", "lower", "title", "trim", "upper"):
        made.filters[name] = kept(made.filters[name])
    return made


HTML, TEXT = environment(html=True), environment(html=False)


def with_line_ends(value: Any) -> Any:
    """Line ends within a value are line ends, of whatever kind."""
    return re.sub("\r\n?", "\n", value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Case:
    """What is drawn: a message and a person."""

    subject: str
    preheader: str
    html: str
    text: str | None
    clicks: bool
    opens: bool
    contact: dict[str, Any]
    deals: list[dict[str, Any]]
    delivery_id: int

    def values(self) -> dict[str, Any]:
        return {
            "contact": {**dict.fromkeys(FIELDS), **{k: with_line_ends(v) for k, v in self.contact.items()}},
            "deals": [{k: with_line_ends(v) for k, v in deal.items()} for deal in self.deals],
            "unsubscribe_url": f"{BASE}/u/{SIGNER.token('unsubscribe', self.delivery_id)}",
            "open_url": f"{BASE}/o/{SIGNER.token('open', self.delivery_id)}",
            "message": "hello",
            "postal_address": POSTAL,
        }

    def composed(self) -> Mail:
        section: dict[str, Any] = {
            "subject": self.subject, "preheader": self.preheader, "html": self.html, "text": self.text,
            "from": "Änn <ann@mailyard.example>", "reply_to": "help@mailyard.example", "purpose": "news",
            "track": {"opens": self.opens, "clicks": self.clicks},
        }  # fmt: skip
        made = Settings.model_validate(
            {
                "purposes": {"news": {"title": "News"}},
                "messages": {"hello": section},
                "bounces": {"return_path": "bounce@mailyard.example"},
                "sender": {"postal_address": POSTAL, "list_domain": "mailyard.example"},
                "web": {"public_url": BASE},
            }
        )
        message = Composer(made, Path(), SIGNER, contact_fields=FIELDS).message("hello")
        to = Recipient(self.delivery_id, "bob@example.com", self.contact, self.deals)
        first = message.render(to, now=NOW)
        with contextlib.suppress(Exception):
            message.render(Recipient(self.delivery_id + 1, "eve@example.com", {}, self.deals), now=NOW)
        again = message.render(to, now=NOW)
        assert again == first, "what one recipient left behind shows in the next one's mail"
        return first

    def plain(self) -> EmailMessage:
        values = self.values()
        pixel = '<img src="{{ open_url }}" width="1" height="1" alt="">' if self.opens else ""
        hidden = (
            '<div style="display:none;max-height:0;overflow:hidden">{{ preheader }}</div>'
            if self.preheader
            else ""
        )
        values["preheader"] = header(TEXT, self.preheader, values)
        footer = FOOTER if not printed(self.html, "unsubscribe_url") else ""
        footer = footer or (POSTAL_FOOTER if not printed(self.html, "postal_address") else "")
        whole = f"<html><head></head><body>{hidden}{self.html}{footer}{pixel}</body></html>"
        html = inlined(HTML.from_string(whole).render(values))
        if not self.text:
            source = template.as_text(
                template.as_html(self.html, mjml=False).replace("</body>", f"{footer}</body>")
            )
        else:
            source = self.text
        mail = EmailMessage(policy=email.policy.SMTP)
        mail["From"] = Address("Änn", addr_spec="ann@mailyard.example")
        mail["Reply-To"] = "help@mailyard.example"
        mail["To"] = "bob@example.com"
        mail["Subject"] = header(TEXT, self.subject, values)
        mail["Date"] = NOW
        mail["Message-ID"] = f"<{SIGNER.token('message', self.delivery_id)}@mailyard.example>"
        mail["List-Unsubscribe"] = f"<{values['unsubscribe_url']}>"
        mail["Feedback-ID"] = "hello:news::mailyard"
        mail["List-Id"] = "<news.mailyard.example>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        mail.set_content(TEXT.from_string(source).render(values))
        mail.add_alternative(html, subtype="html")
        return mail


def header(environment: jinja2.Environment, source: str, values: dict[str, Any]) -> str:
    """A header's text: what breaks lines or controls terminals becomes a blank, and blanks are single."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", environment.from_string(source).render(values))
    return re.sub(" +", " ", text).strip(" ")


def printed(source: str, name: str) -> bool:
    """Whether the template prints a variable outside of all blocks, or (as drawn here) never else but by chance."""
    found = HTML.parse(source).body
    return any(
        isinstance(each, nodes.Name) and each.name == name
        for node in found
        if isinstance(node, nodes.Output)
        for each in node.nodes
    )


def inlined(html: str) -> str:
    """HTML as an HTML5 parser understands it, with its styles in place."""
    made = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True).inline(html)
    made = re.sub(
        r"(<body>(?:<div [^>]*>[^<]*</div>)?)[ \t\n\f]+", r"\1", made
    )  # a parser may drop these blanks
    return made.replace("<tbody></tbody>", "")  # of a table without a row


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if tag == "a" and name == "href"]


def links(html: str) -> list[str]:
    parser = _Links()
    parser.feed(html)
    return parser.found


def tracked(url: str, case: Case) -> str:
    """Where a link of the plain mail should lead in ours."""
    own = case.values()["unsubscribe_url"]
    if not case.clicks or not url.lower().startswith(("http://", "https://")) or url == own:
        return url
    return f"{BASE}/c/{SIGNER.token('click', case.delivery_id)}.{SIGNER.link(url)}?u={quote(url, safe='')}"


def without_links(html: str) -> str:
    return re.sub(r'(<a [^>]*?href=)"[^"]*"', r'\1""', html)


def ended(text: str) -> str:
    """Line ends normalised; those at the very end are the transport's."""
    return text.replace("\r\n", "\n").rstrip("\n")


# --- what is drawn -----------------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    ["", " ", ".", "..", ".\n.", "\n.\n", "\r\n.\r\n", "\r", "\n", "\r\nBcc: evil@example.net", "a\rb", "\x00",
     "\x0b\x0c\x1c\x85", "\u2028x\u2029", "=?utf-8?q?x?=", "=", "=3D", "=\n", "--=_x", "\u202eannA\u202c",
     "\u05e9\u05dc\u05d5\u05dd \u200f!", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f600" * 40,
     "Ann\u00a0Lee", "山田\u3000太郎", "نام\u200cها", "<b>&\"'</b>", "{{ 7*7 }}", "{% if x %}", "a" * 75, "a" * 76,
     "a" * 77, "." * 80, "ä" * 30, "x" * 1_200, " \t ", "\t", "  two  blanks ", "From me",
     "https://other.example/?q=1&r='2'", "jinja7x0x7ajnij", "\ufeff", "\ue000"]
)  # fmt: skip
WORDS = st.text(
    st.sampled_from("abc XYZ.=äß日\U0001f600\n\r\t\u05d0&<>\"'")
    | st.characters(codec="utf-8", exclude_characters="\x00"),
    max_size=90,
)
VALUES = (
    NASTY
    | WORDS
    | st.integers(60, 80).map(lambda n: "w" * n)
    | st.none()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
)
CONTACTS = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[1:], VALUES))
DEALS = st.lists(st.fixed_dictionaries({"name": VALUES, "amount": st.integers() | st.none()}), max_size=3)

LITERALS = st.sampled_from(
    ["Hello ", " ", "\n", ".\n", "\n.", "dots\n..\n.x\n", "  \n", "trailing \n", "=", "Grüße ", "\u05d0\u05d1 ", "x" * 74,
     "y" * 75, "z" * 76, "long " * 40, "k" * 1_100, "\U0001f680", "a\tb", "\t\n", "mid"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["contact.first_name", "contact.company", "contact['city']", "contact.score", "contact.vip", "contact.email",
     "unsubscribe_url", "message", "postal_address", "'a<b'", "7", "none", "deals | length", "deals[0].name"]
)  # fmt: skip
FILTERS = st.sampled_from(
    [
        "upper",
        "lower",
        "title",
        "capitalize",
        "trim",
        "default('there', true)",
        "string",
        "length",
        "replace('a', '.')",
    ]
)


def _more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map(lambda e: f"({e[0]} or {e[1]})"),
        st.tuples(inner, inner).map(lambda e: f"({e[0]} and {e[1]})"),
        st.tuples(inner, FILTERS).map(lambda e: f"({e[0]} | {e[1]})"),
        st.tuples(inner, inner).map(lambda e: f"({e[0]} ~ {e[1]})"),
        st.tuples(inner, st.sampled_from(["==", "!=", "<", ">=", "in"]), inner).map(
            lambda e: f"({e[0]} {e[1]} {e[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda e: f"({e[0]} if {e[1]} else {e[2]})"),
        inner.map(lambda e: f"(not {e})"),
    )


EXPRESSIONS = st.recursive(NAMES, _more, max_leaves=4)
OUTPUTS = st.tuples(st.sampled_from(["{{ ", "{{- "]), EXPRESSIONS, st.sampled_from([" }}", " -}}"])).map(
    "".join
)
BITS = LITERALS | OUTPUTS | st.just("{# a comment }} #}") | st.just("{{ '}}' }}")


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, max_size=3).map("".join)
    return st.one_of(
        st.tuples(EXPRESSIONS, body).map(lambda b: f"{{% if {b[0]} %}}{b[1]}{{% endif %}}"),
        st.tuples(EXPRESSIONS, body, EXPRESSIONS, body, body).map(
            lambda b: f"{{% if {b[0]} %}}{b[1]}{{% elif {b[2]} -%}}\n{b[3]}{{%- else %}}{b[4]}{{% endif %}}"
        ),
        body.map(lambda b: f"{{% for deal in deals %}}{{{{ loop.index }}}}{b}{{{{ deal.name }}}}{{% endfor %}}"),
        st.tuples(EXPRESSIONS, body).map(lambda b: f"{{% set x = {b[0]} %}}{b[1]}{{{{ x }}}}"),
    )  # fmt: skip


URLS = st.one_of(
    st.sampled_from(
        ["https://shop.example/a?x=1&amp;y=2", "http://shop.example/ä b", "HTTPS://shop.example", "mailto:x@example.com", "#top",
         "{{ unsubscribe_url }}", "{{- unsubscribe_url -}}", "", "https://shop.example/?q=it's", "tel:1", "{{ contact.company }}",
         "https://shop.example/{# no #}x", "https://shop.example/{% if contact.vip %}vip{% else %}all{% endif %}"]
    ),
    OUTPUTS.map(lambda o: f"https://shop.example/{o}?a=b"),
    st.tuples(OUTPUTS, OUTPUTS).map(lambda o: f"https://{o[0]}/{o[1]}#f"),
)  # fmt: skip


def _html(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """What may stand within each other by HTML5: for the rest, parsing before and after filling in need not agree."""
    body = st.lists(inner, max_size=3).map("".join)
    words = st.lists(BITS, max_size=3).map("".join)
    return st.one_of(
        words.map(lambda b: f"<p>{b}</p>"),
        body.map(lambda b: f"<div>{b}</div>"),
        st.tuples(URLS, words, st.sampled_from(['"', "'"])).map(
            lambda u: f'<a class="b" href="{u[0]}">{u[1]}</a>'
            if u[2] == '"' or "'" in u[0]
            else f"<a href='{u[0]}' data-href=\"https://no.example/\" title='>'>{u[1]}</a>"
        ),
        body.map(lambda b: f"<table>{{% for deal in deals %}}<tr><td>{{{{ deal.name }}}}{b}</td></tr>{{% endfor %}}</table>"),
        st.tuples(EXPRESSIONS, body).map(
            lambda b: f"<div {{% if {b[0]} %}}title=\"yes\"{{% endif %}} class='c'>{b[1]}</div>"
        ),
        st.tuples(EXPRESSIONS, body).map(
            lambda b: f"<table><tbody>{{% if {b[0]} %}}<tr><td>{b[1]}</td></tr>{{% endif %}}</tbody></table>"
        ),
        _blocks(inner),
    )  # fmt: skip


HTMLS = st.lists(st.recursive(BITS, _html, max_leaves=6), max_size=5).map("".join)
TEXTS = st.lists(st.recursive(BITS, _blocks, max_leaves=5), max_size=6).map("".join)
SUBJECTS = st.lists(BITS | NASTY.filter(lambda s: "{" not in s), max_size=4).map("".join)
CASES = st.builds(
    Case,
    subject=SUBJECTS,
    preheader=st.just("") | SUBJECTS,
    html=HTMLS,
    text=st.none() | TEXTS,
    clicks=st.booleans(),
    opens=st.booleans(),
    contact=CONTACTS,
    deals=DEALS,
    delivery_id=st.integers(1, 2**62),
)


# --- what must hold ----------------------------------------------------------------------------------------------


def sound(content: bytes) -> None:
    """RFC 5321 and 5322 on the raw bytes, and quoted-printable's own 76 (RFC 2045, 6.7)."""
    assert b"\x00" not in content
    assert content.isascii()
    lines = content.split(b"\r\n")
    for line in lines:
        assert b"\r" not in line
        assert b"\n" not in line
        assert not line.startswith(b".")
        assert len(line) <= 998
    head, _, body = content.partition(b"\r\n\r\n")
    assert {line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"} == {
        b"From", b"Reply-To", b"To", b"Subject", b"Date", b"Message-ID", b"List-Unsubscribe", b"Feedback-ID", b"List-Id",
        b"List-Unsubscribe-Post", b"MIME-Version", b"Content-Type",
    }  # fmt: skip
    for line in body.split(b"\r\n"):
        assert len(line) <= 76 or line.startswith(b"--")
        assert not line.endswith((b" ", b"\t")), "blanks at a line's end are lost on the way"


def same(case: Case) -> None:
    try:
        plain = case.plain()
    except Exception:  # what Jinja refuses, the hub refuses: a mail is not composed some other way
        with pytest.raises(Exception):  # noqa: B017
            case.composed()
        return
    made = case.composed()
    sound(made.content)
    body = made.content.partition(b"\r\n\r\n")[2]
    assert not re.search(rb"[ \t]\r\n", body)  # nothing that a relay would change behind a DKIM signature
    ours = email.message_from_bytes(made.content, policy=email.policy.default)
    assert isinstance(ours, EmailMessage)
    assert not ours.defects
    decoded = {name: str(value) for name, value in ours.items() if name != "Content-Type"}
    expected = {name: str(value) for name, value in plain.items() if name != "Content-Type"}
    # EmailMessage takes "=?utf-8?q?x?=" in a text for an encoded word; to us it is the text that somebody wrote.
    expected["Subject"] = header(TEXT, case.subject, case.values())
    assert decoded == expected
    assert [p.get_content_type() for p in ours.walk()] == [p.get_content_type() for p in plain.walk()]
    text, html = ours.get_body(("plain",)), ours.get_body(("html",))
    plain_text, plain_html = plain.get_body(("plain",)), plain.get_body(("html",))
    assert text and html and plain_text and plain_html
    assert not text.defects
    assert not html.defects
    assert ended(text.get_content()) == ended(plain_text.get_content())
    found, wanted = inlined(html.get_content()), inlined(plain_html.get_content())
    assert links(found) == [tracked(url, case) for url in links(wanted)]
    assert ended(without_links(found)) == ended(without_links(wanted))


def case(html: str = "", **more: Any) -> Case:
    known: dict[str, Any] = {
        "subject": "Hi", "preheader": "", "text": "", "clicks": True, "opens": False, "contact": {}, "deals": [],
        "delivery_id": 1,
    }  # fmt: skip
    return Case(html=html, **{**known, **more})


@example(case("{{ contact.company }}", contact={"company": "b" * 75 + "="}, text="x{{ contact.company }}"))
@example(case("<p>{{ contact.score }}</p>", contact={"score": -0.0}))
@settings(
    max_examples=120,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(CASES)
def test_a_compiled_mail_is_the_plain_mail(drawn: Case) -> None:
    same(drawn)


def test_loops_around_rows_and_conditions_among_attributes() -> None:
    """What HTML5's parser moves out of tables, and what it gives empty values, comes back to its place."""
    deals = [{"name": "Big"}, {"name": "Small"}]
    source = (
        "<table>{% for d in deals %}<tr {% if loop.first %}class='x'{% endif %}><td>{{ d.name }}</td></tr>"
        "{% endfor %}</table>"
    )
    drawn = case(source, deals=deals, text=None)
    same(drawn)
    mail = email.message_from_bytes(drawn.composed().content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text and html
    assert '<tr class="x" ><td>Big</td></tr><tr ><td>Small</td></tr></tbody></table>' in html.get_content()
    assert text.get_content().splitlines()[:2] == ["Big", "Small"]


@pytest.mark.parametrize("company", [1.0, 1, True, 10**20, -0.0, 0.0, [1, "<b>"], {"a": 1}])
def test_equal_values_are_printed_each_in_its_own_way(company: Any) -> None:
    same(case("<p>{{ contact.company }}</p>", text="{{ contact.company }}", contact={"company": company}))


def test_a_body_of_a_megabyte() -> None:
    same(
        case(
            "<p>{{ contact.company }}</p>",
            text="{{ contact.company }}",
            contact={"company": "ab. " * 250_000},
        )
    )
