"""A message against a whole list: counted in the database, composed of some, and the same as if everybody were looked at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from hub.clock import ManualClock
from hub.errors import HubError
from hub.jobs import campaigns, preview
from hub.jobs import runtime as runtimes
from hub.jobs.runtime import Runtime
from hub.mail.preview import GMAIL_CLIPS_BYTES, blank
from tests.support.rig import KEY

HUB_YAML = """\
connections:
  crm: {connector: hubspot, token: "${HUBSPOT_TOKEN}", mapping: mapping.yaml}
purposes:
  news: {title: News}
lists:
  all: {where: "country = 'AT'"}
messages:
  hello:
    subject: "Hello {{ contact.first_name or 'there' }}"
    from: "Ann <ann@mailyard.example>"
    purpose: news
    html: "<p>{{ contact.company }} {{ contact.score }} {% for tag in contact.tags %}{{ tag }}{% endfor %}</p>"
    languages:
      de: {html: "<p>{{ contact.city }} {{ contact[\\"it's\\"] }} {{ contact.created_at }} {{ contact.score * 2 }}</p>"}
      fr: {html: "<p>{% for deal in deals %}{{ deal.name }}{% endfor %}</p>"}
  whole: {subject: All, from: ann@mailyard.example, purpose: news, html: "{{ contact | length }}"}
  plain: {subject: Plain, from: ann@mailyard.example, purpose: news, html: "<p>{{ contact.company }}</p>"}
campaigns:
  spring: {list: all, message: hello}
relays:
  main: {host: 127.0.0.1, port: 25, tls: none}
sender: {postal_address: "Mailyard, Vienna", list_domain: mailyard.example}
"""
MAPPING = """\
contact:
  score: {field: score, type: number, custom: true}
  tags: {field: tags, type: list, custom: true}
  "it's": {field: its, custom: true}
"""
USED = {
    "": ("first_name", "company", "score", "tags"),
    "de": ("first_name", "city", "it's", "created_at", "score"),
    "fr": ("first_name", "deals"),
}


@pytest.fixture
async def runtime(
    tmp_path: Path, clock: ManualClock, database_url: str, redis_url: str
) -> AsyncIterator[Runtime]:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    environ = {
        "HUBSPOT_TOKEN": "x", "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY,
    }  # fmt: skip
    async with runtimes.opened(tmp_path / "hub.yaml", environ, clock=clock) as runtime:
        async with runtime.db.transaction() as conn:
            await conn.execute("INSERT INTO list (name, rule, refreshed_at) VALUES ('all', '', now())")
        yield runtime


async def put(runtime: Runtime, people: list[dict[str, Any]]) -> list[int]:
    """Contacts on the list, each with its deals."""
    ids = []
    async with runtime.db.transaction() as conn:
        for number, given in enumerate(people):
            person = {"email": f"p{number}@example.com", "fields": {}, "deals": [], **given}
            columns = [name for name in person if name not in ("fields", "deals")]
            cursor = await conn.execute(
                f"""INSERT INTO contact ({", ".join(columns)}, fields, country, changed_at)
                    VALUES ({", ".join(["%s"] * len(columns))}, %s, 'AT', now()) RETURNING id""".encode(),
                [*(person[name] for name in columns), Jsonb(person["fields"])],
            )
            row = await cursor.fetchone()
            assert row is not None
            ids.append(row[0])
            await conn.execute(
                """INSERT INTO contact_identity (connection, object, external_id, contact_id, seen_at)
                   VALUES ('crm', 'contact', %s, %s, now())""",
                [str(row[0]), row[0]],
            )
            for name in person["deals"]:
                await conn.execute(
                    """WITH d AS (INSERT INTO deal (connection, external_id, name, changed_at)
                           VALUES ('crm', gen_random_uuid()::text, %s, now()) RETURNING id)
                       INSERT INTO deal_contact (deal_id, connection, contact_ref) SELECT id, 'crm', %s FROM d""",
                    [name, str(row[0])],
                )
        await conn.execute("INSERT INTO list_member SELECT l.id, c.id, now() FROM list l, contact c")
    return ids


def people(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    some = chance.choice
    return [
        {
            "first_name": some([None, "", "Bob", " ", "\u00a0", "[]"]),
            "company": some([None, "Bobs", "\t\n"]), "city": some([None, "Wien"]),
            "language": some([None, "", "de", "de-AT", "fr", "FR_ca", "it"]),
            "created_at": some([None, "2026-01-01T00:00:00+00:00"]), "deals": some([[], [], ["One"], ["One", "Two"]]),
            "fields": {
                **some([{}, {"score": None}, {"score": 5}, {"score": 0}, {"score": "x"}]),
                **some([{}, {"tags": []}, {"tags": ["a", "b"]}, {"tags": None}]),
                **some([{}, {"it's": ""}, {"it's": "so"}, {"it's": "[]"}, {"it's": {}}, {"it's": False}]),
            },
        }
        for _ in range(count)
    ]  # fmt: skip


def language_of(person: dict[str, Any]) -> str:
    tag = (person["language"] or "").lower().replace("_", "-").partition("-")[0]
    return tag if tag in ("de", "fr") else ""


def value_of(person: dict[str, Any], field: str) -> Any:
    return person["fields"].get(field) if field in ("score", "tags", "it's") else person[field]


def refused(person: dict[str, Any]) -> bool:
    """A loop over nothing at all, and twice a blank."""
    language = language_of(person)
    if language == "":
        return person["fields"].get("tags") is None
    return language == "de" and person["fields"].get("score") is None


@pytest.mark.parametrize("seed", range(3))
async def test_it_counts_as_if_everybody_were_looked_at(runtime: Runtime, seed: int) -> None:
    given = people(400, seed)
    await put(runtime, given)
    whole = await preview.for_list(runtime, "hello", "all")
    some = await preview.for_list(runtime, "hello", "all", compose=10)
    assert whole["composed"]["everybody"]
    assert whole["composed"]["mails"] == whole["recipients"] == 400
    assert not some["composed"]["everybody"]
    assert some["composed"]["mails"] < 400
    languages = Counter(map(language_of, given))
    for found in (whole, some):
        assert {row["language"]: row["recipients"] for row in found["languages"]} == languages
        for row in found["fields"]:
            using = [person for person in given if row["field"] in USED[language_of(person)]]
            assert row["recipients"] == len(using)
            assert row["blank"] == sum(blank(value_of(person, row["field"])) for person in using), row
        assert {row["field"]: row["seen_to"] for row in found["fields"]} == {
            "first_name": True, "company": False, "score": False, "tags": False, "city": False, "it's": False,
            "created_at": False, "deals": True,
        }  # fmt: skip
    assert {row["likely"] for row in whole["rejected"]} == {row["mails"] for row in whole["rejected"]}
    assert sum(row["mails"] for row in whole["rejected"]) == sum(map(refused, given))
    assert sum(row["likely"] for row in some["rejected"]) > 0.7 * sum(map(refused, given))


async def test_those_who_cannot_be_sent_it_are_found_by_what_they_lack(runtime: Runtime) -> None:
    good = {"language": "de", "fields": {"score": 1}}
    ids = await put(runtime, [*[good] * 500, *[{"language": "de"}] * 7, *[good] * 500])
    found = await preview.for_list(runtime, "hello", "all", compose=5)
    (rejected,) = found["rejected"]
    assert rejected["reason"].startswith("TypeError: unsupported operand type(s) for *")
    assert (rejected["likely"], rejected["mails"]) == (7, 2)
    assert "score" in rejected["blank"]
    assert {each["contact_id"] for each in rejected["examples"]} == {ids[500], ids[506]}
    assert found["composed"]["mails"] < 60


async def test_the_largest_is_found_without_composing_everybody(runtime: Runtime) -> None:
    ids = await put(
        runtime, [{"company": "x" * (n % 50)} for n in range(600)] + [{"company": "x" * GMAIL_CLIPS_BYTES}]
    )
    html = (await preview.for_list(runtime, "plain", "all", compose=0))["html"]
    assert (html["largest_contact_id"], html["largest_email"]) == (ids[-1], "p600@example.com")
    assert html["largest_bytes"] > GMAIL_CLIPS_BYTES
    assert (html["clipped"], html["clipped_likely"]) == (1, 1)
    assert html["limit_bytes"] == GMAIL_CLIPS_BYTES


async def test_a_share_of_those_who_are_drawn_stands_for_all(runtime: Runtime) -> None:
    await put(
        runtime, [{"company": "x" * (GMAIL_CLIPS_BYTES if n % 2 else 9), "city": str(n)} for n in range(400)]
    )
    html = (await preview.for_list(runtime, "plain", "all", compose=100))["html"]
    assert 100 <= html["clipped_likely"] <= 300
    assert html["clipped"] < 100


async def test_an_address_that_no_mail_can_carry(runtime: Runtime) -> None:
    (bad, _) = await put(runtime, [{"email": "b ob@example.com"}, {}])
    found = await preview.for_list(runtime, "plain", "all")
    assert [(row["reason"], row["likely"]) for row in found["rejected"]] == [
        ("the contact's address cannot stand in a mail; correct it in the CRM", 1)
    ]
    assert found["rejected"][0]["examples"] == [{"contact_id": bad, "email": "b ob@example.com"}]


async def test_a_message_that_takes_the_contact_as_a_whole_uses_every_field(runtime: Runtime) -> None:
    await put(runtime, [{"city": "Wien"}])
    fields = {
        row["field"]: row["blank"] for row in (await preview.for_list(runtime, "whole", "all"))["fields"]
    }
    assert set(fields) == set(runtime.catalog.contact_fields)
    assert (fields["city"], fields["country"], fields["phone"], fields["score"]) == (0, 0, 1, 1)


async def test_who_is_excluded_counts_for_nothing(runtime: Runtime) -> None:
    await put(runtime, [{"email": "same@example.com"}, {"email": "same@example.com"}, {"email": None}])
    found = await preview.for_list(runtime, "plain", "all")
    assert found["excluded"] == {"duplicate address": 1, "the contact has no e-mail address": 1}
    assert found["recipients"] == 1
    assert found["fields"][0]["blank"] == 1


async def test_nobody_at_all(runtime: Runtime) -> None:
    found = await preview.for_list(runtime, "hello", "all")
    assert (found["recipients"], found["rejected"], found["languages"]) == (0, [], [])
    assert found["html"]["largest_contact_id"] is None


async def test_everybody_who_lacks_a_field(runtime: Runtime) -> None:
    ids = await put(
        runtime,
        [{"language": "de", "first_name": "Bob", "last_name": "B"}, {"language": "de", "city": "Wien"}, {}],
    )
    rows: list[dict[str, Any]] = []
    await preview.lacking(runtime, "hello", "all", "city", rows.append)
    assert rows == [
        {"contact_id": ids[0], "email": "p0@example.com", "name": "Bob B", "records": {"crm": str(ids[0])}}
    ]  # the third gets it in a language that does not name the city
    with pytest.raises(HubError, match="message hello does not use the field 'cty'; did you mean 'city'"):
        await preview.lacking(runtime, "hello", "all", "cty", rows.append)
    with pytest.raises(HubError, match="there is no list 'al'; did you mean 'all'"):
        await preview.for_list(runtime, "hello", "al")


async def test_a_campaign_plan_shows_the_same(runtime: Runtime) -> None:
    async with runtime.db.transaction() as conn:
        await conn.execute("DELETE FROM list")
    await put(runtime, people(50, 9))
    plan = await campaigns.plan(runtime, "spring")
    alone = await preview.for_list(runtime, "hello", "all") if await _refreshed(runtime) else {}
    assert plan["coverage"] == {key: alone[key] for key in plan["coverage"]}
    assert plan["coverage"]["recipients"] == plan["recipients"] == 50


async def _refreshed(runtime: Runtime) -> bool:
    from hub import lists

    await lists.refresh_all(
        runtime.db, runtime.clock, runtime.settings.lists, runtime.catalog, runtime.pulled
    )
    return True
