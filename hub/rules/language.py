"""Rules: SQL conditions about a contact, parsed by sqlglot, checked against the catalog, written anew as PostgreSQL.

Only what the writer below knows is let through; names become known columns, values become parameters. Nothing
that a person wrote reaches the database as text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hub.clock import parse_duration
from hub.errors import RuleError
from hub.model import FieldType, HubField
from hub.rules.catalog import Catalog
from hub.rules.functions import FUNCTIONS, NOW, SCALARS, Argument, Values

if TYPE_CHECKING:
    from sqlglot import exp

MAX_LENGTH = 10_000
MAX_DEPTH = 60
TEXTUAL = (FieldType.TEXT, FieldType.ENUM)


@dataclass(frozen=True)
class Condition:
    """One part of a rule that is true or false by itself, for "why": its text and its SQL."""

    text: str
    sql: str


@dataclass(frozen=True)
class Rule:
    """A checked rule. `sql` speaks of a contact `c`; run it with `params` and `now`."""

    text: str
    sql: str
    params: dict[str, Any]
    lists: frozenset[str]
    messages: frozenset[str]
    segments: frozenset[str]
    fields: frozenset[str]
    streams: frozenset[str]  # what it reads of the vendors beside contacts: deals, segments
    relative: bool
    conditions: tuple[Condition, ...] = ()

    def select(self, *, only_contacts: bool = False) -> str:
        """`SELECT c.id ...` over live contacts for whom the rule is true, or those of `%(contacts)s` among them."""
        among = " AND c.id = ANY(%(contacts)s::bigint[])" if only_contacts else ""
        return f"SELECT c.id FROM contact c WHERE c.state = 'live'{among} AND ({self.sql})"

    def values(self, now: datetime, **more: Any) -> dict[str, Any]:
        """The parameters to run it with."""
        return {**self.params, "now": now, **more}


def parse(text: str, catalog: Catalog) -> Rule:
    """A rule, or the first of its mistakes as `RuleError` (line and column within the text, from 1)."""
    found = problems(text, catalog)
    if found:
        raise found[0]
    return _Writer(text, catalog).rule()


def problems(text: str, catalog: Catalog) -> list[RuleError]:
    """Every mistake in a rule, in reading order."""
    try:
        writer = _Writer(text, catalog)
        writer.rule()
    except RuleError as error:
        return [error]
    return sorted(writer.errors, key=lambda e: (e.line, e.column))


class _Writer:
    """Walks one parsed rule and writes its SQL; mistakes are collected, so that all are told at once."""

    def __init__(self, text: str, catalog: Catalog) -> None:
        self.text, self.catalog = text, catalog
        self.tree = _tree(text)
        self.value = Values()
        self.errors: list[RuleError] = []
        self.used: dict[str, set[str]] = {
            "list": set(),
            "message": set(),
            "segment": set(),
            "field": set(),
            "purpose": set(),
            "stream": set(),
        }
        self.relative = False
        self.conditions: list[Condition] = []

    def rule(self) -> Rule:
        sql = self._truth(self.tree, 0)
        return Rule(
            text=self.text,
            sql=sql,
            params=self.value.named,
            lists=frozenset(self.used["list"]),
            messages=frozenset(self.used["message"]),
            segments=frozenset(self.used["segment"]),
            fields=frozenset(self.used["field"]),
            streams=frozenset(self.used["stream"]),
            relative=self.relative,
            conditions=tuple(self.conditions),
        )

    # --- what is true or false ---------------------------------------------------------------------------

    def _truth(self, node: exp.Expr, depth: int) -> str:
        from sqlglot import exp

        if depth > MAX_DEPTH:
            raise RuleError(
                "the rule is nested too deeply", "split it into several lists", *self._place(node)
            )
        if isinstance(node, exp.Paren):
            return f"({self._truth(node.this, depth + 1)})"
        if isinstance(node, (exp.And, exp.Or)):
            word = "AND" if isinstance(node, exp.And) else "OR"
            return f"({self._truth(node.this, depth + 1)} {word} {self._truth(node.expression, depth + 1)})"
        if isinstance(node, exp.Not):
            # A blank is neither true nor false in SQL; people mean "not so", so NOT of a blank is true.
            return f"NOT coalesce({self._truth(node.this, depth + 1)}, false)"
        return self._condition(node)

    def _condition(self, node: exp.Expr) -> str:
        sql = self._leaf(node)
        self.conditions.append(Condition(self._words(node), sql))
        return sql

    def _leaf(self, node: exp.Expr) -> str:
        from sqlglot import exp

        signs: dict[type, str] = {
            exp.EQ: "=",
            exp.NEQ: "<>",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.LT: "<",
            exp.LTE: "<=",
        }
        if type(node) in signs:
            return self._comparison(node, signs[type(node)])
        if isinstance(node, (exp.Like, exp.ILike)):
            return self._like(node)
        if isinstance(node, exp.In):
            return self._in(node)
        if isinstance(node, exp.Between):
            left, kind = self._scalar(node.this)
            low, high = (self._of_type(node.args[key], kind) for key in ("low", "high"))
            return f"{left} BETWEEN {low} AND {high}"
        if isinstance(node, exp.Is):
            return self._is(node)
        if isinstance(node, exp.Boolean):
            return "true" if node.this else "false"
        if isinstance(node, exp.Column):
            sql, kind = self._scalar(node)
            if kind is not FieldType.BOOLEAN:
                self._wrong(
                    node,
                    f"{node.name} is a {kind.value}, not true or false",
                    f"compare it, e.g. {node.name} = ...",
                )
            return f"coalesce({sql}, false)"
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        return self._refused(node)

    def _comparison(self, node: exp.Expr, sign: str) -> str:
        from sqlglot import exp

        left, right = node.this, node.expression
        if isinstance(left, (exp.Literal, exp.Neg, exp.Boolean)) and not isinstance(
            right, (exp.Literal, exp.Neg, exp.Boolean)
        ):
            left, right = right, left
            sign = {">": "<", "<": ">", ">=": "<=", "<=": ">="}.get(sign, sign)
        sql, kind = self._scalar(left)
        other = self._of_type(right, kind)
        if sign == "<>":  # a blank differs from every value
            return f"{sql} IS DISTINCT FROM {other}"
        return f"{sql} {sign} {other}"

    def _like(self, node: exp.Expr) -> str:
        sql, kind = self._scalar(node.this)
        if kind not in TEXTUAL:
            self._wrong(node.this, f"LIKE needs a text, this is a {kind.value}", "compare it with = or <")
        word = "ILIKE" if type(node).__name__ == "ILike" else "LIKE"
        return f"{sql} {word} {self._of_type(node.expression, FieldType.TEXT)}"

    def _in(self, node: exp.Expr) -> str:
        if node.args.get("query") or node.args.get("unnest") or not node.expressions:
            return self._refused(node)
        sql, kind = self._scalar(node.this)
        return f"{sql} IN ({', '.join(self._of_type(each, kind) for each in node.expressions)})"

    def _is(self, node: exp.Expr) -> str:
        from sqlglot import exp

        negated = "NOT " if node.args.get("negate") else ""
        sql, kind = self._scalar(node.this)
        if isinstance(node.expression, exp.Null):
            blank = f"nullif({sql}, '') IS NULL" if kind in TEXTUAL else f"{sql} IS NULL"
            return f"{negated}({blank})"
        if isinstance(node.expression, exp.Boolean) and kind is FieldType.BOOLEAN:
            return f"({sql} IS {negated}{'true' if node.expression.this else 'false'})"
        return self._refused(node)

    # --- values ------------------------------------------------------------------------------------------

    def _scalar(self, node: exp.Expr) -> tuple[str, FieldType]:
        """(SQL, type) of a field or of a function of one."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._scalar(node.this)
        if isinstance(node, exp.Column):
            return self._field(node)
        name = (
            node.name if isinstance(node, exp.Anonymous) else node.key if isinstance(node, exp.Func) else ""
        )
        if name.lower() in SCALARS:
            given = node.expressions if isinstance(node, exp.Anonymous) else [node.this]
            return self._scalar_function(node, name.lower(), given)
        self._wrong(
            node, f"a field is expected here, not {self._words(node)}", "write for example country = 'DE'"
        )
        return "NULL::text", FieldType.TEXT

    def _scalar_function(self, node: exp.Expr, name: str, given: list[Any]) -> tuple[str, FieldType]:
        wants, answers, sql = SCALARS[name]
        if len(given) != 1:
            self._wrong(node, f"{name} takes one field", f"write {name}(field)")
            return "NULL::text", answers
        inner, kind = self._scalar(given[0])
        fits = kind in TEXTUAL if wants is FieldType.TEXT else kind in (FieldType.TIME, FieldType.DATE)
        if not fits:
            self._wrong(given[0], f"{name} needs a {wants.value} field, this is a {kind.value}", "")
        self.relative = self.relative or NOW in sql
        return sql.format(inner), answers

    def _field(self, node: exp.Expr) -> tuple[str, FieldType]:
        name = node.name
        if node.args.get("table") is not None:
            self._wrong(node, f"fields have no table in front: {self._words(node)}", f"write {name}")
        known = self.catalog.contact_fields.get(name)
        if known is None:
            fix = nearest(name, self.catalog.contact_fields)
            if name in FUNCTIONS:
                fix = f"{name} is a function: write {name}(...)"
            self._wrong(node, f"unknown field {name!r}", fix)
            return "NULL::text", FieldType.TEXT
        self.used["field"].add(name)
        return self._field_sql(known), known.type

    def _field_sql(self, known: HubField) -> str:
        if known.column:
            return f"c.{known.column}"
        key = self.value(known.name)
        text, typed = f"(c.fields ->> {key}::text)", f"jsonb_typeof(c.fields -> {key}::text)"
        if known.type is FieldType.NUMBER:
            return f"(CASE WHEN {typed} = 'number' THEN {text}::numeric END)"
        if known.type is FieldType.BOOLEAN:
            return f"(CASE WHEN {typed} = 'boolean' THEN {text}::boolean END)"
        if known.type in (FieldType.TIME, FieldType.DATE):
            return f"(CASE WHEN pg_input_is_valid({text}, 'timestamptz') THEN {text}::timestamptz END)"
        return text

    def _of_type(self, node: exp.Expr, kind: FieldType) -> str:
        """A literal (or another field) that is compared with something of `kind`."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._of_type(node.this, kind)
        if isinstance(node, (exp.Column, exp.Func)) and not isinstance(node, exp.Cast):
            sql, other = self._scalar(node)
            if _family(other) != _family(kind):
                self._wrong(
                    node, f"a {kind.value} is compared with a {other.value}", "compare values of one kind"
                )
            return sql
        literal = self._literal(node)
        if literal is None:
            return self._refused(node)
        converted = _converted(literal, kind)
        if converted is None:
            example = {"number": "42", "boolean": "true", "time": "'2026-11-24'", "date": "'2026-11-24'"}.get(
                kind.value, "'text'"
            )
            self._wrong(
                node,
                f"a {kind.value} is compared with {self._words(node)}",
                f"write a {kind.value}, e.g. {example}",
            )
            return "NULL"
        cast = {FieldType.NUMBER: "numeric", FieldType.BOOLEAN: "boolean", FieldType.TIME: "timestamptz",
                FieldType.DATE: "timestamptz"}.get(kind, "text")  # fmt: skip
        return f"{self.value(converted)}::{cast}"

    def _literal(self, node: exp.Expr) -> str | float | bool | None:
        from sqlglot import exp

        if isinstance(node, exp.Literal):
            return str(node.this) if node.is_string else _number(str(node.this))
        if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
            number = _number(str(node.this.this))
            return None if number is None else -number
        if isinstance(node, exp.Boolean):
            return bool(node.this)
        if isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal):  # DATE '2026-01-01'
            return str(node.this.this)
        return None

    # --- functions ---------------------------------------------------------------------------------------

    def _function(self, node: exp.Expr) -> str:
        from sqlglot import exp

        name = str(node.this).lower()
        function = FUNCTIONS.get(name)
        if function is None:
            self._wrong(node, f"unknown function {name!r}", nearest(name, [*FUNCTIONS, *SCALARS]))
            return "false"
        given: dict[str, Any] = {}
        for number, each in enumerate(node.expressions):
            named = isinstance(each, (exp.Kwarg, exp.PropertyEQ))
            key = each.this.name if named else function.first if number == 0 else ""
            argument = function.arguments.get(key)
            if argument is None:
                what = (
                    f"{name} has no argument {key!r}"
                    if named
                    else f"{name} takes named arguments after the first"
                )
                self._wrong(
                    each,
                    what,
                    nearest(key, function.arguments) if named else f"write name => {self._words(each)}",
                )
                continue
            value = self._argument(each.expression if named else each, key, argument)
            if value is not None:
                given[key] = value
        for key, argument in function.arguments.items():
            if argument.required and key not in given and not self.errors:
                self._wrong(node, f"{name} needs {key}", f"write {name}({key} => '...')")
                return "false"
        if any(argument.required and key not in given for key, argument in function.arguments.items()):
            return "false"
        self.relative = self.relative or "within" in given
        self.used["stream"] |= {function.stream} - {""}
        return function.write(given, self.value)

    def _argument(self, node: exp.Expr, key: str, argument: Argument) -> Any:
        literal = self._literal(node)
        if argument.kind == "number":
            if isinstance(literal, (int, float)) and not isinstance(literal, bool):
                return literal
            self._wrong(node, f"{key} must be a number", f"write {key} => 1000")
            return None
        if not isinstance(literal, str):
            self._wrong(node, f"{key} must be a text in single quotes", f"write {key} => '...'")
            return None
        if argument.kind == "duration":
            try:
                return parse_duration(literal)
            except ValueError as error:
                what, _, fix = str(error).partition("; ")
                self._wrong(node, what, fix)
                return None
        if argument.names:
            self.used[argument.names].add(literal)
            known: Iterable[str] | None = getattr(self.catalog, f"{argument.names}s")
            if known is not None and literal not in known:
                self._wrong(node, f"unknown {argument.names} {literal!r}", nearest(literal, known))
        return literal

    # --- mistakes ----------------------------------------------------------------------------------------

    def _refused(self, node: exp.Expr) -> str:
        words = self._words(node)
        self._wrong(
            node,
            f"a rule cannot hold {words[:60]!r}",
            "use comparisons, AND, OR, NOT and the functions of docs/lists.md",
        )
        return "false"

    def _wrong(self, node: exp.Expr, what: str, fix: str) -> None:
        self.errors.append(RuleError(what, fix, *self._place(node)))

    def _place(self, node: exp.Expr) -> tuple[int, int]:
        starts = [each.meta["start"] for each in node.walk() if "start" in each.meta]
        return place_of(self.text, min(starts, default=0))

    def _words(self, node: exp.Expr) -> str:
        """The rule's own text of a part, as near as the parser tells."""
        spans = [(each.meta["start"], each.meta["end"]) for each in node.walk() if "start" in each.meta]
        if not spans:
            return str(node.sql(dialect="postgres"))
        start, end = min(s for s, _ in spans), max(e for _, e in spans) + 1
        closing = re.match(r"\s*\)", self.text[end:])
        text = self.text[start:end]
        if closing and text.count("(") > text.count(")"):
            text += closing[0]
        return " ".join(text.split())


def nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return (
        f"known are {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
        if names
        else "none is defined"
    )


def place_of(text: str, offset: int) -> tuple[int, int]:
    """(line, column) from 1 of an offset."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _tree(text: str) -> exp.Expr:
    import sqlglot
    from sqlglot.errors import ParseError, TokenError

    if not text.strip():
        raise RuleError("the rule is empty", "write for example country = 'DE'")
    if len(text) > MAX_LENGTH:
        raise RuleError(f"the rule is longer than {MAX_LENGTH} characters", "split it into several lists")
    try:
        statements = sqlglot.parse(text, dialect="postgres")
    except ParseError as error:
        told = error.errors[0] if error.errors else {}
        start = len(str(told.get("start_context") or "")) if told.get("line") == 1 else None
        line = int(told.get("line") or 1)
        column = (
            start + 1
            if start is not None
            else max(1, int(told.get("col") or 1) - len(str(told.get("highlight") or "")) + 1)
        )
        what = re.sub(
            r" missing for <class.*", " is missing", str(told.get("description") or "cannot be parsed")
        )
        what = what.replace("Required keyword: 'expression' is missing", "something is missing after this")
        raise RuleError(
            f"not understood: {what[0].lower() + what[1:]}", "mend the rule here", line, column
        ) from None
    except (TokenError, RecursionError, ValueError):
        quote = text.rfind("'")
        line, column = place_of(text, max(quote, 0))
        raise RuleError("not understood: a quote is not closed", "close it with '", line, column) from None
    if len(statements) != 1 or statements[0] is None:
        raise RuleError(
            "a rule is one condition", "remove the semicolon", *place_of(text, max(text.find(";"), 0))
        )
    return statements[0]


def _number(text: str) -> float | int | None:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def _family(kind: FieldType) -> str:
    return {FieldType.ENUM: "text", FieldType.DATE: "time"}.get(kind, kind.value)


def _converted(literal: str | float | bool, kind: FieldType) -> Any:
    """The literal as a value of `kind`, or None when it is none."""
    if kind is FieldType.BOOLEAN:
        return literal if isinstance(literal, bool) else None
    if isinstance(literal, bool):
        return None
    if kind is FieldType.NUMBER:
        return literal if not isinstance(literal, str) else None
    if not isinstance(literal, str) or "\x00" in literal:
        return None
    if kind in (FieldType.TIME, FieldType.DATE):
        try:
            found = datetime.fromisoformat(literal)
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return literal
