"""Values in rules: what a literal is, and whether it is one of a type; fields as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hub.clock import parse_duration
from hub.model import FieldType, HubField
from hub.rules.functions import Values

if TYPE_CHECKING:
    from sqlglot import exp

CASTABLE = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "TEXT", "VARCHAR"})

CASTS = {FieldType.NUMBER: "numeric", FieldType.BOOLEAN: "boolean", FieldType.TIME: "timestamptz",
         FieldType.DATE: "timestamptz"}  # fmt: skip
EXAMPLES = {
    FieldType.NUMBER: "42", FieldType.BOOLEAN: "true", FieldType.TIME: "'2026-11-24'", FieldType.DATE: "'2026-11-24'",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A value as SQL. Without a type it fits everything: its mistake was told.

    `column`: it is a plain field. `clocked`: it moves with time; then `offset` is set for now plus so much, `since` (the
    field's SQL) for the days since a field. `literal` is the value of a literal. `company` is the SQL of
    a field of the main company.
    """

    sql: str = "NULL::text"
    type: FieldType | None = None
    column: bool = False
    clocked: bool = False
    offset: timedelta | None = None
    since: str = ""
    literal: Any = None
    company: str = ""


def literal(node: exp.Expr) -> str | float | bool | None:
    """A literal's value, None for what is none."""
    from sqlglot import exp

    if isinstance(node, exp.Literal):
        return str(node.this) if node.is_string else number(str(node.this))
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
        found = number(str(node.this.this))
        return None if found is None else -found
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal):  # DATE '2026-01-01'
        more = any(part for key, part in node.args.items() if key not in ("this", "to"))
        plain = node.this.is_string and node.to.sql(dialect="postgres") in CASTABLE and not more
        return str(node.this.this) if plain else None
    return None


def offset_of(node: exp.Expr) -> timedelta | None:
    """How far from now a moment lies: `now()`, `now() - interval '3 days'`; None for anything else.

    Raises ValueError with the words to use for an interval that is no duration.
    """
    from sqlglot import exp

    node = node.unnest()
    if isinstance(node, exp.CurrentTimestamp):
        return None if node.this else timedelta()
    if not isinstance(node, (exp.Add, exp.Sub)) or not isinstance(node.expression, exp.Interval):
        return None
    base, length, unit = offset_of(node.this), node.expression.this, node.expression.args.get("unit")
    if base is None or base or not (isinstance(length, exp.Literal) and length.is_string):
        return None
    duration = parse_duration(
        f"{length.this} {unit.name.lower() if isinstance(unit, exp.Var) else ''}".strip()
    )
    assert isinstance(duration, timedelta)
    return duration if isinstance(node, exp.Add) else -duration


def number(text: str) -> float | int | None:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def family(kind: FieldType) -> str:
    return {FieldType.ENUM: "text", FieldType.DATE: "time"}.get(kind, kind.value)


def converted(literal: str | float | bool, kind: FieldType) -> Any:
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


def field_sql(known: HubField, row: str, value: Values) -> str:
    """A field of a row (`c` or `d`) in its type; null where the stored value is not of it."""
    if known.column:
        return f"{row}.{known.column}"
    key = value(known.name)
    text, typed = f"({row}.fields ->> {key}::text)", f"jsonb_typeof({row}.fields -> {key}::text)"
    if known.type is FieldType.NUMBER:
        return f"(CASE WHEN {typed} = 'number' THEN {text}::numeric END)"
    if known.type is FieldType.BOOLEAN:
        return f"(CASE WHEN {typed} = 'boolean' THEN {text}::boolean END)"
    if known.type is FieldType.TIME:
        return f"(CASE WHEN pg_input_is_valid({text}, 'timestamptz') THEN {text}::timestamptz END)"
    if known.type is FieldType.DATE:  # midnight in UTC, whatever zone the session has
        return f"(CASE WHEN pg_input_is_valid({text}, 'date') THEN {text}::date::timestamp AT TIME ZONE 'UTC' END)"
    if known.type is FieldType.LIST:
        return f"({row}.fields -> {key}::text)"
    return text
