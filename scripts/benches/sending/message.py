"""What is sent: one mail as a marketer writes it, in the notations of all contenders, and the people who get it.

About 10 KB on the wire: a text and an HTML part made from MJML, eight values of the contact, five links that are tracked,
a pixel and the footer. All contenders send the same words; the others get their tracking links ready-made.
"""

from __future__ import annotations

import email
import email.policy
import re
from typing import Any
from urllib.parse import quote

SUBJECT = "{{ contact.first_name or 'Hello' }}, your autumn plan for {{ contact.company }}"
PREHEADER = "Three things that teams in {{ contact.city }} do differently"
FROM = "Ann of Mailyard <ann@mailyard.example>"
RETURN_PATH = "bounce@mailyard.example"
POSTAL_ADDRESS = "Mailyard GmbH, Example Street 1, 1010 Vienna, Austria"
PUBLIC_URL = "https://hub.mailyard.example"
VALUES = ("first_name", "last_name", "company", "job_title", "city", "country", "owner", "lifecycle")

MJML = """\
<mjml>
  <mj-head>
    <mj-attributes>
      <mj-all font-family="Helvetica, Arial, sans-serif" />
      <mj-text font-size="15px" line-height="22px" color="#333333" />
    </mj-attributes>
  </mj-head>
  <mj-body background-color="#f4f4f4">
    <mj-section background-color="#ffffff">
      <mj-column>
        <mj-text font-size="22px">Hello {{ contact.first_name or 'there' }} {{ contact.last_name }},</mj-text>
        <mj-text>autumn is when most teams plan their next year. As {{ contact.job_title }} at {{ contact.company }}
          you will have your own list; here is ours, made with people in {{ contact.city }} and elsewhere in
          {{ contact.country }}. {% if contact.lifecycle %}Because you are with us as {{ contact.lifecycle }}, the
          workshop is free of charge.{% else %}The workshop costs 90 euros.{% endif %}</mj-text>
        <mj-button background-color="#0b6e4f" href="https://www.mailyard.example/workshop?from=mail&amp;season=autumn">Take your
          seat</mj-button>
        <mj-text>First: lists that keep themselves. <a href="https://www.mailyard.example/read/lists">Read how a bakery with
          forty shops</a> stopped exporting spreadsheets, and what it cost them to begin. It is a six minute read.</mj-text>
        <mj-text>Second: results where you look for them. Every opened mail and every click stands on the timeline of the
          contact. <a href="https://www.mailyard.example/read/results">See it in a picture</a>.</mj-text>
        <mj-text>Third: a quiet inbox. Nobody is written to twice for the same reason, and whoever opts out is left alone at
          once, in every system. <a href="https://www.mailyard.example/read/consent">What the law asks for, on one page</a>.
        </mj-text>
        <mj-text>The workshop takes place on two mornings in November, online, in small groups. You bring one list that you keep
          by hand today, and go home with one that keeps itself. Recordings and slides are yours afterwards.</mj-text>
        <mj-text>{{ contact.owner }} is your contact for all questions: simply answer this mail, or
          <a href="https://www.mailyard.example/meet?who=owner&amp;topic=plan">choose a time</a> that suits you.</mj-text>
        <mj-divider border-width="1px" border-color="#dddddd" />
        <mj-text font-size="12px" color="#666666">You get this mail since {{ contact.company }} works with us.
          {{ postal_address }}. <a href="{{ unsubscribe_url }}">Unsubscribe</a></mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""
TEXT = """\
Hello {{ contact.first_name or 'there' }} {{ contact.last_name }},

autumn is when most teams plan their next year. As {{ contact.job_title }} at {{ contact.company }} you will have your own
list; here is ours, made with people in {{ contact.city }} and elsewhere in {{ contact.country }}.
{% if contact.lifecycle %}Because you are with us as {{ contact.lifecycle }}, the workshop is free of charge.
{% else %}The workshop costs 90 euros.
{% endif %}
Take your seat: https://www.mailyard.example/workshop?from=mail&season=autumn

First: lists that keep themselves. How a bakery with forty shops stopped exporting spreadsheets:
https://www.mailyard.example/read/lists

Second: results where you look for them. Every opened mail and every click stands on the timeline of the contact:
https://www.mailyard.example/read/results

Third: a quiet inbox. Nobody is written to twice for the same reason, and whoever opts out is left alone at once:
https://www.mailyard.example/read/consent

{{ contact.owner }} is your contact for all questions: simply answer this mail, or choose a time that suits you:
https://www.mailyard.example/meet?who=owner&topic=plan

You get this mail since {{ contact.company }} works with us. {{ postal_address }}
Unsubscribe: {{ unsubscribe_url }}
"""

_FIRST = ("Ann", "Jörg", "Maria", "Luís", "Emma", "Peter", "Zoë", "Tom", "Iris", "Paul", "Nina")
_LAST = ("Meier", "O'Neill", "Novák", "Smith", "Rossi", "Dubois", "Kowalska")
_COMPANY = ("Smith & Sons", "Acme", "Bäckerei Huber", "Globex", "Initech", "Hooli")
_TITLE = ("Head of Marketing", "CRM Lead", "Founder", "Sales Operations Manager")
_CITY = ("Berlin", "Wien", "Zürich", "Paris", "Amsterdam", "Lisboa", "Dublin", "Praha")
_COUNTRY = ("DE", "AT", "CH", "FR", "NL", "PT", "IE", "CZ")
_OWNER = ("Bea Lang", "Cem Yilmaz", "Dora Fuchs")
_LIFECYCLE = ("customer", "lead", None)


def _pick(values: tuple[str | None, ...]) -> str:
    """SQL for the value of contact number `n`. Lists of coprime lengths make thousands of different people."""
    items = ", ".join("NULL" if v is None else "'" + v.replace("'", "''") + "'" for v in values)
    return f"(ARRAY[{items}])[1 + n %% {len(values)}]"


PEOPLE = f"""
    INSERT INTO contact (id, email, first_name, last_name, company, job_title, city, country, owner, lifecycle, language,
                         created_at, changed_at)
    SELECT n, 'person' || n || '@people.example', {_pick(_FIRST)}, {_pick(_LAST)}, {_pick(_COMPANY)} || ' ' || n %% 97,
           {_pick(_TITLE)}, {_pick(_CITY)}, {_pick(_COUNTRY)}, {_pick(_OWNER)}, {_pick(_LIFECYCLE)}, 'en', now(), now()
    FROM generate_series(%(first)s::bigint, %(last)s) AS n
"""


def html() -> str:
    """The HTML that the MJML gives, its tags still in it."""
    from mjml import mjml2html

    return str(mjml2html(MJML))


def peer_html() -> str:
    """The same HTML for the other contenders: links led through the hub, each with a token of the person, and the pixel."""
    numbers = iter(range(1, 100))

    def through_hub(found: re.Match[str]) -> str:
        url = found[2].replace("&amp;", "&")
        tracked = f"{PUBLIC_URL}/c/{{{{ token{next(numbers)} }}}}?u={quote(url, safe='')}"
        return f"{found[1]}{tracked}{found[3]}"

    made = re.sub(r'(<a\b[^>]*?\bhref=")(https?://[^"]+)(")', through_hub, html())
    preheader = f'<div style="display:none;max-height:0;overflow:hidden">{PREHEADER}</div>'
    made = re.sub(r"(<body\b[^>]*>)", lambda found: found[1] + preheader, made, count=1)
    pixel = f'<img src="{PUBLIC_URL}/o/{{{{ token0 }}}}" width="1" height="1" alt="">'
    return made.replace("</body>", pixel + "</body>")


def handlebars(source: str) -> str:
    """A template in the notation of Handlebars. It knows a contact's fields by their bare names."""
    source = re.sub(r"\{\{ contact\.(\w+) or '([^']*)' \}\}", r"{{#if \1}}{{\1}}{{else}}\2{{/if}}", source)
    source = re.sub(r"\{\{ (?:contact\.)?(\w+) \}\}", r"{{\1}}", source)
    source = re.sub(r"\{% if contact\.(\w+) %\}", r"{{#if \1}}", source)
    return source.replace("{% else %}", "{{else}}").replace("{% endif %}", "{{/if}}")


def lacks(content: bytes, *, dkim: bool = False) -> list[str]:
    """What a sent mail lacks of what all contenders are to send; none when it is complete."""
    mail = email.message_from_bytes(content, policy=email.policy.default)
    number = re.search(r"\d+", str(mail["to"]))
    html = mail.get_body(("html",))
    text = mail.get_body(("plain",))
    words = {
        "the city in the text": text is not None and "made with people in " + _CITY[int(number[0]) % len(_CITY)] in
        " ".join(text.get_content().split()) if number else False,
        "five tracked links": html is not None and html.get_content().count("/c/") == 5,
        "the pixel": html is not None and f"{PUBLIC_URL}/o/" in html.get_content(),
        "the footer": html is not None and POSTAL_ADDRESS.split(",")[0] in html.get_content(),
        "one-click unsubscription": bool(mail["list-unsubscribe"] and mail["list-unsubscribe-post"]),
        "a DKIM signature": "d=mailyard.example" in str(mail["dkim-signature"] or "") or not dkim,
    }  # fmt: skip
    return [name for name, there in words.items() if not there]


def for_peers() -> dict[str, Any]:
    """What the other contenders are told of the mail, as JSON."""
    jinja = {"subject": SUBJECT, "text": TEXT, "html": peer_html()}
    return {
        "from": FROM, "return_path": RETURN_PATH, "postal_address": POSTAL_ADDRESS, "public_url": PUBLIC_URL,
        "list_id": "news.mailyard.example", "feedback_id": "offer:news::mailyard",
        "jinja": jinja, "handlebars": {name: handlebars(source) for name, source in jinja.items()},
    }  # fmt: skip
