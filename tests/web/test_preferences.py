"""The preference page: a GET changes nothing, a POST exactly what was chosen, and whoever looks over a shoulder learns little."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from hub.clock import ManualClock
from hub.config.settings import MessageSection
from hub.mail.compose import Message, Recipient
from hub.signing import PREVIEW
from hub.store import consent, ledger
from hub.web import wording
from tests.support.rig import HUB_YAML, Rig

PURPOSES = """\
purposes:
  news: {title: News & more, titles: {de: Neues, de-AT: Neiches}, subscriptions: {crm: "730001"}}
  tips: {title: Tips, basis: opt_in}
  shop: {title: Orders, marketing: false}
"""


@pytest.fixture
def hub_yaml() -> str:
    return re.sub(r"purposes:\n.*\n", PURPOSES.replace("{", "{{").replace("}", "}}"), HUB_YAML)


async def words(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT purpose, status, source, source_kind, how FROM consent ORDER BY id")


def path(rig: Rig, mail: int) -> str:
    return f"/p/{rig.runtime.signer.token('unsubscribe', mail)}"


def boxes(page: str) -> dict[str, bool]:
    return {
        found[1]: bool(found[2])
        for found in re.finditer(r'type="checkbox" id="p\d" name="on" value="(\w+)"( checked)?>', page)
    }


def as_shown(page: str, **changes: bool) -> dict[str, list[str]]:
    """What the page's form sends when these boxes are changed."""
    now = {**boxes(page), **changes}
    return {
        "shown": re.findall(r'name="shown" value="([^"]+)"', page),
        "on": [name for name, on in now.items() if on],
    }


async def test_looking_changes_nothing_and_shows_what_they_get(
    rig: Rig, web: httpx.AsyncClient, mail: int
) -> None:
    answer = await web.get(path(rig, mail))
    assert (answer.status_code, boxes(answer.text)) == (200, {"news": True, "tips": False})
    assert "News &amp; more" in answer.text and "Orders" not in answer.text
    assert "a***@example.com" in answer.text and "ann@" not in answer.text and "Ann" not in answer.text
    assert (await web.head(path(rig, mail))).status_code == 200
    assert await words(rig) == [] == await rig.rows("SELECT * FROM event")
    assert "set-cookie" not in answer.headers
    headers = {k: v for k, v in answer.headers.items() if k not in ("content-length", "content-type")}
    style = re.fullmatch(
        r"default-src 'none'; style-src 'sha256-\S+'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        headers.pop("content-security-policy"),
    )
    assert style
    assert headers == {
        "cache-control": "no-store, private", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff",
        "x-robots-tag": "noindex",
    }  # fmt: skip
    assert re.findall(r"https?://|<script|<img", answer.text) == []
    for box in re.findall(r'<input type="checkbox" id="(\w+)"', answer.text):
        assert f'<label for="{box}">' in answer.text


async def test_a_post_changes_exactly_what_was_chosen(
    rig: Rig, web: httpx.AsyncClient, mail: int, clock: ManualClock
) -> None:
    page = (await web.get(path(rig, mail))).text
    same = await web.post(path(rig, mail), data=as_shown(page))
    assert "Nothing was changed" in same.text
    assert await words(rig) == []
    # Somebody else's word that comes between is not overruled by a box that was left as it was.
    async with rig.runtime.db.transaction() as conn:
        await consent.record(conn, [consent.Statement("ann@example.com", "news", "out", "crm", clock.now())])
    clock.advance(minutes=1)
    done = await web.post(path(rig, mail), data=as_shown(page, tips=True))
    assert "Your choice is saved" in done.text
    assert boxes(done.text) == {"news": False, "tips": True}
    assert await words(rig) == [
        ("news", "out", "crm", "connection", "told"),
        ("tips", "in", "web", "page", "single"),
    ]
    clock.advance(minutes=1)
    again = await web.post(path(rig, mail), data=as_shown(done.text, news=True, tips=False))
    assert boxes(again.text) == {"news": True, "tips": False}
    assert (await words(rig))[2:] == [
        ("news", "in", "web", "page", "single"),
        ("tips", "out", "web", "page", "single"),
    ]
    assert await rig.rows("SELECT kind FROM event") == []  # the mail's own purpose was not given up


async def test_one_button_ends_everything_for_good(
    rig: Rig, web: httpx.AsyncClient, mail: int, clock: ManualClock
) -> None:
    done = await web.post(path(rig, mail), data={"nothing": "1"})
    assert boxes(done.text) == {"news": False, "tips": False}
    assert "no more mails from us" in done.text
    assert await words(rig) == [("*", "out", "web", "page", "single")]
    assert await rig.rows("SELECT kind, detail FROM event") == [("unsubscribed", {"how": "preferences"})]
    await web.post(path(rig, mail), data={"nothing": "1"})
    assert len(await words(rig)) == 1
    async with rig.runtime.db.transaction() as conn:
        await ledger.queue(conn, [ledger.NewDelivery("hello", 1, "y", "news", clock.now())])
        assert await ledger.claim(conn, {"news": False}, worker="w", limit=9, now=clock.now()) == []
    assert await rig.rows("SELECT reason FROM delivery WHERE state = 'excluded'") == [
        ("opted out, by the word of web",)
    ]


@pytest.mark.parametrize(
    "posted",
    [
        {"shown": ["shop=on"], "on": []}, {"shown": ["*=off"], "on": ["*"]}, {"shown": ["nothing_such=on"]}, {"on": ["tips"]},
        {"shown": ["tips", "news="], "on": ["tips"]}, {},
    ],
)  # fmt: skip
async def test_what_the_page_never_offered_cannot_be_chosen(
    rig: Rig, web: httpx.AsyncClient, mail: int, posted: dict[str, Any]
) -> None:
    await web.post(path(rig, mail), data=posted)
    assert await words(rig) == []


async def test_it_speaks_the_persons_language(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    french = await web.get(path(rig, mail), headers={"Accept-Language": "xx, fr-CA;q=0.8"})
    assert (
        '<html lang="fr">' in french.text
        and "Enregistrer" in french.text
        and "News &amp; more" in french.text
    )
    async with rig.runtime.db.transaction() as conn:
        await conn.execute("UPDATE contact SET language = 'de-AT'")
    german = await web.get(path(rig, mail), headers={"Accept-Language": "fr"})
    assert "Ihre E-Mails" in german.text and "Neues" in german.text


def test_all_languages_say_the_same() -> None:
    keys = {language: set(said) for language, said in wording.WORDS.items()}
    assert all(each == keys["en"] for each in keys.values())
    for name in keys["en"]:
        places = {
            language: sorted(re.findall(r"\{\w+\}", said[name])) for language, said in wording.WORDS.items()
        }
        assert len({tuple(p) for p in places.values()}) == 1, name


async def test_links_of_others_of_previews_and_of_nobody(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    good = rig.runtime.signer.token("unsubscribe", mail)
    for bad in ("x", good[:-1], rig.runtime.signer.token("open", mail), "A" * 9_000, "%00"):
        for ask in (web.get, web.post):
            assert (await ask(f"/p/{bad}")).status_code == 404
    assert "preview" in (await web.post(f"/p/{PREVIEW}", data={"nothing": "1"})).text
    gone = await web.post(path(rig, 987_654), data={"nothing": "1"})
    assert (gone.status_code, "nothing" in gone.text) == (404, True)
    assert (await web.post(path(rig, mail), content=b"x" * 10_001)).status_code == 413
    assert await words(rig) == []


async def test_mails_carry_the_link_untracked(rig: Rig) -> None:
    message = rig.runtime.composer.message("hello")
    assert "preferences_url" not in dict(message._pages)
    section = MessageSection.model_validate(
        {"subject": "x", "from": "a@mailyard.example", "purpose": "news",
         "html": '<p><a href="{{ preferences_url }}">Choose</a> <a href="https://x.example/">x</a> {{ unsubscribe_url }}</p>'}
    )  # fmt: skip
    made = Message("hello", section, rig.runtime.composer)
    mail = made.render(Recipient(7, "ann@example.com", {}, []), now=rig.clock.now())
    html = made.html_of(bytes(mail.content)).decode()
    assert f'href="https://hub.example/p/{rig.runtime.signer.token("unsubscribe", 7)}"' in html
    assert "/c/" in html  # the other link is led through the hub


async def test_the_unsubscribe_page_leads_there(rig: Rig, web: httpx.AsyncClient, mail: int) -> None:
    page = await web.get(f"/u/{rig.runtime.signer.token('unsubscribe', mail)}")
    assert f'href="../p/{rig.runtime.signer.token("unsubscribe", mail)}"' in page.text
