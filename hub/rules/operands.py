"""What is compared in a rule: fields, functions of them, literals, moments and arguments; and how mistakes are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.clock import parse_duration
from hub.errors import RuleError
from hub.model import FieldType, HubField
from hub.rules.catalog import Catalog
from hub.rules.functions import FUNCTIONS, MAIN_COMPANY, NOW, SCALARS, Argument, Values
from hub.rules.reading import nearest, place_in, tree, words_of
from hub.rules.rule import ALWAYS, Condition, Flip
from hub.rules.values import CASTS, EXAMPLES, Written, converted, family, field_sql, literal, offset_of

if TYPE_CHECKING:
    from sqlglot import exp

TEXTUAL = (FieldType.TEXT, FieldType.ENUM)
TIMES = (FieldType.TIME, FieldType.DATE)
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
}
"""What the writer reads of each kind of node. Whatever else a person wrote into one is refused, never left out."""


@dataclass(frozen=True)
class Scope:
    """Whose fields names mean: `row` is the SQL alias, `source` and `contact` are as in `Flip`."""

    of: str
    row: str
    source: str
    contact: str
    fields: Mapping[str, HubField]


@dataclass
class Leaf:
    """What is learned of one condition while it is written."""

    function: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    fields: dict[str, None] = field(default_factory=dict)
    moving: bool = False


class Operands:
    """A parsed rule and what is known of it so far. Mistakes are collected, so that all are told at once."""

    def __init__(self, text: str, catalog: Catalog) -> None:
        self.text, self.catalog = text, catalog
        self.tree = tree(text)
        self.value = Values()
        self.errors: list[RuleError] = []
        self.scope = Scope("a contact", "c", "contact c", "c.id", catalog.contact_fields)
        self.leaf = Leaf()
        self.used: dict[str, set[str]] = {
            kind: set() for kind in ("list", "message", "segment", "field", "purpose", "connection")
        }
        self.reads: set[str] = set(ALWAYS)
        self.flips: dict[Flip, None] = {}
        self.moving: list[str] = []
        self.conditions: list[Condition] = []

    def mistakes(self) -> list[RuleError]:
        return sorted(self.errors, key=lambda e: (e.line, e.column))

    # --- values ------------------------------------------------------------------------------------------

    def _scalar(self, node: exp.Expr) -> Written:
        """A field or a function of one. What was told to be wrong has no type: it fits everything."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._scalar(node.this)
        if self._holds_more(node):
            self._refused(node)
            return Written()
        if isinstance(node, exp.Column):
            return self._field(node)
        name = (
            node.name if isinstance(node, exp.Anonymous) else node.key if isinstance(node, exp.Func) else ""
        )
        if name.lower() in SCALARS:
            given = node.expressions if isinstance(node, exp.Anonymous) else [node.this]
            return self._scalar_function(node, name.lower(), given)
        self._wrong(
            node,
            f"a field is expected here, not {words_of(self.text, node)}",
            "write for example country = 'DE'",
        )
        return Written()

    def _scalar_function(self, node: exp.Expr, name: str, given: list[Any]) -> Written:
        wants, answers, sql = SCALARS[name]
        if len(given) != 1:
            self._wrong(node, f"{name} takes one field", f"write {name}(field)")
            return Written(type=answers)
        inner = self._scalar(given[0])
        fits = inner.type is None or inner.type in (TEXTUAL if wants is FieldType.TEXT else TIMES)
        if not fits:
            self._wrong(given[0], f"{name} needs a {wants.value} field, this is a {inner.type}", "")
        since = inner.sql if NOW in sql and inner.column else ""
        company = inner.company if since else ""
        return Written(sql.format(inner.sql), answers, clocked=NOW in sql, since=since, company=company)

    def _field(self, node: exp.Expr) -> Written:
        name, fields = node.name, self.scope.fields
        table = node.args.get("table")
        of_company = table is not None and self.scope.row == "c" and table.name.lower() == "company"
        if of_company:
            fields = self.catalog.company_fields
        elif table is not None:
            words = words_of(self.text, node)
            self._wrong(node, f"fields have no table in front: {words}", f"write {name}")
        known = fields.get(name)
        if known is None and not node.this.args.get("quoted"):  # as SQL has it: CITY is city, "CITY" is not
            known = fields.get(name.lower())
        if known is None:
            fix = nearest(name, fields)
            if name in FUNCTIONS:
                fix = f"{name} is a function: write {name}(...)"
            of = " of a company" if of_company else "" if self.scope.row == "c" else f" of {self.scope.of}"
            self._wrong(node, f"unknown field {name!r}{of}", fix)
            return Written()
        if of_company:
            self.reads.add("companies")
            self.leaf.fields[f"company.{known.name}"] = None
            column = field_sql(known, "k", self.value)
            found = f"(SELECT {column} FROM {MAIN_COMPANY} WHERE k.contact_id = c.id)"
            return Written(found, known.type, column=True, company=column)
        if self.scope.row == "c":
            self.used["field"].add(known.name)
            self.leaf.fields[known.name] = None
        return Written(field_sql(known, self.scope.row, self.value), known.type, column=True)

    def _of_type(self, node: exp.Expr, kind: FieldType | None) -> Written:
        """A literal, a moment or another field that is compared with something of `kind`."""
        from sqlglot import exp

        if isinstance(node, exp.Paren):
            return self._of_type(node.this, kind)
        if isinstance(node, exp.Null):
            self._wrong(node, "nothing is equal to NULL", "ask for blanks by IS NULL or IS NOT NULL")
            return Written("NULL")
        if isinstance(node, (exp.CurrentTimestamp, exp.Add, exp.Sub)):
            return self._moment(node, kind)
        if isinstance(node, (exp.Column, exp.Func)) and not isinstance(node, exp.Cast):
            found = self._scalar(node)
            if kind and found.type and family(found.type) != family(kind):
                self._wrong(
                    node,
                    f"a {kind.value} is compared with a {found.type.value}",
                    "compare values of one kind",
                )
            return found
        plain = literal(node)
        if plain is None:
            return Written(self._refused(node))
        if kind is None:
            return Written("NULL")
        value = converted(plain, kind)
        if value is None:
            self._wrong(
                node,
                f"a {kind.value} is compared with {words_of(self.text, node)}",
                f"write a {kind.value}, e.g. {EXAMPLES.get(kind, repr('text'))}",
            )
            return Written("NULL")
        return Written(f"{self.value(value)}::{CASTS.get(kind, 'text')}", kind, literal=value)

    def _moment(self, node: exp.Expr, kind: FieldType | None) -> Written:
        """`now()`, or that plus or minus an interval."""
        try:
            offset = offset_of(node)
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            self._wrong(node, what, fix)
            return Written("NULL")
        if offset is None:
            return Written(self._refused(node))
        if kind is not None and kind not in TIMES:
            self._wrong(node, f"a {kind.value} is compared with a time", "compare values of one kind")
            return Written("NULL")
        return Written(
            f"({NOW} + {self.value(offset)}::interval)", FieldType.TIME, clocked=True, offset=offset
        )

    def _argument(self, node: exp.Expr, key: str, argument: Argument) -> Any:
        plain = literal(node)
        if argument.kind in ("number", "whole number"):
            if isinstance(plain, (int, float)) and not isinstance(plain, bool):
                if argument.kind == "number" or (isinstance(plain, int) and 1 <= plain <= 1_000_000):
                    return plain
                self._wrong(node, f"{key} must be a whole number from 1", f"write {key} => 3")
                return None
            self._wrong(node, f"{key} must be a number", f"write {key} => 1000")
            return None
        if not isinstance(plain, str):
            self._wrong(node, f"{key} must be a text in single quotes", f"write {key} => '...'")
            return None
        if argument.kind == "duration":
            try:
                return parse_duration(plain)
            except ValueError as error:
                what, _, fix = str(error).partition("; ")
                self._wrong(node, what, fix)
                return None
        if argument.kind == "time":
            moment = converted(plain, FieldType.TIME)
            if moment is None:
                self._wrong(node, f"{plain!r} is no time", f"write {key} => '2026-11-24'")
            return moment
        if argument.choices and plain not in argument.choices:
            self._wrong(node, f"{key} cannot be {plain!r}", nearest(plain, argument.choices))
            return None
        if argument.names:
            self.used[argument.names].add(plain)
            known: Iterable[str] | None = getattr(self.catalog, f"{argument.names}s")
            if known is not None and plain not in known:
                self._wrong(node, f"unknown {argument.names} {plain!r}", nearest(plain, known))
        return plain

    # --- mistakes ----------------------------------------------------------------------------------------

    @staticmethod
    def _holds_more(node: exp.Expr) -> bool:
        """Whether a node has parts that the writer does not read, e.g. BETWEEN SYMMETRIC."""
        read = PARTS.get(node.key)
        return read is not None and any(part for key, part in node.args.items() if key not in read)

    def _refused(self, node: exp.Expr) -> str:
        words = words_of(self.text, node)
        self._wrong(
            node,
            f"a rule cannot hold {words[:60]!r}",
            "use comparisons, AND, OR, NOT and the functions of docs/lists.md",
        )
        return "false"

    def _wrong(self, node: exp.Expr, what: str, fix: str) -> None:
        self.errors.append(RuleError(what, fix, *self._place(node)))

    def _place(self, node: exp.Expr) -> tuple[int, int]:
        return place_in(self.text, node)
