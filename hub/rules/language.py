"""Rules: SQL conditions about a contact, parsed by sqlglot, checked against the catalog, written anew as PostgreSQL.

Only what the writer below knows is let through; names become known columns, values become parameters. Nothing
that a person wrote reaches the database as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hub.errors import RuleError
from hub.model import FieldType, HubField
from hub.rules.catalog import Catalog
from hub.rules.functions import COMPANIES, DEALS, FUNCTIONS, MAIN_COMPANY, SCALARS, Function
from hub.rules.operands import TEXTUAL, Leaf, Operands, Scope
from hub.rules.reading import nearest, words_of
from hub.rules.rule import LINKS, Condition, Flip, Rule, Shape
from hub.rules.values import Written, literal

if TYPE_CHECKING:
    from sqlglot import exp

MAX_DEPTH = 30
"""Deeper nesting is refused before the parser's own recursion ends it. A chain of ANDs or ORs is one level."""
TURNED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
FARTHEST_DAYS = 600_000
"""A moment plus or minus so many days is still one that Python and PostgreSQL can hold."""
KEPT = 1_000
"""Rules that a catalog remembers as parsed."""


def parse(text: str, catalog: Catalog) -> Rule:
    """A rule, or the first of its mistakes as `RuleError` (line and column within the text, from 1)."""
    known: Rule | None = catalog.parsed.get(text)
    if known is not None:
        return known
    writer = _Writer(text, catalog)
    rule = writer.rule()
    if writer.errors:
        raise writer.mistakes()[0]
    if len(catalog.parsed) >= KEPT:
        catalog.parsed.clear()
    catalog.parsed[text] = rule
    return rule


def problems(text: str, catalog: Catalog) -> list[RuleError]:
    """Every mistake in a rule, in reading order."""
    try:
        writer = _Writer(text, catalog)
        writer.rule()
    except RuleError as error:
        return [error]
    return writer.mistakes()


class _Writer(Operands):
    """Walks one parsed rule and writes its SQL."""

    def rule(self) -> Rule:
        sql, shape = self._truth(self.tree, 0)
        if self.reads & LINKS:
            self.reads.add("identity")
        return Rule(
            text=self.text,
            sql=sql,
            params=self.value.named,
            lists=frozenset(self.used["list"]),
            messages=frozenset(self.used["message"]),
            segments=frozenset(self.used["segment"]),
            fields=frozenset(self.used["field"]),
            reads=frozenset(self.reads),
            flips=tuple(self.flips),
            moving=tuple(self.moving),
            conditions=tuple(self.conditions),
            shape=shape,
        )

    # --- what is true or false ---------------------------------------------------------------------------

    def _truth(self, node: exp.Expr, depth: int) -> tuple[str, Shape]:
        from sqlglot import exp

        if depth > MAX_DEPTH:
            raise RuleError(
                "the rule is nested too deeply", "split it into several lists", *self._place(node)
            )
        if isinstance(node, exp.Paren):
            sql, shape = self._truth(node.this, depth + 1)
            return f"({sql})", shape
        if isinstance(node, (exp.And, exp.Or)):
            word = "AND" if isinstance(node, exp.And) else "OR"
            parts = [self._truth(each, depth + 1) for each in node.flatten(unnest=False)]
            return f"({f' {word} '.join(sql for sql, _ in parts)})", Shape(
                word.lower(), tuple(s for _, s in parts)
            )
        if isinstance(node, exp.Not):
            # A blank is neither true nor false in SQL; people mean "not so", so NOT of a blank is true.
            sql, shape = self._truth(node.this, depth + 1)
            # A function is never unknown, and PostgreSQL joins a bare NOT EXISTS.
            known = isinstance(node.this, exp.Anonymous)
            return f"NOT {sql}" if known else f"NOT coalesce({sql}, false)", Shape("not", (shape,))
        return self._condition(node, depth)

    def _condition(self, node: exp.Expr, depth: int) -> tuple[str, Shape]:
        if self.scope.row != "c":  # a part of the condition on deals that holds it
            return self._leaf(node, depth), Shape("is")
        self.leaf = leaf = Leaf()
        sql = self._leaf(node, depth)
        if leaf.moving:
            self.moving.append(sql)
        found = Condition(words_of(self.text, node), sql, leaf.function, leaf.given, tuple(leaf.fields))
        self.conditions.append(found)
        return sql, Shape("is", number=len(self.conditions) - 1)

    def _leaf(self, node: exp.Expr, depth: int) -> str:
        from sqlglot import exp

        signs: dict[type, str] = {
            exp.EQ: "=",
            exp.NEQ: "<>",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.LT: "<",
            exp.LTE: "<=",
        }
        if self._holds_more(node):
            return self._refused(node)
        if type(node) in signs:
            return self._comparison(node, signs[type(node)])
        if isinstance(node, (exp.Like, exp.ILike)):
            return self._like(node)
        if isinstance(node, exp.In):
            return self._in(node)
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.Is):
            return self._is(node)
        if isinstance(node, exp.Boolean):
            return "true" if node.this else "false"
        if isinstance(node, exp.Column):
            found = self._scalar(node)
            if found.type not in (FieldType.BOOLEAN, None):
                self._wrong(
                    node,
                    f"{node.name} is a {found.type}, not true or false",
                    f"compare it, e.g. {node.name} = ...",
                )
            return f"coalesce({found.sql}, false)"
        if isinstance(node, exp.Anonymous):
            return self._function(node, depth)
        return self._refused(node)

    def _comparison(self, node: exp.Expr, sign: str) -> str:
        from sqlglot import exp

        def is_value(part: exp.Expr) -> bool:
            part = part.unnest()
            return (
                isinstance(part, (exp.Literal, exp.Neg, exp.Boolean))
                or (isinstance(part, exp.Cast) and isinstance(part.this, exp.Literal))
                or isinstance(part, (exp.CurrentTimestamp, exp.Add, exp.Sub))
            )

        left, right = node.this, node.expression
        if is_value(left) and not is_value(right):
            left, right = right, left
            sign = TURNED.get(sign, sign)
        asked = self._scalar(left)
        if asked.type is FieldType.LIST:
            if sign not in ("=", "<>"):
                return self._not_of_a_list(left)
            return f"{'NOT ' if sign == '<>' else ''}{self._list_holds(asked.sql, [right])}"
        other = self._of_type(right, asked.type)
        self._turns(asked, other)
        if sign == "<>":  # a blank differs from every value
            return f"{asked.sql} IS DISTINCT FROM {other.sql}"
        return f"{asked.sql} {sign} {other.sql}"

    def _between(self, node: exp.Expr) -> str:
        asked = self._scalar(node.this)
        if asked.type is FieldType.LIST:
            return self._not_of_a_list(node.this)
        low, high = (self._of_type(node.args[key], asked.type) for key in ("low", "high"))
        self._turns(asked, low)
        self._turns(asked, high)
        return f"{asked.sql} BETWEEN {low.sql} AND {high.sql}"

    def _turns(self, one: Written, other: Written) -> None:
        """Note when a comparison of the two may turn by time alone."""
        if not (one.clocked or other.clocked) or (one.since and other.since):
            return  # the difference of two spans that grow alike stays
        if one.column and other.offset is not None:
            self._flip(one, one.sql, -other.offset)
        elif one.since and isinstance(other.literal, (int, float)) and abs(other.literal) <= FARTHEST_DAYS:
            self._flip(one, one.since, timedelta(days=other.literal))
        else:
            self.leaf.moving = True

    def _flip(self, one: Written, moment: str, after: timedelta) -> None:
        if one.company:
            flip = Flip(MAIN_COMPANY, "k.contact_id", one.company, after)
        else:
            flip = Flip(self.scope.source, self.scope.contact, moment, after)
        self.flips[flip] = None

    def _like(self, node: exp.Expr) -> str:
        from sqlglot import exp

        asked = self._scalar(node.this)
        if asked.type not in (*TEXTUAL, None):
            self._wrong(node.this, f"LIKE needs a text, this is a {asked.type}", "compare it with = or <")
        pattern = literal(node.expression)
        if not isinstance(pattern, str):
            self._wrong(
                node.expression, "LIKE needs a pattern in single quotes", "write for example LIKE 'A%'"
            )
            return "false"
        if (
            len(pattern) - len(pattern.rstrip("\\"))
        ) % 2:  # PostgreSQL would fail on it, and the whole list with it
            self._wrong(
                node.expression,
                "the pattern ends with a backslash that escapes nothing",
                "write \\\\ for one",
            )
            return "false"
        word = "ILIKE" if isinstance(node, exp.ILike) else "LIKE"
        held = f"{asked.sql} {word} {self.value(pattern)}::text"
        return f"NOT coalesce({held}, false)" if node.args.get("negate") else held

    def _in(self, node: exp.Expr) -> str:
        if not node.expressions:
            return self._refused(node)
        asked = self._scalar(node.this)
        if asked.type is FieldType.LIST:
            return self._list_holds(asked.sql, node.expressions)
        others = [self._of_type(each, asked.type) for each in node.expressions]
        for other in others:
            self._turns(asked, other)
        return f"{asked.sql} IN ({', '.join(other.sql for other in others)})"

    def _is(self, node: exp.Expr) -> str:
        from sqlglot import exp

        negated = "NOT " if node.args.get("negate") else ""
        asked = self._scalar(node.this)
        sql, kind = asked.sql, asked.type
        if isinstance(node.expression, exp.Null):
            blank = f"{sql} IS NULL"
            if kind in TEXTUAL:
                blank = f"nullif({sql}, '') IS NULL"
            elif kind is FieldType.LIST:
                blank = f"coalesce({sql}, 'null') IN ('null', '[]')"
            return f"{negated}({blank})"
        if isinstance(node.expression, exp.Boolean):
            if kind not in (FieldType.BOOLEAN, None):
                words = words_of(self.text, node.this)
                self._wrong(
                    node, f"{words} is a {kind}, not true or false", f"compare it, e.g. {words} = ..."
                )
            return f"({sql} IS {negated}{'true' if node.expression.this else 'false'})"
        return self._refused(node)

    def _list_holds(self, sql: str, wanted: Iterable[exp.Expr]) -> str:
        """Whether a field of several texts holds one of these."""
        each = [f"{sql} @> to_jsonb({self._of_type(one, FieldType.TEXT).sql})" for one in wanted]
        return f"coalesce({' OR '.join(each)}, false)"

    def _not_of_a_list(self, node: exp.Expr) -> str:
        words = words_of(self.text, node)
        self._wrong(
            node,
            f"{words} holds several texts",
            f"ask {words} = 'text', which is true when one of them is it",
        )
        return "false"

    # --- functions ---------------------------------------------------------------------------------------

    def _function(self, node: exp.Expr, depth: int) -> str:
        name = str(node.this).lower()
        function = FUNCTIONS.get(name)
        if function is None:
            self._wrong(node, f"unknown function {name!r}", nearest(name, [*FUNCTIONS, *SCALARS]))
            return "false"
        if self.scope.row != "c":
            self._wrong(node, f"{name} asks about a contact, not about {self.scope.of}", "write it outside")
            return "false"
        told = len(self.errors)
        given = self._arguments(node, name, function, depth)
        lacking = [
            key for key, argument in function.arguments.items() if argument.required and key not in given
        ]
        if lacking:
            if len(self.errors) == told:
                self._wrong(node, f"{name} needs {lacking[0]}", f"write {name}({lacking[0]} => '...')")
            return "false"
        self.reads.add(function.reads(given))
        for flip in function.turns(given):
            self.flips[flip] = None
        self.leaf.function, self.leaf.given = name, given
        return function.write(given, self.value)

    def _arguments(self, node: exp.Expr, name: str, function: Function, depth: int) -> dict[str, Any]:
        from sqlglot import exp

        given: dict[str, Any] = {}
        for number, each in enumerate(node.expressions):
            named = isinstance(each, (exp.Kwarg, exp.PropertyEQ))
            condition = "condition" in function.arguments and self._is_condition(each)
            key = (
                each.this.name
                if named
                else "condition"
                if condition
                else function.first
                if number == 0
                else ""
            )
            argument = None if named and key == "condition" else function.arguments.get(key)
            if argument is None:
                what = (
                    f"{name} has no argument {key!r}"
                    if named
                    else f"{name} takes named arguments after the first"
                )
                names = [one for one in function.arguments if one != "condition"]
                self._wrong(
                    each, what, nearest(key, names) if named else f"write name => {words_of(self.text, each)}"
                )
                continue
            if key in given:
                self._wrong(each, f"{key} is given twice", "say it once")
                continue
            value = self._about(name, each, depth) if condition else self._argument(
                each.expression if named else each, key, argument
            )  # fmt: skip
            if value is not None:
                given[key] = value
        return given

    @staticmethod
    def _is_condition(node: exp.Expr) -> bool:
        from sqlglot import exp

        kinds = (
            exp.EQ,
            exp.NEQ,
            exp.GT,
            exp.GTE,
            exp.LT,
            exp.LTE,
            exp.Like,
            exp.ILike,
            exp.In,
            exp.Between,
            exp.Is,
        )
        return isinstance(node.unnest(), (*kinds, exp.And, exp.Or, exp.Not))

    def _about(self, function: str, node: exp.Expr, depth: int) -> str:
        """A condition about one of the deals or companies of a contact, whose role is a field among theirs."""
        role = {
            "role": HubField(
                "role", FieldType.TEXT, "role", "what the contact is to it, the label of the link"
            )
        }
        outer = self.scope
        if function == "has_deal":
            fields = {**role, **self.catalog.deal_fields}
            self.scope = Scope("a deal", "d", DEALS, "d.contact_id", fields)
        else:
            fields = {**role, **self.catalog.company_fields}
            self.scope = Scope("a company", "k", COMPANIES, "k.contact_id", fields)
        try:
            return self._truth(node, depth + 1)[0]
        finally:
            self.scope = outer
