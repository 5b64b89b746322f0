"""The language of mappings/<vendor>.yaml: which vendor field is which hub field, in which direction, and how.

    contact:
      email: {field: email, transform: [trim, lower]}
      city: city                                       # short for {field: city}
      score: {field: hubspotscore, type: number}       # a hub field of your own
      lifecycle: {field: lifecyclestage, direction: both, authority: crm}
    deal:
      stage: stage_label
    consent:
      "*": {field: hs_email_optout, means: out}
    match: [email]

An admin's file extends the shipped one, entry by entry: an entry without `field` changes the keys that it names,
`null` removes an entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from hub.document import Position
from hub.errors import HubError
from hub.mapping import transforms
from hub.mapping.transforms import Step, Transform
from hub.model import CONTACT_FIELDS, DEAL_FIELDS, FieldType, HubField

STANDARD = {"contact": CONTACT_FIELDS, "deal": DEAL_FIELDS}
DIRECTIONS = ("pull", "push", "both")
ON_BLANK = ("keep", "fill", "clear")
UNKNOWN = ("pass", "blank", "reject")
NEWEST = "newest"
RESERVED = frozenset({"id", "state", "fields", "changed_at", "merged_into"})
"""What the hub itself keeps of a contact or deal beside its fields; templates and the lineage see both under one roof."""


@dataclass(frozen=True)
class Entry:
    """One hub field and the vendor field behind it.

    `authority` names the connections whose word comes first, best first; the others follow by time. Empty: not said.
    """

    name: str
    field: str
    type: FieldType
    direction: str = "pull"
    transforms: tuple[Step, ...] = ()
    options: Map[str, str] = dataclasses.field(default_factory=dict)  # vendor's picklist value -> ours
    unknown: str = "pass"
    push_transforms: tuple[Step, ...] = ()
    default: Any = None
    on_blank: str = "keep"
    custom: bool = False
    authority: tuple[str, ...] = ()
    place: Position | None = dataclasses.field(default=None, compare=False)  # of `authority`

    @property
    def pulls(self) -> bool:
        return self.direction in ("pull", "both")

    @property
    def pushes(self) -> bool:
        return self.direction in ("push", "both")

    def reader(self) -> Callable[[Any], Any]:
        """The whole way of a value from the vendor to the hub as one function."""
        steps: list[Transform] = [transforms.made(step) for step in self.transforms]
        if self.options:
            steps.append(self._looked_up)
        steps.append(transforms.BY_TYPE[self.type])

        def read(value: Any) -> Any:
            for step in steps:
                if value is None or value == "":
                    return self.default
                value = step(value)
            return value if value != "" else self.default

        return read

    def writer(self) -> Callable[[Any], str]:
        """The whole way of a value from the hub to the vendor. Raises ValueError for what may not be written."""
        steps = [transforms.made(step) for step in self.push_transforms]
        back: dict[str, str] = {}
        for theirs, ours in self.options.items():
            back.setdefault(ours, theirs)  # of several of theirs the first is written

        def one(value: Any) -> Any:
            known = back.get(transforms.pushed(value))
            if known is None and self.unknown != "pass":
                raise ValueError("holds a value that its `map` does not know")
            return value if known is None else known

        def write(value: Any) -> str:
            for step in steps:
                value = None if value is None or value == "" else step(value)
            if back and value not in (None, "", []):
                if self.type is FieldType.LIST and isinstance(value, str):
                    value = transforms.several(value)
                value = [one(part) for part in value] if isinstance(value, list) else one(value)
            return transforms.pushed(value)

        return write

    def _looked_up(self, value: Any) -> Any:
        """A vendor's picklist value as ours; each of several."""
        if isinstance(value, list) or (self.type is FieldType.LIST and str(value) not in self.options):
            parts = [self._known(part) for part in transforms.several(value)]
            return [part for part in parts if part is not None] or None
        return self._known(value)

    def _known(self, value: Any) -> Any:
        found = self.options.get(transforms.pushed(value))
        if found is None and self.unknown == "reject":
            raise ValueError("holds a value that its `map` does not know")
        return value if found is None and self.unknown == "pass" else found


@dataclass(frozen=True)
class Consent:
    """A vendor field that tells an opt-out: true means `out` of the purpose (`*`: of all)."""

    purpose: str
    field: str


@dataclass(frozen=True)
class Hint:
    """A contact field by which a new record may be known for somebody whom another system has named.

    With `of` the field holds the person's id at that connection.
    """

    field: str
    of: str = ""


@dataclass(frozen=True)
class Standing:
    """How much one connection's word on a contact field counts: the lowest rank wins, then the newest, then `order`."""

    connection: str
    field: str
    rank: int
    order: int


@dataclass(frozen=True)
class BadValue:
    """A value that a field cannot take; the rest of the record is taken."""

    field: str
    value: str
    message: str
    fix: str


class Mapped(msgspec.Struct, gc=False):
    """One record in the hub's terms. `untold` names the columns of which nothing could be read."""

    columns: dict[str, Any] = {}
    custom: dict[str, Any] = {}
    fill: dict[str, Any] = {}
    consent: dict[str, str] = {}
    errors: list[BadValue] = []
    untold: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mapping:
    """A connection's whole mapping. `entries` is object -> hub field -> entry.

    `standing` tells of all connections of the hub together who wins over whom (`together`); empty: nobody else is there.
    """

    entries: Map[str, Map[str, Entry]]
    consents: tuple[Consent, ...] = ()
    match: tuple[Hint, ...] = (Hint("email"),)
    standing: tuple[Standing, ...] = ()

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

    def without(self, object: str, fields: Collection[str]) -> Mapping:
        """The same mapping as if it did not name these vendor fields: nothing is said of their hub fields."""
        kept = {name: e for name, e in self.entries.get(object, {}).items() if e.field not in fields}
        gone = fields if object == "contact" else ()
        consents = tuple(consent for consent in self.consents if consent.field not in gone)
        return dataclasses.replace(self, entries={**self.entries, object: kept}, consents=consents)

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
        """The vendor's fields for hub values. Raises HubError for a field or a value that may not be pushed."""
        found: dict[str, str] = {}
        for name, value in values.items():
            entry = self.entries.get(object, {}).get(name)
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
            try:
                found[entry.field] = self._writers[object, name](value)
            except ValueError as error:
                raise HubError(
                    f"{object} field {name!r} {error}", "mend the value, or the entry in the mapping"
                ) from None
        return found

    @cached_property
    def _writers(self) -> dict[tuple[str, str], Callable[[Any], str]]:
        return {
            (object, name): entry.writer()
            for object, entries in self.entries.items()
            for name, entry in entries.items()
            if entry.pushes
        }

    @cached_property
    def _pullers(self) -> dict[str, Callable[[Map[str, Any]], Mapped]]:
        return {object: self._puller(object) for object in STANDARD}

    def _puller(self, object: str) -> Callable[[Map[str, Any]], Mapped]:
        from hub.mapping.compiled import puller

        consents = self.consents if object == "contact" else ()
        return puller(list(self.entries.get(object, {}).values()), consents, STANDARD[object])

    def _fields(self, object: str) -> dict[str, HubField]:
        own = {
            name: HubField(name, entry.type, "", f"from {entry.field}")
            for name, entry in self.entries.get(object, {}).items()
            if name not in STANDARD[object]
        }
        return {**STANDARD[object], **own}
