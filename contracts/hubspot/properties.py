"""Property definitions, and what HubSpot accepts as a value of each type.

Values travel as strings. Sources: HubSpot developer docs "Properties", "Timestamps FAQ", "Emails", "Deals".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.hubspot.answers import Json, iso, to_ms

MAX_STRING = 65_536
EMAIL = re.compile(r"^[^@\s<>(),;:\"\[\]]+@([^@\s.,]+\.)+[^@\s.,]{2,}$")


class ValueProblem(Exception):
    """A value that the property's type does not allow; `code` is HubSpot's."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


@dataclass(slots=True)
class Property:
    """One property of an object type. `type` and `field_type` are HubSpot's words."""

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    group: str = ""
    options: list[Json] = field(default_factory=list)
    description: str = ""
    read_only: bool = False
    unique: bool = False
    external: bool = False  # options live elsewhere: owners, pipelines, stages
    hubspot_defined: bool = True
    hidden: bool = False
    display_order: int = -1
    form_field: bool = False
    archived: bool = False
    created_ms: int = 0
    updated_ms: int = 0

    def as_json(self) -> Json:
        """The definition as the properties API gives it."""
        body: Json = {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "description": self.description,
            "groupName": self.group,
            "options": self.options,
            "displayOrder": self.display_order,
            "calculated": False,
            "externalOptions": self.external,
            "hasUniqueValue": self.unique,
            "hidden": self.hidden,
            "formField": self.form_field,
            "archived": self.archived,
            "modificationMetadata": {
                "archivable": not self.hubspot_defined,
                "readOnlyDefinition": self.hubspot_defined,
                "readOnlyValue": self.read_only,
            },
        }
        if self.hubspot_defined:
            body["hubspotDefined"] = True
        else:
            body |= {"createdAt": iso(self.created_ms), "updatedAt": iso(self.updated_ms)}
        return body


def option(value: str, label: str = "", order: int = 0) -> Json:
    return {"label": label or value, "value": value, "displayOrder": order, "hidden": False}


def normalise(prop: Property, value: object) -> str:
    """The value as HubSpot stores it; an empty string clears. Raises `ValueProblem`."""
    if value is None or value == "":
        return ""
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    if prop.name == "email" and prop.unique:
        return _email(text)
    if prop.type in ("number", "date", "datetime", "bool", "enumeration"):
        return {"number": _number, "date": _date, "datetime": _datetime, "bool": _bool}.get(
            prop.type, lambda plain: _enumeration(prop, plain)
        )(text)
    if len(text) > MAX_STRING:
        raise ValueProblem("PROPERTY_VALUE_TOO_LONG", f"{prop.name} is longer than {MAX_STRING} characters")
    return text


def _email(text: str) -> str:
    address = text.strip().lower()
    if not EMAIL.match(address):
        raise ValueProblem("INVALID_EMAIL", f"Email address {text} is invalid")
    return address


def _number(text: str) -> str:
    try:
        finite = math.isfinite(float(text))
    except ValueError:
        finite = False
    if not finite:
        raise ValueProblem("INVALID_DOUBLE", f"{text} was not a valid number.")
    return text.strip()


def _bool(text: str) -> str:
    if text not in ("true", "false"):
        raise ValueProblem("INVALID_OPTION", f"{text} was not one of the allowed options: [true, false]")
    return text


def _date(text: str) -> str:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).strftime("%Y-%m-%d")
        except ValueError:
            raise ValueProblem("INVALID_DATE", f"{text} was not a valid date.") from None
    moment = parse_instant(text, "INVALID_DATE")
    if (moment.hour, moment.minute, moment.second, moment.microsecond) != (0, 0, 0, 0):
        at = f"{moment.hour}:{moment.minute}:{moment.second}.{moment.microsecond // 1000}"
        raise ValueProblem("INVALID_DATE", f"{text} is at {at} UTC, not midnight!")
    return moment.strftime("%Y-%m-%d")


def _datetime(text: str) -> str:
    return iso(to_ms(parse_instant(text, "INVALID_LONG")))


def parse_instant(text: str, code: str = "INVALID_LONG") -> datetime:
    """Milliseconds as digits, or ISO 8601 with its zone. Raises `ValueProblem` with `code`."""
    try:
        if re.fullmatch(r"-?\d+", text):
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise ValueProblem(code, f"{text} was not a valid long.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _enumeration(prop: Property, text: str) -> str:
    if prop.external:
        return text
    known = {o["value"] for o in prop.options}
    several = prop.field_type == "checkbox"
    for part in text.removeprefix(";").split(";") if several else [text]:
        if part not in known:
            allowed = ", ".join(f'label: "{o["label"]}" value: "{o["value"]}"' for o in prop.options)
            raise ValueProblem("INVALID_OPTION", f"{part} was not one of the allowed options: [{allowed}]")
    return text


def appended(prop: Property, current: str, new: str) -> str:
    """A leading semicolon adds to the values that a multi-select already holds."""
    if prop.field_type != "checkbox" or not new.startswith(";"):
        return new
    parts = [p for p in current.split(";") if p]
    return ";".join(parts + [p for p in new[1:].split(";") if p not in parts])
