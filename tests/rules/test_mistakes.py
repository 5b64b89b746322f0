"""Every kind of mistake in a rule: told with line and column, and what to do; and nothing unknown ever gets through."""

from __future__ import annotations

import time

import psycopg
import pytest

from hub.errors import RuleError
from hub.rules import Catalog, parse, problems
from tests.rules.conftest import CATALOG, NOW, World

MISTAKES: dict[str, list[str]] = {
    # names
    "citi = 'x'": ["1:1: unknown field 'citi'; did you mean 'city'?"],
    "city = 'x' AND\n  scor > 5": ["2:3: unknown field 'scor'; did you mean 'score'?"],
    "city = 'x'\n  AND\n\thas_deal(stge => 'won')": [
        "3:11: has_deal has no argument 'stge'; did you mean 'stage'?"
    ],
    "city = 'x' AND foo()": ["1:16: unknown function 'foo'; known are bounced, "],
    "hasdeal('won')": ["1:1: unknown function 'hasdeal'; did you mean 'has_deal'?"],
    "has_deal": ["1:1: unknown field 'has_deal'; has_deal is a function: write has_deal(...)"],
    "in_list('berlni')": ["1:9: unknown list 'berlni'; did you mean 'berlin'?"],
    "opened(by => 'persons')": ["1:14: by cannot be 'persons'; did you mean 'person'?"],
    "received(by => 'anybody')": ["1:10: received has no argument 'by'"],
    "NOT opened('welcom')": ["1:12: unknown message 'welcom'; did you mean 'welcome'?"],
    "consented('newz')": ["1:11: unknown purpose 'newz'; did you mean 'news'?"],
    "in_segment('Partner')": ["1:12: unknown segment 'Partner'; did you mean 'Partners'?"],
    '"CITY" = \'x\'': ["1:1: unknown field 'CITY'; known are "],
    "company.industri = 'x'": ["1:1: unknown field 'industri' of a company; did you mean 'industry'?"],
    "has_company(industri = 'x')": ["1:13: unknown field 'industri' of a company; did you mean 'industry'?"],
    "has_company(rol => 'x')": ["1:13: has_company has no argument 'rol'; did you mean 'role'?"],
    "firm.industry = 'x'": ["1:1: fields have no table in front: firm.industry; write industry", "1:1: unknown field 'industry'"],
    "has_company(company.name = 'x')": ["1:13: fields have no table in front: company.name; write name"],
    "company.employees = 'many'": ["1:21: a number is compared with 'many'; write a number, e.g. 42"],
    "company.name": ["1:1: name is a text, not true or false; compare it, e.g. name = ..."],
    "has_company(has_deal('won') AND name = 'x')": ["1:13: has_deal asks about a contact, not about a company"],
    # types
    "city = 5": ["1:8: a text is compared with 5; write a text, e.g. 'text'"],
    "score = 'x'": ["1:9: a number is compared with 'x'; write a number, e.g. 42"],
    "score > 1 AND score > true": ["1:15: a number is compared with TRUE; write a number, e.g. 42"],
    "vip = 'true'": ["1:7: a boolean is compared with 'true'; write a boolean, e.g. true"],
    "created_at > 'yesterday'": ["1:14: a time is compared with 'yesterday'; write a time, e.g. '2026-11-24'"],
    "birthday = '24.11.2026'": ["1:12: a date is compared with '24.11.2026'; write a date, e.g. '2026-11-24'"],
    "email = score": ["1:9: a text is compared with a number; compare values of one kind"],
    "city": ["1:1: city is a text, not true or false; compare it, e.g. city = ..."],
    "lower(score) = 'x'": ["1:7: lower needs a text field, this is a number"],
    "days_since(city) > 3": ["1:12: days_since needs a time field, this is a text"],
    "score LIKE '5%'": ["1:1: LIKE needs a text, this is a number; compare it with = or <"],
    "city IS TRUE": ["1:1: city is a text, not true or false; compare it, e.g. city = ..."],
    "score BETWEEN 1 AND 'x'": ["1:21: a number is compared with 'x'; write a number, e.g. 42"],
    "city IN ('a', 5)": ["1:15: a text is compared with 5; write a text, e.g. 'text'"],
    # several texts
    "tags > 'a'": ["1:1: tags holds several texts; ask tags = 'text', which is true when one of them is it"],
    "tags BETWEEN 'a' AND 'b'": ["1:1: tags holds several texts; ask tags = 'text'"],
    "tags LIKE 'a%'": ["1:1: LIKE needs a text, this is a list"],
    "tags = 5": ["1:8: a text is compared with 5"],
    "city = tags": ["1:8: a text is compared with a list"],
    # NULL
    "city = NULL": ["1:1: nothing is equal to NULL; ask for blanks by IS NULL or IS NOT NULL"],
    "score > 1 AND city IN ('x', NULL)": ["1:15: nothing is equal to NULL; ask for blanks by IS NULL or IS NOT NULL"],
    # patterns
    "city LIKE first_name": ["1:11: LIKE needs a pattern in single quotes; write for example LIKE 'A%'"],
    "city LIKE 'a\\'": ["1:11: the pattern ends with a backslash that escapes nothing; write \\\\ for one"],
    "city LIKE 'a%' ESCAPE '!'": ["1:1: a rule cannot hold \"city LIKE 'a%' ESCAPE '!'\""],
    # arguments
    "in_list()": ["1:1: in_list needs name; write in_list(name => '...')"],
    "consented()": ["1:1: consented needs purpose; write consented(purpose => '...')"],
    "opened('welcome', '3 days')": ["1:19: opened takes named arguments after the first; write name => '3 days'"],
    "has_deal('a', stage => 'b')": ["1:15: stage is given twice; say it once"],
    "has_deal(5)": ["1:10: stage must be a text in single quotes; write stage => '...'"],
    "has_deal(won)": ["1:10: stage must be a text in single quotes; write stage => '...'"],
    "has_deal(amount_over => '5')": ["1:25: amount_over must be a number; write amount_over => 1000"],
    "opened(within => '3 dayz')": ["1:18: '3 dayz' is no duration; write for example 90s, 5m, 2 hours, 3 days or 1 week"],
    "opened(within => '99999999999999 days')": ["1:18: '99999999999999 days' is longer than 100 years"],
    "opened(within => '101 years')": ["1:18: '101 years' is no duration"],
    "lower(city, 'x') = 'y'": ["1:16: not understood: the number of provided arguments (2)"],
    "days_since(created_at, seen_at) > 1": ["1:1: days_since takes one field; write days_since(field)"],
    # what does not parse
    "": ["1:1: the rule is empty; write for example country = 'DE'"],
    "  \n ": ["1:1: the rule is empty"],
    "city =": ["1:6: not understood: something is missing after this; mend the rule here"],
    "city = 'x' AND": ["1:12: not understood: something is missing after this"],
    "city = 'x' AND\n  vip = true AND\n score >": ["3:8: not understood: something is missing after this"],
    "city = 'x' garbage 5": ["1:20: not understood: invalid expression"],
    "country = 'DE' AND country = 'AT' AND country = 'CH' AND country = 'FR' AND country = 'IT' AND country = 'ES' AND (":
        ["1:115: not understood: "],
    "country = 'DE' AND country = 'AT' AND country = 'CH' AND country = 'FR' AND country = 'IT' AND country = 'ES' 5":
        ["1:111: not understood: invalid expression"],
    "(city = 'x'": ["1:9: not understood: expecting )"],
    "city = 'x')": ["1:11: not understood: invalid expression"],
    "city = 'abc": ["1:8: not understood: the ' is not closed; close it"],
    "city = 'it''s' AND\ncity = \"abc": ["2:8: not understood: the \" is not closed; close it"],
    "city = 'a' /* AND vip": ["1:12: not understood: the /* is not closed; close it"],
    "city = $q$abc": ["1:8: not understood: the $q$ is not closed; close it"],
    "city = 'a\x00'": ["1:10: the rule holds a character that no text may hold; take it out"],
    "city = '\ud800'": ["1:9: the rule holds a character that no text may hold; take it out"],
    # several at once, in reading order
    "scor > 5 AND foo('x')\nOR city = 5": [
        "1:1: unknown field 'scor'; did you mean 'score'?",
        "1:14: unknown function 'foo'",
        "2:11: a text is compared with 5",
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", MISTAKES)
def test_a_mistake(rule: str) -> None:
    told = [str(error) for error in problems(rule, CATALOG)]
    for said, expected in zip(told, MISTAKES[rule], strict=True):
        assert said.startswith(f"rule {expected}")
    with pytest.raises(RuleError) as raised:
        parse(rule, CATALOG)
    assert str(raised.value) == told[0]


REFUSED = [
    # more than one statement, or another one
    "city = 'x'; DROP TABLE contact",
    "; DROP TABLE contact",
    "city = 'x';; TRUNCATE contact",
    "DROP TABLE contact",
    "SELECT 1",
    "DELETE FROM contact",
    "COPY contact TO PROGRAM 'sh'",
    "SET ROLE postgres",
    "DO $$ BEGIN END $$",
    "-- nothing",
    "/* nothing */",
    # out of the condition
    "city = 'x' UNION SELECT 1",
    "city = 'x') OR (1=1",
    "city = 'x' LIMIT 1",
    "city = 'x' ORDER BY pg_sleep(9)",
    "city = 'x' FOR UPDATE",
    "city = 'x' AS y",
    "city = 'x', city = 'y'",
    "true, pg_sleep(9)",
    "*",
    # sub-selects
    "city = (SELECT 'x')",
    "city IN (SELECT email FROM contact)",
    "city IN (TABLE contact)",
    "city = ANY(SELECT 'x')",
    "EXISTS (SELECT FROM contact)",
    "has_deal(stage => (SELECT 'x'))",
    "(SELECT true)",
    "true IN (VALUES (true))",
    "(WITH x AS (SELECT true) SELECT * FROM x)",
    # other people's functions
    "pg_sleep(10) IS NULL",
    "length(pg_sleep(10)) = 1",
    "city = pg_sleep(10)::text",
    "city = pg_read_file('/etc/passwd')",
    "city = current_user",
    "city = current_setting('x')",
    "version() LIKE '%'",
    "query_to_xml('SELECT 1', true, true, '') IS NULL",
    "dblink('x', 'y') IS NULL",
    "pg_catalog.has_deal('x')",
    "public.has_deal('x')",
    "lower.city('x')",
    "coalesce(city, 'x') = 'x'",
    "created_at > current_timestamp(3)",
    "created_at > now() - interval '1 day' * 2",
    "created_at > now() + created_at",
    "created_at > now() - interval '1 day' - interval '1 day'",
    "now() > now()",
    "created_at + interval '1 day' > now()",
    "created_at > clock_timestamp()",
    "has_deal(stage = (SELECT 'x'))",
    "has_deal(EXISTS (SELECT FROM contact))",
    "has_deal(in_list('berlin') AND stage = 'x')",
    "has_deal(condition => stage = 'x')",
    "random_percent(pg_sleep(9))",
    "created_at > CURRENT_DATE - interval '1 day'",
    # functions of sets and windows
    "generate_series(1, 1000000000) = 1",
    "unnest(tags) = 'x'",
    "city IN (unnest(tags))",
    "jsonb_each(fields) IS NULL",
    "count(*) > 1",
    "has_deal('x') OVER ()",
    "has_deal('x') FILTER (WHERE true)",
    "has_deal('x' ORDER BY 1)",
    "has_deal(DISTINCT 'x')",
    "has_deal(VARIADIC 'x')",
    "has_deal(*)",
    # casts, operators and expressions
    "city::int = 5",
    "CAST(city AS int) = 5",
    "first_name = '5'::int",
    "city = 'contact'::regclass",
    "score + 1 = 2",
    "score % 2 = 1",
    "city || 'x' = 'y'",
    "city ~ '(a+)+$'",
    "city SIMILAR TO 'x'",
    "city = ANY(ARRAY['x'])",
    "city = ALL('{x}')",
    "city LIKE ANY ('{x}')",
    "city = ARRAY['x']",
    "(city, country) = ('a', 'b')",
    "ROW(city) = ROW('a')",
    "CASE WHEN true THEN true END",
    "city COLLATE \"C\" = 'x'",
    "city AT TIME ZONE 'x' = 'y'",
    "city = 'x' = true",
    "score BETWEEN SYMMETRIC 5 AND 1",
    "length(city, 'utf8') = 1",
    "city IS DISTINCT FROM 'x'",
    "fields ->> 'x' = 'y'",
    "city[1] = 'x'",
    "- score = 1",
    # columns that are not fields
    "c.email = 'x'",
    "public.contact.email = 'x'",
    "d.stage = 'x'",
    "contact.* IS NULL",
    "xmin = 'x'",
    "ctid IS NULL",
    "fields IS NULL",
    "state = 'live'",
    "merged_into IS NULL",
    # other ways to write texts, and parameters
    "city = $$x$$",
    "city = $q$x$q$",
    "city = E'\\x41'",
    "city = U&'x'",
    "city = N'x'",
    "city = X'41'",
    "city = B'01'",
    "city = :x",
    "city = $1",
    "city = ?",
    "city = %s",
    "city = %(p0)s",
    "city = %(now)s",
    "city = @x",
    "city = {{ x }}",
    # ends of time
    "created_at > 'infinity'",
    "created_at > 'now'",
    "created_at > '99999-01-01'",
]  # fmt: skip


@pytest.mark.parametrize("rule", REFUSED)
def test_what_is_not_of_the_language_is_refused(rule: str) -> None:
    found = problems(rule, CATALOG)
    assert found
    assert all(error.what for error in found)
    lines = rule.split("\n")
    assert all(1 <= e.line <= len(lines) and 1 <= e.column <= len(lines[e.line - 1]) + 1 for e in found)


@pytest.mark.parametrize(
    "rule",
    [
        "(" * 31 + "city = 'x'" + ")" * 31,
        "NOT " * 31 + "vip",
        "(city = 'x' OR (vip AND " * 11 + "vip" + "))" * 11,
        "(" * 5_000,
        "NOT " * 2_400 + "vip",
        "lower(" * 1_000 + "city" + ")" * 1_000 + " = 'x'",
        "city IN (" * 1_000,
        "[" * 9_000,
        "- " * 4_000 + "1 = score",
    ],
)
def test_deep_nesting_is_refused_at_once(rule: str) -> None:
    began = time.perf_counter()
    (error,) = problems(rule, CATALOG)[:1]
    assert time.perf_counter() - began < 2
    assert error.fix


def test_nesting_that_is_not_too_deep() -> None:
    assert problems("(" * 29 + "city = 'x'" + ")" * 29, CATALOG) == []
    assert str(problems("(" * 31 + "vip" + ")" * 31, CATALOG)[0]).endswith(
        "the rule is nested too deeply; split it into several lists"
    )
    assert problems("(" * 400 + "vip" + ")" * 400, CATALOG)[0].what == "the rule is nested too deeply"


def test_a_rule_of_100_kb_is_refused_unread() -> None:
    began = time.perf_counter()
    (error,) = problems("city = '" + "x" * 100_000 + "'", CATALOG)
    assert time.perf_counter() - began < 0.1
    assert error.what == "the rule is longer than 10000 characters"


@pytest.mark.parametrize(
    "value",
    [
        "'; DROP TABLE contact; --",
        "%(now)s",
        "%s %",
        "{}",
        "\\",
        "\\'",
        "$1",
        ":x",
        "/* */",
        "a\nb\tc",
        "'' OR 1=1",
        "\U0001f600",
    ],
)
def test_a_value_stays_a_value(world: World, value: str) -> None:
    quoted = value.replace("'", "''")
    rule = parse(f"city = '{quoted}' OR has_deal('{quoted}') OR tags = '{quoted}'", CATALOG)
    assert value in rule.params.values()
    assert value not in rule.sql
    with world.conn.transaction(force_rollback=True):
        world.conn.execute("UPDATE contact SET city = %s WHERE first_name = 'cid'", [value])
        assert world.ask(rule.text) == {"cid"}
    assert world.ask("true") == {"ann", "bob", "cid", "dot"}


def test_a_number_that_no_column_can_hold(world: World) -> None:
    for number in ("1e999", "9" * 3_000, "1" + "0" * 300 + ".5"):
        assert world.ask(f"score > -{number} AND NOT score > {number}") == {"ann", "bob"}
        assert world.ask(f"has_deal(amount_over => {number}) AND false") == set()


def test_where_segments_are_not_known_any_name_passes() -> None:
    assert problems("in_segment('Anything')", Catalog()) == []


def test_the_words_of_an_error_hold_no_sql() -> None:
    """Refusals quote the rule's own text, never what was made of it."""
    for rule in REFUSED:
        for error in problems(rule, CATALOG):
            assert "%(p" not in error.what or "%(p" in rule


def test_the_database_takes_every_rule_that_is_let_through(world: World) -> None:
    """Combinations of parts, most of them wrong: whatever passes the check runs."""
    parts = [
        "city",
        "score",
        "vip",
        "tags",
        "birthday",
        "length(city)",
        "'x'",
        "5",
        "true",
        "NULL",
        "'2026-01-01'",
    ]
    forms = ["{0} = {1}", "{0} < {1}", "{0} <> {1}", "{0} IN ({1}, {1})", "{0} BETWEEN {1} AND {1}", "{0} LIKE {1}", "NOT {0}",
             "{0} IS NULL", "{0} IS {1}", "{0} AND {1}", "has_deal({0})", "opened(within => {1})", "{0}"]  # fmt: skip
    passed = 0
    for form in forms:
        for left in parts:
            for right in parts:
                rule = form.format(left, right)
                if problems(rule, CATALOG):
                    continue
                made = parse(rule, CATALOG)
                try:
                    world.conn.execute(made.select().encode(), made.values(NOW))
                except psycopg.Error as error:
                    pytest.fail(f"{rule}: {error}")
                passed += 1
    assert passed > 150
