"""Ten thousand hostile rules: each is refused with a place, or answered by PostgreSQL as written, in next to no time."""

from __future__ import annotations

import random
import re
import time

from hub.errors import RuleError
from hub.rules import Rule, parse, problems
from tests.rules.conftest import CATALOG, NOW, World

HOSTILE = 10_000
INJECTIONS = [
    "'; DROP TABLE contact; --", "' OR '1'='1", "') OR pg_sleep(10) IS NULL --", "%(p0)s", "%s", "$1", "{0}", "\\'", "\\",
    "'||pg_sleep(9)||'", "/*", "*/", "--", "$$", "$q$", "\x00", "\ud800", "\u202e", "’", "%", "''", ";", "NULL", "\n;\n",
]  # fmt: skip
BOMBS = ["(a+)+$", "%" * 50, "%a" * 200 + "b", "_%" * 100, "(" * 50, "[" * 50, "a{1,99999}", "\\" * 31]
NAMES = [
    "city", "score", "vip", "tags", "created_at", "birthday", "citi", "pg_class", "xmin", "c.email", "contact.*", "fields",
    "current_user", "\"city\"", "has_deal", "1", "-1", "1e999", "NULL", "true", "now()", "now() - interval '1 day'",
    "interval '99999999 days'", "(SELECT 1)", "array['a']", "'x'", "''", "date '2026-01-01'", "'infinity'::timestamptz",
]  # fmt: skip
CALLS = [
    "has_deal", "in_list", "in_segment", "opened", "clicked", "consented", "opted_out", "random_percent", "lower", "length",
    "days_since", "pg_sleep", "pg_read_file", "query_to_xml", "set_config", "lo_import", "version", "now", "coalesce", "dblink",
]  # fmt: skip
KEYS = [
    "stage",
    "name",
    "message",
    "within",
    "times",
    "percent",
    "condition",
    "connection",
    "purpose",
    "amount_over",
    "x",
]
SIGNS = [
    "=",
    "<>",
    "<",
    ">=",
    "LIKE",
    "ILIKE",
    "~",
    "~*",
    "SIMILAR TO",
    "IN",
    "IS",
    "IS NOT",
    "BETWEEN",
    "||",
    "@>",
    "::",
    "->>",
]
PLAUSIBLE = [
    "city = {}", "{} <> company", "nick LIKE {}", "nick NOT ILIKE {}", "tags IN ({}, 'a')", "lower(city) > {}", "has_deal({})",
    "has_deal(stage => {}, name => {})", "has_deal(owner = {} OR name LIKE {})", "NOT city IN ({}, {})",
    "city BETWEEN {} AND {}", "random_percent(50, seed => {})",
]  # fmt: skip
"""Well-formed, so that what is hostile reaches PostgreSQL as a value."""
TAILS = [
    "",
    "",
    "",
    ";",
    " --",
    " UNION SELECT 1",
    " ; DELETE FROM contact",
    ")",
    " LIMIT 1",
    " /* x",
    " FOR UPDATE",
    " OR true",
]


class Attacker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # the same rules in every run

    def text(self) -> str:
        chosen = self.random.choice([*INJECTIONS, *BOMBS, "Berlin", "trial", "berlin", "welcome", "2 days"])
        return self.random.choice(["'{}'", "'{}'", "{}", '"{}"']).format(chosen)

    def operand(self, depth: int) -> str:
        pick = self.random.random()
        if pick < 0.35:
            return self.random.choice(NAMES)
        if pick < 0.65 or depth <= 0:
            return self.text()
        return self.call(depth - 1)

    def call(self, depth: int) -> str:
        arguments = []
        for _ in range(self.random.randrange(3)):
            named = self.random.random() < 0.6
            value = self.operand(depth) if self.random.random() < 0.8 else self.condition(depth)
            arguments.append(f"{self.random.choice(KEYS)} => {value}" if named else value)
        return f"{self.random.choice(CALLS)}({', '.join(arguments)})"

    def condition(self, depth: int) -> str:
        pick = self.random.random()
        if pick > 0.85:
            quoted = iter(
                ["'" + self.random.choice(INJECTIONS + BOMBS).replace("'", "''") + "'" for _ in range(2)]
            )
            return re.sub(r"\{\}", lambda _: next(quoted), self.random.choice(PLAUSIBLE))
        if pick < 0.3 and depth > 0:
            return self.call(depth)
        if pick < 0.5 and depth > 0:
            word = self.random.choice([" AND ", " OR ", " AND NOT ", ", ", " = "])
            return f"({self.condition(depth - 1)}{word}{self.condition(depth - 1)})"
        sign = self.random.choice(SIGNS)
        right = self.operand(depth)
        if sign == "IN":
            right = f"({right}, {self.operand(depth)})"
        if sign == "BETWEEN":
            right = f"{right} AND {self.operand(depth)}"
        return f"{self.operand(depth)} {sign} {right}"

    def rule(self) -> str:
        rule = self.condition(self.random.randrange(4)) + self.random.choice(TAILS)
        if self.random.random() < 0.02:
            deep = self.random.randrange(25, 600)
            rule = self.random.choice(
                ["(" * deep + rule + ")" * deep, "NOT " * deep + rule, "(" * deep + rule]
            )
        if self.random.random() < 0.1:  # broken somewhere
            at = self.random.randrange(len(rule))
            rule = (
                rule[:at]
                + self.random.choice(["'", '"', "(", ")", ";", "\x00", "=>", "%(", ""])
                + rule[at + 1 :]
            )
        return rule


def written_by_us(rule: Rule) -> bool:
    """Whether the SQL holds nothing but words that the hub writes: every text and number of a rule is a parameter."""
    quoted = set(re.findall(r"'([^']*)'", rule.sql))
    ours = {
        "in", "out", "*", "", "live", "email", "number", "boolean", "null", "[]", "date", "timestamptz", "UTC", "x",
    }  # fmt: skip
    return quoted <= ours and ";" not in rule.sql and "--" not in rule.sql and "pg_sleep" not in rule.sql


def test_hostile_rules(world: World) -> None:
    attacker = Attacker(20261125)
    began, passed = time.perf_counter(), []
    for number in range(HOSTILE):
        text = attacker.rule()
        try:
            rule = parse(text, CATALOG)
        except RuleError as error:
            lines = text.split("\n")
            assert error.what, text
            assert 1 <= error.line <= len(lines), text
            assert 1 <= error.column <= len(lines[error.line - 1]) + 1, text
            if number % 50 == 0:
                assert str(problems(text, CATALOG)[0]) == str(error)
            continue
        assert written_by_us(rule), text
        passed.append(rule)
    assert time.perf_counter() - began < 120
    assert len(passed) > 300, "too few get through to say that the database is safe"
    with world.conn.transaction(force_rollback=True):
        world.conn.execute("SET LOCAL transaction_read_only = on; SET LOCAL statement_timeout = '2s'")
        for rule in passed:
            # Whatever passes is answered: no rule can make a list fail when it is refreshed.
            world.conn.execute(rule.select().encode(), rule.values(NOW)).fetchall()


def test_a_pattern_that_looks_like_a_bomb_is_none(world: World) -> None:
    """PostgreSQL's LIKE gives up as soon as the text is too short for what is left of the pattern."""
    rule = parse(f"company LIKE '{'%a' * 60}b' OR company LIKE '{'%a_' * 60}b'", CATALOG)
    with world.conn.transaction(force_rollback=True):
        world.conn.execute("SET LOCAL statement_timeout = '5s'")
        world.conn.execute("UPDATE contact SET company = repeat('a', 100000) WHERE first_name = 'ann'")
        assert world.conn.execute(rule.select().encode(), rule.values(NOW)).fetchall() == []
