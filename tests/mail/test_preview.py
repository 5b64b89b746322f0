"""A message looked at as one contact would get it, and which fields it uses."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hub.config.settings import Settings
from hub.errors import ConfigError
from hub.mail import fields, template
from hub.mail.compose import Composer, Message, Recipient
from hub.mail.preview import GMAIL_CLIPS_BYTES, blank, preview
from hub.signing import PREVIEW, Signer, Unsigned

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
FIELDS = ("email", "first_name", "company", "city", "country", "language", "company.name", "company.city")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
HTML = '<p>Hello {{ contact.first_name }}</p><a href="https://m.example/start?a=1&amp;b=2">Start</a>'


def message(folder: Path, signer: Signer | None = None, *, top: Any = None, **section: Any) -> Message:
    given = {
        "purposes": {"news": {"title": "News"}},
        "messages": {
            "hello": {"subject": "Hello", "from": "ann@m.example", "purpose": "news", "html": HTML, **section}
        },
        "bounces": {"return_path": "bounce@m.example"},
        "sender": {"list_domain": "m.example", "postal_address": "M, Wien"},
        "web": {"public_url": "https://hub.example"},
        **(top or {}),
    }
    return Composer(
        Settings.model_validate(given), folder, signer or Unsigned(), contact_fields=FIELDS
    ).message("hello")


def seen(made: Message, deals: Any = (), **contact: Any) -> dict[str, Any]:
    return preview(made, Recipient(0, "bob@example.com", contact, list(deals)), now=NOW)


def test_it_says_what_the_mail_says_and_carries(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG)
    (tmp_path / "terms.pdf").write_bytes(b"%PDF")
    made = message(
        tmp_path,
        subject="Hello {{ contact.first_name or 'there' }} ☀",
        preheader="News for {{ contact.company }}",
        html=HTML + '<img src="cid:logo" alt="Logo">',
        images={"logo": "logo.png"},
        attachments=["terms.pdf"],
    )
    found = seen(made, first_name="Bob", company="")
    assert (found["subject"], found["preheader"]) == ("Hello Bob ☀", "News for")
    assert found["headers"]["To"] == "bob@example.com"
    assert found["headers"]["Subject"] == "Hello Bob ☀"
    assert [(each["name"], each["bytes"]) for each in found["attachments"]] == [("terms.pdf", 4)]
    assert [(each["name"], each["bytes"]) for each in found["images"]] == [("logo.png", len(PNG))]
    assert "[Start](https://m.example/start?a=1&b=2)" in found["text"]
    assert "data:image/png;base64,iVBOR" in found["page"]
    assert "cid:" not in found["page"]
    assert [(f["field"], f["value"], f["blank"], f["seen_to"]) for f in found["fields"]] == [
        ("company", "", True, False),
        ("first_name", "Bob", False, False),
    ]


def test_no_token_of_a_preview_is_one(tmp_path: Path) -> None:
    found = seen(message(tmp_path), first_name="Bob")
    mail = email.message_from_bytes(found["eml"], policy=email.policy.default)
    assert mail["List-Unsubscribe"] == f"<https://hub.example/u/{PREVIEW}>"
    assert mail["Message-ID"] == f"<{PREVIEW}@m.example>"
    assert 'href="https://m.example/start?a=1&amp;b=2"' in found["html"]  # to its end, counted nowhere
    assert f'href="https://hub.example/u/{PREVIEW}"' in found["html"]
    assert "/c/" not in found["html"]
    assert "/o/" not in found["html"]


def test_its_size_is_that_of_the_mail_that_is_sent(tmp_path: Path) -> None:
    contact = {"first_name": "Bob"}
    real = message(tmp_path, Signer(b"k" * 32))
    sent = real.render(Recipient(20_000_000, "bob@example.com", contact, []), now=NOW)
    found = seen(message(tmp_path), **contact)
    assert found["size_bytes"] == len(sent.content)
    part = email.message_from_bytes(sent.content, policy=email.policy.default).get_body(("html",))  # type: ignore[attr-defined]
    assert found["html_bytes"] == len(part.get_payload(decode=True)) > len(found["html"])


@pytest.mark.parametrize(("size", "clipped"), [(100_000, False), (GMAIL_CLIPS_BYTES, True)])
def test_what_gmail_clips(tmp_path: Path, size: int, clipped: bool) -> None:
    assert seen(message(tmp_path, html="<p>" + "x" * size))["clipped"] is clipped


def test_the_language_that_is_chosen_and_its_fields(tmp_path: Path) -> None:
    made = message(
        tmp_path,
        language="en",
        languages={"de": {"subject": "Hallo", "html": "<p>{{ contact.city or 'Stadt' }}</p>"}},
    )
    german, other = seen(made, language="de_AT"), seen(made, language="fr", first_name="Zoë")
    assert (german["language"], german["chosen_for"], german["subject"]) == ("de", "de_AT", "Hallo")
    assert [(f["field"], f["blank"], f["seen_to"]) for f in german["fields"]] == [("city", True, True)]
    assert (other["language"], other["chosen_for"], other["subject"]) == ("en", "fr", "Hello")
    assert [f["field"] for f in other["fields"]] == ["first_name"]


@pytest.mark.parametrize(
    ("top", "section", "country", "opens", "clicks"),
    [
        ({}, {}, "AT", (True, "nothing says otherwise"), (True, "nothing says otherwise")),
        ({"tracking": {"opens": False}}, {}, "AT", (False, "`tracking` says so"), (True, "nothing says otherwise")),
        (
            {"purposes": {"news": {"title": "N", "track": {"clicks": False}}}}, {}, "AT",
            (True, "nothing says otherwise"), (False, "the purpose news says so"),
        ),
        (
            {"tracking": {"off_in": ["DE"]}}, {"track": {"opens": False}}, "DE",
            (False, "the message says so"), (False, "`tracking.off_in` holds DE"),
        ),
        (
            {"tracking": {"off_in": ["unknown"]}}, {}, None,
            (False, "`tracking.off_in` holds unknown"), (False, "`tracking.off_in` holds unknown"),
        ),
    ],
)  # fmt: skip
def test_whether_it_is_tracked_and_why(
    tmp_path: Path, top: Any, section: Any, country: str | None, opens: Any, clicks: Any
) -> None:
    found = seen(message(tmp_path, top=top, **section), country=country)["tracking"]
    assert found == {
        "opens": {"on": opens[0], "why": opens[1]},
        "clicks": {"on": clicks[0], "why": clicks[1]},
    }


def test_what_cannot_be_composed_says_why_and_quotes_nothing(tmp_path: Path) -> None:
    made = message(tmp_path, html="<p>{{ contact.city + 1 }}</p>")
    with pytest.raises(
        ConfigError,
        match=r"message hello cannot be composed for this contact: TypeError: can only concatenate str .*; let the",
    ):
        seen(made, city="Wien")
    with pytest.raises(ConfigError, match=r"cannot stand in a mail; correct it in the CRM$"):
        preview(message(tmp_path), Recipient(0, "b b@example.com", {}, []), now=NOW)


def test_the_company_has_fields_too(tmp_path: Path) -> None:
    source = "{{ company.name or 'you' }} {{ company['city'] }} {{ contact.company }}"
    for html in (
        source,
        source + "{% for x in (1, 2) %}{{ company.name }}{% endfor %}",
    ):  # compiled, and by Jinja
        made = message(tmp_path, html=html)
        found = preview(
            made, Recipient(0, "b@example.com", {"company": "own", "company.name": "A&B"}, []), now=NOW
        )
        assert "<body>A&amp;B  own" in found["html"]
        assert {f["field"]: f["blank"] for f in found["fields"]} == {
            "company": False, "company.name": False, "company.city": True,
        }  # fmt: skip
        assert "<body>you " in seen(made)["html"]
    whole = message(
        tmp_path, html="{{ contact | length }}{{ company.name }}{% if company.city %}x{% endif %}"
    )
    assert whole.fields == frozenset(FIELDS)
    assert template.unknown_names("{{ company.nmae }} {{ company.name }} {{ compny.name }}", FIELDS) == [
        ("company.nmae", 1, 4), ("compny", 1, 42),
    ]  # fmt: skip


def test_deals_are_a_field_too(tmp_path: Path) -> None:
    made = message(tmp_path, html="{% for deal in deals %}<p>{{ deal.name }}</p>{% endfor %}")
    assert seen(made)["fields"] == [{"field": "deals", "value": [], "blank": True, "seen_to": True}]
    assert seen(made, deals=[{"name": "x"}])["fields"][0]["blank"] is False


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("no field", {}),
        ("{{ contact.city }} {{ contact['company'] | upper }}", {"city": False, "company": False}),
        ("{{ contact.city or 'town' }}", {"city": True}),
        ("{{ contact.first_name or contact.last_name }}", {"first_name": True, "last_name": False}),
        ("{{ contact.city and contact.city | upper }}", {"city": True}),
        ("{{ contact.city if contact.city else 'town' }}", {"city": True}),
        ("{% if contact.city %}in {{ contact.city }} of {{ contact.country }}{% endif %}", {"city": True, "country": False}),
        ("{% if contact.country == 'DE' %}x{% elif contact.city is none %}y{% endif %}", {"country": True, "city": True}),
        ("{{ contact.city or 'town' }} {{ contact.city }}", {"city": False}),
        ("{{ contact.city | default('town') }}", {"city": False}),  # a blank is defined: it stays
        ("{{ contact.city | default('town', true) }} {{ contact.company | d('x', boolean=true) }}",
         {"city": True, "company": True}),
        ("{% set name = contact.first_name or 'you' %}{{ name }}", {"first_name": True}),
        ("{% for key in contact %}{{ key }}{% endfor %}", None),
    ],
)  # fmt: skip
def test_fields_and_whether_a_blank_is_seen_to(source: str, uses: dict[str, bool] | None) -> None:
    assert fields.uses([source]) == uses


def test_a_field_is_seen_to_only_if_it_is_everywhere() -> None:
    assert fields.uses(["{{ contact.city or 'town' }}", "{{ contact.city }}"]) == {"city": False}


def test_blank() -> None:
    assert all(blank(value) for value in (None, "", " \t", []))
    assert not any(blank(value) for value in (0, False, "x", ["x"]))
