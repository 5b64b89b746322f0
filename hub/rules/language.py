"""Rules: SQL conditions about a contact, parsed by sqlglot, checked against the catalog, written anew as PostgreSQL.

Only what the writer below knows is let through; names become known columns, values become parameters. Nothing
that a person wrote reaches the database as text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
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
MAX_DEPTH = 30
"""Deeper nesting is refused before the parser's own recursion ends it. A chain of ANDs or ORs is one level."""
TEXTUAL = (FieldType.TEXT, FieldType.ENUM)
CASTS = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "TEXT", "VARCHAR"})
PARTS: dict[str, frozenset[str]] = {
    "like": frozenset({"this", "expression", "negate"}),
    "ilike": frozenset({"this", "expression", "negate"}),
    "is": frozenset({"this", "expression", "negate"}),
    "in": frozenset({"this", "expressions"}),
    "between": frozenset({"this", "low", "high"}),
    "column": frozenset({"this", "table", "db", "catalog"}),
    "anonymous": frozenset({"this", "expressions"}),
    "lower": frozenset({"this"}),
    "upper": frozenset({"this"}),
    "length": frozenset({"this"}),
    "cast": frozenset({"this", "to"}),
}
"""What the writer reads of each kind of node. Whatever else a person wrote into one is refused, never left out."""


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
            word = " AND " if isinstance(node, exp.And) else " OR "
            return f"({word.join(self._truth(each, depth + 1) for each in node.flatten(unnest=False))})"
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
        if self._holds_more(node):
            return self._refused(node)
        if type(node) in signs:
            return self._comparison(node, signs[type(node)])
        if isinstance(node, (exp.Like, exp.ILike)):
            return self._like(node)
        if isinstance(node, exp.In):
            return self._in(node)
        if isinstance(node, exp.Between):
            left, kind = self._scalar(node.this)
            if kind is FieldType.LIST:
                return self._not_of_a_list(node.this)
            low, high = (self._of_type(node.args[key], kind) for key in ("low", "high"))
            return f"{left} BETWEEN {low} AND {high}"
        if isinstance(node, exp.Is):
            return self._is(node)
        if isinstance(node, exp.Boolean):
            return "true" if node.this else "false"
        if isinstance(node, exp.Column):
            sql, kind = self._scalar(node)
            if kind not in (FieldType.BOOLEAN, None):
                self._wrong(
                    node,
                    f"{node.name} is a {kind}, not true or false",
                    f"compare it, e.g. {node.name} = ...",
                )
            return f"coalesce({sql}, false)"
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        return self._refused(node)

    def _comparison(self, node: exp.Expr, sign: str) -> str:
        from sqlglot import exp

        def is_value(part: exp.Expr) -> bool:
            part = part.unnest()
            return isinstance(part, (exp.Literal, exp.Neg, exp.Boolean)) or (
                isinstance(part, exp.Cast) and isinstance(part.this, exp.Literal)
            )

        left, right = node.this, node.expression
        if is_value(left) and not is_value(right):
            left, right = right, left
            sign = {">": "<", "<": ">", ">=": "<=", "<=": ">="}.get(sign, sign)
        sql, kind = self._scalar(left)
        if kind is FieldType.LIST:
            if sign not in ("=", "<>"):
                return self._not_of_a_list(left)
            return f"{'NOT ' if sign == '<>' else ''}{self._list_holds(sql, [right])}"
        other = self._of_type(right, kind)
        if sign == "<>":  # a blank differs from every value
            return f"{sql} IS DISTINCT FROM {other}"
        return f"{sql} {sign} {other}"

    def _like(self, node: exp.Expr) -> str:
        from sqlglot import exp

        sql, kind = self._scalar(node.this)
        if kind not in (*TEXTUAL, None):
            self._wrong(node.this, f"LIKE needs a text, this is a {kind}", "compare it with = or <")
        pattern = self._literal(node.expression)
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
        held = f"{sql} {word} {self.value(pattern)}::text"
        return f"NOT coalesce({held}, false)" if node.args.get("negate") else held

    def _in(self, node: exp.Expr) -> str:
        if not node.expressions:
            return self._refused(node)
        sql, kind = self._scalar(node.this)
        if kind is FieldType.LIST:
            return self._list_holds(sql, node.expressions)
        return f"{sql} IN ({', '.join(self._of_type(each, kind) for each in node.expressions)})"

    def _is(self, node: exp.Expr) -> str:
        from sqlglot import exp

        negated = "NOT " if node.args.get("negate") else ""
        sql, kind = self._scalar(node.this)
        if isinstance(node.expression, exp.Null):
            blank = f"{sql} IS NULL"
            if kind in TEXTUAL:
                blank = f"nullif({sql}, '') IS NULL"
            elif kind is FieldType.LIST:
                blank = f"coalesce({sql}, 'null') IN ('null', '[]')"
            return f"{negated}({blank})"
        if isinstance(node.expression, exp.Boolean):
            if kind not in (FieldType.BOOLEAN, None):
                words = self._words(node.this)
                self._wrong(
                    node, f"{words} is a {kind}, not true or false", f"compare it, e.g. {words} = ..."
                )
            return f"({sql} IS {negated}{'true' if node.expression.this else 'false'})"
        return self._refused(node)

    def _list_holds(self, sql: str, wanted: Iterable[exp.Expr]) -> str:
        """Whether a field of several texts holds one of these."""
        each = [f"{sql} @> to_jsonb({self._of_type(one, FieldType.TEXT)})" for one in wanted]
        return f"coalesce({' OR '.join(each)}, false)"

    def _not_of_a_list(self, node: exp.Expr) -> str:
        self._wrong(
            node,
            f"{self._words(node)} holds several texts",
            f"ask {self._words(node)} = 'text', which is true when one of them is it",
        )
        return "false"

    # --- values ------------------------------------------------------------------------------------------

    def _scalar(self, node: exp.Expr) -> tuple[str, FieldType | None]:
        """(SQL, type) of a field or of a function of one. What was told to be wrong has no type: it fits everything."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._scalar(node.this)
        if self._holds_more(node):
            self._refused(node)
            return "NULL::text", None
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
        return "NULL::text", None

    def _scalar_function(self, node: exp.Expr, name: str, given: list[Any]) -> tuple[str, FieldType | None]:
        wants, answers, sql = SCALARS[name]
        if len(given) != 1:
            self._wrong(node, f"{name} takes one field", f"write {name}(field)")
            return "NULL::text", answers
        inner, kind = self._scalar(given[0])
        fits = kind is None or (
            kind in TEXTUAL if wants is FieldType.TEXT else kind in (FieldType.TIME, FieldType.DATE)
        )
        if not fits:
            self._wrong(given[0], f"{name} needs a {wants.value} field, this is a {kind}", "")
        self.relative = self.relative or NOW in sql
        return sql.format(inner), answers

    def _field(self, node: exp.Expr) -> tuple[str, FieldType | None]:
        name = node.name
        if node.args.get("table") is not None:
            self._wrong(node, f"fields have no table in front: {self._words(node)}", f"write {name}")
        known = self.catalog.contact_fields.get(name)
        if known is None and not node.this.args.get("quoted"):  # as SQL has it: CITY is city, "CITY" is not
            known = self.catalog.contact_fields.get(name.lower())
        if known is None:
            fix = nearest(name, self.catalog.contact_fields)
            if name in FUNCTIONS:
                fix = f"{name} is a function: write {name}(...)"
            self._wrong(node, f"unknown field {name!r}", fix)
            return "NULL::text", None
        self.used["field"].add(known.name)
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
        if known.type is FieldType.TIME:
            return f"(CASE WHEN pg_input_is_valid({text}, 'timestamptz') THEN {text}::timestamptz END)"
        if known.type is FieldType.DATE:  # midnight in UTC, whatever zone the session has
            return f"(CASE WHEN pg_input_is_valid({text}, 'date') THEN {text}::date::timestamp AT TIME ZONE 'UTC' END)"
        if known.type is FieldType.LIST:
            return f"(c.fields -> {key}::text)"
        return text

    def _of_type(self, node: exp.Expr, kind: FieldType | None) -> str:
        """A literal (or another field) that is compared with something of `kind`."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._of_type(node.this, kind)
        if isinstance(node, exp.Null):
            self._wrong(node, "nothing is equal to NULL", "ask for blanks by IS NULL or IS NOT NULL")
            return "NULL"
        if isinstance(node, (exp.Column, exp.Func)) and not isinstance(node, exp.Cast):
            sql, other = self._scalar(node)
            if kind and other and _family(other) != _family(kind):
                self._wrong(
                    node, f"a {kind.value} is compared with a {other.value}", "compare values of one kind"
                )
            return sql
        literal = self._literal(node)
        if literal is None:
            return self._refused(node)
        if kind is None:
            return "NULL"
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
            plain = (
                node.this.is_string
                and node.to.sql(dialect="postgres") in CASTS
                and not self._holds_more(node)
            )
            return str(node.this.this) if plain else None
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
            if key in given:
                self._wrong(each, f"{key} is given twice", "say it once")
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

    @staticmethod
    def _holds_more(node: exp.Expr) -> bool:
        """Whether a node has parts that the writer does not read, e.g. BETWEEN SYMMETRIC."""
        read = PARTS.get(node.key)
        return read is not None and any(part for key, part in node.args.items() if key not in read)

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
        at: exp.Expr | None = node
        while (
            at is not None
        ):  # what has no place of its own, e.g. NULL, stands where the thing around it begins
            starts = [each.meta["start"] for each in at.walk() if "start" in each.meta]
            if starts:
                return place_of(self.text, self._name_before(node, min(starts)))
            at = at.parent
        return 1, 1

    def _name_before(self, node: exp.Expr, offset: int) -> int:
        """Where `name =>` begins before a named argument's value: the parser tells the value's place only."""
        name = node.this.name if node.key in ("kwarg", "propertyeq") else ""
        found = re.search(rf"\b{re.escape(name)}\s*[=:][>=]\s*$", self.text[:offset]) if name else None
        return found.start() if found else offset

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
    import logging

    import sqlglot
    from sqlglot.errors import ParseError, TokenError

    if not text.strip():
        raise RuleError("the rule is empty", "write for example country = 'DE'")
    if len(text) > MAX_LENGTH:
        raise RuleError(f"the rule is longer than {MAX_LENGTH} characters", "split it into several lists")
    if odd := re.search("[\x00\ud800-\udfff]", text):
        raise RuleError(
            "the rule holds a character that no text may hold", "take it out", *place_of(text, odd.start())
        )
    logging.getLogger("sqlglot").setLevel(
        logging.ERROR
    )  # its warnings are about statements, which are refused anyway
    try:
        statements = sqlglot.parse(text, dialect="postgres")
    except ParseError as error:
        told = error.errors[0] if error.errors else {}
        what = re.sub(
            r" missing for <class.*", " is missing", str(told.get("description") or "cannot be parsed")
        )
        what = what.replace("Required keyword: 'expression' is missing", "something is missing after this")
        raise RuleError(
            f"not understood: {what[0].lower() + what[1:]}",
            "mend the rule here",
            *_parse_error_place(text, told),
        ) from None
    except TokenError:
        quote, offset = _unclosed(text)
        raise RuleError(
            f"not understood: {quote} is not closed", "close it", *place_of(text, offset)
        ) from None
    except RecursionError:
        raise RuleError("the rule is nested too deeply", "split it into several lists") from None
    if len(statements) != 1 or statements[0] is None:
        raise RuleError(
            "a rule is one condition", "remove the semicolon", *place_of(text, max(text.find(";"), 0))
        )
    return statements[0]


def _parse_error_place(text: str, told: Mapping[str, Any]) -> tuple[int, int]:
    """Where the parser stopped: it tells the text around, at most 100 characters to each side."""
    before, here = str(told.get("start_context") or ""), str(told.get("highlight") or "")
    at = text.find(before + here + str(told.get("end_context") or ""))
    if at >= 0 and here:
        return place_of(text, at + len(before))
    return int(told.get("line") or 1), max(1, int(told.get("col") or 1) - len(here) + 1)


def _unclosed(text: str) -> tuple[str, int]:
    """(the mark that opens something and is never closed, its offset)."""
    whole = r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1"
    for found in re.finditer(rf"{whole}|(?P<open>'|\"|/\*|\$\w*\$)", text, re.DOTALL):
        if found["open"]:
            return f"the {found['open']}", found.start()
    return "a quote", 0


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
