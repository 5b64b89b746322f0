"""Links and images of templates: what is wrong with them, where, and what is left alone."""

from __future__ import annotations

import random

import pytest

from hub.mail import lint
from hub.mail.lint import html_faults, image_fault, link_fault, text_faults

GOOD = [
    "https://example.com", "http://example.com/a?b=c&d=%20#e", "HTTPS://EXAMPLE.COM/", "https://user@example.com:8080/x",
    "https://[::1]:8080/", "https://müller.example/ü", "mailto:ann@example.com", "mailto:ann@example.com?subject=a%20b",
    "tel:+43123", "sms:123?body=x", "webcal://example.com/a.ics", "#top",
]  # fmt: skip
BAD = {
    "": "has no address", "   ": "has no address", "#": "leads nowhere", "htp://example.com": "unknown scheme htp:",
    "myapp://open": "unknown scheme myapp:", "http:example.com": "no // after", "https:/example.com": "no // after",
    "https://": "names no host", "https:///x": "names no host", "https://?x": "names no host", "https://:80/": "names no host",
    "https://a b.example": "has blanks", " https://example.com": "has blanks", "https://example.com/\nx": "has blanks",
    "https://example.com:port/": "is no URL", "https://[::1/": "is no URL", "https://http://example.com": "two schemes",
    "www.example.com": "has no scheme", "example.com/x?y": "has no scheme", "example.com:8080/x": "has no scheme",
    "//example.com/x": "has no scheme", "/start": "leads nowhere", "../start": "leads nowhere", "start.html": "leads nowhere",
    "javascript:alert(1)": "is taken out", "JavaScript:alert(1)": "is taken out", "data:text/html,x": "is taken out",
    "mailto:": "names no address", "mailto:?subject=x": "names no address", "mailto:ann": "names no address",
    "tel:": "names nobody", "https://example.com/{{ contact.city": "has braces", "https://example.com/}}": "has braces",
}  # fmt: skip


@pytest.mark.parametrize("link", GOOD)
def test_a_good_link(link: str) -> None:
    assert link_fault(link) is None


@pytest.mark.parametrize("link", BAD)
def test_a_bad_link(link: str) -> None:
    found = link_fault(link)
    assert found is not None
    assert BAD[link] in found[0]
    assert found[1]


@pytest.mark.parametrize("address", ["cid:logo", "https://example.com/x.png", "data:image/png;base64,x"])
def test_a_good_image(address: str) -> None:
    assert image_fault(address) is None


@pytest.mark.parametrize(
    "address", ["", "logo.png", "images/x.png", "mailto:ann@example.com", "cdi:logo", "http:/x.example/y.png"]
)
def test_a_bad_image(address: str) -> None:
    assert image_fault(address) is not None


@pytest.mark.parametrize(
    "source",
    [
        '<a href="{{ contact.website }}">x</a>',
        '<a href="{{ base }}/x y">x</a>'.replace(" y", ""),
        "<a href=\"{{ contact.site or 'a b' }}\">x</a>",
        '<a href="https://{{ contact.city }}.example.com/{% if contact.city %}x{% endif %}">x</a>',
        '<a href="mailto:{{ contact.email }}">x</a>',
        '<a href="{% if contact.city %}https://a.example{% else %}https://b.example{% endif %}">x</a>',
        '{# <a href=""> #}<!-- <a href="www.x"> --><a name="x">y</a>',
        '<img {{ attributes }} src="https://example.com/x.png">',
        "<script>\"<a href=''>\"</script>",
    ],
)
def test_what_is_filled_in_later_is_not_judged(source: str) -> None:
    assert html_faults(source) == []


def test_places_in_tags_of_several_lines_and_after_jinja() -> None:
    source = "{{ contact.first_name\n or 'x' }}ä <a title='href=\"\"'\n   HREF=\"www.example.com\">x</a><a href=''>y</a>"
    assert [(f.line, f.column) for f in html_faults(source)] == [(3, 10), (3, 41)]


def test_links_of_a_text() -> None:
    source = "See http:/example.com/x,\n{{ contact.city }} https:// and https://good.example/ or http: x"
    assert [(f.line, f.column, f.what) for f in text_faults(source)] == [
        (1, 5, "the link http:/example.com/x, has no // after its scheme"),
        (2, 20, "the link https:// names no host"),
    ]


def test_nothing_makes_it_fail() -> None:
    chance = random.Random(5)
    pieces = ["<a href=", '"', "'", ">", "{{ x }}", "{{", "}}", "{%", "https://", "[", "]", ":", "/", " ", "\n", 
              "<img src=", "<!--", "&#", "mailto:", "ä"]  # fmt: skip
    for _ in range(3_000):
        source = "".join(chance.choices(pieces, k=12))
        for fault in [*html_faults(source), *text_faults(source)]:
            assert 1 <= fault.line <= source.count("\n") + 1
            assert fault.column >= 1


def test_the_size_of_what_is_there_anyway() -> None:
    assert lint.rough_size("<p>ü{{ contact.city }}{% if x %}</p>") == len("<p>ü</p>".encode())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ contact.city | default('town') }}", [("city", 1)]),
        ("x\n{% if contact['city'] | d('') %}x{% endif %}", [("city", 2)]),
        ("{{ contact.city | default('town', true) }}{{ contact.city | d('town', boolean=true) }}", []),
        ("{{ contact.city | default('') or 'town' }}", []),
        ("{{ deals[0] | default('none') }}", []),
    ],
)
def test_defaults_that_leave_a_blank_as_it_is(source: str, found: list[tuple[str, int]]) -> None:
    assert list(lint.dead_defaults(source)) == found
