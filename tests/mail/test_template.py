"""Templates: what they may do, what they may not, and what MJML and HTML become."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from jinja2 import TemplateSyntaxError

from hub.errors import ConfigError
from tests.mail.test_compose import Desk, desk

__all__ = ["desk"]

ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ contact.__class__ }}",
    "{{ contact['__class__'] }}",
    "{{ contact | attr('__class__') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__cl' ~ 'ass__'] }}",
    "{{ '' | attr('__cl' ~ 'ass__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ contact.get.__globals__ }}",
    "{{ contact.items.__self__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ ('{0.__class__.__mro__}' | format(1)) if false else '{0.__class__}'.format('') }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ config }}",
    "{{ cycler }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner() }}",
    "{{ namespace() }}",
    "{{ lipsum() }}",
    "{{ range(3) }}",
    "{{ dict.__bases__ }}",
    "{{ contact.update({'first_name': 'x'}) }}",
    "{{ contact.clear() }}",
    "{{ deals.append(1) }}",
    "{{ contact.pop('first_name') }}",
    "{% include 'hub.yaml' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends 'x' %}",
    "{{ open('/etc/passwd') }}",
    "{{ env }}",
    "{{ request }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_out_of_the_sandbox(desk: Desk, source: str) -> None:
    contact = {"first_name": "Ann"}
    with pytest.raises(Exception) as raised:
        found = desk.mail(f"<p>{source}</p>", contact=contact)
        # A name that prints nothing is a refusal, too; words of Python's insides are not.
        shown = re.sub(r"<[^>]+>", "", found.html)
        assert shown.replace("[Undefined]", "").split() == ["Mailyard", "&amp;", "Co,", "WienUnsubscribe"]
        raise LookupError("nothing was printed")
    assert not isinstance(raised.value, AssertionError), raised.value
    assert contact == {"first_name": "Ann"}


BOMBS = [
    "{% for a in 'x' * 100000 %}{% for b in 'x' * 100000 %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in contact.company %}{% for b in contact.company %}{% for c in contact.company %}xxxxxxxxxx"
    "{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(10000000000) %}x{% endfor %}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_a_bomb_goes_off_harmlessly(desk: Desk, source: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Exception, match=r"gives more than 2000000 characters|undefined|unknown"):
        desk.mail(f"<p>{source}</p>", contact={"company": "c" * 300})
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    "source",
    ["{{ nobody }}", "{{ contact.frist_name }}", "{{ contact['frist_name'] }}", "{{ recipient.email }}"],
)
def test_an_unknown_name_is_an_error_not_a_blank(desk: Desk, source: str) -> None:
    with pytest.raises(Exception, match=r"frist_name|nobody|recipient"):
        desk.mail(f"<p>{source}</p>")


@pytest.mark.parametrize(
    "source",
    ["{% if contact.city %}", "{{ contact.city", "{{ contact.city | nofilter }}", "{% endfor %}", "{{ 'a }}"],
)
def test_a_template_that_does_not_parse(desk: Desk, source: str) -> None:
    with pytest.raises((ConfigError, TemplateSyntaxError)):
        desk.composer(html=f"<p>{source}</p>").message("hello")  # before anybody's mail is begun


@pytest.mark.parametrize("value", [None, "missing", ""])
@pytest.mark.parametrize(
    "source",
    ["{{ contact.city }}", "{{ contact.city or '' }}", "{% if contact.city %}no{% endif %}", "{{ contact['city'] }}",
     "{{ contact.score }}", "{% for d in deals %}{{ d.name }}{% endfor %}"],
)  # fmt: skip
def test_a_missing_value_prints_nothing(desk: Desk, source: str, value: Any) -> None:
    contact = {} if value == "missing" else {"city": value, "score": value}
    found = desk.mail(f"<p>[{source}]</p>", contact=contact, subject=f"[{source}]")
    assert "<p>[]</p>" in found.html
    assert "[]" in found.text
    assert found.parsed["Subject"] == "[]"


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("{{ contact.first_name | upper }}", "ÄNN"),
        ("{{ contact.first_name | default('you') }}", "Änn"),
        ("{{ contact.city or 'there' }}", "there"),
        ("{{ contact.score + 1 }}", "8"),
        ("{{ contact.score }}", "7"),
        ("{{ contact.vip }}", "True"),
        ("{% if contact.score > 5 %}many{% else %}few{% endif %}", "many"),
        ("{% for d in deals %}{{ loop.index }}.{{ d.name }};{% endfor %}", "1.Big;2.Small;"),
        ("{{ deals | map(attribute='name') | join(', ') }}", "Big, Small"),
        ("{% set greeting = 'Dear ' ~ contact.first_name %}{{ greeting }}", "Dear Änn"),
        ("{{ message }}", "hello"),
        ("{{ 'a' if deals else 'b' }}", "a"),
        ("{# nothing #}x", "x"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ],
)
def test_what_templates_may_do(desk: Desk, source: str, printed: str) -> None:
    deals = [{"name": "Big", "amount": 5}, {"name": "Small", "amount": None}]
    found = desk.mail(
        f"<p>[{source}]</p>", contact={"first_name": "Änn", "score": 7, "vip": True}, deals=deals
    )
    assert f"<p>[{printed}]</p>" in found.html
    assert f"[{printed}]" in found.text


def test_values_are_words_in_html_and_as_they_are_in_text(desk: Desk) -> None:
    name = "<script>alert('x')</script> & \"Ann\" {{ 7*7 }} {% if x %}"
    found = desk.mail(
        '<p title="{{ contact.first_name }}">{{ contact.first_name }}</p>', contact={"first_name": name}
    )
    assert "<script" not in found.html
    assert found.html.count("&lt;script&gt;") == 2
    assert "{{ 7*7 }}" in found.html
    assert name in found.text
    assert "49" not in found.html + found.text


def test_mjml_becomes_html_with_its_tags_filled_in(desk: Desk) -> None:
    source = """<mjml><mj-body><mj-section><mj-column>
      <mj-text>Hello {{ contact.first_name or 'there' }}{% if contact.city %} in {{ contact.city }}{% endif %}</mj-text>
      <mj-button href="https://shop.example/x?a=1&amp;b={{ contact.score }}">Go</mj-button>
    </mj-column></mj-section></mj-body></mjml>"""
    found = desk.mail(source, file="hello.mjml", contact={"first_name": "Änn", "city": "Wien", "score": 7})
    assert "<mj-" not in found.html
    assert "<table" in found.html
    assert "Hello Änn in Wien" in found.html
    assert "Hello Änn in Wien" in found.text
    assert "<" not in found.text.replace("<https", "")
    assert "jinja" not in found.html + found.text
    assert "Unsubscribe" in found.html  # the footer that the law asks for


def test_mjml_that_cannot_be_read(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="the MJML cannot be read"):
        desk.mail("<mjml><mj-body><mj-section>", file="hello.mjml")


def test_styles_go_inline_and_media_queries_stay(desk: Desk) -> None:
    found = desk.mail(
        "<html><head><style>p { color: red } @media (max-width: 600px) { p { color: blue } }</style></head>"
        "<body><p>{{ contact.city }}</p></body></html>",
        contact={"city": "Wien"},
    )
    assert re.search(r'<p style="color:\s?red;?">Wien</p>', found.html)
    assert "@media" in found.html


def test_the_text_part_is_made_from_the_html(desk: Desk) -> None:
    found = desk.mail(
        "<h1>Hello {{ contact.first_name }}</h1><p>Read <a href='https://shop.example/a'>this</a>.</p><ul><li>one</li><li>two</li></ul>",
        contact={"first_name": "Änn"},
    )
    assert "Hello Änn" in found.text
    assert "https://shop.example/a" in found.text
    assert "one" in found.text
    assert "<" not in found.text
    assert "\n\n\n" not in found.text.replace("\r\n", "\n")
    assert f"https://hub.example/u/{found.token}" in found.text


def test_a_text_of_ones_own(desk: Desk) -> None:
    found = desk.mail(
        "<p>x</p>", text="Only {{ contact.city }} & {{ unsubscribe_url }}", contact={"city": "<Wien>"}
    )
    assert found.text.strip() == f"Only <Wien> & https://hub.example/u/{found.token}"
