"""Records of one object type and the indexes that answer quickly: by id, by change, by unique value."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from contracts.hubspot.answers import Json, iso
from contracts.hubspot.kinds import Kind, standard_properties
from contracts.hubspot.properties import Property


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote, in the words of HubSpot's webhooks: an app is INTEGRATION with its app id, a person CRM_UI."""

    source: str
    source_id: str


PERSON = Author("CRM_UI", "userId:9586504")
SYSTEM = Author("EMAIL", "")


@dataclass(frozen=True, slots=True)
class Version:
    """One value that a property has had."""

    value: str
    at_ms: int
    author: Author

    def as_json(self) -> Json:
        return {
            "value": self.value,
            "timestamp": iso(self.at_ms),
            "sourceType": self.author.source,
            "sourceId": self.author.source_id,
        }


@dataclass(slots=True)
class Record:
    """One CRM record; its own instants stand in `properties` too, as HubSpot has them."""

    number: int
    properties: dict[str, str]
    created_ms: int
    updated_ms: int
    author: Author
    archived_ms: int = 0
    older: dict[str, list[Version]] = field(
        default_factory=dict
    )  # newest first, only properties that changed

    @property
    def id(self) -> str:
        return str(self.number)

    def history(self, name: str) -> list[Json]:
        """All versions of a property, newest first; empty when it never had a value."""
        if name in self.older:
            return [v.as_json() for v in self.older[name]]
        value = self.properties.get(name)
        return [] if value is None else [Version(value, self.created_ms, self.author).as_json()]


@dataclass(slots=True)
class Journal:
    """How to take writes back: `undo` collects while a transaction runs and is None otherwise."""

    undo: list[Callable[[], None]] | None = None

    def note(self, step: Callable[[], None]) -> None:
        if self.undo is not None:
            self.undo.append(step)

    def roll_back(self) -> None:
        steps, self.undo = self.undo or [], None
        for step in reversed(steps):
            step()


class ObjectStore:
    """All records of one object type, with its property definitions and groups."""

    def __init__(self, kind: Kind, first_number: int, journal: Journal) -> None:
        self.kind, self.journal = kind, journal
        self.properties: dict[str, Property] = {p.name: p for p in standard_properties(kind)}
        self.groups: dict[str, Json] = {}
        self.next_number = first_number
        self.live: dict[int, Record] = {}
        self.archived: dict[int, Record] = {}
        self.order: list[int] = []
        self.by_updated: list[tuple[int, int]] = []
        self.unique: dict[str, dict[str, int]] = {p.name: {} for p in self.properties.values() if p.unique}
        self.survivors: dict[int, int] = {}  # merged away -> the record that answers for it
        self.version = 0
        self.search_cache: dict[bytes, tuple[int, list[Record]]] = {}

    def take_number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def find(self, identifier: str, id_property: str | None = None) -> Record | None:
        """The live record with this id or unique value; merged ids are not followed."""
        if id_property and id_property != "hs_object_id":
            value = identifier.strip().lower() if id_property == "email" else identifier
            number = self.unique.get(id_property, {}).get(value)
            return None if number is None else self.live.get(number)
        return self.live.get(int(identifier)) if identifier.isdecimal() else None

    def resolve(self, identifier: str, id_property: str | None = None) -> Record | None:
        """As `find`, but an id that was merged away gives the record that it became."""
        if not id_property and identifier.isdecimal():
            number = int(identifier)
            while number in self.survivors:
                number = self.survivors[number]
            return self.live.get(number)
        return self.find(identifier, id_property)

    def holder(self, name: str, value: str) -> int | None:
        """The id of the record that has this value of a unique property."""
        return self.unique[name].get(value)

    def add(self, record: Record) -> None:
        self.live[record.number] = record
        insort(self.order, record.number)
        self._index(record)
        self.journal.note(lambda: self.remove(record))

    def remove(self, record: Record) -> None:
        del self.live[record.number]
        del self.order[bisect_left(self.order, record.number)]
        self._unindex(record)

    def write(self, record: Record, changes: dict[str, str], now_ms: int, author: Author) -> dict[str, str]:
        """Apply stored-form values; an empty one clears. Returns what really changed. Moves the modified instant."""
        changed = {n: v for n, v in changes.items() if record.properties.get(n, "") != v}
        self._note_values(record)
        self._unindex(record)
        for name, value in changed.items():
            self._keep_version(record, name, Version(value, now_ms, author))
            if value:
                record.properties[name] = value
            else:
                record.properties.pop(name, None)
        record.updated_ms = now_ms
        record.properties[self.kind.modified] = iso(now_ms)
        self._index(record)
        return changed

    def _index(self, record: Record) -> None:
        self.version += 1
        insort(self.by_updated, (record.updated_ms, record.number))
        for name, value in self.claims(record.properties):
            self.unique[name][value] = record.number

    def _unindex(self, record: Record) -> None:
        self.version += 1
        del self.by_updated[bisect_left(self.by_updated, (record.updated_ms, record.number))]
        for name, value in self.claims(record.properties):
            if self.unique[name].get(value) == record.number:
                del self.unique[name][value]

    def _note_values(self, record: Record) -> None:
        if self.journal.undo is None:
            return
        held, updated = dict(record.properties), record.updated_ms
        older = {n: list(v) for n, v in record.older.items()}

        def undo() -> None:
            self._unindex(record)
            record.properties, record.updated_ms, record.older = held, updated, older
            self._index(record)

        self.journal.note(undo)

    def _keep_version(self, record: Record, name: str, version: Version) -> None:
        versions = record.older.setdefault(name, [])
        if not versions and name in record.properties:
            versions.append(Version(record.properties[name], record.created_ms, record.author))
        versions.insert(0, version)

    def claims(self, values: dict[str, str]) -> Iterator[tuple[str, str]]:
        """What these values would hold for one record alone: (unique property, value), further addresses included."""
        for name in self.unique:
            if values.get(name):
                yield name, values[name]
        if self.kind.name == "contacts":
            for address in values.get("hs_additional_emails", "").split(";"):
                if address:
                    yield "email", address

    def page(self, after: int, limit: int, archived: bool) -> tuple[list[Record], int | None]:
        """Records in id order from the id `after` on, and the id that the next page begins with."""
        numbers = sorted(self.archived) if archived else self.order
        source = self.archived if archived else self.live
        start = bisect_left(numbers, after)
        chosen = numbers[start : start + limit]
        more = numbers[start + limit] if start + limit < len(numbers) else None
        return [source[n] for n in chosen], more

    def view(self, record: Record, names: list[str], history: list[str], empty_as_null: bool = False) -> Json:
        """A record as the API shows it: the named properties and those that HubSpot always adds."""
        kind, held = self.kind, record.properties
        gone = {n for n, p in self.properties.items() if p.archived}
        wanted = {n: held[n] for n in (names or kind.defaults) if n in held and n not in gone}
        if empty_as_null:
            there = self.properties.keys() - held.keys() - gone
            wanted |= {n: None for n in names if n in there}  # type: ignore[misc]
        for name in (kind.created, kind.modified, "hs_object_id"):
            wanted[name] = held[name]
        body: Json = {
            "id": record.id,
            "properties": wanted,
            "createdAt": held[kind.created],
            "updatedAt": held[kind.modified],
            "archived": record.archived_ms > 0,
        }
        if record.archived_ms:
            body["archivedAt"] = iso(record.archived_ms)
        if history:
            body["propertiesWithHistory"] = {n: record.history(n) for n in history if n in self.properties}
        return body
