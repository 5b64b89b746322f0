"""A mapping against the vendor's live schema: what is gone, renamed or of another kind, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass

from hub.mapping.language import RESERVED, STANDARD, Entry, Mapping
from hub.model import FieldType, VendorField

Fields = Map[str, VendorField]

NEAR = 0.6
"""How alike two names must be (0 to 1) to be taken for one renamed."""
SAME = 0.85
"""How alike a vendor's name must be to a hub field's that nothing fills yet."""


@dataclass(frozen=True)
class Finding:
    """`wrong` loses values or refuses writes until it is mended; a `note` is worth knowing."""

    level: str
    object: str
    name: str  # the hub's field, or the purpose of a consent entry
    field: str  # the vendor's
    what: str
    fix: str = ""


def fits(theirs: FieldType, ours: FieldType) -> bool:
    """Whether values of a vendor's type can be taken as the hub's type, seen as types only."""
    if theirs == ours or ours in (FieldType.TEXT, FieldType.ENUM):
        return True
    if theirs in (FieldType.TEXT, FieldType.ENUM):
        return True
    return {theirs, ours} == {FieldType.DATE, FieldType.TIME}


def nearest(
    entry: Entry, live: Fields, before: Fields, taken: Collection[str], *, least: float = NEAR
) -> str:
    """The live field that a vanished one most likely became: it bears the same label, or a name much like it, its values
    fit, and nothing is mapped to it yet. Empty when there is none."""
    was = before.get(entry.field)
    free = {name: f for name, f in live.items() if name not in taken and fits(f.type, entry.type)}
    if entry.pushes:
        free = {name: f for name, f in free.items() if not f.read_only}
    if was is not None and was.label:
        same = [name for name, f in free.items() if f.label == was.label]
        if len(same) == 1:
            return same[0]

    def likeness(name: str) -> float:
        return max(_alike(entry.field, name), _alike(entry.name, name))

    best = max(free, key=likeness, default="")
    return best if best and likeness(best) >= least else ""


def _alike(one: str, other: str) -> float:
    one, other = sorted((_bare(one), _bare(other)), key=len)
    ratio = difflib.SequenceMatcher(None, one, other).ratio()
    return max(ratio, 0.9 + ratio / 100) if len(one) >= 4 and one in other else ratio


def _bare(name: str) -> str:
    return name.lower().removesuffix("__c").replace("_", "")


def against(mapping: Mapping, object: str, live: Fields, before: Fields) -> list[Finding]:
    """Everything that a mapping's entries of one object meet in the live schema. `before` is the schema as it was accepted
    last (empty: never)."""
    entries = mapping.entries.get(object, {})
    taken = {entry.field for entry in entries.values()}
    found: list[Finding] = []
    for entry in entries.values():
        field = live.get(entry.field)
        if field is None:
            found.append(gone(entry, object, live, before, taken))
        else:
            found += [
                Finding(level, object, entry.name, entry.field, what, fix)
                for level, what, fix in _met(entry, field, before.get(entry.field))
            ]
    if object == "contact":
        for consent in mapping.consents:
            if consent.field not in live:
                what = (
                    f"the vendor has no {object} field {consent.field!r} any more: its opt-outs are not heard"
                )
                found.append(
                    Finding("wrong", object, f"consent {consent.purpose}", consent.field, what, "map another")
                )
    written = {entry.field for entry in entries.values() if entry.pushes}
    for name, field in live.items():
        if field.required and not field.read_only and name not in written:
            what = f"the vendor requires {name!r}, and nothing writes it"
            found.append(Finding("note", object, "", name, what, "map a field to it with direction: both"))
    return sorted(found, key=lambda f: (f.level != "wrong", f.object, f.name, f.what))


def gone(entry: Entry, object: str, live: Fields, before: Fields, taken: Collection[str]) -> Finding:
    """A mapped field that the vendor no longer has."""
    what = f"the vendor has no {object} field {entry.field!r} any more"
    if entry.pulls:
        what += f"; {entry.name} keeps what it has"
    near = nearest(entry, live, before, taken)
    fix = (
        f"it may be {near!r} now: map {entry.name} to it"
        if near
        else f"map {entry.name} to another, or to null"
    )
    return Finding("wrong", object, entry.name, entry.field, what, fix)


def _met(entry: Entry, field: VendorField, was: VendorField | None) -> Iterator[tuple[str, str, str]]:
    """(level, what, fix) for an entry whose field is there."""
    if entry.pushes and field.read_only:
        yield "wrong", f"the vendor's field {field.name!r} cannot be written", "set direction: pull"
    if entry.pulls and not fits(field.type, entry.type):
        what = f"the vendor's field {field.name!r} holds a {field.type}, {entry.name} a {entry.type}"
        yield "wrong", what, f"map it to a field of your own with type: {field.type}"
    elif was is not None and was.type != field.type:
        yield "note", f"the vendor's field {field.name!r} was a {was.type} and is a {field.type} now", ""
    yield from _picklist(entry, field, was)


def _picklist(entry: Entry, field: VendorField, was: VendorField | None) -> Iterator[tuple[str, str, str]]:
    if not field.options:
        return
    if entry.options:
        for theirs in entry.options:
            if theirs not in field.options:
                close = difflib.get_close_matches(theirs, field.options, 1)
                fix = f"did you mean {close[0]!r}?" if close else "take it out of the map"
                yield "wrong", f"{theirs!r} is no value of the vendor's {field.name!r} any more", fix
        unknown = [value for value in field.options if value not in entry.options]
        if unknown:
            does = {"pass": "is passed as it is", "blank": "counts as blank", "reject": "is rejected"}
            what = f"the map does not know {_some(unknown)} of {field.name!r}: what it does not know {does[entry.unknown]}"
            yield ("wrong" if entry.unknown == "reject" else "note"), what, "add it to the map"
    if was is None or not was.options:
        return
    added = [value for value in field.options if value not in was.options]
    removed = [value for value in was.options if value not in field.options]
    if added:
        yield "note", f"the vendor's {field.name!r} has new values: {_some(added)}", ""
    if removed:
        what = f"the vendor's {field.name!r} has lost values: {_some(removed)}"
        yield "note", what, "see to rules and `set` steps that name them"


def _some(values: Collection[str]) -> str:
    shown = ", ".join(repr(value) for value in list(values)[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")


# --- what to write -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """An entry to paste, as the line of YAML that says it."""

    object: str
    name: str
    field: str
    line: str
    why: str


def suggest(mapping: Mapping, object: str, live: Fields, before: Fields) -> list[Suggestion]:
    """Entries for vanished fields, for the hub's own fields that nothing fills, and for the account's own fields."""
    entries = mapping.entries.get(object, {})
    taken = {entry.field for entry in entries.values()}
    found: list[Suggestion] = []

    def add(name: str, field: str, line: str, why: str) -> None:
        taken.add(field)
        found.append(Suggestion(object, name, field, line, why))

    for entry in entries.values():
        if entry.field not in live:
            near = nearest(entry, live, before, taken)
            if near:
                custom = ", custom: true" if live[near].custom else ""
                add(
                    entry.name,
                    near,
                    f"{entry.name}: {{field: {near}{custom}}}",
                    f"was {entry.field}, which is gone",
                )
            else:
                add(
                    entry.name,
                    entry.field,
                    f"{entry.name}: null",
                    f"{entry.field} is gone, and nothing is like it",
                )
    for name, hub_field in STANDARD[object].items():
        if name not in entries:
            near = nearest(Entry(name, name, hub_field.type), live, {}, taken, least=SAME)
            if near:
                add(name, near, _line(name, live[near], standard=True), "not filled yet")
    for name, field in live.items():
        if field.custom and name not in taken:
            known = name in STANDARD[object] or name in entries or name in RESERVED
            own = f"crm_{name}" if known else name
            add(own, name, _line(own, field, standard=False), field.label or "the account's own field")
    return found


def _line(name: str, field: VendorField, *, standard: bool) -> str:
    words = [f"field: {field.name}"]
    if not standard and field.type is not FieldType.TEXT:
        words.append(f"type: {field.type}")
    if field.custom:
        words.append("custom: true")
    return f"{name}: {{{', '.join(words)}}}"
