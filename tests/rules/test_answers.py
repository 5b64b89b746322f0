"""What each operator and function answers, by a real PostgreSQL, for people with values, with others and with none."""

from __future__ import annotations

import itertools

import pytest

from hub.clock import ManualClock
from hub.rules import parse
from hub.store import ledger
from hub.store.database import Database
from tests.rules.conftest import CATALOG, NOW, World, ago

EVERYBODY = "ann bob cid dot"

ANSWERS: dict[str, str] = {
    # comparisons; a blank is equal to nothing and different from everything
    "city = 'Berlin'": "ann",
    "'Berlin' = city": "ann",
    "city <> 'Berlin'": "bob cid dot",
    "city != 'Berlin'": "bob cid dot",
    "NOT city = 'Berlin'": "bob cid dot",
    "NOT NOT city = 'Berlin'": "ann",
    "CITY = 'Berlin'": "ann",
    '"city" = \'Berlin\'': "ann",
    "company = 'bob''s'": "bob",
    "city > 'Berlin'": "bob",
    "city >= 'Berlin'": "ann bob",
    "city < 'Wien'": "ann dot",
    "city <= 'Wien'": "ann bob dot",
    "'Wien' > city": "ann dot",
    "score > 3.5": "ann",
    "score >= 3.5": "ann bob",
    "score < 10": "bob",
    "3.5 < score": "ann",
    "(10) = (score)": "ann",
    "score <> 10": "bob cid dot",
    "score > -1": "ann bob",
    "score < 1e999": "ann bob",
    "score = length(city)": "",
    "length(city) = 6": "ann",
    "first_name = email": "",
    # ranges and sets
    "score BETWEEN 3.5 AND 9": "bob",
    "score NOT BETWEEN 3.5 AND 9": "ann cid dot",
    "city IN ('Berlin', 'Wien')": "ann bob",
    "city IN ('Berlin', first_name)": "ann",
    "city NOT IN ('Berlin', 'Hamburg')": "bob cid dot",
    "NOT city IN ('Berlin')": "bob cid dot",
    "tier IN ('gold')": "ann",
    # patterns
    "city LIKE 'B%'": "ann",
    "city LIKE 'b%'": "",
    "city ILIKE 'b%'": "ann",
    "city LIKE '_ien'": "bob",
    "city NOT LIKE 'B%'": "bob cid dot",
    "city NOT ILIKE 'b%'": "bob cid dot",
    "NOT city LIKE 'B%'": "bob cid dot",
    "NOT city NOT LIKE 'B%'": "ann",
    "nick LIKE '100%'": "ann bob",
    r"nick LIKE '100\%%'": "ann",
    r"nick LIKE '100\%\_'": "ann",
    "company ILIKE 'ÄTNA%'": "ann",
    # blanks
    "city IS NULL": "cid dot",
    "city IS NOT NULL": "ann bob",
    "NOT city IS NULL": "ann bob",
    "city = ''": "dot",
    "score IS NULL": "cid dot",
    "score IS NOT NULL": "ann bob",
    "tier IS NULL": "cid dot",
    "nick IS NULL": "cid dot",
    "created_at IS NULL": "cid dot",
    "birthday IS NULL": "cid dot",
    "vip IS NULL": "cid dot",
    # companies: the main one by its fields, any of them by has_company
    "company.industry = 'software'": "ann",
    "Company.Industry = 'retail'": "bob",
    "company.industry <> 'software'": "bob cid dot",
    "company.industry IN ('software', 'retail')": "ann bob",
    "company.name ILIKE 'ätna%'": "ann",
    "company.employees > 100": "ann",
    "company.employees BETWEEN 1 AND 250": "ann",
    "company.employees IS NULL": "bob cid dot",
    "company.name IS NOT NULL": "ann bob",
    "company.tier = 'gold'": "ann bob",
    "company.created_at > now() - INTERVAL '30 days'": "ann",
    "days_since(company.created_at) > 30": "bob",
    "lower(company.name) = 'bob & co'": "bob",
    "company.name = company": "ann",
    "has_company(industry => 'software')": "ann bob",
    "has_company('Bob & Co')": "bob",
    "has_company(role => 'owner')": "bob",
    "has_company(industry = 'software' AND role = 'Adviser')": "bob",
    "has_company(industry = 'retail' AND role = 'Adviser')": "",
    "has_company(employees_over => 100)": "ann bob",
    "has_company(tier = 'gold' AND created_at < now() - INTERVAL '30 days')": "bob",
    "NOT has_company()": "cid dot",
    # true and false
    "vip": "ann",
    "NOT vip": "bob cid dot",
    "vip = true": "ann",
    "true = vip": "ann",
    "vip = false": "bob",
    "vip <> true": "bob cid dot",
    "vip IS TRUE": "ann",
    "vip IS NOT TRUE": "bob cid dot",
    "vip IS FALSE": "bob",
    "vip IS NOT FALSE": "ann cid dot",
    "true": EVERYBODY,
    "false": "",
    # several texts
    "tags = 'a'": "ann",
    "'b' = tags": "ann bob",
    "tags = 'ab'": "",
    "tags <> 'a'": "bob cid dot",
    "tags IN ('a', 'z')": "ann",
    "tags NOT IN ('a')": "bob cid dot",
    "tags IS NULL": "cid dot",
    "tags IS NOT NULL": "ann bob",
    # times: a date is midnight in UTC
    "created_at > '2026-11-01'": "ann",
    "created_at < DATE '2026-11-01'": "bob",
    "DATE '2026-11-01' < created_at": "ann",
    "created_at = '2026-11-14T09:00:00Z'": "ann",
    "created_at = '2026-11-14T10:00:00+01:00'": "ann",
    "birthday = '1990-05-01'": "ann",
    "birthday < '1990-05-02'": "ann",
    "birthday < '1990-05-01'": "",
    "birthday BETWEEN '1990-01-01' AND '2000-01-01'": "ann bob",
    "seen_at >= '2026-11-23T09:00:00'": "ann",
    "seen_at > created_at": "ann",
    "days_since(created_at) = 10": "ann",
    "days_since(created_at) > 10": "bob",
    "days_since(seen_at) <= 1": "ann",
    "days_since(birthday) > 12000": "ann",
    "NOT days_since(created_at) > 10": "ann cid dot",
    # functions of texts
    "lower(city) = 'berlin'": "ann",
    "upper(city) = 'WIEN'": "bob",
    "lower(company) = 'ätna ag'": "ann",
    "upper(company) LIKE 'ÄTNA%'": "ann",
    "length(city) > 4": "ann",
    "length(lower(city)) BETWEEN 1 AND 4": "bob",
    # together
    "city = 'Berlin' AND score > 5": "ann",
    "city = 'Berlin' AND score > 50": "",
    "city = 'Berlin' OR score < 5": "ann bob",
    "city = 'Berlin' OR city = 'Wien' AND score > 5": "ann",
    "(city = 'Berlin' OR city = 'Wien') AND score < 5": "bob",
    "NOT (city = 'Berlin' AND score = 10)": "bob cid dot",
    "NOT (city = 'Berlin' OR score = 3.5)": "cid dot",
    "NOT (city = 'Berlin' AND NOT score > 5)": EVERYBODY,
    # deals: live ones only; a stage's case does not matter, in any language
    "has_deal()": "ann bob",
    "has_deal('trial')": "ann",
    "has_deal(stage => 'TRIAL')": "ann",
    "HAS_DEAL(stage := 'trial')": "ann",
    "has_deal('übergabe')": "bob",
    "NOT has_deal('trial')": "bob cid dot",
    "has_deal('trial', amount_over => 500)": "",
    "has_deal('trial', amount_over => 499.5)": "ann",
    "has_deal(amount_under => 9000)": "ann",
    "has_deal(amount_over => 100, amount_under => 400)": "",
    "has_deal(pipeline => 'Sales', name => 'big', owner => '77', currency => 'eur')": "ann bob",
    "has_deal(pipeline => 'support')": "",
    "has_deal('won', within => '49 days')": "",
    "has_deal('won', within => '51 days')": "ann",
    "has_deal('trial') AND has_deal('won')": "ann",
    # segments and lists
    "in_segment('Partners')": "ann cid",
    "in_segment('Partners', connection => 'crm')": "ann",
    "in_segment(name => 'Leads', connection => 'other')": "",
    "NOT in_segment('Partners')": "bob dot",
    "in_list('berlin')": "ann",
    "NOT in_list(name => 'berlin')": "bob cid dot",
    # mails
    "received()": "ann bob cid",
    "received('welcome')": "ann cid",
    "NOT received('welcome')": "bob dot",
    "opened('welcome')": "ann",
    "opened()": "ann bob",
    "opened(within => '2 days')": "ann",
    "opened(within => '1 day')": "",  # exactly a day ago is no longer within a day
    "opened(message => 'reminder', within => '6 weeks')": "bob",
    "clicked()": "bob",
    "clicked('welcome')": "",
    "bounced('welcome')": "cid",
    "unsubscribed()": "ann",
    # consent: after an opt-out only a later opt-in with a proof stands; * is every purpose
    "consented('news')": "ann cid",
    "consented('offers')": "cid",
    "opted_out()": "bob",
    "opted_out('news')": "bob",
    "opted_out(purpose => 'offers')": "bob dot",
    "NOT opted_out('offers')": "ann cid",
    # a comment is nothing
    "city = 'Berlin' -- OR true": "ann",
    "city = /* 'Wien' OR city = */ 'Berlin'": "ann",
}  # fmt: skip


@pytest.mark.parametrize("rule", ANSWERS)
def test_who_it_is_true_for(world: World, rule: str) -> None:
    assert world.ask(rule) == set(ANSWERS[rule].split())


def test_a_long_chain_is_not_deep(world: World) -> None:
    chain = " OR ".join(f"city = 'City {n}'" for n in range(400))
    assert world.ask(f"{chain} OR city = 'Wien'") == {"bob"}
    assert world.ask(" AND ".join(["city = 'Wien'"] * 500)) == {"bob"}


def test_only_those_who_are_asked_about(world: World) -> None:
    rule = parse("city IN ('Berlin', 'Wien')", CATALOG)
    among = [world.ids[name] for name in ("bob", "cid", "eve")]
    found = world.conn.execute(
        rule.select(only_contacts=True).encode(), rule.values(NOW, contacts=among)
    ).fetchall()
    assert found == [(world.ids["bob"],)]


def test_what_a_rule_uses() -> None:
    rule = parse(
        "in_list('berlin') AND NOT opened('welcome') AND in_segment('Leads') AND Score > 1 AND lower(city) = 'x'",
        CATALOG,
    )
    assert (rule.lists, rule.messages, rule.segments) == ({"berlin"}, {"welcome"}, {"Leads"})
    assert rule.fields == {"score", "city"}
    assert not rule.relative
    assert parse("days_since(created_at) > 1", CATALOG).relative
    assert parse("NOT opened(within => '1 day')", CATALOG).relative


def test_its_conditions_for_why() -> None:
    rule = parse("country = 'DE' AND (NOT has_deal(stage => 'trial') OR lower(city)  LIKE 'b%')", CATALOG)
    assert [c.text for c in rule.conditions] == [
        "country = 'DE'",
        "has_deal(stage => 'trial')",
        "lower(city) LIKE 'b%'",
    ]


async def test_consent_is_what_the_send_ledger_makes_of_it(database: Database, clock: ManualClock) -> None:
    """Every pair of statements: who may be sent to by the rules is exactly who the ledger lets be sent to."""
    said = [
        (purpose, status, ago(days), proof)
        for purpose, status, days, proof in itertools.product(
            ("news", "*"), ("in", "out"), (1, 2), ("", "form")
        )
    ]
    stories = [(), *((one,) for one in said), *itertools.product(said, said)]
    async with database.transaction() as conn:
        for number, story in enumerate(stories, 1):
            address = f"p{number}@example.com"
            await conn.execute(
                "INSERT INTO contact (id, email, changed_at) VALUES (%s, %s, %s)", [number, address, NOW]
            )
            for source, (purpose, status, at, proof) in enumerate(story):
                await conn.execute(
                    """INSERT INTO consent (email_hash, purpose, status, source, at, proof)
                       VALUES (address_hash(%s), %s, %s, %s, %s, %s)""",
                    [address, purpose, status, str(source), at, proof],
                )

    async def true(text: str) -> set[int]:
        rule = parse(text, CATALOG)
        async with database.connection() as conn:
            found = await (await conn.execute(rule.select().encode(), rule.values(NOW))).fetchall()
        return {number for (number,) in found}

    async def sent(*, opt_in: bool) -> set[int]:
        async with database.transaction() as conn:
            await conn.execute("TRUNCATE delivery CASCADE")
            await conn.execute(
                """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at)
                   SELECT 'welcome', id, 'x', 'news', %s FROM contact""",
                [NOW],
            )
            claimed = await ledger.claim(conn, {"news": opt_in}, worker="w", limit=1000, now=NOW)
        return {int(row.email.split("@")[0][1:]) for row in claimed}

    everybody = set(range(1, len(stories) + 1))
    opted_out, consented = await true("opted_out('news')"), await true("consented('news')")
    assert 0 < len(consented) < len(opted_out) < len(everybody) - 1
    assert await sent(opt_in=False) == everybody - opted_out
    assert await sent(opt_in=True) == consented - opted_out
    assert not consented & opted_out
