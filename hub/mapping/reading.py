"""Mapping files read and checked: every mistake at once, each with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from collections.abc import Mapping as Map
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from hub.document import At, Document, Problem, Problems
from hub.document import load as load_document
from hub.mapping import transforms
from hub.mapping.language import (
    DIRECTIONS,
    ON_BLANK,
    RESERVED,
    STANDARD,
    UNKNOWN,
    Consent,
    Entry,
    Hint,
    Mapping,
)
from hub.model import FieldType, VendorField

KEYS = (
    "field", "type", "direction", "transform", "map", "unknown", "push_transform", "default", "on_blank", "authority",
    "custom",
)  # fmt: skip
SECTIONS = (*STANDARD, "consent", "match")

KnownFields = Map[str, Map[str, VendorField]]


def shipped(vendor: str, module: ModuleType | None = None) -> Document | None:
    """The mapping file that comes with a connector: mappings/<vendor>.yaml, or mapping.yaml beside a stranger's module."""
    places = [files("mappings") / f"{vendor}.yaml"]
    if module is not None and module.__file__:
        places.append(files(module.__name__.rpartition(".")[0] or module.__name__) / "mapping.yaml")
        places.append(files(module.__name__) / "mapping.yaml") if hasattr(module, "__path__") else None
    for place in places:
        if place.is_file():
            return load_document(Path(str(place)))
    return None


def build(documents: Iterable[Document], known: KnownFields | None = None) -> Mapping:
    """One mapping out of files, each extending those before it. Raises `Problems` with everything wrong in them."""
    reader = _Reader(known or {})
    for document in documents:
        reader.read(document)
    if reader.found:
        raise Problems(reader.found)
    return Mapping(reader.entries, tuple(reader.consents.values()), reader.match)


def problems(documents: Iterable[Document], known: KnownFields | None = None) -> list[Problem]:
    """Everything wrong with the files, or nothing."""
    try:
        build(documents, known)
    except Problems as found:
        return found.problems
    return []


class _Reader:
    """What the files said so far, and what is wrong in them."""

    def __init__(self, known: KnownFields) -> None:
        self.known = known
        self.found: list[Problem] = []
        self.entries: dict[str, dict[str, Entry]] = {object: {} for object in STANDARD}
        self.given: dict[tuple[str, str], Map[str, Any]] = {}  # entries as they were written
        self.consents: dict[str, Consent] = {}
        self.match: tuple[Hint, ...] = (Hint("email"),)

    def read(self, document: Document) -> None:
        self.document = document
        if document.data is None:
            return
        if not isinstance(document.data, dict):
            self._wrong(
                (),
                "a mapping file holds lead, contact, company, deal, consent and match",
                "see docs/mapping.md",
            )
            return
        for section, content in document.data.items():
            if section not in SECTIONS:
                self._wrong(
                    (section,), f"unknown section {section!r}", _nearest(str(section), SECTIONS), key=True
                )
            elif section == "match":
                self._match(content)
            elif not isinstance(content, dict):
                what = f"{section} holds one entry a field"
                self._wrong((section,), what, "write `field: vendor_field`")
            elif section == "consent":
                self._consents(content)
            else:
                self._entries(section, content)
                self._shared_targets(section, content)
        self._hints_exist()

    def _wrong(self, at: At, what: str, fix: str = "", *, key: bool = False) -> None:
        self.found.append(self.document.problem(at, what, fix, key=key))

    # --- entries ----------------------------------------------------------------------------------------

    def _entries(self, object: str, content: Map[str, Any]) -> None:
        for name, given in content.items():
            if given is None:
                self.entries[object].pop(name, None)
                self.given.pop((object, name), None)
                continue
            at: At = (object, name)
            given = {"field": given} if isinstance(given, str) else given
            if isinstance(given, dict) and "field" not in given:  # changes what was said before
                given = {**self.given.get((object, name), {}), **given}
            before = len(self.found)
            self._entry_words(at, given)
            if len(self.found) == before:
                entry = self._entry(at, given)
                self.entries[object][name], self.given[object, name] = entry, given
                self._against_vendor(at, entry)

    def _entry_words(self, at: At, given: Any) -> None:
        """What is wrong with an entry's own words."""
        if not isinstance(given, dict):
            self._wrong(at, f"{at[-1]} must name a vendor field", "write `field: vendor_field`")
            return
        before = len(self.found)
        for key in given:
            if key not in KEYS:
                self._wrong((*at, key), f"unknown key {key!r}", _nearest(str(key), KEYS), key=True)
        if not isinstance(at[-1], str) or at[-1] in RESERVED:
            what = f"{at[-1]!r} cannot be the name of a field of your own"
            self._wrong(at, what, "choose another one, e.g. region for a state", key=True)
        if not isinstance(given.get("field"), str) or not given["field"]:
            self._wrong(at, "the entry names no vendor field", "add `field: ...`")
        for key, allowed in (
            ("type", [t.value for t in FieldType]),
            ("direction", DIRECTIONS),
            ("on_blank", ON_BLANK),
            ("unknown", UNKNOWN),
        ):
            if key in given and given[key] not in allowed:
                self._wrong(
                    (*at, key), f"{key} {given[key]!r} is unknown", _nearest(str(given[key]), allowed)
                )
        for key in ("transform", "push_transform"):
            self._steps((*at, key), given.get(key))
        if not isinstance(given.get("map", {}), dict):
            self._wrong((*at, "map"), "map holds `vendor value: our value`", "write it as a table")
        elif "unknown" in given and not given.get("map"):
            self._wrong((*at, "unknown"), "unknown says nothing without a map", "add a map, or leave it out")
        self._authority(at, given.get("authority"))
        if len(self.found) == before:
            self._typed(at, given)

    def _steps(self, at: At, given: Any) -> None:
        for number, each in enumerate(_listed(given)):
            where: At = (*at, number) if isinstance(given, list) else at
            try:
                transforms.step(each)
            except LookupError:
                name = next(iter(each), "") if isinstance(each, dict) and len(each) == 1 else each
                known = [*transforms.PLAIN, *transforms.TAKING]
                fix = _nearest(str(name), known)
                if isinstance(name, str) and name in transforms.PLAIN:
                    fix = f"write it as a word: {name}"
                self._wrong(where, f"unknown transform {each!r}", fix)
            except ValueError as error:
                self._wrong(where, f"the transform {error}", "see docs/mapping.md")

    def _authority(self, at: At, given: Any) -> None:
        if given is None:
            return
        if at[0] == "lead":
            what = "authority over a field is said once, and holds for leads and contacts"
            self._wrong((*at, "authority"), what, "write it under contact", key=True)
        elif at[0] != "contact":
            what = f"a {at[0]} belongs to one connection, which has the last word"
            self._wrong((*at, "authority"), what, "leave authority out", key=True)
        elif not _listed(given) or not all(isinstance(each, str) and each for each in _listed(given)):
            what = "authority is a connection's name, several of them, or newest"
            self._wrong((*at, "authority"), what, "e.g. authority: crm")

    def _typed(self, at: At, given: Map[str, Any]) -> None:
        """A type that the hub's own field does not have, and a default that is not of the field's type."""
        standard = STANDARD[str(at[0])].get(str(at[-1]))
        if standard and given.get("type", standard.type) != standard.type:
            what = f"the hub's field {at[-1]} is always of type {standard.type}"
            self._wrong((*at, "type"), what, "leave `type` out, or map to a field of your own")
            return
        try:
            self._entry(at, given)
        except ValueError as error:
            self._wrong((*at, "default"), f"the default {error}", "write one of the field's type")

    def _entry(self, at: At, given: Map[str, Any]) -> Entry:
        object, name = str(at[0]), str(at[-1])
        standard = STANDARD[object].get(name)
        kind = FieldType(given["type"]) if "type" in given else standard.type if standard else FieldType.TEXT
        default = given.get("default")
        return Entry(
            name=name,
            field=given["field"],
            type=kind,
            direction=given.get("direction", "pull"),
            transforms=tuple(transforms.step(each) for each in _listed(given.get("transform"))),
            options={transforms.pushed(t): transforms.pushed(o) for t, o in given.get("map", {}).items()},
            unknown=given.get("unknown", "pass"),
            push_transforms=tuple(transforms.step(each) for each in _listed(given.get("push_transform"))),
            default=None if default is None else transforms.BY_TYPE[kind](default),
            on_blank=given.get("on_blank", "keep"),
            custom=bool(given.get("custom", False)),
            authority=tuple(_listed(given.get("authority"))),
            place=self.document.position((*at, "authority")) if given.get("authority") else None,
        )

    def _against_vendor(self, at: At, entry: Entry) -> None:
        known = self.known.get(str(at[0]))
        if not known or entry.custom:
            return
        place = (*at, "field") if self.document.position((*at, "field")) != self.document.position(at) else at
        field = known.get(entry.field)
        if field is None:
            fix = _nearest(entry.field, list(known)) + ", or say `custom: true` if it is your own"
            self._wrong(place, f"the vendor has no {at[0]} field {entry.field!r}", fix)
        elif entry.pushes and field.read_only:
            what = f"the vendor's field {entry.field!r} cannot be written"
            self._wrong(place, what, "set direction: pull")

    def _shared_targets(self, object: str, content: Map[str, Any]) -> None:
        """Two hub fields that would write one vendor field."""
        owner: dict[str, str] = {}
        for name, entry in self.entries[object].items():
            if entry.pushes and entry.field in owner and name in content:
                what = f"{name} and {owner[entry.field]} both write the vendor's {entry.field!r}"
                self._wrong((object, name), what, "let one of them only pull")
            elif entry.pushes:
                owner[entry.field] = name

    # --- consent and matching ---------------------------------------------------------------------------

    def _consents(self, content: Map[str, Any]) -> None:
        known = self.known.get("contact")
        for purpose, given in content.items():
            at: At = ("consent", purpose)
            if given is None:
                self.consents.pop(purpose, None)
            elif (
                not isinstance(given, dict)
                or not isinstance(given.get("field"), str)
                or given.get("means") != "out"
            ):
                what = "a consent entry is {field: ..., means: out}"
                self._wrong(at, what, "only opt-outs are taken from a field")
            elif known and given["field"] not in known and not given.get("custom"):
                what = f"the vendor has no contact field {given['field']!r}"
                self._wrong((*at, "field"), what, _nearest(given["field"], list(known)))
            else:
                self.consents[str(purpose)] = Consent(str(purpose), given["field"])

    def _match(self, content: Any) -> None:
        """The whole rule of the file takes the place of the one before; an empty list matches nobody."""
        hints: list[Hint] = []
        for number, given in enumerate(content if isinstance(content, list) else [content]):
            at: At = ("match", number) if isinstance(content, list) else ("match",)
            given = {"field": given} if isinstance(given, str) else given
            named = given if isinstance(given, dict) else {}
            if set(named) - {"field", "of"} or not all(isinstance(v, str) and v for v in named.values()):
                named = {}
            if "field" not in named:
                what = "match holds contact fields, or {field: ..., of: connection} where one holds an id"
                self._wrong(at, what, "e.g. match: [email, phone]")
            else:
                hints.append(Hint(named["field"], named.get("of", "")))
        self.match = tuple(hints)

    def _hints_exist(self) -> None:
        data = self.document.data
        if not isinstance(data, dict) or "match" not in data:
            return
        for number, hint in enumerate(self.match):
            entry = self.entries["contact"].get(hint.field)
            if entry is None or not entry.pulls:
                at: At = ("match", number) if isinstance(data["match"], list) else ("match",)
                pulled = [name for name, e in self.entries["contact"].items() if e.pulls]
                self._wrong(
                    at, f"match names {hint.field!r}, which is not pulled", _nearest(hint.field, pulled)
                )


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them when they are few."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if len(names) <= 12 else "see docs/mapping.md"
