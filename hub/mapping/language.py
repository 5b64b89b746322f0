"""The language of mappings/<vendor>.yaml: which vendor field is which hub field, in which direction, and how.

    contact:
      email: {field: email, transform: [trim, lower]}
      city: city                                       # short for {field: city}
      score: {field: hubspotscore, type: number}       # a hub field of your own
      lifecycle: {field: lifecyclestage, direction: both}
    deal:
      stage: stage_label
    consent:
      "*": {field: hs_email_optout, means: out}

An admin's file extends the shipped one, entry by entry; `null` removes an entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hub.errors import HubError
from hub.mapping import transforms
from hub.model import CONTACT_FIELDS, DEAL_FIELDS, FieldType, HubField

STANDARD = {"contact": CONTACT_FIELDS, "deal": DEAL_FIELDS}
DIRECTIONS = ("pull", "push", "both")
ON_BLANK = ("keep", "fill", "clear")


@dataclass(frozen=True)
class Entry:
    """One hub field and the vendor field behind it."""

    name: str
    field: str
    type: FieldType
    direction: str = "pull"
    transforms: tuple[str, ...] = ()
    options: Map[str, str] = dataclasses.field(default_factory=dict)  # vendor's picklist value -> ours
    default: Any = None
    on_blank: str = "keep"
    custom: bool = False

    @property
    def pulls(self) -> bool:
        return self.direction in ("pull", "both")

    @property
    def pushes(self) -> bool:
        return self.direction in ("push", "both")

    def reader(self) -> Callable[[Any], Any]:
        """The whole way of a value from the vendor to the hub as one function."""
        steps: list[transforms.Transform] = [transforms.PLAIN[name] for name in self.transforms]
        if self.options:
            steps.append(lambda value: self.options.get(str(value), value))
        steps.append(transforms.BY_TYPE[self.type])

        def read(value: Any) -> Any:
            for step in steps:
                if value is None or value == "":
                    return self.default
                value = step(value)
            return value if value != "" else self.default

        return read


@dataclass(frozen=True)
class Consent:
    """A vendor field that tells an opt-out: true means `out` of the purpose (`*`: of all)."""

    purpose: str
    field: str


@dataclass(frozen=True)
class BadValue:
    """A value that a field cannot take; the rest of the record is taken."""

    field: str
    value: str
    message: str
    fix: str


@dataclass
class Mapped:
    """One record in the hub's terms."""

    columns: dict[str, Any] = dataclasses.field(default_factory=dict)
    custom: dict[str, Any] = dataclasses.field(default_factory=dict)
    fill: dict[str, Any] = dataclasses.field(default_factory=dict)
    consent: dict[str, str] = dataclasses.field(default_factory=dict)
    errors: list[BadValue] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Mapping:
    """A connection's whole mapping. `entries` is object -> hub field -> entry."""

    entries: Map[str, Map[str, Entry]]
    consents: tuple[Consent, ...] = ()

    @cached_property
    def contact_fields(self) -> dict[str, HubField]:
        """Every contact field that rules and templates may name, standard and custom."""
        return self._fields("contact")

    @cached_property
    def deal_fields(self) -> dict[str, HubField]:
        return self._fields("deal")

    def vendor_fields(self, object: str) -> tuple[str, ...]:
        """The vendor's fields that must be asked for, each once."""
        names = [entry.field for entry in self.entries.get(object, {}).values() if entry.pulls]
        if object == "contact":
            names += [consent.field for consent in self.consents]
        return tuple(dict.fromkeys(names))

    def on_blank(self, object: str) -> dict[str, str]:
        """hub field -> what a blank from the vendor does, for fields with a column."""
        return {
            name: entry.on_blank
            for name, entry in self.entries.get(object, {}).items()
            if entry.pulls and name in STANDARD[object]
        }

    def pull(self, object: str) -> Callable[[Map[str, Any]], Mapped]:
        """A function from a vendor's fields to the hub's; made once per object."""
        return self._pullers[object]

    def push(self, object: str, values: Map[str, Any]) -> dict[str, str]:
        """The vendor's fields for hub values. Raises HubError for a field that may not be pushed."""
        found: dict[str, str] = {}
        entries = self.entries.get(object, {})
        for name, value in values.items():
            entry = entries.get(name)
            if entry is None:
                raise HubError(
                    f"{object} field {name!r} is not mapped",
                    "add it to the connection's mapping with direction: both",
                )
            if not entry.pushes:
                raise HubError(
                    f"{object} field {name!r} is only pulled",
                    "set direction: both in the connection's mapping",
                )
            back = {ours: theirs for theirs, ours in entry.options.items()}
            found[entry.field] = back.get(str(value), transforms.pushed(value))
        return found

    @cached_property
    def _pullers(self) -> dict[str, Callable[[Map[str, Any]], Mapped]]:
        return {object: self._puller(object) for object in STANDARD}

    def _puller(self, object: str) -> Callable[[Map[str, Any]], Mapped]:
        standard = STANDARD[object]
        readers = [
            (entry.name, entry.field, entry.reader(), entry.on_blank, entry.name in standard)
            for entry in self.entries.get(object, {}).values()
            if entry.pulls
        ]
        consents = self.consents if object == "contact" else ()

        def pull(fields: Map[str, Any]) -> Mapped:
            mapped = Mapped()
            for name, source, read, on_blank, has_column in readers:
                try:
                    value = read(fields.get(source))
                except ValueError as error:
                    fix = f"correct it there, or change the mapping of {name}"
                    mapped.errors.append(BadValue(name, _shown(fields.get(source)), f"{source} {error}", fix))
                    if has_column:
                        mapped.columns[name] = None
                    continue  # a value that cannot be read is no blank: it clears nothing
                if has_column:
                    mapped.columns[name] = value
                elif value is not None or on_blank == "clear":
                    (mapped.fill if on_blank == "fill" else mapped.custom)[name] = value
            for consent in consents:
                said = fields.get(consent.field)
                try:
                    if said not in (None, "") and transforms.boolean(said):
                        mapped.consent[consent.purpose] = "out"
                except ValueError as error:
                    fix = "correct it there, or name a field that holds true or false"
                    mapped.errors.append(BadValue("consent", _shown(said), f"{consent.field} {error}", fix))
            return mapped

        return pull

    def _fields(self, object: str) -> dict[str, HubField]:
        own = {
            name: HubField(name, entry.type, "", f"from {entry.field}")
            for name, entry in self.entries.get(object, {}).items()
            if name not in STANDARD[object]
        }
        return {**STANDARD[object], **own}


def _shown(value: Any) -> str:
    """A bad value as it is kept with the run: PostgreSQL keeps no NUL."""
    return str(value)[:200].replace("\x00", "\ufffd")
