"""Filter branches of dynamic lists: OR over AND over property filters, evaluated against a record.

Source: HubSpot developer docs "Configure list filters and branches". Filters on anything but properties are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from contracts.hubspot.answers import Json, bad_request
from contracts.hubspot.records import ObjectStore, Record


def _number(text: str) -> float:
    return float(text) if text else float("nan")


Compare = Callable[[str, list[str]], bool]
OPERATORS: dict[str, Compare] = {
    "IS_EQUAL_TO": lambda held, wanted: held.lower() in wanted,
    "IS_NOT_EQUAL_TO": lambda held, wanted: held.lower() not in wanted,
    "IS_ANY_OF": lambda held, wanted: bool(set(held.lower().split(";")) & set(wanted)),
    "IS_NONE_OF": lambda held, wanted: not set(held.lower().split(";")) & set(wanted),
    "CONTAINS": lambda held, wanted: any(w in held.lower() for w in wanted),
    "IS_GREATER_THAN": lambda held, wanted: _number(held) > _number(wanted[0]),
    "IS_LESS_THAN": lambda held, wanted: _number(held) < _number(wanted[0]),
    "IS_KNOWN": lambda held, _: held != "",
    "IS_UNKNOWN": lambda held, _: held == "",
}


def require_known(branch: Json, store: ObjectStore) -> None:
    """Refuses a branch of unknown form, an unknown property or operator with 400."""
    if branch.get("filterBranchType") not in ("OR", "AND"):
        raise bad_request("filterBranchType must be OR or AND")
    for inner in branch.get("filterBranches", []):
        require_known(inner, store)
    for f in branch.get("filters", []):
        operation = f.get("operation", {})
        if f.get("filterType") != "PROPERTY":
            raise bad_request(f"filterType {f.get('filterType')} is not supported here; use PROPERTY")
        if f.get("property") not in store.properties:
            raise bad_request(f'Property "{f.get("property")}" does not exist')
        if operation.get("operator") not in OPERATORS:
            raise bad_request(f"Unknown operator {operation.get('operator')}")


def matches(branch: Json, record: Record) -> bool:
    """Whether the record is inside the branch; an empty AND lets everything in."""
    inner = [matches(b, record) for b in branch.get("filterBranches", [])]
    own = [_holds(f, record) for f in branch.get("filters", [])]
    return any(inner + own) if branch["filterBranchType"] == "OR" else all(inner + own)


def _holds(f: Json, record: Record) -> bool:
    operation = f["operation"]
    values = operation.get("values", [operation["value"]] if "value" in operation else [])
    held = record.properties.get(f["property"], "")
    if not held and operation["operator"] not in ("IS_KNOWN", "IS_UNKNOWN"):
        return bool(operation.get("includeObjectsWithNoValueSet", False))
    return OPERATORS[operation["operator"]](held, [str(v).lower() for v in values])
