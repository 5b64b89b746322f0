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
from hub.mapping.language import DIRECTIONS, ON_BLANK, STANDARD, Consent, Entry, Mapping
from hub.model import FieldType, VendorField

KEYS = ("field", "type", "direction", "transform", "map", "default", "on_blank", "custom")

RESERVED = frozenset({"id", "state", "fields", "changed_at", "merged_into"})
"""What the hub itself keeps of a contact or deal beside its fields; templates and the lineage see both under one roof."""

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
    entries: dict[str, dict[str, Entry]] = {"contact": {}, "deal": {}}
    consents: dict[str, Consent] = {}
    problems: list[Problem] = []
    for document in documents:
        problems += _read(document, known or {}, entries, consents)
    if problems:
        raise Problems(problems)
    return Mapping(entries, tuple(consents.values()))


def problems(documents: Iterable[Document], known: KnownFields | None = None) -> list[Problem]:
    """Everything wrong with the files, or nothing."""
    try:
        build(documents, known)
    except Problems as found:
        return found.problems
    return []


def _read(
    document: Document, known: KnownFields, entries: dict[str, dict[str, Entry]], consents: dict[str, Consent]
) -> list[Problem]:
    found: list[Problem] = []
    if document.data is None:
        return found
    if not isinstance(document.data, dict):
        return [document.problem((), "a mapping file holds contact, deal and consent", "see docs/mapping.md")]
    for section, content in document.data.items():
        if section not in (*STANDARD, "consent"):
            found.append(
                document.problem(
                    (section,),
                    f"unknown section {section!r}",
                    _nearest(str(section), (*STANDARD, "consent")),
                    key=True,
                )
            )
        elif not isinstance(content, dict):
            found.append(
                document.problem(
                    (section,), f"{section} holds one entry a field", "write `field: vendor_field`"
                )
            )
        elif section == "consent":
            found += _read_consents(document, content, known, consents)
        else:
            found += _read_entries(document, section, content, known, entries[section])
            found += _shared_targets(document, section, content, entries[section])
    return found


def _read_entries(
    document: Document, object: str, content: Map[str, Any], known: KnownFields, entries: dict[str, Entry]
) -> list[Problem]:
    found: list[Problem] = []
    for name, given in content.items():
        if given is None:
            entries.pop(name, None)
            continue
        at: At = (object, name)
        given = {"field": given} if isinstance(given, str) else given
        wrong = _entry_problems(document, at, given)
        if not wrong:
            entry = _entry(object, name, given)
            entries[name] = entry
            wrong = _against_vendor(document, at, entry, known.get(object))
        found += wrong
    return found


def _entry_problems(document: Document, at: At, given: Any) -> list[Problem]:
    """What is wrong with an entry's own words."""
    if not isinstance(given, dict):
        return [document.problem(at, f"{at[-1]} must name a vendor field", "write `field: vendor_field`")]
    found = [
        document.problem((*at, key), f"unknown key {key!r}", _nearest(str(key), KEYS), key=True)
        for key in given
        if key not in KEYS
    ]
    if not isinstance(at[-1], str) or at[-1] in RESERVED:
        what = f"{at[-1]!r} cannot be the name of a field of your own"
        found.append(document.problem(at, what, "choose another one, e.g. region for a state", key=True))
    if not isinstance(given.get("field"), str) or not given["field"]:
        found.append(document.problem(at, "the entry names no vendor field", "add `field: ...`"))
    for key, allowed in (
        ("type", [t.value for t in FieldType]),
        ("direction", DIRECTIONS),
        ("on_blank", ON_BLANK),
    ):
        if key in given and given[key] not in allowed:
            what = f"{key} {given[key]!r} is unknown"
            found.append(document.problem((*at, key), what, _nearest(str(given[key]), allowed)))
    for number, name in enumerate(_listed(given.get("transform"))):
        if not isinstance(name, str) or name not in transforms.PLAIN:
            where = (*at, "transform", number) if isinstance(given["transform"], list) else (*at, "transform")
            found.append(
                document.problem(
                    where, f"unknown transform {name!r}", _nearest(str(name), list(transforms.PLAIN))
                )
            )
    if not isinstance(given.get("map", {}), dict):
        found.append(
            document.problem((*at, "map"), "map holds `vendor value: our value`", "write it as a table")
        )
    return found or _type_problems(document, at, given)


def _type_problems(document: Document, at: At, given: Map[str, Any]) -> list[Problem]:
    """A type that the hub's own field does not have, and a default that is not of the field's type."""
    object, name = str(at[0]), str(at[-1])
    standard = STANDARD[object].get(name)
    if standard and given.get("type", standard.type) != standard.type:
        what = f"the hub's field {name} is always of type {standard.type}"
        return [document.problem((*at, "type"), what, "leave `type` out, or map to a field of your own")]
    try:
        _entry(object, name, given)
    except ValueError as error:
        return [document.problem((*at, "default"), f"the default {error}", "write one of the field's type")]
    return []


def _entry(object: str, name: str, given: Map[str, Any]) -> Entry:
    standard = STANDARD[object].get(name)
    kind = FieldType(given["type"]) if "type" in given else standard.type if standard else FieldType.TEXT
    default = given.get("default")
    return Entry(
        name=name,
        field=given["field"],
        type=kind,
        direction=given.get("direction", "pull"),
        transforms=tuple(_listed(given.get("transform"))),
        options={str(theirs): str(ours) for theirs, ours in given.get("map", {}).items()},
        default=None if default is None else transforms.BY_TYPE[kind](default),
        on_blank=given.get("on_blank", "keep"),
        custom=bool(given.get("custom", False)),
    )


def _against_vendor(
    document: Document, at: At, entry: Entry, known: Map[str, VendorField] | None
) -> list[Problem]:
    if not known or entry.custom:
        return []
    place = (*at, "field") if document.position((*at, "field")) != document.position(at) else at
    field = known.get(entry.field)
    if field is None:
        what = f"the vendor has no {at[0]} field {entry.field!r}"
        return [
            document.problem(
                place, what, _nearest(entry.field, list(known)) + ", or say `custom: true` if it is your own"
            )
        ]
    if entry.pushes and field.read_only:
        return [
            document.problem(
                place, f"the vendor's field {entry.field!r} cannot be written", "set direction: pull"
            )
        ]
    return []


def _shared_targets(
    document: Document, object: str, content: Map[str, Any], entries: Map[str, Entry]
) -> list[Problem]:
    """Two hub fields that would write one vendor field."""
    owner: dict[str, str] = {}
    found = []
    for name, entry in entries.items():
        if entry.pushes and entry.field in owner and name in content:
            what = f"{name} and {owner[entry.field]} both write the vendor's {entry.field!r}"
            found.append(document.problem((object, name), what, "let one of them only pull"))
        elif entry.pushes:
            owner[entry.field] = name
    return found


def _read_consents(
    document: Document, content: Map[str, Any], known: KnownFields, consents: dict[str, Consent]
) -> list[Problem]:
    found: list[Problem] = []
    for purpose, given in content.items():
        at: At = ("consent", purpose)
        if given is None:
            consents.pop(purpose, None)
        elif (
            not isinstance(given, dict)
            or not isinstance(given.get("field"), str)
            or given.get("means") != "out"
        ):
            found.append(
                document.problem(
                    at, "a consent entry is {field: ..., means: out}", "only opt-outs are taken from a field"
                )
            )
        elif known.get("contact") and given["field"] not in known["contact"] and not given.get("custom"):
            what = f"the vendor has no contact field {given['field']!r}"
            found.append(
                document.problem((*at, "field"), what, _nearest(given["field"], list(known["contact"])))
            )
        else:
            consents[str(purpose)] = Consent(str(purpose), given["field"])
    return found


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them when they are few."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if len(names) <= 12 else "see docs/mapping.md"
